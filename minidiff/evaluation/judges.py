"""The classifiers that evaluate images, and the features in which images are compared."""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from minidiff.data.emoji import STYLES
from minidiff.files import read_tensors
from minidiff.networks import Judge, StyleJudge
from minidiff.registry import UserError

Features = Callable[[Tensor], Tensor]  # images (N, C, H, W) in [-1, 1] -> features (N, D)


@torch.no_grad()
def judged(judge: Judge, images: Tensor) -> tuple[Tensor, Tensor]:
    """The judge's features (N, 64) in float64 and its answers (N,), for digits (N, 1, 28, 28) in [-1, 1]."""
    device = next(judge.parameters()).device
    features = torch.cat([judge.features(part.to(device)) for part in images.split(500)])
    return features.double().cpu(), judge.classify(features).argmax(1).cpu()


@torch.no_grad()
def in_style(judge: StyleJudge, images: Tensor, styles: Sequence[str]) -> Tensor:
    """Does the judge read each image (N, 3, 64, 64) in [-1, 1] as this style? (N,) bool."""
    device = next(judge.parameters()).device
    answers = torch.cat([judge(part.to(device)).argmax(1).cpu() for part in images.split(500)])
    return answers == torch.tensor([STYLES.index(style) for style in styles])


def inception(weights: Path, device: torch.device | str = "cpu") -> Features:
    """The 2,048 features that published FIDs are measured in, for images of any size, gray or RGB: torchmetrics' Inception v3.

    weights: a safetensors file with the tensors of torch-fidelity's weights-inception-2015-12-05-6726825d.pth;
    benchmarks/README.md says how to make it. Raises UserError for another.
    """
    try:
        from torchmetrics.image.fid import NoTrainInceptionV3

        with tempfile.TemporaryDirectory() as folder:
            torch.save(read_tensors(weights), Path(folder) / "weights.pth")  # the only kind that its constructor reads
            net = NoTrainInceptionV3("inception", ["2048"], str(Path(folder) / "weights.pth")).to(device)
    except ModuleNotFoundError:
        raise UserError("Inception features need two more packages: pip install torchmetrics torch-fidelity") from None
    except RuntimeError as error:
        raise UserError(f"{weights} does not hold Inception's weights:{str(error).splitlines()[1]}") from None

    @torch.no_grad()
    def features(images: Tensor) -> Tensor:
        parts = ((part + 1) * 127.5 for part in images.expand(-1, 3, -1, -1).split(50))
        return torch.cat([net(part.round().byte().to(device)).double().cpu() for part in parts])

    return features
