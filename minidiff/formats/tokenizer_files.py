"""A tokenizer's files: CLIP's vocab.json and merges.txt, or transformers 5's tokenizer.json, and our words.txt."""

import json
from pathlib import Path
from typing import Any

from minidiff.files import write
from minidiff.formats.json_files import checked, read_json, read_text
from minidiff.networks import CLIPTextConfig
from minidiff.registry import UserError, of_the_user
from minidiff.tokenizer import Tokenizer

OPTIONAL = ("merges.txt", "words.txt", "added_tokens.json", "special_tokens_map.json", "tokenizer_config.json")
TOKENIZER_FILES = (["vocab.json", "tokenizer.json"], *([name, ""] for name in OPTIONAL))  # see `hub.fetch`
SAYS_PAD = ("special_tokens_map.json", "tokenizer_config.json")  # the first that says it is right


def load_tokenizer(folder: str | Path, tower: CLIPTextConfig | None = None, pad: str | None = None) -> Tokenizer:
    """The tokenizer of a folder. Raises UserError for files that are missing, damaged or do not fit together.

    tower: that of the text tower that reads its ids. pad: see `Tokenizer`; None: what the folder says.
    """
    folder = Path(folder)
    words, whole, added = folder / "words.txt", folder / "tokenizer.json", folder / "added_tokens.json"
    if whole.exists() and not (folder / "vocab.json").exists():
        fields = read_json(whole, "a tokenizer")
        with of_the_user(whole):
            model = checked(dict, fields.get("model"))
            vocab = checked(dict[str, int], model.get("vocab"))
            pairs = checked(list[str | list[str]], model.get("merges"))  # "a b", or ["a", "b"]
            lines = [pair if isinstance(pair, str) else " ".join(pair) for pair in pairs]
            more = [token.get("content") for token in checked(list[dict], fields.get("added_tokens", []))]
    else:
        vocab = read_json(folder / "vocab.json", "a tokenizer", dict[str, int])
        lines = read_text(whole := folder / "merges.txt").splitlines()
        more = list(read_json(added, "a tokenizer", dict[str, int])) if added.exists() else []
    merges: list[Any] = [tuple(line.split()) for line in lines if line and not line.startswith("#version")]
    with of_the_user(whole):
        if wrong := next((merge for merge in merges if len(merge) != 2), None):
            raise UserError(f'it has the line "{" ".join(wrong)}", which is not a pair')
    with of_the_user(folder):
        if wrong := [token for token in more if token not in vocab]:
            raise UserError(f"the token {wrong[0]!r} was added to its vocabulary: minidiff reads CLIP's alone")
        known = read_text(words).split() if words.exists() else ()
        tokenizer = Tokenizer(vocab, merges, tower.length if tower else 77, pad or _pad(folder), known)
        if tower and (len(vocab) != tower.vocab or tower.end not in (None, vocab[tokenizer.special[1]])):
            raise UserError(f"its {len(vocab)} tokens are not the {tower.vocab} that the text tower has learned")
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, folder: str | Path) -> None:
    """Write vocab.json, merges.txt and, if there are words, words.txt into a folder; created if missing."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    write(Path(folder) / "vocab.json", json.dumps(tokenizer.vocab, ensure_ascii=False))
    write(Path(folder) / "merges.txt", "\n".join(["#version: 0.2", *map(" ".join, tokenizer.merges), ""]))
    if tokenizer.words:
        write(Path(folder) / "words.txt", "\n".join([*sorted(tokenizer.words), ""]))


def _pad(folder: Path) -> str | None:
    """The piece with which it fills up short texts: Stable Diffusion 2.x has "!"; None for its own end."""
    for path in (folder / name for name in SAYS_PAD):
        pad = read_json(path, "a tokenizer").get("pad_token") if path.is_file() else None
        if pad is not None:
            with of_the_user(f"{path}: pad_token"):
                return checked(str, pad.get("content") if isinstance(pad, dict) else pad)
    return None
