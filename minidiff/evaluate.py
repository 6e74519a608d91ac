"""How good are generated digits? Two numbers, each beside what real digits get.

The judge is a small classifier trained on real digits. Its answers give the digit accuracy, its 64
features the Frechet distance.
"""

import platform
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from minidiff import data
from minidiff.files import asset
from minidiff.networks import Judge
from minidiff.pipeline import TextToImage, load_weights


def load_judge(device: torch.device | str = "cpu", folder: Path | None = None) -> Judge:
    """The shipped judge, or the one in `folder`, ready to judge: pictures (B, 1, 28, 28) in [-1, 1]."""
    judge = Judge()
    load_weights(judge, (folder or asset("weights/judge")) / "model.safetensors")
    return judge.eval().requires_grad_(False).to(device)


@torch.no_grad()
def judged(judge: Judge, pictures: Tensor) -> tuple[Tensor, Tensor]:
    """The judge's features (N, 64) in float64 and its answers (N,), for pictures in [-1, 1]."""
    features = torch.cat([judge.features(part) for part in pictures.split(500)])
    return features.double().cpu(), judge.classify(features).argmax(1).cpu()


def judge_accuracy(judge: Judge, split: str) -> float:
    """Share of the real digits of `split` that the judge reads right."""
    digits = data.mnist(split)
    _, answers = judged(judge, digits.images.to(next(judge.parameters()).device))
    return float((answers == digits.labels).double().mean())


def frechet(a: Tensor, b: Tensor) -> float:
    """The Frechet distance between two clouds of features, (N, D) and (M, D), taken as Gaussians.

    |mean_a - mean_b|^2 + trace(A + B - 2 (A B)^(1/2)). Dowson and Landau 1982; Heusel et al. 2017.
    It grows as N shrinks, so only compare at equal N. Raises ValueError for fewer than two rows.
    """
    if min(len(a), len(b)) < 2:
        raise ValueError("a covariance needs at least two pictures on each side")
    a, b = a.double(), b.double()
    cov_a, cov_b = a.T.cov(), b.T.cov()
    # the trace of the root of A B is that of the symmetric root(A) B root(A), which eigh can do
    values, vectors = torch.linalg.eigh(cov_a)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    cross = torch.linalg.eigvalsh(root @ cov_b @ root).clamp(min=0).sqrt().sum()
    return float((a.mean(0) - b.mean(0)).square().sum() + cov_a.trace() + cov_b.trace() - 2 * cross)


def floor(features: Tensor, n: int, draws: int = 20, seed: int = 0) -> tuple[float, float]:
    """What n real pictures score against the other real ones: mean and standard deviation over draws.

    No generator can be expected to come below it at this n.
    """
    generator = torch.Generator().manual_seed(seed)
    orders = [torch.randperm(len(features), generator=generator) for _ in range(draws)]
    scores = torch.tensor([frechet(features[order[:n]], features[order[n:]]) for order in orders])
    return float(scores.mean()), float(scores.std())


@dataclass(frozen=True)
class Report:
    """What `minidiff evaluate` measured, and with what."""

    model: str
    n: int
    split: str
    seed: int
    scale: float
    sampler: str
    steps: int
    machine: str
    accuracy: float  # share of pictures that the judge reads as the digit asked for
    accuracy_real: float  # the same for real digits
    frechet: float
    frechet_floor: float  # real against real at the same n
    frechet_floor_std: float  # between draws of the real n

    def __str__(self) -> str:
        rows = [
            ("digit accuracy", f"{self.accuracy:.1%}", f"{self.accuracy_real:.1%}"),
            ("Frechet distance", f"{self.frechet:.2f}", f"{self.frechet_floor:.2f} +- {self.frechet_floor_std:.2f}"),
            ("  ratio to the floor", f"{self.frechet / self.frechet_floor:.2f}", "1"),
        ]
        lines = [f"{'':22}{'generated':>12}{'real':>16}"]
        lines += [f"{name:22}{value:>12}{real:>16}" for name, value, real in rows]
        lines += [
            f"{self.model}: n = {self.n}, seed {self.seed}, scale {self.scale:g}, {self.steps} steps of {self.sampler}",
            f"real digits: {self.split} split, {self.n} against the rest; machine: {self.machine}",
        ]
        return "\n".join(lines)


def evaluate(
    pipe: TextToImage, n: int = 1000, *, split: str = "test", scale: float | None = None, sampler: str = "dpmpp_2m",
    steps: int = 20, seed: int = 0, progress=lambda iterable, **_: iterable,
) -> Report:  # fmt: skip
    """Draw n digits and compare them with real ones of `split` that training never saw.

    The digits asked for are the labels of n real ones, so that both have the same mix of classes. progress:
    wraps the loop, such as tqdm. Raises ValueError where n is too large or too small for the split.
    """
    real = data.mnist(split)
    if not 65 <= n <= len(real) // 2:
        raise ValueError(f"n must lie between 65 (a covariance of 64 features) and {len(real) // 2}, got {n}")
    scale = pipe.config.scale if scale is None else scale
    judge = load_judge(pipe.device)
    real_features, real_answers = judged(judge, real.images.to(pipe.device))
    order = torch.randperm(len(real), generator=torch.Generator().manual_seed(seed))
    wanted = real.labels[order[:n]]

    pictures = []
    for part in progress(wanted.split(100), unit="00 pictures"):
        prompts = [str(digit) for digit in part.tolist()]
        first = seed + 100 * len(pictures)  # every picture has a seed of its own
        pictures.append(pipe.decode(pipe.latents(prompts, steps=steps, scale=scale, sampler=sampler, seed=first)))
    features, answers = judged(judge, torch.cat(pictures) * 2 - 1)

    floor_mean, floor_std = floor(real_features, n, seed=seed)
    return Report(
        model=pipe.config.name, n=n, split=split, seed=seed, scale=scale, sampler=sampler, steps=steps,
        machine=machine(pipe.device),
        accuracy=float((answers == wanted).double().mean()),
        accuracy_real=float((real_answers == real.labels).double().mean()),
        frechet=frechet(features, real_features[order[n:]]),
        frechet_floor=floor_mean,
        frechet_floor_std=floor_std,
    )  # fmt: skip


def machine(device: torch.device) -> str:
    """What the numbers were measured on, in words."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return f"{device.type} ({name}, {torch.get_num_threads()} threads), torch {torch.__version__}"
