"""Measure the band in which the loss of a healthy run lies, for lesson 02: assets/loss_band.json.

    python assets/make_loss_band.py          about 7 minutes on 2 CPU cores

Three runs that differ in nothing but the seed. The lesson's own run has another seed, 0, and is not among them.
"""

import json
import sys
from pathlib import Path

import torch

from minidiff import data
from minidiff.diffusion import FLOW, flow
from minidiff.files import write
from minidiff.networks import SpaceToDepth
from minidiff.training import TrainConfig, train
from minidiff.training.recipes.mnist import MNIST

STEPS, BATCH, SEEDS = 600, 64, (1, 2, 3)
WINDOW = 50  # the loss of a single step is too noisy to compare: the mean of the last so many
EVERY = 5  # steps between two points of the band
MARGIN = 0.1  # the band is widened by a tenth on both sides, since three runs do not show all there is


def losses(seed: int, steps: int) -> list[float]:
    """The loss after every step of a run."""
    torch.manual_seed(seed)
    net, fold = MNIST.build().to(memory_format=torch.channels_last), SpaceToDepth(MNIST.fold)
    batches = ((fold.encode(images), labels) for images, labels in data.batches(data.mnist("train"), BATCH, seed))
    config = TrainConfig(steps=STEPS, seed=seed)  # also when fewer are run: the learning rate depends on it
    values = []
    for progress in train(net, flow(), FLOW, batches, config, null=net.text_encoder.null):
        values.append(float(progress.loss))
        if len(values) == steps:
            break
    return values


def running_mean(values: list[float], step: int) -> float:
    recent = values[max(0, step - WINDOW) : step]
    return sum(recent) / len(recent)


def main(out: Path, steps: int = STEPS) -> None:
    marks = list(range(EVERY, steps + 1, EVERY))
    curves = []
    for seed in SEEDS:
        values = losses(seed, steps)
        curves.append([running_mean(values, step) for step in marks])
        print(f"seed {seed}: {curves[-1][-1]:.4f} at the end", flush=True)
    band = {
        "command": "python assets/make_loss_band.py",
        "seeds": SEEDS,
        "batch": BATCH,
        "window": WINDOW,
        "margin": MARGIN,
        "steps": marks,
        "low": [round(min(column) * (1 - MARGIN), 4) for column in zip(*curves, strict=True)],
        "high": [round(max(column) * (1 + MARGIN), 4) for column in zip(*curves, strict=True)],
    }
    write(out, json.dumps(band) + "\n")


if __name__ == "__main__":
    here = Path(__file__).resolve().parent
    if len(sys.argv) == 3:  # a trial: another file, and only the first steps
        main(Path(sys.argv[1]), int(sys.argv[2]))
    else:
        main(here / "loss_band.json")
