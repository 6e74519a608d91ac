"""Which number notices what? Real digits, damaged on purpose, and what the measures say about them."""

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Generator, Tensor

from minidiff import data
from minidiff.course.figures.page import BLUE, FIGURES, GRAY, ORANGE, WIDTH, Page
from minidiff.evaluation import metrics
from minidiff.evaluation.digits import judged, load_judge
from minidiff.networks import Judge
from minidiff.registry import choose, register

DRAWS, BAND = 20, 3  # the band: mean of 20 draws of fresh real digits, give or take 3 standard deviations
ROWS = {  # measure: what it is called on the page, the least and the most that its bar can show
    "accuracy": ("digit accuracy", 0, 1),
    "frechet": ("Frechet / floor (log)", 0.5, 2000),
    "precision": ("precision", 0, 1),
    "recall": ("recall", 0, 1),
    "diversity": ("diversity / real", 0, 4),
    "memorisation": ("memorisation", 0, 1.2),
}


class Digits(NamedTuple):
    """Digits as a generator would hand them in."""

    images: Tensor  # (n, 1, 28, 28) in [-1, 1]
    asked: Tensor  # (n,) the digit that each should show


class Real(NamedTuple):
    """Real digits, in three parts: to draw from, to compare with, and those that a generator was trained on."""

    judge: Judge
    pool: Digits  # 3,000 validation digits
    features: Tensor  # of the pool, (3000, 64)
    answers: Tensor  # the judge's, of the pool
    heldout: Digits  # the other 2,000
    known: Tensor  # their features
    train: Digits  # 2,000 training digits


@register(FIGURES)
def metric(damage: str, amount: float, n: int = 500, seed: int = 0) -> Image.Image:
    """n real validation digits with one kind of damage, and which measures notice it.

    damage: a name in DAMAGES. amount: from 0, none, to 1. A measure notices if it leaves the band in which n fresh
    real digits fall. n: from 100 to 500.
    """
    harm = choose(damage, DAMAGES, "damage")
    if not 0 <= amount <= 1:
        raise ValueError(f"amount must lie in [0, 1], got {amount}")
    if not 100 <= n <= 500:
        raise ValueError(f"n must lie between 100 and 500, got {n}")
    generator = Generator().manual_seed(seed)
    real = _real()
    digits, words = harm(real, torch.randperm(len(real.features), generator=generator)[:n], amount, generator)
    found = measured(real, digits, *judged(real.judge, digits.images))
    means, spreads = _band(n)

    with Page(WIDTH, 474) as page:
        page.text(16, 10, words, weight="bold")
        sheet = torch.ones(1, 180, 713)  # one picture: thirty would take half a second
        for label in range(10):
            page.text(16 + 73 * label, 38, f"asked {label}", color=GRAY, fontsize=9)
            for k, image in enumerate(digits.images[digits.asked == label][:3]):
                large = image.repeat_interleave(2, dim=1).repeat_interleave(2, dim=2)
                sheet[:, 62 * k : 62 * k + 56, 73 * label : 73 * label + 56] = (large + 1) / 2
        page.picture(sheet, 16, 56, 713)
        for k, (name, (called, least, most)) in enumerate(ROWS.items()):
            unit = means[name] if name in ("frechet", "diversity") else 1.0
            value, middle, spread = found[name] / unit, means[name] / unit, BAND * spreads[name] / unit
            noticed = abs(value - middle) > spread
            top, colour = 254 + 32 * k, ORANGE if noticed else BLUE
            page.text(16, top + 4, called)
            scale = "log" if name == "frechet" else "linear"
            bar = page.axes(166, top, 330, 22, xscale=scale, xlim=(least, most), ylim=(0, 1), yticks=[])
            bar.xaxis.set_visible(False)
            bar.axvspan(middle - spread, middle + spread, color=GRAY, alpha=0.4, lw=0)
            bar.barh([0.5], [max(value, least) - least], 0.5, [least], color=colour)
            page.text(510, top + 4, _plain(value), color=colour, weight="bold")
            page.text(570, top + 4, f"real {_plain(middle)}", color=GRAY)
            page.text(670, top + 4, "noticed" * noticed, color=ORANGE, weight="bold")
        words = f"n = {n}; gray: where n fresh real digits fall (mean ± {BAND} standard deviations of {DRAWS} draws)"
        page.text(16, 450, words, color=GRAY, fontsize=9)
        return page.image()


def measured(real: Real, digits: Digits, features: Tensor, answers: Tensor) -> dict[str, float]:
    """Every measure of ROWS, by name."""
    n = len(answers)
    precision, recall = metrics.precision_recall(real.known[:n], features)
    return {
        "accuracy": float((answers == digits.asked).double().mean()),
        "frechet": metrics.frechet(features, real.known),
        "precision": precision,
        "recall": recall,
        "diversity": metrics.diversity(features, digits.asked),
        "memorisation": metrics.memorisation(digits.images, real.train.images, real.heldout.images),
    }


@cache
def _real() -> Real:
    generator = Generator().manual_seed(0)
    ours, train = (data.mnist(split) for split in ("validation", "train"))
    order = torch.randperm(len(ours), generator=generator)
    first, last = order[:3000], order[3000:]
    learned = torch.randperm(len(train), generator=generator)[: len(last)]
    judge = load_judge()
    features, answers = judged(judge, ours.images)
    return Real(
        judge,
        Digits(ours.images[first], ours.labels[first]),
        features[first],
        answers[first],
        Digits(ours.images[last], ours.labels[last]),
        features[last],
        Digits(train.images[learned], train.labels[learned]),
    )


