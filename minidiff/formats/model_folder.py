"""Models on disk: which there are, and what their folders hold.

A model of images has model.json and model.safetensors. One of latents is in diffusers' layout, as Stable Diffusion is.
"""

import dataclasses
from pathlib import Path

import torch
from torch import nn

from minidiff.files import ROOTS, asset, whole
from minidiff.formats import diffusers_folder, json_files
from minidiff.formats.hub import find
from minidiff.formats.json_files import read_json
from minidiff.formats.model_config import ModelConfig, named_timing
from minidiff.formats.safetensors import PICKLES, Checkpoint, fill, save_net
from minidiff.formats.scheduler_config import Timing
from minidiff.formats.tokenizer_files import load_tokenizer, save_tokenizer
from minidiff.networks import CLASSIFIERS, VAE, Conditional
from minidiff.registry import UserError, choose, of_the_user
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
    return whole(find(name, models(), "model", hint, diffusers_folder.fetch))


def read(folder: Path, device: torch.device, dtype: torch.dtype | None = None) -> tuple:
    """What `TextToImage` is made of. Raises UserError for a model that is not whole or of another kind."""
    if diffusers_folder.is_folder(folder):
        half = device.type == "cuda" and dtype is None
        return diffusers_folder.read(folder, device, torch.float16 if half else dtype or torch.float32)
    path = folder / "model.json"
    fields = read_json(path, "a model")
    with of_the_user(path):
        config = json_files.config(ModelConfig, fields)
        named_timing(config)  # whose names are known
        with torch.device("meta"):
            net = config.build()
    fill(net, Checkpoint(folder, "model"))
    return config, net, device, load_tokenizer(folder, config.text) if config.text else None


def save(folder: Path, config: ModelConfig, net: Conditional, tokenizer: Tokenizer | None,
         vae: VAE | None, timing: Timing) -> None:  # fmt: skip
    """Write the folder of a TextToImage, weights in float16."""
    if vae:
        return diffusers_folder.save(folder, config, net, tokenizer, vae, timing)
    save_net(net, folder, "model.json", dataclasses.asdict(config))
    if tokenizer:
        save_tokenizer(tokenizer, folder)


def load_classifier(name: str, device: str | torch.device = "cpu", folder: Path | None = None) -> nn.Module:
    """The shipped classifier of that name in `networks.CLASSIFIERS`, or the one in `folder`, ready to use."""
    with torch.device("meta"):
        net = choose(name, CLASSIFIERS, "classifier")()
    return fill(net, Checkpoint(folder or asset(f"weights/{name}"), "model")).to(device)
