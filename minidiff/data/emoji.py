"""Emoji in three styles, 64x64, with names and tags: small enough to train a text-to-image model in minutes.

Some are held out of training in every style, others in one: new things, and new combinations of a thing and a style.
"""

import hashlib
import io
import json
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import count, product

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from minidiff.data.dataset import DATASETS, Dataset, random_numbers
from minidiff.files import asset
from minidiff.registry import UserError, choose

STYLES = ("noto", "twemoji", "openmoji")
EMOJI_SPLITS = ("train", "validation", "new_things", "new_combinations")
EMOJI_SIDE = 64  # pixels of a picture

# Families of emoji, in the order of their hash, go here until this fraction of all is reached: in every style, or in one.
FRACTIONS = (
    (0.03, "new_things", "every"), (0.08, "new_combinations", "one"),
    (0.10, "validation", "every"), (0.13, "validation", "one"),
)  # fmt: skip

EMOJI_WORDINGS = (  # `emoji_caption` fills them in: {thing} is {name} with its article, {tags} are words that go with it
    "a {style} emoji of {thing}",
    "{thing}, {style} style",
    "{style} emoji: {name}",
    "{name} in {style}",
    "a {style} emoji of {thing} ({tags})",
    "{style} emoji: {tags}",  # leaves the name open
    "an emoji of {thing}",  # leaves the style open
)
TAGS = 3  # at most so many in a caption
DAMAGE = (zipfile.BadZipFile, zlib.error, KeyError, OSError, EOFError, RuntimeError)  # what zipfile and PIL raise


@dataclass(frozen=True)
class Emoji:
    """A thing, in any style."""

    code: str  # its code points: "1f63b"
    name: str  # "smiling cat with heart eyes"
    thing: str  # the name with its article: "a smiling cat with heart eyes", "scissors", "the sun"
    tags: tuple[str, ...]  # "adorable", "animal", ...
    group: str  # "smileys-emotion", "food-drink", ...
    kin: str  # one code for all that look nearly alike, such as a man and a woman rowing boat


@dataclass(frozen=True)
class Emojis:
    """Images of one split, as bytes: floats would take four times the memory."""

    images: Tensor  # (N, 3, 64, 64) uint8
    items: list[Emoji]
    styles: list[str]

    def __len__(self) -> int:
        return len(self.items)

    def floats(self, rows: Tensor | slice | Sequence[int] = slice(None)) -> Tensor:
        """These images, (N, 3, 64, 64) float32 in [-1, 1]."""
        return self.images[rows].float().div_(127.5).sub_(1)


@dataclass(frozen=True)
class CaptionedEmojis:
    """A batch for training."""

    images: Tensor  # (N, 3, 64, 64) float32 in [-1, 1]
    captions: list[str]
    items: list[Emoji]
    styles: list[str]


@cache
def all_emoji() -> tuple[Emoji, ...]:
    """Every emoji, in the order of the hash of its code: the first n of any split are a fair sample. Raises UserError."""
    path = asset("emoji/emoji.json")
    try:
        items = [Emoji(**row | {"tags": tuple(row["tags"])}) for row in json.loads(path.read_text())]
        if not items:
            raise ValueError("it is empty")
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"{path} is not a whole list of emoji ({error})") from None
    return tuple(sorted(items, key=lambda item: _hash(item.code)))


def emoji_split(item: Emoji, style: str) -> str:
    """The split of this emoji in this style. Raises UserError for an unknown style."""
    split, styles = _held_out().get(item.kin, ("train", ()))
    return split if _known(style) in styles else "train"


def emoji(split: str = "train") -> Emojis:
    """The images of one split; the splits are disjoint, and near copies are in the same one.

    "train"; "new_things": 3 % of the emoji, in every style; "new_combinations": 5 % of the emoji, in one style;
    "validation": 2 % in every style and 3 % in one. Raises UserError for an unknown split and for an archive that
    cannot be read, FileNotFoundError if it is missing.
    """
    choose(split, dict.fromkeys(EMOJI_SPLITS), "split")
    pairs = [(item, style) for item in all_emoji() for style in STYLES if emoji_split(item, style) == split]
    return Emojis(emoji_images(pairs), [item for item, _ in pairs], [style for _, style in pairs])


_kept = cache(emoji)  # decoding takes longer than hundreds of batches


def emoji_images(pairs: Sequence[tuple[Emoji, str]]) -> Tensor:
    """The images of these (emoji, style), (N, 3, 64, 64) uint8, of any split. Raises what `emoji` raises."""
    images = torch.empty(len(pairs), 3, EMOJI_SIDE, EMOJI_SIDE, dtype=torch.uint8)
    for style in {style for _, style in pairs}:
        path = asset(f"emoji/{_known(style)}.zip")
        try:
            with zipfile.ZipFile(path) as archive:
                for row, (item, other) in enumerate(pairs):
                    if other == style:
                        images[row] = _picture(archive.read(f"{item.code}.webp"))
        except DAMAGE as error:
            raise UserError(f"{path} is not a whole archive of emoji ({error})") from None
    return images


