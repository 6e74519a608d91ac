"""Models on disk: which there are, and what their folders hold.

A model of images has model.json and model.safetensors. One of latents is in diffusers' layout, as Stable Diffusion is.
"""

import dataclasses
from pathlib import Path

import torch
from torch import nn

from minidiff.files import ROOTS, asset, load_weights
from minidiff.formats import diffusers_folder
from minidiff.formats.hub import find
from minidiff.formats.model_config import ModelConfig
from minidiff.formats.safetensors import PICKLES, described, save_net, tuples
from minidiff.formats.scheduler_config import Timing
from minidiff.networks import CLASSIFIERS, VAE, CLIPTextConfig, Conditional, UNetConfig
from minidiff.registry import UserError, choose
from minidiff.tokenizer import Tokenizer


def models() -> dict[str, Path]:
    """The shipped models of pictures, name -> folder."""
    folders = [folder for root in ROOTS for folder in sorted((root / "weights").glob("*/"))]
    return {f.name: f for f in folders if (f / "model.json").exists() or diffusers_folder.is_folder(f)}


def find_model(name: str | Path) -> Path:
    """The folder of a shipped model, of a path, or of an id on huggingface.co, fetched if need be."""
    path = Path(name)
    if path.is_file():
        why = "a pickle, which can run any program" if path.suffix in PICKLES else "one file"
        raise UserError(f"{path} is {why}: minidiff reads folders in diffusers' layout, with safetensors in them")
    hint = " (or a folder with a model, or an id on huggingface.co)"
    return find(str(name), models(), "model", hint, diffusers_folder.fetch)


def read(folder: Path, device: torch.device, dtype: torch.dtype | None = None) -> tuple:
    """What `TextToImage` is made of. Raises UserError for a model that is not whole or of another kind."""
    if diffusers_folder.is_folder(folder):
        half = device.type == "cuda" and dtype is None
        return diffusers_folder.read(folder, device, torch.float16 if half else dtype or torch.float32)
    config = described(folder / "model.json", "a model", _config)
    load_weights(net := config.build(), folder / "model.safetensors")
    return config, net, device, Tokenizer.load(folder, config.text.length) if config.text else None


def save(folder: Path, config: ModelConfig, net: Conditional, tokenizer: Tokenizer | None,
         vae: VAE | None, timing: Timing) -> None:  # fmt: skip
    """Write the folder of a TextToImage, weights in float16."""
    if vae:
        return diffusers_folder.save(folder, config, net, tokenizer, vae, timing)
    save_net(net, folder, "model.json", dataclasses.asdict(config))
    if tokenizer:
        tokenizer.save(folder)


def _config(fields: dict) -> ModelConfig:
    unet, text = UNetConfig(**tuples(fields.pop("unet"))), fields.pop("text", None)
    return ModelConfig(unet=unet, text=text and CLIPTextConfig(**text), **tuples(fields))


def load_classifier(name: str, device: str | torch.device = "cpu", folder: Path | None = None) -> nn.Module:
    """The shipped classifier of that name in `networks.CLASSIFIERS`, or the one in `folder`, ready to use."""
    net = choose(name, CLASSIFIERS, "classifier")()
    load_weights(net, (folder or asset(f"weights/{name}")) / "model.safetensors")
    return net.eval().requires_grad_(False).to(device)
