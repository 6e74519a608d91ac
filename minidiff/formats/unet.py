"""The UNet's weights, in diffusers' files. Of its words for a UNet all is known here and nowhere else."""

from pathlib import Path

import torch

from minidiff.formats.safetensors import Checkpoint, fill, read_json, save_part
from minidiff.networks import UNet, UNetConfig
from minidiff.registry import UserError

STEM = "diffusion_pytorch_model"

# diffusers' name of each number, ours, and diffusers' value where a config leaves it out
SIZES = {
    "in_channels": ("in_channels", 4),
    "out_channels": ("out_channels", 4),
    "block_out_channels": ("channels", (320, 640, 1280, 1280)),
    "layers_per_block": ("layers", 2),
    "attention_head_dim": ("heads", 8),  # the number of heads, whatever its name
    "cross_attention_dim": ("context_dim", 1280),
    "norm_num_groups": ("groups", 32),
    "use_linear_projection": ("linear_projection", False),
}
DOWN = {True: "CrossAttnDownBlock2D", False: "DownBlock2D"}  # does the level look at the context?
UP = {True: "CrossAttnUpBlock2D", False: "UpBlock2D"}
FOUR = [DOWN[True], DOWN[True], DOWN[True], DOWN[False]]  # where a config leaves the levels out
FIXED = {  # what our UNet has no choice about
    "_class_name": "UNet2DConditionModel",
    "act_fn": "silu",
    "addition_time_embed_dim": None,
    "attention_type": "default",
    "center_input_sample": False,
    "class_embed_type": None,
    "class_embeddings_concat": False,
    "conv_in_kernel": 3,
    "conv_out_kernel": 3,
    "cross_attention_norm": None,
    "downsample_padding": 1,
    "dropout": 0.0,
    "dual_cross_attention": False,
    "encoder_hid_dim": None,
    "encoder_hid_dim_type": None,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "mid_block_only_cross_attention": None,
    "mid_block_scale_factor": 1,
    "mid_block_type": "UNetMidBlock2DCrossAttn",
    "norm_eps": 1e-5,
    "num_attention_heads": None,
    "num_class_embeds": None,
    "only_cross_attention": False,
    "projection_class_embeddings_input_dim": None,
    "resnet_out_scale_factor": 1.0,
    "resnet_skip_time_act": False,
    "resnet_time_scale_shift": "default",
    "reverse_transformer_layers_per_block": None,
    "time_cond_proj_dim": None,
    "time_embedding_act_fn": None,
    "time_embedding_dim": None,
    "time_embedding_type": "positional",
    "timestep_post_act": None,
    "transformer_layers_per_block": 1,
}


def save_unet(unet: UNet, folder: str | Path, sample_size: int) -> None:
    """Write diffusion_pytorch_model.safetensors (float16) and config.json. sample_size: places of a latent's side."""
    config = unet.config
    fields = {their: getattr(config, our) for their, (our, _) in SIZES.items()}
    fields |= {"_class_name": "UNet2DConditionModel", "sample_size": sample_size, **_blocks(config)}
    if config.pooled:
        fields |= {"addition_embed_type": "text", "addition_embed_type_num_heads": config.heads_per_level[-1]}
    save_part(unet, folder, STEM, fields)


def load_unet(folder: str | Path, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32) -> UNet:
    """A UNet from a folder as diffusers writes its UNet2DConditionModel, such as Stable Diffusion's unet; ready to be asked.

    Raises UserError for what is not there, does not fit or would compute something else.
    """
    path = Path(folder) / "config.json"
    with torch.device("meta"):  # no random weights, which would take longer than reading the real ones
        unet = UNet(unet_config(read_json(path, "a UNet"), path))
    fill(unet, Checkpoint(Path(folder), STEM), dtype=dtype)
    return unet.eval().requires_grad_(False).to(device)


def unet_config(fields: dict, path: Path) -> UNetConfig:
    """Our config for what diffusers wrote into a UNet2DConditionModel's config.json."""
    ours = {our: fields.get(their, value) for their, (our, value) in SIZES.items()}
    levels = fields.get("down_block_types", FOUR)
    known = {word: looks for looks, word in DOWN.items()}
    if wrong := next((word for word in levels if word not in known), None):
        raise UserError(f"{path}: down_block_types has {wrong}, and minidiff's UNet knows {', '.join(known)} alone")
    ours["attention"] = [known[word] for word in levels]
    ours["pooled"] = fields.get("addition_embed_type") == "text"
    try:
        config = UNetConfig(**{name: tuple(v) if isinstance(v, list) else v for name, v in ours.items()})
    except (TypeError, ValueError) as error:
        raise UserError(f"{path}: {error}") from None
    must = FIXED | _blocks(config) | {"addition_embed_type": "text" if config.pooled else None}
    if config.pooled:
        must["addition_embed_type_num_heads"] = config.heads_per_level[-1]
    for name, value in must.items():
        found = fields.get(name, value)
        if found != value and found != [value] * len(levels):  # some are given once a level
            raise UserError(f"{path}: {name} is {found}, and minidiff's UNet knows {value} alone")
    return config


def _blocks(config: UNetConfig) -> dict[str, list[str]]:
    return {
        "down_block_types": [DOWN[looks] for looks in config.attention],
        "up_block_types": [UP[looks] for looks in reversed(config.attention)],
    }
