"""The VAE's weights: as minidiff writes them, and as diffusers does.

Of diffusers' words all is known here and nowhere else.
"""

import json
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from minidiff.files import load_weights, write, write_tensors
from minidiff.networks import VAE, VAEConfig
from minidiff.weights import put, unpickled

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
    """Write model.safetensors (float16) and vae.json."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(folder / "model.safetensors", {k: v.half() for k, v in vae.state_dict().items()})
    write(folder / "vae.json", json.dumps(asdict(vae.config), indent=2) + "\n")


def load_vae(folder: str | Path, device: str | torch.device = "cpu") -> VAE:
    """A VAE as `save_vae` wrote it, ready to encode and decode. Raises ValueError for what is not there or does not fit."""
    folder = Path(folder)
    try:
        fields = json.loads((folder / "vae.json").read_text(encoding="utf-8"))
        config = VAEConfig(**(fields | {"channels": tuple(fields["channels"])}))
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{folder / 'vae.json'} does not describe a VAE ({error})") from None
    vae = VAE(config)
    load_weights(vae, folder / "model.safetensors")
    return vae.eval().requires_grad_(False).to(device)


def load_diffusers_vae(folder: str | Path, device: str | torch.device = "cpu") -> VAE:
    """A VAE from a folder as diffusers writes its AutoencoderKL, such as Stable Diffusion's vae; ready as `load_vae`'s is.

    The folder holds config.json and diffusion_pytorch_model.safetensors; files of 2022, with other names and shapes in
    the attention, are read as well. Raises ValueError for what is not there, does not fit or would compute something else.
    """
    folder = Path(folder)
    path = folder / "config.json"
    try:
        fields = dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, TypeError, ValueError) as error:
        raise ValueError(f"{path} does not describe a VAE ({error})") from None
    with torch.device("meta"):  # no random weights, which would take longer than reading the real ones
        vae = VAE(vae_config(fields, path))
    weights = folder / "diffusion_pytorch_model.safetensors"
    put(vae, dict(_renamed(*item) for item in unpickled(weights).items()), weights)
    return vae.eval().requires_grad_(False).to(device)


def vae_config(fields: dict, path: Path) -> VAEConfig:
    """Our config for what diffusers wrote into an AutoencoderKL's config.json."""
    ours = {our: fields.get(their, value) for their, (our, value) in SIZES.items()}
    try:
        config = VAEConfig(**ours | {"channels": tuple(ours["channels"])})
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from None
    levels = len(config.channels)
    blocks = {"down_block_types": ["DownEncoderBlock2D"] * levels, "up_block_types": ["UpDecoderBlock2D"] * levels}
    for name, value in (FIXED | blocks | {"out_channels": config.in_channels}).items():
        if fields.get(name, value) != value:
            raise ValueError(f"{path}: {name} is {fields[name]}, and minidiff's VAE knows {value} alone")
    return config


def _renamed(name: str, tensor: Tensor) -> tuple[str, Tensor]:
    """In the attention a file may have other names, and 1x1 convolutions (C, C, 1, 1) for matrices (C, C)."""
    if ".attentions." not in name:
        return name, tensor
    for old, new in OLD.items():
        name = name.replace(old, new)
    return name, tensor.flatten(1) if tensor.ndim == 4 and tensor.shape[2:] == (1, 1) else tensor
