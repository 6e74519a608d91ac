"""What `minidiff train NAME` trains."""

import copy
import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from minidiff import data
from minidiff.diffusion import PREDICTIONS, SCHEDULES
from minidiff.networks import Fold, UNetConfig
from minidiff.pipeline import ModelConfig, TextToImage
from minidiff.training.checkpoint import planned_steps
from minidiff.training.loop import Progress, TrainConfig, train

MNIST = ModelConfig(
    name="mnist",
    unet=UNetConfig(
        in_channels=4,  # a 28x28 digit folded to 4 x 14 x 14
        out_channels=4,
        channels=(32, 64),
        attention=(False, True),  # the digit is looked up at 7x7, where a pixel sees half of it
        layers=1,
        heads=4,
        context_dim=64,
        groups=8,
    ),
)


def train_mnist(
    folder: Path, config: TrainConfig, batch: int, device: torch.device, minutes: float | None = None
) -> Iterator[tuple[int, int, float]]:
    """Train the digit model and write it to `folder`; yields steps done, steps in all, loss.

    minutes: instead of config.steps, as many steps as fit into them at the speed of the first few; a run
    that is gone on with keeps the number it had.
    """
    schedule, pred = SCHEDULES[MNIST.schedule](), PREDICTIONS[MNIST.prediction]
    torch.manual_seed(config.seed)  # the random start of the weights
    # channels_last: 1.1 to 1.6 times as many pictures a second on a CPU
    net = MNIST.build().to(device, memory_format=torch.channels_last)
    digits, fold = data.mnist("train"), Fold(MNIST.fold)

    def folded() -> Iterator[tuple[Tensor, Tensor]]:
        for images, labels in data.batches(digits, batch, config.seed):
            yield fold.encode(images), labels

    def run(net, config, folder=None) -> Iterator[Progress]:
        return train(net, schedule, pred, folded(), config, null=net.text_encoder.null, folder=folder)

    if minutes is not None:
        steps = planned_steps(folder) or round(60 * minutes / seconds_a_step(run(copy.deepcopy(net), config)))
        config = dataclasses.replace(config, steps=max(30, steps))
    progress = None
    try:
        for progress in run(net, config, folder):
            yield progress.step, config.steps, float(progress.loss)
    finally:  # also when it is stopped early: one can draw with what there is
        if progress:
            TextToImage(MNIST, progress.net, device).save(folder)


def seconds_a_step(trial: Iterator[Progress], count: int = 20) -> float:
    for _ in range(10):  # the first are slow: memory is being found
        next(trial)
    start = time.perf_counter()
    for _ in range(count):
        next(trial)
    return (time.perf_counter() - start) / count
