"""What training makes small, and at which times it looks."""

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from minidiff.diffusion import Prediction, Schedule, predict, target


def loss(
    net, schedule: Schedule, pred: Prediction, x0: Tensor, condition: Tensor | None, t: Tensor, eps: Tensor
) -> Tensor:
    """Noise the picture, ask the network, compare: the mean squared error, a scalar.

    x0, eps: (B, C, H, W). t: (B,). condition: what `net` takes as its third argument.
    Ho et al. 2020, equation 14, for any prediction.
    """
    out = predict(net, schedule, schedule.add_noise(x0, eps, t), t, condition)
    return F.mse_loss(out, target(pred, x0, eps, *schedule.at(t, x0)))


def _uniform(n: int, generator: Generator) -> Tensor:
    return torch.rand(n, generator=generator, dtype=torch.float64)


def _logit_normal(n: int, generator: Generator) -> Tensor:
    """More often in the middle, where there is most to learn. Esser et al. 2024, section 3.1."""
    return torch.randn(n, generator=generator, dtype=torch.float64).sigmoid()


TIMES = {"uniform": _uniform, "logit_normal": _logit_normal}
