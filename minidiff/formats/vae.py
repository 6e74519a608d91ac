"""The VAE's weights, in diffusers' files. Of its words for a VAE all is known here and nowhere else."""

from pathlib import Path

import torch

from minidiff.formats.safetensors import Checkpoint, fill, read_json, save_part
from minidiff.networks import VAE, VAEConfig
from minidiff.registry import UserError

STEM = "diffusion_pytorch_model"

# diffusers' name of each number, ours, and diffusers' value where a config leaves it out
SIZES = {
    "in_channels": ("in_channels", 3),
    "block_out_channels": ("channels", (64,)),
    "layers_per_block": ("layers", 1),
    "latent_channels": ("latent_channels", 4),
    "norm_num_groups": ("groups", 32),
    "scaling_factor": ("scaling", 0.18215),
}
FIXED = {  # what our VAE has no choice about
    "_class_name": "AutoencoderKL",
    "act_fn": "silu",
    "use_quant_conv": True,
    "use_post_quant_conv": True,
    "mid_block_add_attention": True,
    "shift_factor": None,
    "latents_mean": None,
    "latents_std": None,
}
OLD = {".query.": ".to_q.", ".key.": ".to_k.", ".value.": ".to_v.", ".proj_attn.": ".to_out.0."}  # names of 2022


def save_vae(vae: VAE, folder: str | Path) -> None:
    """Write diffusion_pytorch_model.safetensors (float16) and config.json."""
    fields = {their: getattr(vae.config, our) for their, (our, _) in SIZES.items()}
    fields |= {"_class_name": "AutoencoderKL", "out_channels": vae.config.in_channels, **_blocks(vae.config)}
    save_part(vae, folder, STEM, fields)


def load_vae(folder: str | Path, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32) -> VAE:
    """A VAE from a folder as `save_vae` or diffusers writes it, such as Stable Diffusion's vae; ready to encode and decode.

    Files of 2022, with other names and shapes in the attention, are read as well. Raises UserError for what is not
    there, does not fit or would compute something else.
    """
    path = Path(folder) / "config.json"
    with torch.device("meta"):  # no random weights, which would take longer than reading the real ones
        vae = VAE(vae_config(read_json(path, "a VAE"), path))
    fill(vae, Checkpoint(Path(folder), STEM), _renamed, dtype)
    return vae.eval().requires_grad_(False).to(device)


def vae_config(fields: dict, path: Path) -> VAEConfig:
    """Our config for what diffusers wrote into an AutoencoderKL's config.json."""
    ours = {our: fields.get(their, value) for their, (our, value) in SIZES.items()}
    try:
        config = VAEConfig(**ours | {"channels": tuple(ours["channels"])})
    except (TypeError, ValueError) as error:
        raise UserError(f"{path}: {error}") from None
    for name, value in (FIXED | _blocks(config) | {"out_channels": config.in_channels}).items():
        if fields.get(name, value) != value:
            raise UserError(f"{path}: {name} is {fields[name]}, and minidiff's VAE knows {value} alone")
    return config


def _blocks(config: VAEConfig) -> dict[str, list[str]]:
    levels = len(config.channels)
    return {"down_block_types": ["DownEncoderBlock2D"] * levels, "up_block_types": ["UpDecoderBlock2D"] * levels}


def _renamed(name: str) -> str:
    for old, new in OLD.items() if ".attentions." in name else ():
        name = name.replace(old, new)
    return name
