"""The VAE's weights, in diffusers' files. Of its words for a VAE all is known here and nowhere else."""

from minidiff.formats.safetensors import Part
from minidiff.networks import VAE, VAEConfig

WORDS = {
    "in_channels": "in_channels", "block_out_channels": "channels", "layers_per_block": "layers",
    "latent_channels": "latent_channels", "norm_num_groups": "groups", "scaling_factor": "scaling",
}  # fmt: skip
OLD = {".query.": ".to_q.", ".key.": ".to_k.", ".value.": ".to_v.", ".proj_attn.": ".to_out.0."}  # names of 2022


def _renamed(name: str) -> str:
    for old, new in OLD.items() if ".attentions." in name else ():
        name = name.replace(old, new)
    return name


def _follows(config: VAEConfig) -> dict:
    levels = len(config.channels)
    return {
        "_class_name": "AutoencoderKL",
        "out_channels": config.in_channels,
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
    }


PART = Part(
    what="VAE",
    net=VAE,
    kind=VAEConfig,
    stem="diffusion_pytorch_model",
    words=WORDS,
    absent={"block_out_channels": (64,), "layers_per_block": 1},
    fixed=dict.fromkeys(("use_quant_conv", "use_post_quant_conv", "mid_block_add_attention"), True)
    | dict.fromkeys(("shift_factor", "latents_mean", "latents_std"), None)
    | {"act_fn": "silu"},
    follows=_follows,
    rename=_renamed,
)
load_vae, save_vae, vae_config = PART.load, PART.save, PART.config