def emoji_caption(style: str, item: Emoji, wording: int = 0, tags: Sequence[str] | None = None) -> str:
    """The emoji in words, as EMOJI_WORDINGS[wording] puts it. tags: those it may name; None: the first. Raises UserError."""
    if not 0 <= wording < len(EMOJI_WORDINGS):
        raise UserError(f"wording must lie between 0 and {len(EMOJI_WORDINGS) - 1}, got {wording}")
    named = ", ".join(item.tags[:TAGS] if tags is None else tags)
    text = EMOJI_WORDINGS[wording].format(**vars(item) | {"style": _known(style), "tags": named})
    return text.replace("a openmoji", "an openmoji")


def emoji_batches(batch: int, split: str = "train", seed: int = 0) -> Iterator[CaptionedEmojis]:
    """Endless batches for training: random images, wordings and tags. Batch k depends on seed and k alone."""
    for step in count(1):
        rng, pictures = random_numbers(seed, split, EMOJI_SPLITS, step, batch), _kept(split)
        rows = rng.integers(len(pictures), size=batch).tolist()
        items, styles = [pictures.items[row] for row in rows], [pictures.styles[row] for row in rows]
        captions = []
        for item, style, wording in zip(items, styles, rng.integers(len(EMOJI_WORDINGS), size=batch), strict=True):
            some = rng.permutation(len(item.tags))[:TAGS]
            captions.append(emoji_caption(style, item, int(wording), [item.tags[k] for k in some]))
        yield CaptionedEmojis(pictures.floats(rows), captions, items, styles)


@cache
def _held_out() -> dict[str, tuple[str, tuple[str, ...]]]:
    """For each family that is not wholly in training: a split, and the styles that are in it."""
    members = Counter(item.kin for item in all_emoji())
    placed, dealt, kins = {}, 0, iter(sorted(members, key=_hash))
    for until, split, styles in FRACTIONS:
        while dealt < until * len(all_emoji()):
            kin = next(kins)
            one = STYLES[int(_hash(kin)[-8:], 16) % len(STYLES)]
            placed[kin] = split, STYLES if styles == "every" else (one,)
            dealt += members[kin]
    return placed


def _known(style: str) -> str:
    return choose(style, dict(zip(STYLES, STYLES, strict=True)), "style")


def _hash(code: str) -> str:
    return hashlib.sha256(code.encode()).hexdigest()


def _picture(webp: bytes) -> Tensor:
    pixels = np.asarray(Image.open(io.BytesIO(webp), formats=("WEBP",)).convert("RGB"))
    if pixels.shape != (EMOJI_SIDE, EMOJI_SIDE, 3):
        raise OSError(f"a picture of {pixels.shape[1]}x{pixels.shape[0]} pixels")
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1)


def emoji_prompt(style: str, words: str) -> str:
    """("noto", "red apple") -> "a noto emoji of a red apple": of the emoji that is so called, else of the words themselves."""
    unknown = Emoji(code="", name=words, thing=words, tags=(), group="", kin="")
    return emoji_caption(style, _named().get(_plain(words), (unknown, None))[0])


def emoji_seen(prompt: str) -> str:
    """One line: is the emoji with this name, or this caption without tags, in the training set, and in which styles?"""
    if _plain(prompt) not in _named():
        return "no emoji has just this name"
    item, style = _named()[_plain(prompt)]
    seen = [each for each in STYLES if emoji_split(item, each) == "train"]
    if style in seen:
        return "in the emoji's training set, in this style"
    if not seen:
        return "never in the emoji's training set, in no style"
    where = " and ".join(seen) if len(seen) < len(STYLES) else "every style"
    return f"in the emoji's training set{f', not in {style}: only' if style else ''} in {where}"


@cache
def _named() -> dict[str, tuple[Emoji, str | None]]:
    """The emoji, and the style if it is named, of each name, with its article and without, and of each caption."""
    named = {}
    for item in all_emoji():
        named |= {_plain(words): (item, None) for words in (item.name, item.thing)}
        for (wording, text), style in product(enumerate(EMOJI_WORDINGS), STYLES):
            if "{tags}" not in text:  # they may be any three
                named[_plain(emoji_caption(style, item, wording))] = item, style if "{style}" in text else None
    return named


def _plain(words: str) -> str:
    return " ".join(words.lower().split())


DATASETS["emoji"] = Dataset(
    lambda split, folder=None: emoji(split),
    lambda: f"{len(all_emoji()):,} emoji in {len(STYLES)} styles with names; comes with minidiff",
    (3, EMOJI_SIDE, EMOJI_SIDE),
)
