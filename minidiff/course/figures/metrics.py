"""Which metric notices what? Real digits, damaged on purpose, and how the metrics respond."""

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
from minidiff.evaluation.judges import judged
from minidiff.formats.model_folder import load_classifier
from minidiff.networks import Judge
from minidiff.registry import check_between, choose, register

CLASSES = len(data.CLASSES)
DAMAGES: dict[str, Callable] = {}  # set in the second half of this file
DRAWS, BAND = 20, 3  # the band: mean of 20 samples of fresh real digits, plus or minus 3 standard deviations
ROWS = {  # metric: what it is called on the page, the least and the most that its bar can show
    "accuracy": ("digit accuracy", 0, 1),
    "frechet": ("Frechet / floor (log)", 0.5, 2000),
    "precision": ("precision", 0, 1),
    "recall": ("recall", 0, 1),
    "diversity": ("diversity / real", 0, 4),
    "memorisation": ("memorisation", 0, 1.2),
}


class Digits(NamedTuple):
    """Digits as a generative model would produce them."""

    images: Tensor  # (n, 1, 28, 28) in [-1, 1]
    asked: Tensor  # (n,) the digit that each should show

    def take(self, rows: Tensor) -> "Digits":
        return Digits(self.images[rows], self.asked[rows])


class Real(NamedTuple):
    """Real digits, in three parts: to sample from, to compare with, and those that a model was trained on."""

    judge: Judge
    pool: Digits  # 3,000 validation digits
    features: Tensor  # of the pool, (3000, 64)
    answers: Tensor  # the judge's, of the pool
    heldout: Digits  # the other 2,000
    known: Tensor  # their features
    train: Digits  # 2,000 training digits


@register(FIGURES)
def metric(damage: str, amount: float, n: int = 500, seed: int = 0) -> Image.Image:
    """n real validation digits with one kind of damage; the metrics that leave the band of n fresh real digits notice it.

    damage: a name in DAMAGES. amount: from 0, none, to 1. n: from 100 to 500. Raises UserError for other values.
    """
    harm = choose(damage, DAMAGES, "damage")
    check_between("amount", amount, 0, 1)
    check_between("n", n, 100, 500)
    generator, real = Generator().manual_seed(seed), _real()
    digits, words = harm(real, torch.randperm(len(real.features), generator=generator)[:n], amount, generator)
    found = measured(real, digits, *judged(real.judge, digits.images))
    means, stds = _band(n)
    with Page(WIDTH, 474) as page:
        page.text(16, 10, words, weight="bold")
        sheet = torch.ones(1, 180, 73 * CLASSES - 17)  # one picture: thirty would take half a second
        for label in range(CLASSES):
            page.text(16 + 73 * label, 38, f"asked {label}", color=GRAY, fontsize=9)
            for k, image in enumerate(digits.images[digits.asked == label][:3]):
                large = image.repeat_interleave(2, dim=1).repeat_interleave(2, dim=2)
                sheet[:, 62 * k : 62 * k + 56, 73 * label : 73 * label + 56] = (large + 1) / 2
        page.picture(sheet, 16, 56, sheet.shape[2])
        for k, (name, (called, least, most)) in enumerate(ROWS.items()):
            unit = means[name] if name in ("frechet", "diversity") else 1.0
            value, middle, margin = found[name] / unit, means[name] / unit, BAND * stds[name] / unit
            noticed = abs(value - middle) > margin
            top, colour = 254 + 32 * k, ORANGE if noticed else BLUE
            page.text(16, top + 4, called)
            scale = "log" if name == "frechet" else "linear"
            bar = page.axes(166, top, 330, 22, xscale=scale, xlim=(least, most), ylim=(0, 1), yticks=[])
            bar.xaxis.set_visible(False)
            bar.axvspan(middle - margin, middle + margin, color=GRAY, alpha=0.4, lw=0)
            bar.barh([0.5], [max(value, least) - least], 0.5, [least], color=colour)
            written, usual = (f"{v:.3f}" if v < 10 else f"{v:.3g}" for v in (value, middle))
            page.text(510, top + 4, written, color=colour, weight="bold")
            page.text(570, top + 4, f"real {usual}", color=GRAY)
            page.text(670, top + 4, "noticed" * noticed, color=ORANGE, weight="bold")
        words = f"n = {n}; gray: n real digits (mean ± {BAND} standard deviations over {DRAWS} samples of them)"
        page.text(16, 450, words, color=GRAY, fontsize=9)
        return page.image()


def measured(real: Real, digits: Digits, features: Tensor, answers: Tensor) -> dict[str, float]:
    """Every metric of ROWS, by name, in their order."""
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
    ours, train = (Digits(each.images, each.labels) for each in map(data.mnist, ("validation", "train")))
    first, last = torch.randperm(len(ours.images), generator=generator).tensor_split([3000])
    learned = train.take(torch.randperm(len(train.images), generator=generator)[: len(last)])
    judge = load_classifier("judge")
    features, answers = judged(judge, ours.images)
    return Real(judge, ours.take(first), features[first], answers[first], ours.take(last), features[last], learned)


