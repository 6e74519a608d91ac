"""Training the noisy classifier: as the judge, but on pictures as a sampler meets them on its way."""

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from minidiff import data
from minidiff.diffusion import SCHEDULES
from minidiff.networks import Fold, NoisyClassifier
from minidiff.training.recipes.judge import train_classifier


def train_noisy_classifier(
    folder: Path, device: torch.device, epochs: int = 5, batch: int = 128, seed: int = 0, schedule: str = "flow"
) -> Iterator[tuple[int, int, float]]:
    """Train on the 55,000 training digits at all times, write the weights (float16); yields steps done, in all, loss.

    schedule: a name in SCHEDULES, that of the model which is to be guided.
    """
    noisy, fold = SCHEDULES[schedule](), Fold()

    def shown(images: Tensor) -> tuple[Tensor, Tensor]:
        x0 = fold.encode(images)
        t = torch.rand(batch, dtype=torch.float64)  # one time a picture
        x = noisy.add_noise(x0, torch.randn_like(x0), t).to(device)
        return x, noisy.net_time(t).to(x)

    # no label smoothing: a classifier that is to say log p should be as sure as it can be, and no surer
    digits = data.mnist("train")
    batches, steps = data.batches(digits, batch, seed), epochs * (len(digits) // batch)
    yield from train_classifier(NoisyClassifier, shown, batches, steps, folder, device, seed, smoothing=0.0)
