"""The VAE's weights: as minidiff writes them, and as diffusers does."""

import json
from dataclasses import asdict
from pathlib import Path

import torch

from minidiff.files import load_weights, write, write_tensors
from minidiff.networks import VAE, VAEConfig


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
