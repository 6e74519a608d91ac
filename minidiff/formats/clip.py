"""CLIP's weights: the ones that come with minidiff, a folder's, and other people's from huggingface.co.

Of transformers' words all is known here and nowhere else.
"""

import dataclasses
import json
from pathlib import Path

import torch
from torch import nn

from minidiff.files import asset, write, write_tensors
from minidiff.formats.hub import fetched
from minidiff.formats.safetensors import Checkpoint, fill, read_json, save_part
from minidiff.networks import CLIP, CLIPConfig, CLIPText, CLIPTextConfig, CLIPVisionConfig
from minidiff.registry import UserError
from minidiff.tokenizer import Tokenizer

SHIPPED = ("clip", "clip_emoji")
FILES = ("config.json", "vocab.json", "merges.txt", "model.safetensors")  # what a CLIP on the hub is; the largest last

# transformers' name of each number, ours, and transformers' value where a config leaves it out
SIZES = {
    "hidden_size": ("width", {"text": 512, "vision": 768}),
    "num_hidden_layers": ("layers", {"text": 12, "vision": 12}),
    "num_attention_heads": ("heads", {"text": 8, "vision": 12}),
    "hidden_act": ("activation", {"text": "quick_gelu", "vision": "quick_gelu"}),
    "vocab_size": ("vocab", {"text": 49408}),
    "max_position_embeddings": ("length", {"text": 77}),
    "eos_token_id": ("end", {"text": 49407}),
    "image_size": ("size", {"vision": 224}),
    "patch_size": ("patch", {"vision": 32}),
}
FIXED = {"layer_norm_eps": 1e-5, "num_channels": 3}  # what our networks have no choice about


def load_clip(name: str | Path = "clip", device: str | torch.device = "cpu") -> tuple[CLIP, Tokenizer]:
    """A CLIP, ready to embed, and its tokenizer: a shipped one by name, a folder, or an id on huggingface.co.

    load_clip(), load_clip("runs/clip"), load_clip("openai/clip-vit-large-patch14"). A folder holds model.safetensors,
    vocab.json, merges.txt, and clip.json as minidiff writes it or config.json as transformers does. What comes from
    the hub is kept in huggingface's own cache. Raises UserError for what is not there or does not fit, OSError
    where there is no network.
    """
    folder = _folder(str(name))
    path = folder / "clip.json"
    if path.exists():
        parts = read_json(path, "a CLIP")
        try:
            text, vision = CLIPTextConfig(**parts["text"]), CLIPVisionConfig(**_tuples(parts["vision"]))
            config = CLIPConfig(text, vision, parts["dim"])
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{path} does not describe a CLIP ({error})") from None
    else:
        path = folder / "config.json"
        config = clip_config(read_json(path, "a CLIP"), path)
    with torch.device("meta"):  # no random weights, which would take longer than reading the real ones
        clip = CLIP(config)
    fit(clip, folder)
    return _ready(clip, device), Tokenizer.load(folder, length=config.text.length)


def save_clip(clip: CLIP, tokenizer: Tokenizer, folder: str | Path) -> None:
    """Write model.safetensors (float16), clip.json, vocab.json and merges.txt."""
    tokenizer.save(folder)
    write_tensors(Path(folder) / "model.safetensors", {k: v.half() for k, v in clip.state_dict().items()})
    write(Path(folder) / "clip.json", json.dumps(dataclasses.asdict(clip.config), indent=2) + "\n")


def load_clip_text(
    folder: str | Path, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32
) -> CLIPText:
    """A text network alone, from a folder such as Stable Diffusion's text_encoder. Raises as `load_clip` does."""
    path = Path(folder) / "config.json"
    with torch.device("meta"):
        net = CLIPText(CLIPTextConfig(**_part(read_json(path, "a CLIP"), "text", path)))
    fit(net, Path(folder), dtype)
    return _ready(net, device)


def save_clip_text(net: CLIPText, folder: str | Path) -> None:
    """Write model.safetensors (float16) and config.json, as transformers writes a CLIPTextModel."""
    fields = {their: getattr(net.config, our) for their, (our, values) in SIZES.items() if "text" in values}
    fields |= {"architectures": ["CLIPTextModel"], "model_type": "clip_text_model", "dtype": "float32"}
    fields |= {"intermediate_size": 4 * net.config.width, "bos_token_id": None, "pad_token_id": None}
    save_part(net, folder, "model", fields)


def clip_config(fields: dict, path: Path) -> CLIPConfig:
    """Our config for what transformers wrote into a CLIPModel's config.json."""
    parts = {}
    for part in ("text", "vision"):
        # files from 2022 say some things twice; what stands in *_config_dict is meant
        parts[part] = _part(
            (fields.get(f"{part}_config") or {}) | (fields.get(f"{part}_config_dict") or {}), part, path
        )
    return CLIPConfig(
        CLIPTextConfig(**parts["text"]), CLIPVisionConfig(**parts["vision"]), fields.get("projection_dim", 512)
    )


def fit(net: nn.Module, folder: Path, dtype: torch.dtype = torch.float32) -> None:
    """Every tensor of the folder's model.safetensors into the network, and none left over, or a UserError.

    Tensors of a text network alone are called text_model.* in some files and not in others; some files hold
    position_ids, which only count 0, 1, 2, ...
    """
    alone = not any(name.startswith("text_model.") for name in net.state_dict())

    def rename(name: str) -> str | None:
        if name.endswith(".position_ids"):
            return None
        return name.removeprefix("text_model.") if alone else name

    fill(net, Checkpoint(folder, "model"), rename, dtype)


def _ready(net: nn.Module, device: str | torch.device) -> nn.Module:
    return net.eval().requires_grad_(False).to(device)


def _folder(name: str) -> Path:
    """Where the files are, fetched if need be."""
    if name and Path(name).is_dir():
        return Path(name)
    if name in SHIPPED:
        return asset(f"weights/{name}")
    owner, slash, repo = name.partition("/")
    if not (owner and repo) or "/" in repo or owner.startswith((".", "~")):
        known = ", ".join(SHIPPED)
        raise UserError(
            f"unknown CLIP {name!r}; there is {known} (or a folder, or an id such as openai/clip-vit-large-patch14)"
        )
    for file in FILES:
        path = fetched(name, file)
    return path.parent


def _tuples(fields: dict) -> dict:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}


def _part(fields: dict, part: str, path: Path) -> dict:
    """What CLIPTextConfig or CLIPVisionConfig takes, from transformers' config of that part."""
    ours = {our: fields.get(their, values[part]) for their, (our, values) in SIZES.items() if part in values}
    for name, value in (FIXED | {"intermediate_size": 4 * ours["width"]}).items():
        if fields.get(name, value) != value:
            raise UserError(f"{path}: {name} is {fields[name]}, and minidiff's CLIP knows {value} alone")
    if part == "text" and ours["end"] == 2:  # a mistake in old files; pooling then takes the highest number
        ours["end"] = None
    try:
        (CLIPTextConfig if part == "text" else CLIPVisionConfig)(**ours)
    except (TypeError, ValueError) as error:
        raise UserError(f"{path}: {error}") from None
    return ours
