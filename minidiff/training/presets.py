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
) -> Iterator[tuple[Progress, int]]:
    """Train the digit model and write it to `folder`; yields the progress and the steps there will be.

    minutes: instead of config.steps, as many steps as fit into them at the speed of the first few.
    """
    schedule, pred = SCHEDULES[MNIST.schedule](), PREDICTIONS[MNIST.prediction]
    torch.manual_seed(config.seed)  # the random start of the weights
    # channels_last: 1.1 to 1.6 times as many pictures a second on a CPU, the same on a GPU
    net = MNIST.build().to(device, memory_format=torch.channels_last)
    digits, fold = data.mnist("train"), Fold(MNIST.fold)

    def folded() -> Iterator[tuple[Tensor, Tensor]]:
        for images, labels in data.batches(digits, batch, config.seed):
            yield fold.encode(images), labels

    null = net.text_encoder.null
    if minutes is not None:
        trial = train(copy.deepcopy(net), schedule, pred, folded(), config, null=null)
        for _ in range(10):  # slow ones: memory is being found
            next(trial)
        start = time.perf_counter()
        for _ in range(20):
            next(trial)
        seconds = (time.perf_counter() - start) / 20
        config = dataclasses.replace(config, steps=max(30, round(60 * minutes / seconds)))

    for progress in train(net, schedule, pred, folded(), config, null=null, folder=folder):
        yield progress, config.steps
    TextToImage(MNIST, progress.net, device).save(folder)
