"""CLIP's weights: the ones that come with minidiff, a folder's, and other people's from huggingface.co.

Of transformers' words all is known here and nowhere else.
"""

import dataclasses
from pathlib import Path

import torch

from minidiff.files import asset
from minidiff.formats.hub import fetch, find
from minidiff.formats.json_files import checked, config, read_json
from minidiff.formats.safetensors import Checkpoint, Part, file_names, fill, save_net
from minidiff.formats.tokenizer_files import TOKENIZER_FILES, load_tokenizer, save_tokenizer
from minidiff.networks import CLIP, CLIPConfig, CLIPText, CLIPTextConfig, CLIPVision, CLIPVisionConfig
from minidiff.registry import of_the_user
from minidiff.tokenizer import Tokenizer

SHIPPED = ("clip", "clip_emoji", "clip_scenes")
FILES = (["config.json"], *TOKENIZER_FILES, file_names("model"))  # what a CLIP on the hub is, see `fetch`


WORDS = {
    "hidden_size": "width",
    "num_hidden_layers": "layers",
    "num_attention_heads": "heads",
    "hidden_act": "activation",
}
BOTH = {  # of the two networks
    "what": "CLIP",
    "fixed": {"layer_norm_eps": 1e-5, "num_channels": 3, "use_attention_mask": False},
    "follows": lambda config: {"intermediate_size": 4 * config.width},
}


def _needed(name: str) -> str | None:
    """position_ids, in some files, only count 0, 1, 2, ..."""
    return None if name.endswith(".position_ids") else name


TEXT = Part(
    **BOTH,
    net=CLIPText,
    kind=CLIPTextConfig,
    words=WORDS | {"vocab_size": "vocab", "max_position_embeddings": "length", "eos_token_id": "end"},
    absent={"hidden_size": 512, "num_attention_heads": 8},
    # 2 is a mistake in old files; pooling then takes the highest number
    more=lambda fields: {"end": None} if fields.get("eos_token_id") == 2 else {},
    rename=lambda name: _needed(name.removeprefix("text_model.")),  # so called in some files
    label={"architectures": ["CLIPTextModel"], "model_type": "clip_text_model", "dtype": "float32"}
    | dict.fromkeys(("bos_token_id", "pad_token_id")),
)
VISION = Part(
    **BOTH,
    net=CLIPVision,
    kind=CLIPVisionConfig,
    words=WORDS | {"image_size": "size", "patch_size": "patch"},
    absent={"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "patch_size": 32},
)
load_clip_text, save_clip_text = TEXT.load, TEXT.save  # a text network alone, such as Stable Diffusion's text_encoder


def load_clip(name: str | Path = "clip", device: str | torch.device = "cpu") -> tuple[CLIP, Tokenizer]:
    """A CLIP, ready to embed, and its tokenizer: a shipped one by name, a folder, or an id on huggingface.co.

    load_clip(), load_clip("runs/clip"), load_clip("openai/clip-vit-large-patch14"). A folder holds model.safetensors,
    vocab.json, merges.txt, and clip.json as minidiff writes it or config.json as transformers does. What comes from
    the hub is kept in huggingface's own cache. Raises UserError for what is not there or does not fit, OSError
    where there is no network.
    """
    shipped = {name: asset(f"weights/{name}") for name in SHIPPED}
    hint = " (or a folder, or an id such as openai/clip-vit-large-patch14)"
    folder = find(name, shipped, "CLIP", hint, lambda repo: fetch(repo, FILES))
    path = folder / "clip.json"
    if path.exists():
        fields = read_json(path, "a CLIP")
        with of_the_user(path):
            ours = config(CLIPConfig, fields)
    else:
        path = folder / "config.json"
        ours = clip_config(read_json(path, "a CLIP"), path)
    with torch.device("meta"):
        clip = CLIP(ours)
    return fill(clip, Checkpoint(folder, "model"), _needed).to(device), load_tokenizer(folder, ours.text)


def save_clip(clip: CLIP, tokenizer: Tokenizer, folder: str | Path) -> None:
    """Write model.safetensors (float16), clip.json, vocab.json and merges.txt."""
    save_tokenizer(tokenizer, folder)
    save_net(clip, folder, "clip.json", dataclasses.asdict(clip.config))


def clip_config(fields: dict, path: Path) -> CLIPConfig:
    """Our config for what transformers wrote into a CLIPModel's config.json. Raises UserError."""
    dim = fields.get("projection_dim", 512)
    towers = {}
    for name, part in (("text", TEXT), ("vision", VISION)):
        # files from 2022 say some things twice; what stands in *_config_dict is meant
        with of_the_user(f"{path}: {name}_config"):
            said = [checked(dict | None, fields.get(f"{name}_config{end}")) or {} for end in ("", "_dict")]
        towers[name] = dataclasses.asdict(part.config(said[0] | said[1], path))
    with of_the_user(path):
        return config(CLIPConfig, towers | {"dim": dim}, {"dim": "projection_dim"})
