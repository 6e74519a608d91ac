"""Does an image show what the prompt says? Coloured digits are read from their pixels: colours by a rule, digits by the judge."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from minidiff import data
from minidiff.data.color_digits import ALLOWED, COLORS, HELD_OUT, OTHERS, Scene, draw
from minidiff.diffusion import DEFAULT_SAMPLER
from minidiff.evaluation.judges import judged
from minidiff.evaluation.metrics import diversity
from minidiff.evaluation.report import EVALUATIONS, Evaluation, Report, drawn, fraction, machine
from minidiff.formats.model_folder import load_classifier
from minidiff.networks import Judge
from minidiff.pipeline.text_to_image import TextToImage
from minidiff.registry import UserError

FARTHEST = 8  # pixels whose median is the digit's colour: a few, so that no single one decides
REAL = 2000  # real images at least: the diversity of a few is too noisy for a reference
INK = 0.3  # a pixel with less of the digit's colour is outside the digit's box


class Look(NamedTuple):
    """What the pixels of N images say."""

    colors: list[str]  # of the digits, names in COLORS
    backgrounds: list[str]
    digits: Tensor  # (N, 1, 28, 28) in [-1, 1], gray, as the judge reads them


def look_at(images: Tensor) -> Look:
    """Read images (N, 3, H, W) in [-1, 1], whatever they show.

    Background: the median of the border. Digit's colour: the median of the FARTHEST pixels from it. Each is called by
    the name of the nearest of COLORS. Gray: how far a pixel lies along the straight line between the two.
    """
    x = images.float().cpu()
    border = torch.cat([x[:, :, 0], x[:, :, -1], x[:, :, 1:-1, 0], x[:, :, 1:-1, -1]], 2)
    back = border.median(2).values  # (N, 3)
    away = x - back[:, :, None, None]
    far = away.norm(dim=1).flatten(1).topk(FARTHEST).indices  # (N, 8)
    front = x.flatten(2).gather(2, far[:, None].expand(-1, 3, -1)).median(2).values  # (N, 3)
    line = front - back
    gray = torch.einsum("nchw,nc->nhw", away, line) / line.square().sum(1).clamp(min=1e-6)[:, None, None]
    known = torch.tensor(list(COLORS.values())) / 127.5 - 1
    names = [[list(COLORS)[k] for k in torch.cdist(seen, known).argmin(1).tolist()] for seen in (front, back)]
    return Look(*names, _as_mnist(gray.clamp(0, 1)))


def _as_mnist(gray: Tensor) -> Tensor:
    """Gray images (N, H, W) in [0, 1] laid out as MNIST's digits: (N, 1, 28, 28) in [-1, 1].

    The longer side of the digit's box becomes 20 pixels, its centre of mass goes to pixel (14, 14). LeCun et al. 1998.
    """
    gray = torch.where(gray > INK, gray, 0)
    height, width = gray.shape[1:]
    rows, columns = gray.sum(2), gray.sum(1)  # (N, H), (N, W)
    mass = rows.sum(1, keepdim=True).clamp(min=1e-6)
    inks = ((height, rows > 0), (width, columns > 0))
    y, x = (rows / mass) @ torch.arange(float(height)), (columns / mass) @ torch.arange(float(width))
    extents = [n - inked.int().argmax(1) - inked.flip(1).int().argmax(1) for n, inked in inks]  # first to last, (N,)
    side = torch.maximum(*extents).clamp(min=4)  # a speck is not made a blot
    steps = (torch.arange(28) - 14) * side[:, None] / 20  # (N, 28): where, from the centre of mass, to look
    down = (y[:, None] + steps) * 2 / (height - 1) - 1  # in grid_sample's units: -1 and 1 are the outermost pixels
    right = (x[:, None] + steps) * 2 / (width - 1) - 1
    grid = torch.stack([right[:, None, :].expand(-1, 28, -1), down[:, :, None].expand(-1, -1, 28)], 3)
    laid = F.grid_sample(gray[:, None], grid, mode="bicubic", align_corners=True)
    return laid.clamp(0, 1) * 2 - 1


class Measured(NamedTuple):
    """What was found in N images, each of which should show a scene."""

    digit: Tensor  # is the digit right, (N,)
    color: Tensor  # are both colours right, (N,)
    read: Tensor  # the digit that the judge reads, (N,)
    features: Tensor  # the judge's, of the gray digits, (N, 64)


def measure(judge: Judge, images: Tensor, scenes: Sequence[Scene]) -> Measured:
    """Compare images (N, 3, H, W) in [-1, 1] with the scenes that they should show."""
    seen = look_at(images)
    features, answers = judged(judge, seen.digits)
    shown = zip(seen.colors, seen.backgrounds, scenes, strict=True)
    colors = [(color, background) == (scene.color, scene.background) for color, background, scene in shown]
    return Measured(answers == torch.tensor([scene.digit for scene in scenes]), torch.tensor(colors), answers, features)


@dataclass(frozen=True)
class Row:
    """What was found in n images of one kind, or in at least REAL real ones: fractions of them."""

    pairs: str  # "seen" or "never-seen": were the digit and its colour together in training?
    scale: float | None  # guidance scale; None: real images
    digit: float  # the judge reads the digit asked for
    color: float  # the pixels have the digit's colour and the background's
    both: float  # both
    diversity: float  # mean distance between images that are read as the same digit, over that of real ones


@dataclass(frozen=True)
class ColorReport(Report):
    """What was measured at each guidance scale."""

    n: int  # images a row
    sampler: str
    steps: int
    rows: list[Row]

    def notes(self) -> list[str]:
        chance = ["scale 0 ignores the prompt: its rows are chance"] if any(row.scale == 0 for row in self.rows) else []
        return [*chance, f"n images a row, at least {REAL:,} real ones; diversity: in the judge's features"]


def evaluate_color(
    pipe: TextToImage, n: int = 200, scale: float | Sequence[float] = (0, 1, 2, 4, 8), *, split: str = "test",
    sampler: str = DEFAULT_SAMPLER, steps: int = 20, seed: int = 0, progress=lambda iterable, **_: iterable,
) -> ColorReport:  # fmt: skip
    """Generate n images of seen pairs and n of the ten never-seen ones at each guidance scale, and read them back.

    Prompts are random ones of seen pairs, and the never-seen pairs in turn, on random backgrounds. Every scale has the
    same prompts and noise. Real images of the same scenes, with digits of `split`, go through the same rule.
    progress: wraps the loop over the rows, such as tqdm. Raises UserError for n below 20, and if no scale is given.
    """
    scales = tuple(scale) if isinstance(scale, Sequence) else (scale,)
    if n < 20:
        raise UserError(f"n must be at least 20, two of each never-seen pair, got {n}")
    if not scales or not all(math.isfinite(scale) for scale in scales):
        raise UserError(f"scale must be one or more finite numbers, got {scales}")
    rng, judge, mnist = np.random.default_rng(seed), load_classifier("judge", pipe.device), data.mnist(split)
    digits, colors, backgrounds = (rng.integers(choices, size=n).tolist() for choices in (10, 7, 7))
    seen = [(digit, ALLOWED[digit][k]) for digit, k in zip(digits, colors, strict=True)]
    unseen = [(i % 10, HELD_OUT[i % 10]) for i in range(n)]
    asked = {"seen": _on(seen, backgrounds), "never-seen": _on(unseen, rng.integers(7, size=n).tolist())}
    first = {"seen": seed, "never-seen": seed + n}  # every picture has a seed of its own

    rows, real = [], {}
    for scale, pairs in progress(list(product([None, *dict.fromkeys(scales)], asked)), unit="row"):
        scenes = asked[pairs]
        if scale is None:
            scenes = scenes * math.ceil(REAL / n)
            images = _real(scenes, mnist, rng)
        else:
            prompts = [data.caption(scene) for scene in scenes]
            images = drawn(pipe, prompts, first[pairs], steps=steps, scale=float(scale), sampler=sampler)
        digit, color, read, features = measure(judge, images, scenes)
        varied = diversity(features, read)  # at a small scale the digit asked for is often not the one generated
        fractions = map(fraction, (digit, color, digit & color))
        rows.append(Row(pairs, scale, *fractions, varied / real.setdefault(pairs, varied)))
    return ColorReport(
        model=pipe.config.name, split=split, seed=seed, machine=machine(pipe.device),
        n=n, sampler=sampler, steps=steps, rows=rows,
    )  # fmt: skip


def _on(pairs: Sequence[tuple[int, str]], backgrounds: Sequence[int]) -> list[Scene]:
    return [Scene(digit, color, OTHERS[color][k]) for (digit, color), k in zip(pairs, backgrounds, strict=True)]


def _real(scenes: Sequence[Scene], mnist: data.Pictures, rng: np.random.Generator) -> Tensor:
    """The scenes with digits that somebody wrote, (N, 3, 32, 32) in [-1, 1]."""
    shuffled = rng.permutation(len(mnist))
    rows = [shuffled[mnist.labels[shuffled] == digit] for digit in range(10)]
    picked = [rows[scene.digit][i % len(rows[scene.digit])] for i, scene in enumerate(scenes)]
    return draw(scenes, mnist.images[torch.tensor(picked)])


EVALUATIONS["color_digits"] = Evaluation(
    "digit and colours as asked for, at several scales", evaluate_color, "color_digits"
)
