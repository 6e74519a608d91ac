"""Models on disk: which there are, and what their folders hold.

A model of pictures has model.json and model.safetensors. One of a VAE's latents is in diffusers' layout, as Stable Diffusion is.
"""

import dataclasses
import json
from pathlib import Path

import torch
from torch import nn

from minidiff.files import ROOTS, asset, load_weights, write, write_tensors
from minidiff.formats import diffusers_folder
from minidiff.formats.model_config import ModelConfig
from minidiff.formats.safetensors import PICKLES
from minidiff.formats.scheduler_config import Timing, scheduler_config
from minidiff.networks import CLASSIFIERS, VAE, CLIPTextConfig, Conditional, UNetConfig
from minidiff.registry import UserError, choose
from minidiff.tokenizer import Tokenizer


def models() -> dict[str, Path]:
    """The shipped models of pictures, name -> folder."""
    folders = [folder for root in ROOTS for folder in sorted((root / "weights").glob("*/"))]
    return {
        folder.name: folder
        for folder in folders
        if (folder / "model.json").exists() or diffusers_folder.is_folder(folder)
    }


def find_model(name: str | Path) -> Path:
    """The folder of a shipped model, of a path, or of an id on huggingface.co, fetched if need be."""
    path = Path(name)
    if path.is_dir():
        return path
    if path.is_file():
        why = "a pickle, which can run any program" if path.suffix in PICKLES else "one file"
        raise UserError(f"{path} is {why}: minidiff reads folders in diffusers' layout, with safetensors in them")
    owner, _, repo = str(name).partition("/")
    if owner and repo and "/" not in repo and not owner.startswith((".", "~")) and not Path(owner).is_dir():
        return diffusers_folder.fetch(str(name))
    return choose(str(name), models(), "model", " (or a folder with a model, or an id on huggingface.co)")


def read(folder: Path, device: torch.device, dtype: torch.dtype | None = None) -> tuple:
    """What a folder holds, as `TextToImage` takes it. Raises UserError for a model that is not whole or of another kind."""
    if not diffusers_folder.is_folder(folder):
        config, net = _read_model(folder)
        return config, net, device, Tokenizer.load(folder, config.text.length) if config.text else None
    if dtype is None:
        dtype = torch.float16 if device.type == "cuda" else torch.float32
    parts = diffusers_folder.read(folder, device, dtype)
    side = parts.sample_size * parts.vae.factor
    config = ModelConfig(
        name=parts.name or folder.name,
        unet=parts.unet.config,
        picture=(parts.vae.config.in_channels, side, side),
        fold=1,
        scale=parts.scale,
        text=parts.text_encoder.config,
    )
    return config, Conditional(parts.unet, parts.text_encoder), device, parts.tokenizer, parts.vae, parts.timing


def save(
    folder: Path, config: ModelConfig, net: Conditional, tokenizer: Tokenizer | None, vae: VAE | None, timing: Timing
) -> None:
    """Write the folder of a TextToImage, weights in float16."""
    folder.mkdir(parents=True, exist_ok=True)
    if vae:
        if not timing.config:
            timing = dataclasses.replace(timing, config=scheduler_config(config.schedule, config.prediction))
        side = config.picture[1] // (config.fold * vae.factor)
        parts = net.unet, vae, net.text_encoder, tokenizer, timing, side, config.scale, config.name
        diffusers_folder.save(folder, diffusers_folder.Parts(*parts))
        return
    write_tensors(folder / "model.safetensors", {k: v.half() for k, v in net.state_dict().items()})
    write(folder / "model.json", json.dumps(dataclasses.asdict(config), indent=2) + "\n")
    if tokenizer:
        tokenizer.save(folder)


def _read_model(folder: Path) -> tuple[ModelConfig, Conditional]:
    """The config and the network of a folder with model.json and model.safetensors."""
    try:
        fields = json.loads((folder / "model.json").read_text())
        unet = UNetConfig(**{k: tuple(v) if isinstance(v, list) else v for k, v in fields.pop("unet").items()})
        text = fields.pop("text", None)
        text = text and CLIPTextConfig(**text)
        config = ModelConfig(unet=unet, text=text, picture=tuple(fields.pop("picture")), **fields)
    except (OSError, KeyError, TypeError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{folder / 'model.json'} does not describe a model ({error})") from None
    net = config.build()
    load_weights(net, folder / "model.safetensors")
    return config, net


def load_classifier(name: str, device: str | torch.device = "cpu", folder: Path | None = None) -> nn.Module:
    """The shipped classifier of that name in `networks.CLASSIFIERS`, or the one in `folder`, ready to use."""
    net = choose(name, CLASSIFIERS, "classifier")()
    load_weights(net, (folder or asset(f"weights/{name}")) / "model.safetensors")
    return net.eval().requires_grad_(False).to(device)
