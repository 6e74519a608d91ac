"""color_digits: MNIST's digits in colour, 32x32, with captions: "a red seven on a blue background"."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import count

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from minidiff.data.dataset import DATASETS, Dataset, Pictures, random_numbers
from minidiff.data.mnist import CLASSES, SPLITS, mnist
from minidiff.registry import UserError, check_between

COLORS = {  # RGB, 0 to 255; the two that are closest, orange and yellow, lie 118 apart
    "black": (0, 0, 0), "white": (255, 255, 255), "red": (220, 10, 30), "green": (20, 160, 60),
    "blue": (30, 60, 220), "yellow": (255, 235, 50), "orange": (255, 128, 0), "purple": (170, 60, 200),
}  # fmt: skip
PLACES = ("center", "top left", "top right", "bottom left", "bottom right")
SIZES = {"large": 28, "small": 18}  # pixels of what was a 28x28 digit
SIDE = 32  # pixels of a picture

# To test whether a model can combine what it has learned: no training set of minidiff has an image or a caption of
# these. Each digit once, every colour at least once.
HELD_OUT = {
    0: "orange", 1: "purple", 2: "red", 3: "blue", 4: "yellow",
    5: "black", 6: "white", 7: "green", 8: "purple", 9: "red",
}  # fmt: skip
ALLOWED = {digit: tuple(color for color in COLORS if color != HELD_OUT[digit]) for digit in range(10)}
OTHERS = {color: tuple(other for other in COLORS if other != color) for color in COLORS}  # for the background

ORDINARY = 0.6  # fraction of scenes with a large digit in the center; the other nine layouts are equally frequent
LAYOUTS = [(place, size) for place in PLACES for size in SIZES]  # the first is the ordinary one

WORDINGS = (  # `caption` fills them in; {small}, {at} and {between} are empty where a scene is ordinary
    "a {small}{color} {word} on a {background} background{at}",
    "a {small}{color} {figure} on a {background} background{at}",
    "{small}{color} {word}{between} on {background}",
    "{small}{color} {figure}{between} on {background}",
    "a {small}{word} in {color}{between} on {background}",
    "on a {background} background, a {small}{color} {word}{at}",
    "{size} {color} {figure}, {place}, on {background}",  # the only one that says "large" and "center"
    "a {color} {word}",  # says nothing of the rest
)


@dataclass(frozen=True)
class Scene:
    """What an image shows. Raises UserError for what cannot be drawn."""

    digit: int  # 0 to 9
    color: str  # of the digit; a name in COLORS
    background: str  # another one
    place: str = "center"  # one of PLACES
    size: str = "large"  # a name in SIZES

    def __post_init__(self):
        for value, known in zip(vars(self).values(), (range(10), COLORS, COLORS, PLACES, SIZES), strict=True):
            if value not in known:
                raise UserError(f"no scene has {value!r}; there is {', '.join(map(str, known))}")
        if self.color == self.background:
            raise UserError(f"a {self.color} digit on a {self.color} background cannot be seen")


@dataclass(frozen=True)
class Captioned:
    """Images, their captions, and what they show."""

    images: Tensor  # (N, 3, 32, 32) float32 in [-1, 1]
    captions: list[str]
    scenes: list[Scene]

    def __len__(self) -> int:
        return len(self.images)


def caption(scene: Scene, wording: int = 0) -> str:
    """The scene in words, as WORDINGS[wording] puts it: "a red seven on a blue background"."""
    check_between("wording", wording, 0, len(WORDINGS) - 1)
    at = "" if scene.place == "center" else f", {scene.place}"
    text = WORDINGS[wording].format(
        **vars(scene), word=CLASSES[scene.digit], figure=scene.digit,
        small="small " if scene.size == "small" else "", at=at, between=at and f"{at},",
    )  # fmt: skip
    return re.sub(r"\ba (?=orange|eight|8)", "an ", text)


def draw(scenes: Sequence[Scene], digits: Tensor) -> Tensor:
    """Images of the scenes, (N, 3, 32, 32) in [-1, 1], with these handwritten digits, (N, 1, 28, 28) in [-1, 1].

    The digit's darkest pixel gets its colour, paper the background's. In a corner it ends one pixel before the edges.
    """
    if digits.shape != (shape := (len(scenes), 1, 28, 28)):
        raise UserError(f"digits must have shape {shape}, got {tuple(digits.shape)}")
    if not scenes:
        return torch.empty(0, 3, SIDE, SIDE)
    gray = (digits + 1) / 2
    small = torch.tensor([scene.size == "small" for scene in scenes])
    if small.any():
        edge = 28 - SIZES["small"]
        shrunk = F.interpolate(gray[small], size=28 - edge, mode="bilinear", antialias=True)
        gray[small] = F.pad(shrunk, (0, edge, 0, edge))
    gray = (gray / gray.amax((1, 2, 3), keepdim=True).clamp(min=1e-6)).squeeze(1)  # thin strokes pale as they shrink

    ink = gray > 0  # (N, 28, 28)
    rows = _shifts(ink.any(2), small, [scene.place.split()[0] for scene in scenes], ("top", "bottom"))
    columns = _shifts(ink.any(1), small, [scene.place.split()[-1] for scene in scenes], ("left", "right"))
    ringed = F.pad(gray, (1, 1, 1, 1))  # an index outside the digit falls on a ring of paper
    y = (torch.arange(SIDE) - rows[:, None]).clamp(-1, 28) + 1  # (N, 32): which row of `ringed` a row shows
    x = (torch.arange(SIDE) - columns[:, None]).clamp(-1, 28) + 1
    gray = ringed[torch.arange(len(scenes))[:, None, None], y[:, :, None], x[:, None, :]][:, None]  # (N, 1, 32, 32)

    names = ([getattr(scene, field) for scene in scenes] for field in ("color", "background"))
    front, back = (torch.tensor([COLORS[name] for name in each])[:, :, None, None] / 127.5 - 1 for each in names)
    return torch.lerp(back, front, gray)


def color_digits(n: int, split: str = "train", seed: int = 0, held_out: bool = False) -> Captioned:
    """n images of random scenes in random wordings, composed from the digits of one split of MNIST, each once if n allows.

    held_out: True for the ten held-out pairs alone, False for all others. Raises what `random_numbers` raises.
    """
    rng, digits = random_numbers(seed, split, SPLITS, 0, n), _digits(split)
    rows = rng.permutation(len(digits))[np.arange(n) % len(digits)]
    return _compose(digits, rows, rng, held_out)


def color_digit_batches(batch: int, split: str = "train", seed: int = 0) -> Iterator[Captioned]:
    """Endless batches for training, without the HELD_OUT pairs. Batch k depends on seed and k alone."""
    for step in count(1):
        rng, digits = random_numbers(seed, split, SPLITS, step, batch), _digits(split)
        yield _compose(digits, rng.integers(len(digits), size=batch), rng, held_out=False)


def _compose(digits: Pictures, rows: np.ndarray, rng: np.random.Generator, held_out: bool) -> Captioned:
    """A random scene and wording for each of these rows of MNIST."""

    def pick(choices: int) -> list[int]:
        return rng.integers(choices, size=len(rows)).tolist()

    layouts = np.where(rng.random(len(rows)) < ORDINARY, 0, rng.integers(1, len(LAYOUTS), size=len(rows))).tolist()
    scenes, others = [], len(COLORS) - 1  # each digit lacks a colour in training; a background always lacks its digit's
    for digit, c, b, layout in zip(digits.labels[rows].tolist(), pick(others), pick(others), layouts, strict=True):
        color = HELD_OUT[digit] if held_out else ALLOWED[digit][c]
        scenes.append(Scene(digit, color, OTHERS[color][b], *LAYOUTS[layout]))
    captions = [caption(scene, wording) for scene, wording in zip(scenes, pick(len(WORDINGS)), strict=True)]
    return Captioned(draw(scenes, digits.images[rows]), captions, scenes)


def _shifts(inked: Tensor, small: Tensor, sides: list[str], ends: tuple[str, str]) -> Tensor:
    """How far each digit, of which these rows (or columns) hold ink, (N, 28), moves down (or right): (N,)."""
    first, last = inked.int().argmax(1), 27 - inked.flip(1).int().argmax(1)
    middle = torch.where(small, (SIDE - SIZES["small"]) // 2, (SIDE - SIZES["large"]) // 2)
    low, high = (torch.tensor([side == end for side in sides]) for end in ends)
    return torch.where(low, 1 - first, torch.where(high, SIDE - 2 - last, middle))


_digits = cache(mnist)  # reading them takes longer than composing hundreds of batches


DATASETS["color_digits"] = Dataset(
    lambda split, folder=None: color_digits(5000, split),
    lambda: "MNIST's digits in colour with captions, composed on demand",
    (3, SIDE, SIDE),
)
