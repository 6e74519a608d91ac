"""How good are generated digits? Several numbers, each beside what real digits get.

The judge is a small classifier trained on real digits. Its answers give the digit accuracy, its 64 features
the space in which the other numbers are measured. What each number means, and how it is fooled: minidiff/evaluation/metrics.py
and lesson 04.
"""

import dataclasses
import json
import platform
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from minidiff import data
from minidiff.evaluation.metrics import (
    bootstrap,
    calibration_error,
    diversity,
    floor,
    frechet,
    memorisation,
    precision_recall,
)
from minidiff.files import asset, load_weights, read_tensors
from minidiff.networks import Judge
from minidiff.pipeline.text_to_image import TextToImage

Features = Callable[[Tensor], Tensor]  # pictures (N, C, H, W) in [-1, 1] -> features (N, D)


def load_judge(device: torch.device | str = "cpu", folder: Path | None = None) -> Judge:
    """The shipped judge, or the one in `folder`, ready to judge: pictures (B, 1, 28, 28) in [-1, 1]."""
    judge = Judge()
    load_weights(judge, (folder or asset("weights/judge")) / "model.safetensors")
    return judge.eval().requires_grad_(False).to(device)


@torch.no_grad()
def judged(judge: Judge, pictures: Tensor) -> tuple[Tensor, Tensor]:
    """The judge's features (N, 64) in float64 and its answers (N,), for pictures in [-1, 1]."""
    device = next(judge.parameters()).device
    features = torch.cat([judge.features(part.to(device)) for part in pictures.split(500)])
    return features.double().cpu(), judge.classify(features).argmax(1).cpu()


@torch.no_grad()
def confidence(judge: Judge, features: Tensor) -> Tensor:
    """How sure the judge is of its answers, (N,) in [0, 1], from its features (N, 64)."""
    device = next(judge.parameters()).device
    return judge.classify(features.float().to(device)).softmax(1).amax(1).cpu()


def judge_accuracy(judge: Judge, split: str) -> float:
    """Share of the real digits of `split` that the judge reads right."""
    digits = data.mnist(split)
    return float((judged(judge, digits.images)[1] == digits.labels).double().mean())


def inception(weights: Path, device: torch.device | str = "cpu") -> Features:
    """The 2,048 features that published FIDs are measured in, for pictures of any size, gray or RGB.

    torchmetrics' Inception v3 (it resizes to 299x299). weights: a safetensors file with the tensors of torch-fidelity's
    weights-inception-2015-12-05-6726825d.pth; the README says how to make it. Raises ValueError if it is not that.
    """
    try:
        from torchmetrics.image.fid import NoTrainInceptionV3

        with tempfile.TemporaryDirectory() as folder:
            torch.save(read_tensors(weights), Path(folder) / "weights.pth")  # the only kind that its constructor reads
            net = NoTrainInceptionV3("inception", ["2048"], str(Path(folder) / "weights.pth")).to(device)
    except ModuleNotFoundError:
        raise ValueError("Inception features need two more packages: pip install torchmetrics torch-fidelity") from None
    except RuntimeError as error:
        raise ValueError(f"{weights} does not hold Inception's weights:{str(error).splitlines()[1]}") from None

    @torch.no_grad()
    def features(pictures: Tensor) -> Tensor:
        parts = ((part + 1) * 127.5 for part in pictures.expand(-1, 3, -1, -1).split(50))
        return torch.cat([net(part.round().byte().to(device)).double().cpu() for part in parts])

    return features


@dataclass(frozen=True)
class Report:
    """What `minidiff evaluate` measured, and with what. `_real`: what real pictures get in the same place."""

    model: str
    n: int
    split: str
    seed: int
    scale: float
    sampler: str
    steps: int
    features: str
    machine: str
    accuracy: float | None  # share of pictures that the judge reads as the digit asked for; None: no digits
    accuracy_real: float | None
    calibration: float | None  # the judge's expected calibration error: how far its confidence is from its accuracy
    calibration_real: float | None
    frechet: float
    frechet_error: float  # standard error, by bootstrap
    frechet_floor: float  # real against real at the same n
    frechet_floor_std: float  # between draws of the real n
    diversity: float  # mean distance within a class, as a share of that of real pictures
    precision: float
    precision_real: float
    recall: float
    recall_real: float
    memorisation: float  # distance to the nearest training picture, over that to the nearest held-out one
    memorisation_real: float

    def json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=2)

    def __str__(self) -> str:
        low, high = (max(0.0, self.frechet + side * 1.96 * self.frechet_error) for side in (-1, 1))
        judged = [] if self.accuracy is None else [
            ("digit accuracy", f"{self.accuracy:.1%}", f"{self.accuracy_real:.1%}"),
            ("  the judge's calibration error", f"{self.calibration:.3f}", f"{self.calibration_real:.3f}"),
        ]  # fmt: skip
        rows = judged + [
            ("Frechet distance", f"{self.frechet:.2f}", f"{self.frechet_floor:.2f} +- {self.frechet_floor_std:.2f}"),
            ("  95 % interval (bootstrap)", f"{low:.2f} to {high:.2f}", ""),
            ("  ratio to the floor", f"{self.frechet / self.frechet_floor:.2f}", "1"),
            ("diversity within a class", f"{self.diversity:.1%}", "100%"),
            ("precision", f"{self.precision:.3f}", f"{self.precision_real:.3f}"),
            ("recall", f"{self.recall:.3f}", f"{self.recall_real:.3f}"),
            ("memorisation ratio", f"{self.memorisation:.3f}", f"{self.memorisation_real:.3f}"),
        ]
        lines = [f"{'':33}{'generated':>14}{'real':>16}"]
        lines += [f"{name:33}{value:>14}{real:>16}" for name, value, real in rows]
        lines += [
            f"{self.model}: n = {self.n}, seed {self.seed}, scale {self.scale:g}, {self.steps} steps of {self.sampler}",
            f"real pictures: {self.split} split, {self.n} against the rest; features: {self.features}",
            f"machine: {self.machine}",
        ]
        return "\n".join(lines)


