"""Stable Diffusion's folders, as diffusers has them: unet, vae, text_encoder, tokenizer, scheduler, model_index.json.

Stable Diffusion 1.x and 2.x, from a folder or from huggingface.co; our own models of latents are kept in the same way.
"""

from pathlib import Path

import torch

from minidiff.formats.clip import load_clip_text, save_clip_text
from minidiff.formats.hub import NotThere, fetched
from minidiff.formats.model_config import ModelConfig
from minidiff.formats.safetensors import file_names, files_of, read_json, write_json
from minidiff.formats.scheduler_config import Timing, scheduler_config, timing_of
from minidiff.formats.unet import load_unet, save_unet
from minidiff.formats.vae import load_vae, save_vae
from minidiff.networks import VAE, Conditional
from minidiff.registry import UserError
from minidiff.tokenizer import Tokenizer

INDEX = "model_index.json"
TOKENIZER = ("merges.txt", "special_tokens_map.json", "tokenizer_config.json")
PARTS = {  # folder: its files, one of each group ("": or none), the largest last
    "tokenizer": (["vocab.json", "tokenizer.json"], *([name, ""] for name in TOKENIZER)),
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
    timing = timing_of(read_json(path, "a scheduler"), str(path))
    text_encoder = load_clip_text(folder / "text_encoder", device, dtype)
    tokenizer = Tokenizer.load(folder / "tokenizer", text_encoder.config.length, pad_of(folder / "tokenizer"))
    vae = load_vae(folder / "vae", device, dtype)
    unet = load_unet(folder / "unet", device, dtype)
    if (sees := unet.config.in_channels) != (has := vae.config.latent_channels):
        raise UserError(
            f"{folder / 'unet'} sees {sees} channels, and a latent has {has}: a checkpoint for inpainting or depth, "
            "which sees more than the latent. Take the ordinary one: minidiff inpaints with it"
        )
    # places of a latent's side in training
    side = vae.factor * (read_json(folder / "unet" / "config.json", "a UNet").get("sample_size") or 64)
    name, scale = index.get("_draws") or folder.name, index.get("_guidance_scale", 7.5)
    picture, text = (vae.config.in_channels, side, side), text_encoder.config
    config = ModelConfig(name, unet.config, picture, fold=1, scale=scale, text=text)
    return config, Conditional(unet, text_encoder), device, tokenizer, vae, timing


def _known(index: dict, where: str | Path) -> None:
    if (kind := index.get("_class_name")) not in KNOWN:
        raise UserError(f"{where} is a {kind}: minidiff draws with Stable Diffusion 1.x and 2.x ({KNOWN[0]}) alone")


def save(folder: Path, config: ModelConfig, net: Conditional, tokenizer: Tokenizer, vae: VAE, timing: Timing) -> None:
    """A folder that `read` and diffusers' StableDiffusionPipeline.from_pretrained open; weights in float16."""
    scheduler = timing.config or scheduler_config(config.schedule, config.prediction)
    save_unet(net.unet, folder / "unet", sample_size=config.picture[1] // (config.fold * vae.factor))
    save_vae(vae, folder / "vae")
    save_clip_text(net.text_encoder, folder / "text_encoder")
    tokenizer.save(folder / "tokenizer")
    start, end = tokenizer.special[:2]
    special = {"bos_token": start, "eos_token": end, "unk_token": end, "pad_token": tokenizer.pad}
    about = special | {"tokenizer_class": "CLIPTokenizer", "model_max_length": tokenizer.length}
    write_json(folder / "tokenizer" / "tokenizer_config.json", about)
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


def pad_of(folder: Path) -> str | None:
    """The piece with which a tokenizer fills up short texts: Stable Diffusion 2.x has "!"; None for its own end."""
    for path in (folder / name for name in TOKENIZER[1:]):  # the first that says it is right
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
