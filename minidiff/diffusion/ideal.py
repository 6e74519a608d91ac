"""The best denoiser there can be, for data that fit into memory: no network, no training."""

from collections.abc import Callable

import torch
from torch import Tensor

from minidiff.diffusion.predictions import Denoiser
from minidiff.diffusion.schedules import Schedule


def ideal(points: Tensor, schedule: Schedule, std: float = 0.0) -> Denoiser:
    """The mean of all clean points that x_t could have come from, each as likely as it is near.

    points: (N, ...), the data. std: standard deviation of a Gaussian around each, so that
    there is something between the points; with 0 every trajectory ends on one of them. The denoiser takes x (B, ...).
    Karras et al. 2022, equation 57. Its score is (alpha x0_hat - x) / sigma^2.
    """
    data = points.flatten(1)  # (N, D)

    def denoise(x: Tensor, t: Tensor | float) -> Tensor:
        flat = x.flatten(1)  # (B, D)
        alpha, sigma = schedule.at(t, flat)
        variance = alpha**2 * std**2 + sigma**2
        squares = flat.square().sum(1, keepdim=True) - 2 * alpha * flat @ data.T + alpha**2 * data.square().sum(1)
        weights = torch.softmax(-squares / (2 * variance), dim=1)  # (B, N): how likely each point is the one
        mean = weights @ data
        shifted = mean + alpha * std**2 / variance * (flat - alpha * mean)
        return shifted.reshape(x.shape)

    return denoise


def score(denoise: Denoiser, schedule: Schedule) -> Callable[[Tensor, float], Tensor]:
    """(x, t) -> the gradient of log p(x_t): in which direction, and how steeply, x becomes more likely.

    Tweedie's formula (Efron 2011). Not defined where sigma is 0.
    """

    def gradient(x: Tensor, t: Tensor | float) -> Tensor:
        alpha, sigma = schedule.at(t, x)
        return (alpha * denoise(x, t) - x) / sigma**2

    return gradient
