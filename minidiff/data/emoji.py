"""Emoji in three styles, 64x64, with names and tags: what a text-to-image model can be trained on in minutes.

Some emoji are never in training in any style, others in two of their three styles only: so that one can ask for
things, and for combinations of a thing and a style, that nobody has seen.
"""

import hashlib
import io
import json
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import count

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from minidiff.files import asset

STYLES = ("noto", "twemoji", "openmoji")
EMOJI_SPLITS = ("train", "validation", "new_things", "new_combinations")
EMOJI_SIDE = 64  # pixels of a picture

# Families of emoji, in the order of their hash, go here until these have this share of all emoji: with all three
# styles, or with one, which is the hash's choice too. Validation is a small rehearsal of both tests.
SHARES = (
    (0.03, "new_things", "every"),
    (0.08, "new_combinations", "one"),
    (0.10, "validation", "every"),
    (0.13, "validation", "one"),
)

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

# What zipfile and PIL raise for a damaged archive or picture
DAMAGE = (zipfile.BadZipFile, zlib.error, KeyError, OSError, EOFError, RuntimeError)


@dataclass(frozen=True)
class Emoji:
    """What is drawn, in any style."""

    code: str  # its code points: "1f63b"
    name: str  # "smiling cat with heart eyes"
    thing: str  # the name with its article: "a smiling cat with heart eyes", "scissors", "the sun"
    tags: tuple[str, ...]  # "adorable", "animal", ...
    group: str  # "smileys-emotion", "food-drink", ...
    kin: str  # one code for all that look nearly alike, such as a man and a woman rowing boat


@dataclass(frozen=True)
class Emojis:
    """Pictures of one split: bytes, because floats would take four times the memory."""

    images: Tensor  # (N, 3, 64, 64) uint8
    items: list[Emoji]
    styles: list[str]

    def __len__(self) -> int:
        return len(self.items)

    @property
    def names(self) -> list[str]:
        return [item.name for item in self.items]

    def floats(self, rows: Tensor | slice | Sequence[int] = slice(None)) -> Tensor:
        """These pictures, (N, 3, 64, 64) float32 in [-1, 1]."""
        return self.images[rows].float().div_(127.5).sub_(1)


@dataclass(frozen=True)
class CaptionedEmojis:
    """A batch for training."""

    images: Tensor  # (N, 3, 64, 64) float32 in [-1, 1]
    captions: list[str]
    items: list[Emoji]
    styles: list[str]

    def __len__(self) -> int:
        return len(self.items)


@cache
def all_emoji() -> tuple[Emoji, ...]:
    """Every emoji, in the order of the hash of its code: the first n of any split are a fair sample.

    Raises ValueError for a damaged list, FileNotFoundError if it is missing.
    """
    path = asset("emoji/emoji.json")
    try:
        items = [Emoji(**row | {"tags": tuple(row["tags"])}) for row in json.loads(path.read_text())]
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path} is not a whole list of emoji ({error})") from None
    if not items:
        raise ValueError(f"{path} is not a whole list of emoji (it is empty)")
    return tuple(sorted(items, key=lambda item: _hash(item.code)))


def emoji_split(item: Emoji, style: str) -> str:
    """The split that this emoji in this style is in, the only one. Raises ValueError for another style."""
    split, styles = _held_out().get(item.kin, ("train", ()))
    return split if _known(style) in styles else "train"


def emoji(split: str = "train") -> Emojis:
    """The pictures of one split; no picture is in two.

    "train"; "new_things": 3 % of the emoji, in every style; "new_combinations": 5 % of the emoji, in one style, whose
    other two are in training; "validation": 2 % in every style and 3 % in one. What looks nearly alike, such as a man
    and a woman rowing boat, is on the same side. Raises ValueError for another split and for an archive that cannot
    be read, FileNotFoundError if it is missing.
    """
    if split not in EMOJI_SPLITS:
        raise ValueError(f"no split {split!r}; there is {', '.join(EMOJI_SPLITS)}")
    pairs = [(item, style) for item in all_emoji() for style in STYLES if emoji_split(item, style) == split]
    return Emojis(emoji_images(pairs), [item for item, _ in pairs], [style for _, style in pairs])


def emoji_images(pairs: Sequence[tuple[Emoji, str]]) -> Tensor:
    """The pictures of these (emoji, style), (N, 3, 64, 64) uint8, of whatever split. Raises as `emoji` does."""
    images = torch.empty(len(pairs), 3, EMOJI_SIDE, EMOJI_SIDE, dtype=torch.uint8)
    for style in {style for _, style in pairs}:
        path = asset(f"emoji/{_known(style)}.zip")
        try:
            with zipfile.ZipFile(path) as archive:
                for row, (item, other) in enumerate(pairs):
                    if other == style:
                        images[row] = _picture(archive.read(f"{item.code}.webp"))
        except DAMAGE as error:
            raise ValueError(f"{path} is not a whole archive of emoji ({error})") from None
    return images


def emoji_caption(style: str, item: Emoji, wording: int = 0, tags: Sequence[str] | None = None) -> str:
    """The emoji in words, as EMOJI_WORDINGS[wording] puts it: "a noto emoji of a smiling cat with heart eyes".

    tags: those that are named where the wording names some; None: the first three of `item.tags`. Raises ValueError
    for another style and another wording.
    """
    if not 0 <= wording < len(EMOJI_WORDINGS):
        raise ValueError(f"wording must lie between 0 and {len(EMOJI_WORDINGS) - 1}, got {wording}")
    named = ", ".join(item.tags[:TAGS] if tags is None else tags)
    text = EMOJI_WORDINGS[wording].format(style=_known(style), thing=item.thing, name=item.name, tags=named)
    return text.replace("a openmoji", "an openmoji")


def emoji_batches(batch: int, split: str = "train", seed: int = 0) -> Iterator[CaptionedEmojis]:
    """Batches for training, without end: random pictures of the split, each in a random wording with random tags.

    Batch k depends on seed and k alone. Raises as `emoji` does, and ValueError for a batch below 1 and a seed below 0.
    """
    if batch < 1:
        raise ValueError(f"there must be at least 1 picture, got {batch}")
    if seed < 0:
        raise ValueError(f"seed must be at least 0, got {seed}")
    pictures = _kept(split)
    for step in count(1):
        rng = np.random.default_rng((seed, EMOJI_SPLITS.index(split), step))
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
    members = {}
    for item in all_emoji():
        members[item.kin] = members.get(item.kin, 0) + 1
    placed, dealt = {}, 0
    for kin in sorted(members, key=_hash):
        share = next((share for share in SHARES if dealt < share[0] * len(all_emoji())), None)
        if share is None:
            break
        one = STYLES[int(_hash(kin)[-8:], 16) % len(STYLES)]
        placed[kin] = share[1], STYLES if share[2] == "every" else (one,)
        dealt += members[kin]
    return placed


def _known(style: str) -> str:
    if style not in STYLES:
        raise ValueError(f"no style {style!r}; there is {', '.join(STYLES)}")
    return style


def _hash(code: str) -> str:
    return hashlib.sha256(code.encode()).hexdigest()


def _picture(webp: bytes) -> Tensor:
    """(3, 64, 64) uint8."""
    pixels = np.asarray(Image.open(io.BytesIO(webp), formats=("WEBP",)).convert("RGB"))
    if pixels.shape != (EMOJI_SIDE, EMOJI_SIDE, 3):
        raise OSError(f"a picture of {pixels.shape[1]}x{pixels.shape[0]} pixels")
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1)


@cache
def _kept(split: str) -> Emojis:
    return emoji(split)  # decoding it takes longer than drawing hundreds of batches