def evaluate(
    pipe: TextToImage, n: int = 1000, *, split: str = "test", scale: float | None = None, sampler: str = "dpmpp_2m",
    steps: int = 20, seed: int = 0, features: Features | None = None, progress=lambda iterable, **_: iterable,
) -> Report:  # fmt: skip
    """Draw n pictures and compare them with real ones of `split` that training never saw.

    The classes asked for are those of n real pictures, so that both have the same mix. These n are measured like the
    generated ones; the rest of the split is what both are compared with. features: the space to measure in, None
    for the judge's, which knows digits only. progress: wraps the loop, such as tqdm.
    Raises ValueError where n is too large or too small for the split, or where photographs are to be judged.
    """
    digits = pipe.config.labels == "digits"
    if not digits and features is None:
        raise ValueError(f"the judge reads digits, not {pipe.config.labels}: measure in Inception's features")
    pictures_of = data.mnist if digits else data.cifar10
    real = pictures_of(split)
    if not 65 <= n <= len(real) // 2:
        raise ValueError(f"n must lie between 65 (a covariance of 64 features) and {len(real) // 2}, got {n}")
    scale = pipe.config.scale if scale is None else scale
    order = torch.randperm(len(real), generator=torch.Generator().manual_seed(seed))
    one, rest = order[:n], order[n:]  # the real pictures that play the generator's part, and what all are compared with
    wanted = real.labels[one]

    classes, _ = data.LABELS[pipe.config.labels]
    prompts = [classes[label] for label in wanted.tolist()]
    pictures = drawn(pipe, prompts, seed, progress, steps=steps, scale=scale, sampler=sampler)

    of_judge = dict.fromkeys(("accuracy", "accuracy_real", "calibration", "calibration_real"))
    if digits:
        judge, clouds = load_judge(pipe.device), []
        for name, shown, labels in (("", pictures, wanted), ("_real", real.images, real.labels)):
            seen, answers = judged(judge, shown)
            clouds.append(seen)
            of_judge["accuracy" + name] = float((answers == labels).double().mean())
            of_judge["calibration" + name] = calibration_error(confidence(judge, seen), answers == labels)
    fake, known = (features(pictures), features(real.images)) if features else clouds
    floor_mean, floor_std = floor(known, n, seed=seed)
    precision, recall = precision_recall(known[rest[:n]], fake)
    precision_real, recall_real = precision_recall(known[rest[:n]], known[one])
    train = pictures_of("train").images
    return Report(
        model=pipe.config.name, n=n, split=split, seed=seed, scale=scale, sampler=sampler, steps=steps,
        features="Inception's" if features else "the judge's", machine=machine(pipe.device),
        **of_judge,
        frechet=frechet(fake, known[rest]),
        frechet_error=float(bootstrap(lambda rows: frechet(rows, known[rest]), fake, seed=seed).std()),
        frechet_floor=floor_mean,
        frechet_floor_std=floor_std,
        diversity=diversity(fake, wanted) / diversity(known[one], wanted),
        precision=precision,
        precision_real=precision_real,
        recall=recall,
        recall_real=recall_real,
        memorisation=memorisation(pictures, train, real.images[rest]),
        memorisation_real=memorisation(real.images[one], train, real.images[rest]),
    )  # fmt: skip


def drawn(pipe: TextToImage, prompts: list[str], seed: int, progress=lambda parts, **_: parts, **how) -> Tensor:
    """A picture of each prompt, (N, C, H, W) in [-1, 1], a hundred at a time; picture k has the seed `seed` + k.

    progress: wraps the loop, such as tqdm. how: options of `TextToImage.stream`.
    """
    parts = [prompts[i : i + 100] for i in range(0, len(prompts), 100)]
    pictures = [
        pipe.decode(pipe.latents(part, seed=seed + 100 * k, **how)).cpu()
        for k, part in enumerate(progress(parts, unit="00 pictures"))
    ]
    return torch.cat(pictures) * 2 - 1


def machine(device: torch.device) -> str:
    """What the numbers were measured on, in words."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return f"{device.type} ({name}, {torch.get_num_threads()} threads), torch {torch.__version__}"
