"""Stable Diffusion's folders: unet/, vae/, text_encoder/, tokenizer/, scheduler/ and model_index.json, as diffusers has them.

Stable Diffusion 1.x and 2.x, from a folder or from huggingface.co; our own models of latents are kept in the same way, so
that diffusers' StableDiffusionPipeline opens them.
"""

import json
from pathlib import Path
from typing import NamedTuple

import torch

from minidiff.files import write
from minidiff.formats.clip import load_clip_text, save_clip_text
from minidiff.formats.hub import NotThere, fetched
from minidiff.formats.safetensors import file_names, files_of, read_json
from minidiff.formats.scheduler_config import Timing, timing_of
from minidiff.formats.unet import load_unet, save_unet
from minidiff.formats.vae import load_vae, save_vae
from minidiff.networks import VAE, CLIPText, UNet
from minidiff.registry import UserError
from minidiff.tokenizer import Tokenizer

INDEX = "model_index.json"
PARTS = {  # folder: its files, one of each group, the largest last
    "tokenizer": (
        ["vocab.json", "tokenizer.json"],
        ["merges.txt", ""],
        ["special_tokens_map.json", ""],
        ["tokenizer_config.json", ""],
    ),
    "scheduler": (["scheduler_config.json"],),
    "text_encoder": (["config.json"], file_names("model")),
    "vae": (["config.json"], file_names("diffusion_pytorch_model")),
    "unet": (["config.json"], file_names("diffusion_pytorch_model")),
}
# pipelines of diffusers with these parts
KNOWN = ("StableDiffusionPipeline", "StableDiffusionImg2ImgPipeline", "StableDiffusionInpaintPipeline")


class Parts(NamedTuple):
    """What a folder holds."""

    unet: UNet
    vae: VAE
    text_encoder: CLIPText
    tokenizer: Tokenizer
    timing: Timing
    sample_size: int  # pixels of a latent's side in training
    scale: float  # the guidance scale it draws best with
    name: str | None = None  # what it draws, if it is one of ours: it names the evaluation


def is_folder(folder: Path) -> bool:
    return (folder / INDEX).is_file()


def read(folder: Path, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32) -> Parts:
    """All parts of a folder, ready to draw. Raises UserError for what is not there, does not fit, or is another model."""
    index = read_json(folder / INDEX, "a pipeline")
    _known(index, folder)
    for part in PARTS:
        if not (folder / part).is_dir():
            raise UserError(f"{folder} has no {part}: it must have {', '.join(PARTS)}")
    path = folder / "scheduler" / "scheduler_config.json"
    timing = timing_of(read_json(path, "a scheduler"), str(path))
    text_encoder = load_clip_text(folder / "text_encoder", device, dtype)
    tokenizer = Tokenizer.load(folder / "tokenizer", text_encoder.config.length, pad_of(folder / "tokenizer"))
    vae = load_vae(folder / "vae", device, dtype)
    unet = load_unet(folder / "unet", device, dtype)
    sees, has = unet.config.in_channels, vae.config.latent_channels
    if sees != has:
        raise UserError(
            f"{folder / 'unet'} sees {sees} channels, and a latent has {has}: a checkpoint for inpainting or depth, which sees "
            "more than the latent. Take the ordinary one: minidiff inpaints with it"
        )
    size = read_json(folder / "unet" / "config.json", "a UNet").get("sample_size") or 64
    ours = index.get("_guidance_scale", 7.5), index.get("_draws")
    return Parts(unet, vae, text_encoder, tokenizer, timing, size, *ours)


def _known(index: dict, where: str | Path) -> None:
    if (kind := index.get("_class_name")) not in KNOWN:
        raise UserError(f"{where} is a {kind}: minidiff draws with Stable Diffusion 1.x and 2.x ({KNOWN[0]}) alone")


def save(folder: str | Path, parts: Parts) -> None:
    """A folder that `read` and diffusers' StableDiffusionPipeline.from_pretrained open; weights in float16."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    save_unet(parts.unet, folder / "unet", parts.sample_size)
    save_vae(parts.vae, folder / "vae")
    save_clip_text(parts.text_encoder, folder / "text_encoder")
    parts.tokenizer.save(folder / "tokenizer")
    special = {"bos_token": parts.tokenizer.special[0], "eos_token": parts.tokenizer.special[1]}
    special |= {"unk_token": special["eos_token"], "pad_token": parts.tokenizer.pad}
    about = special | {"tokenizer_class": "CLIPTokenizer", "model_max_length": parts.tokenizer.length}
    (folder / "scheduler").mkdir(exist_ok=True)
    index = {
        "_class_name": KNOWN[0],
        "_guidance_scale": parts.scale,  # ours: diffusers ignores names with an underscore in front
        "_draws": parts.name,
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "scheduler": ["diffusers", parts.timing.config["_class_name"]],
        "safety_checker": [None, None],
        "feature_extractor": [None, None],
        "requires_safety_checker": False,
    }
    for name, fields in {
        "tokenizer/tokenizer_config.json": about,
        "tokenizer/special_tokens_map.json": special,
        "scheduler/scheduler_config.json": parts.timing.config,
        INDEX: index,  # last: a folder that has it is whole
    }.items():
        write(folder / name, json.dumps(fields, indent=2) + "\n")


def pad_of(folder: Path) -> str | None:
    """With which piece a checkpoint's tokenizer fills up short texts: Stable Diffusion 2.x has "!"; None for its own end."""
    for name in ("special_tokens_map.json", "tokenizer_config.json"):  # the first that says it is right
        path = folder / name
        pad = read_json(path, "a tokenizer").get("pad_token") if path.is_file() else None
        if pad is not None:
            return pad["content"] if isinstance(pad, dict) else pad
    return None


def fetch(repo: str) -> Path:
    """The folder of a repository on huggingface.co, with the files that `read` needs, from the cache or the network."""
    index = fetched(repo, INDEX)
    _known(read_json(index, "a pipeline"), repo)
    for part, groups in PARTS.items():
        for names in groups:
            _first(repo, part, names)
    return index.parent


def _first(repo: str, part: str, names: list[str]) -> None:
    """Fetch the first of these files that is there, and those that it names; "" needs none."""
    problem = None
    for name in filter(None, names):
        try:
            path = fetched(repo, f"{part}/{name}")
        except (NotThere, OSError) as error:
            problem = problem or error
        else:
            for file in files_of(path) if name.endswith(("index.json", "index.fp16.json")) else ():
                fetched(repo, f"{part}/{file}")
            return
    if "" not in names:
        raise problem