@cache
def _band(n: int) -> tuple[dict[str, float], dict[str, float]]:
    """Mean and standard deviation of every metric over samples of n real digits."""
    real, generator = _real(), Generator().manual_seed(1)
    draws = []
    for _ in range(DRAWS):
        rows = torch.randperm(len(real.features), generator=generator)[:n]
        draws.append(measured(real, real.pool.take(rows), real.features[rows], real.answers[rows]))
    std, mean = torch.std_mean(torch.tensor([[*draw.values()] for draw in draws], dtype=torch.float64), 0)
    return dict(zip(ROWS, mean.tolist(), strict=True)), dict(zip(ROWS, std.tolist(), strict=True))


# The damages: (real digits, rows of the pool, amount, generator) -> the digits, and what was done in words ------


@register(DAMAGES, "blur")
def _blur(real: Real, rows: Tensor, amount: float, generator: Generator) -> tuple[Digits, str]:
    digits, width = real.pool.take(rows), 2 * amount
    kernel = (-torch.arange(-6.0, 7.0).square() / (2 * max(width, 0.01) ** 2)).exp()
    kernel /= kernel.sum()
    images = F.pad(digits.images, (6, 6, 6, 6), value=-1)  # paper around
    images = F.conv2d(F.conv2d(images, kernel[None, None, None]), kernel[None, None, :, None])
    return digits._replace(images=images), f"blurred by a Gaussian with a standard deviation of {width:.2f} pixels"


@register(DAMAGES, "noise")
def _noise(real: Real, rows: Tensor, amount: float, generator: Generator) -> tuple[Digits, str]:
    images, strength = real.pool.images[rows], 0.4 * amount
    images = (images + strength * torch.randn(images.shape, generator=generator)).clamp(-1, 1)
    return Digits(images, real.pool.asked[rows]), f"noise with a standard deviation of {strength:.2f} added"


@register(DAMAGES, "missing classes")
def _missing_classes(real: Real, rows: Tensor, amount: float, generator: Generator) -> tuple[Digits, str]:
    left = CLASSES - round((CLASSES - 2) * amount)
    order = torch.cat([rows, torch.randperm(len(real.features), generator=generator)])
    order = order[real.pool.asked[order] < left]
    rows = torch.tensor(list(dict.fromkeys(order.tolist()))[: len(rows)])  # each once
    return real.pool.take(rows), f"only {left} of {CLASSES} classes occur"


@register(DAMAGES, "missing styles")
def _missing_styles(real: Real, rows: Tensor, amount: float, generator: Generator) -> tuple[Digits, str]:
    fraction = 1 - amount * (1 - len(rows) / len(real.features))  # no less: each is drawn once

    def pick(ours: Tensor, all_of_class: Tensor) -> Tensor:
        features = real.features[all_of_class]
        usual = all_of_class[(features - features.mean(0)).norm(dim=1).argsort()]
        usual = usual[: max(len(ours), round(fraction * len(usual)))]
        return usual[torch.randperm(len(usual), generator=generator)[: len(ours)]]

    return _within_classes(real, rows, pick), f"only the {100 * fraction:.0f} % most typical digits of each class"


@register(DAMAGES, "repeats")
def _repeats(real: Real, rows: Tensor, amount: float, generator: Generator) -> tuple[Digits, str]:
    def pick(ours: Tensor, all_of_class: Tensor) -> Tensor:
        different = max(1, round((1 - amount) * len(ours)))
        return ours[torch.arange(len(ours)) % different]

    digits = _within_classes(real, rows, pick)
    return digits, f"{len(rows)} images of {len(digits.images.flatten(1).unique(dim=0))} different digits"


@register(DAMAGES, "copies of training digits")
def _copies(real: Real, rows: Tensor, amount: float, generator: Generator) -> tuple[Digits, str]:
    digits, many = real.pool.take(rows), round(amount * len(rows))
    for label in range(CLASSES):
        ours = (digits.asked[:many] == label).nonzero().flatten()
        digits.images[ours] = real.train.images[real.train.asked == label][: len(ours)]
    return digits, f"{many} of {len(rows)} are copies of training digits"


@register(DAMAGES, "wrong labels")
def _wrong_labels(real: Real, rows: Tensor, amount: float, generator: Generator) -> tuple[Digits, str]:
    asked, many = real.pool.asked[rows].clone(), round(amount * len(rows))
    asked[:many] = (asked[:many] + torch.randint(1, CLASSES, (many,), generator=generator)) % CLASSES
    return Digits(real.pool.images[rows], asked), f"{many} of {len(rows)} show another digit than the one asked for"


def _within_classes(real: Real, rows: Tensor, pick: Callable[[Tensor, Tensor], Tensor]) -> Digits:
    """Each class's rows replaced by others of the same class: pick(those, all rows of the class)."""
    asked, rows = real.pool.asked[rows], rows.clone()
    for label in range(CLASSES):
        rows[asked == label] = pick(rows[asked == label], (real.pool.asked == label).nonzero().flatten())
    return real.pool.take(rows)