@cache
def _band(n: int) -> tuple[dict[str, float], dict[str, float]]:
    """Mean and standard deviation of every measure between draws of n real digits."""
    real, generator = _real(), Generator().manual_seed(1)
    draws = []
    for _ in range(DRAWS):
        rows = torch.randperm(len(real.features), generator=generator)[:n]
        digits = Digits(real.pool.images[rows], real.pool.asked[rows])
        draws.append(measured(real, digits, real.features[rows], real.answers[rows]))
    values = {name: torch.tensor([draw[name] for draw in draws], dtype=torch.float64) for name in ROWS}
    return {k: float(v.mean()) for k, v in values.items()}, {k: float(v.std()) for k, v in values.items()}


def _plain(value: float) -> str:
    return f"{value:.3f}" if value < 10 else f"{value:.3g}"


# The damages: (real digits, rows of the pool, amount, random numbers) -> the digits, and what was done in words ------


def _blur(real: Real, rows: Tensor, amount: float, generator: Generator) -> tuple[Digits, str]:
    width = 2 * amount
    kernel = (-torch.arange(-6.0, 7.0).square() / (2 * max(width, 0.01) ** 2)).exp()
    kernel /= kernel.sum()
    images = F.pad(real.pool.images[rows], (6, 6, 6, 6), value=-1)  # paper around
    images = F.conv2d(F.conv2d(images, kernel[None, None, None]), kernel[None, None, :, None])
    return Digits(
        images, real.pool.asked[rows]
    ), f"blurred by a Gaussian with a standard deviation of {width:.2f} pixels"


def _noise(real: Real, rows: Tensor, amount: float, generator: Generator) -> tuple[Digits, str]:
    images, strength = real.pool.images[rows], 0.4 * amount
    images = (images + strength * torch.randn(images.shape, generator=generator)).clamp(-1, 1)
    return Digits(images, real.pool.asked[rows]), f"noise with a standard deviation of {strength:.2f} added"


def _missing_classes(real: Real, rows: Tensor, amount: float, generator: Generator) -> tuple[Digits, str]:
    left = 10 - round(8 * amount)
    order = torch.cat([rows, torch.randperm(len(real.features), generator=generator)])
    order = order[real.pool.asked[order] < left]
    rows = torch.tensor(list(dict.fromkeys(order.tolist()))[: len(rows)])  # each once
    return Digits(real.pool.images[rows], real.pool.asked[rows]), f"{left} of 10 classes are drawn"


def _missing_styles(real: Real, rows: Tensor, amount: float, generator: Generator) -> tuple[Digits, str]:
    share = 1 - amount * (1 - len(rows) / len(real.features))  # no less: each is drawn once

    def choose(ours: Tensor, all_of_class: Tensor) -> Tensor:
        features = real.features[all_of_class]
        usual = all_of_class[(features - features.mean(0)).norm(dim=1).argsort()]
        usual = usual[: max(len(ours), round(share * len(usual)))]
        return usual[torch.randperm(len(usual), generator=generator)[: len(ours)]]

    return _within_classes(real, rows, choose), f"drawn from the most usual {100 * share:.0f} % of each class"


def _repeats(real: Real, rows: Tensor, amount: float, generator: Generator) -> tuple[Digits, str]:
    def choose(ours: Tensor, all_of_class: Tensor) -> Tensor:
        different = max(1, round((1 - amount) * len(ours)))
        return ours[torch.arange(len(ours)) % different]

    digits = _within_classes(real, rows, choose)
    different = len(digits.images.flatten(1).unique(dim=0))
    return digits, f"{len(rows)} pictures, of {different} different digits"


def _copies(real: Real, rows: Tensor, amount: float, generator: Generator) -> tuple[Digits, str]:
    digits, many = Digits(real.pool.images[rows].clone(), real.pool.asked[rows]), round(amount * len(rows))
    for label in range(10):
        ours = (digits.asked[:many] == label).nonzero().flatten()
        digits.images[ours] = real.train.images[real.train.asked == label][: len(ours)]
    return digits, f"{many} of {len(rows)} are copies of training digits"


def _wrong_labels(real: Real, rows: Tensor, amount: float, generator: Generator) -> tuple[Digits, str]:
    asked, many = real.pool.asked[rows].clone(), round(amount * len(rows))
    asked[:many] = (asked[:many] + torch.randint(1, 10, (many,), generator=generator)) % 10
    return Digits(real.pool.images[rows], asked), f"{many} of {len(rows)} show another digit than the one asked for"


def _within_classes(real: Real, rows: Tensor, choose: Callable[[Tensor, Tensor], Tensor]) -> Digits:
    """Other rows of the same class in the place of each class's rows: choose(those, all rows of the class)."""
    asked, rows = real.pool.asked[rows], rows.clone()
    for label in range(10):
        rows[asked == label] = choose(rows[asked == label], (real.pool.asked == label).nonzero().flatten())
    return Digits(real.pool.images[rows], asked)


DAMAGES = {
    "blur": _blur,
    "noise": _noise,
    "missing classes": _missing_classes,
    "missing styles": _missing_styles,
    "repeats": _repeats,
    "copies of training digits": _copies,
    "wrong labels": _wrong_labels,
}
