"""Stable Diffusion's folders, as diffusers has them: unet, vae, text_encoder, tokenizer, scheduler, model_index.json.

Stable Diffusion 1.x and 2.x, from a folder or from huggingface.co; our own models of latents are kept in the same way.
"""

from dataclasses import asdict
from pathlib import Path

import torch

from minidiff.formats import hub, json_files
from minidiff.formats.clip import load_clip_text, save_clip_text
from minidiff.formats.json_files import checked, read_json, write_json
from minidiff.formats.model_config import ModelConfig
from minidiff.formats.safetensors import file_names
from minidiff.formats.scheduler_config import Timing, scheduler_config, timing_of
from minidiff.formats.tokenizer_files import TOKENIZER_FILES, load_tokenizer, save_tokenizer
from minidiff.formats.unet import load_unet, save_unet
from minidiff.formats.vae import load_vae, save_vae
from minidiff.networks import VAE, Conditional
from minidiff.registry import UserError, of_the_user
from minidiff.tokenizer import Tokenizer, shorten

INDEX = "model_index.json"
PARTS = {  # folder: its files, see `hub.fetch`; the largest last
    "tokenizer": TOKENIZER_FILES,
    "scheduler": (["scheduler_config.json"],),
    "text_encoder": (["config.json"], file_names("model")),
    "vae": (["config.json"], file_names("diffusion_pytorch_model")),
    "unet": (["config.json"], file_names("diffusion_pytorch_model")),
}
# pipelines of diffusers with these parts
KNOWN = ("StableDiffusionPipeline", "StableDiffusionImg2ImgPipeline", "StableDiffusionInpaintPipeline")


def is_folder(folder: Path) -> bool:
    return (folder / INDEX).is_file()


def read(folder: Path, device: torch.device, dtype: torch.dtype) -> tuple:
    """As `model_folder.read`. Raises UserError for what is not there, does not fit, or is another model."""
    index = read_json(folder / INDEX, "a pipeline")
    _known(index, folder)
    for part in PARTS:
        if not (folder / part).is_dir():
            raise UserError(f"{folder} has no {part}: it must have {', '.join(PARTS)}")
    path = folder / "scheduler" / "scheduler_config.json"
    said = read_json(path, "a scheduler")
    with of_the_user(path):
        timing = timing_of(said)
    text_encoder = load_clip_text(folder / "text_encoder", device, dtype)
    tokenizer = load_tokenizer(folder / "tokenizer", text_encoder.config)
    path = folder / "vae" / "config.json"
    upcast = read_json(path, "a VAE").get("force_upcast") is True  # float16 is too small for what it computes inside
    vae = load_vae(folder / "vae", device, torch.float32 if upcast else dtype)
    unet = load_unet(folder / "unet", device, dtype)
    if (sees := unet.config.in_channels) != (has := vae.config.latent_channels):
        raise UserError(
            f"{folder / 'unet'} sees {sees} channels, and a latent has {has}: a checkpoint for inpainting or depth, "
            "which sees more than the latent. Take the ordinary one: minidiff inpaints with it"
        )
    path = folder / "unet" / "config.json"
    with of_the_user(path):  # latent pixels of a side in training
        side = vae.factor * checked(int, read_json(path, "a UNet").get("sample_size") or 64)
    with of_the_user(folder / INDEX):
        fields = {
            "name": index.get("_draws") or hub.origin(folder),
            "scale": index.get("_guidance_scale", 7.5),
            "fold": 1,
        }
        fields |= {"unet": asdict(unet.config), "text": asdict(text_encoder.config)}
        config = json_files.config(ModelConfig, fields | {"picture": [vae.config.in_channels, side, side]})
    return config, Conditional(unet, text_encoder), device, tokenizer, vae, timing


def fetch(repo: str) -> Path:
    """The folder of a repository on huggingface.co, with the files that `read` needs, from the cache or the network."""
    files = ([f"{part}/{name}" if name else "" for name in names] for part, groups in PARTS.items() for names in groups)
    return hub.fetch(repo, [[INDEX], *files], lambda index: _known(read_json(index, "a pipeline"), repo))


def _known(index: dict, where: str | Path) -> None:
    if (kind := index.get("_class_name")) not in KNOWN:
        kind = shorten(str(kind), 60)
        raise UserError(f"{where} is a {kind}: minidiff draws with Stable Diffusion 1.x and 2.x ({KNOWN[0]}) alone")


def save(folder: Path, config: ModelConfig, net: Conditional, tokenizer: Tokenizer, vae: VAE, timing: Timing) -> None:
    """A folder that `read` and diffusers' StableDiffusionPipeline.from_pretrained open; weights in float16."""
    scheduler = timing.config or scheduler_config(config.schedule, config.prediction)
    save_unet(net.unet, folder / "unet", sample_size=config.picture[1] // (config.fold * vae.factor))
    save_vae(vae, folder / "vae", force_upcast=True)  # decoded in float32, whatever the others are in
    save_clip_text(net.text_encoder, folder / "text_encoder")
    save_tokenizer(tokenizer, folder / "tokenizer")
    start, end = tokenizer.special[:2]
    special = {"bos_token": start, "eos_token": end, "unk_token": end, "pad_token": tokenizer.pad}
    settings = special | {"tokenizer_class": "CLIPTokenizer", "model_max_length": tokenizer.length}
    write_json(folder / "tokenizer" / "tokenizer_config.json", settings)
    write_json(folder / "tokenizer" / "special_tokens_map.json", special)
    (folder / "scheduler").mkdir(exist_ok=True)
    write_json(folder / "scheduler" / "scheduler_config.json", scheduler)
    index = {
        "_class_name": KNOWN[0],
        "_guidance_scale": config.scale,  # ours: diffusers ignores names with an underscore in front
        "_draws": config.name,
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "scheduler": ["diffusers", scheduler["_class_name"]],
        "safety_checker": [None, None],
        "feature_extractor": [None, None],
        "requires_safety_checker": False,
    }
    write_json(folder / INDEX, index)  # last: a folder that has it is whole
