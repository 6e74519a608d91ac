"""The UNet's weights, in diffusers' files. Of its words for a UNet all is known here and nowhere else."""

from minidiff.formats.json_files import checked
from minidiff.formats.safetensors import Part
from minidiff.networks import UNet, UNetConfig
from minidiff.registry import UserError

WORDS = {  # attention_head_dim is the number of heads, whatever its name
    "in_channels": "in_channels", "out_channels": "out_channels", "block_out_channels": "channels",
    "layers_per_block": "layers", "attention_head_dim": "heads", "cross_attention_dim": "context_dim",
    "norm_num_groups": "groups", "use_linear_projection": "linear_projection",
}  # fmt: skip
DOWN = {True: "CrossAttnDownBlock2D", False: "DownBlock2D"}  # does the level look at the context?
UP = {True: "CrossAttnUpBlock2D", False: "UpBlock2D"}
FOUR = [DOWN[looks] for looks in UNetConfig().attention]  # where a config leaves the levels out
NONE = [
    "addition_embed_type", "addition_time_embed_dim", "class_embed_type", "cross_attention_norm", "encoder_hid_dim",
    "encoder_hid_dim_type", "mid_block_only_cross_attention", "num_attention_heads", "num_class_embeds",
    "projection_class_embeddings_input_dim", "reverse_transformer_layers_per_block", "time_cond_proj_dim",
    "time_embedding_act_fn", "time_embedding_dim", "timestep_post_act",
]  # fmt: skip
FIXED = dict.fromkeys(NONE) | {  # what our UNet has no choice about
    "_class_name": "UNet2DConditionModel", "act_fn": "silu", "attention_type": "default", "center_input_sample": False,
    "class_embeddings_concat": False, "conv_in_kernel": 3, "conv_out_kernel": 3, "downsample_padding": 1,
    "dropout": 0.0, "dual_cross_attention": False, "flip_sin_to_cos": True, "freq_shift": 0,
    "mid_block_scale_factor": 1, "mid_block_type": "UNetMidBlock2DCrossAttn", "norm_eps": 1e-5,
    "only_cross_attention": False, "resnet_out_scale_factor": 1.0, "resnet_skip_time_act": False,
    "resnet_time_scale_shift": "default", "time_embedding_type": "positional", "transformer_layers_per_block": 1,
}  # fmt: skip


def _follows(config: UNetConfig) -> dict:
    summary = {"addition_embed_type": "text", "addition_embed_type_num_heads": config.heads_per_level[-1]}
    return {
        "down_block_types": [DOWN[looks] for looks in config.attention],
        "up_block_types": [UP[looks] for looks in reversed(config.attention)],
    } | (summary if config.pooled else {})


def _more(fields: dict) -> dict:
    known = {word: looks for looks, word in DOWN.items()}
    levels = checked(dict[str, list[str]], {"down_block_types": fields.get("down_block_types", FOUR)})[
        "down_block_types"
    ]
    if wrong := [word for word in levels if word not in known]:
        raise UserError(f"down_block_types has {wrong[0]}, and minidiff's UNet knows {', '.join(known)} alone")
    return {
        "attention": [known[word] for word in levels],
        "pooled": fields.get("addition_embed_type") == "text",
    }


PART = Part(
    what="UNet",
    net=UNet,
    kind=UNetConfig,
    stem="diffusion_pytorch_model",
    words=WORDS,
    absent={"cross_attention_dim": 1280},
    fixed=FIXED,
    follows=_follows,
    more=_more,
    label={"_class_name": FIXED["_class_name"]},
)
load_unet, save_unet, unet_config = PART.load, PART.save, PART.config
