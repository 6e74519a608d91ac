"""Training a diffusion model: a generator, so that the caller samples, logs and stops at will."""

from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from minidiff.diffusion import Prediction, Schedule
from minidiff.training.loss import TIMES, loss
from minidiff.training.optimise import Net, OptimConfig, Progress, optimise

Batch = tuple[Tensor, Tensor | None]  # x0, and the condition of each or None


@dataclass(frozen=True)
class TrainConfig(OptimConfig):
    drop: float = 0.1  # probability that an image's condition is dropped, for classifier-free guidance
    times: str = "logit_normal"  # the distribution of t, see TIMES
    weighting: str = "none"  # how much each t counts, see WEIGHTINGS


def train(
    net: Net, schedule: Schedule, pred: Prediction, batches: Iterable[Batch | Callable[[], Batch]],
    config: TrainConfig = TrainConfig(), *, null: Tensor | int | None = None, folder: Path | None = None,
    about: dict[str, Any] | None = None,
) -> Generator[Progress[Net]]:  # fmt: skip
    """Train the denoiser `net` in place, on the device it is on; yields after every step. Ho et al. 2020, algorithm 1.

    batches: (x0, condition) from the first step on, the same at every call; x0 (B, C, H, W). null: the condition that
    means nothing, of the shape of one condition; None never drops any. For functions among the batches, folder and
    about see `optimise`, the loop itself.
    """
    device = next(net.parameters()).device

    def examples(batch: Batch, generator: torch.Generator) -> tuple[Tensor | None, ...]:
        x0, condition = batch
        t = TIMES[config.times](len(x0), generator)
        eps = torch.randn(x0.shape, generator=generator)
        if null is not None and condition is not None:
            dropped = torch.rand(len(x0), generator=generator) < config.drop
            dropped = dropped.reshape(-1, *[1] * (condition.ndim - 1))
            condition = torch.where(dropped, torch.as_tensor(null), condition)
        return x0, condition, t, eps

    def error(net: nn.Module, x0: Tensor, condition: Tensor | None, t: Tensor, eps: Tensor) -> Tensor:
        condition = None if condition is None else condition.to(device)
        return loss(net, schedule, pred, x0.to(device), condition, t, eps.to(device), config.weighting)

    return optimise(net, batches, examples, error, config, folder=folder, about=about)
