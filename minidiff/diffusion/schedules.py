"""Noise schedules: how much signal and how much noise there is at time t.

    x_t = alpha_t * x_0 + sigma_t * eps,    t from 0 (data) to 1 (noise)

alpha is the factor itself, not "alpha-bar": alpha**2 = alpha-bar.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


def _one(t: Tensor) -> Tensor:
    return torch.ones_like(t)


@dataclass(frozen=True)
class Schedule:
    """Two coefficients of time, and what a network is given of them.

    The four callables take float64 times on the CPU, in [0, 1], and keep their shape.
    """

    alpha: Callable[[Tensor], Tensor]  # what is left of the image
    sigma: Callable[[Tensor], Tensor]  # the standard deviation of the noise
    net_time: Callable[[Tensor], Tensor]  # the time that is passed to the network
    net_scale: Callable[[Tensor], Tensor] = _one  # what the network's input is multiplied by
    steps: int | None = None  # length of the beta table; None for a closed form

    def at(self, t: Tensor | float, like: Tensor) -> tuple[Tensor, Tensor]:
        """alpha and sigma at `t`, ready to multiply `like` (B, C, H, W).

        t: a number, or (B,) with one time an image. Computed in float64, cast to `like` last.
        This is the only place that broadcasts. Raises ValueError for any other shape of t.
        """
        t = as_time(t)
        return broadcast(self.alpha(t), like), broadcast(self.sigma(t), like)

    def add_noise(self, x0: Tensor, eps: Tensor, t: Tensor | float) -> Tensor:
        """The forward process in one step: x_t from a clean image and noise of its shape.

        Ho et al. 2020, equation 4.
        """
        alpha, sigma = self.at(t, x0)
        return alpha * x0 + sigma * eps

    def snr(self, t: Tensor | float) -> Tensor:
        """Signal-to-noise ratio (alpha / sigma)^2 (float64), of the shape of t; infinite at t = 0."""
        t = as_time(t)
        return (self.alpha(t) / self.sigma(t)) ** 2

    def time_of(self, ratio: Tensor | float) -> Tensor:
        """The time at which sigma/alpha equals `ratio` (float64): the inverse of the schedule.

        Found by bisection, which needs only that noise grows with time. Raises ValueError
        for ratios that the schedule never reaches.
        """
        ratio = torch.as_tensor(ratio, dtype=torch.float64)
        end = torch.ones((), dtype=torch.float64)
        most = self.sigma(end) / self.alpha(end)
        if not ((ratio >= 0) & (ratio <= most * (1 + 1e-12))).all():
            raise ValueError(f"sigma/alpha must lie in [0, {most:.6g}] on this schedule, got {ratio}")
        low, high = torch.zeros_like(ratio), torch.ones_like(ratio)
        for _ in range(100):  # float64 runs out of digits before that, also for tiny times
            middle = (low + high) / 2
            too_clean = self.sigma(middle) < ratio * self.alpha(middle)
            low, high = torch.where(too_clean, middle, low), torch.where(too_clean, high, middle)
        return high


def as_time(t: Tensor | float) -> Tensor:
    """Times live on the CPU in float64, wherever the images are."""
    return torch.as_tensor(t.detach().cpu() if isinstance(t, Tensor) else t, dtype=torch.float64)


def broadcast(value: Tensor, like: Tensor) -> Tensor:
    """A number, or (B,), as something that multiplies `like` (B, ...) image by image."""
    if value.ndim > 1 or (value.ndim == 1 and len(value) != len(like)):
        raise ValueError(f"a time must be one number or one an image ({len(like)},), got shape {tuple(value.shape)}")
    shape = (-1,) + (1,) * (like.ndim - 1) if value.ndim else ()
    return value.to(like.dtype).to(like.device).reshape(shape)  # in this order: MPS has no float64


# Closed forms ------------------------------------------------------------------------------


def cosine() -> Schedule:
    """alpha = cos(pi t / 2): a quarter turn from data to noise.

    Nichol and Dhariwal 2021, equation 17, without its offset (which keeps the first betas of a
    table from being tiny; in continuous time there is no table).
    """
    half_pi = torch.pi / 2
    return Schedule(lambda t: torch.cos(half_pi * t), lambda t: torch.sin(half_pi * t), _thousands)


def flow() -> Schedule:
    """alpha = 1 - t, sigma = t: straight lines. Liu et al. 2022; Lipman et al. 2022."""
    return Schedule(lambda t: 1 - t, lambda t: t, _thousands)


def edm(sigma_max: float = 80.0) -> Schedule:
    """alpha = 1, sigma = 80 t: noise is only ever added. Karras et al. 2022, table 1.

    x grows with the noise, so the network's input is scaled back to variance 1
    and its time is ln(sigma) / 4.
    """
    return Schedule(
        alpha=_one,
        sigma=lambda t: sigma_max * t,
        net_time=lambda t: torch.log((sigma_max * t).clamp(min=1e-8)) / 4,  # ln 0 is no number
        net_scale=lambda t: 1 / torch.sqrt(1 + (sigma_max * t) ** 2),
    )


def _thousands(t: Tensor) -> Tensor:
    return 1000 * t  # the range that sinusoidal time embeddings are made for


# Tables of beta ----------------------------------------------------------------------------


def linear(steps: int = 1000, first: float = 1e-4, last: float = 0.02) -> Schedule:
    """DDPM's table: beta grows evenly. Ho et al. 2020, section 4."""
    return table(_alphas(torch.linspace(first, last, steps, dtype=torch.float64)))


def scaled_linear(steps: int = 1000, first: float = 0.00085, last: float = 0.012) -> Schedule:
    """Stable Diffusion's table: the square root of beta grows evenly. Rombach et al. 2022."""
    return table(_alphas(torch.linspace(first**0.5, last**0.5, steps, dtype=torch.float64) ** 2))


def _alphas(betas: Tensor) -> Tensor:
    """Each step keeps sqrt(1 - beta) of the signal, and the steps multiply."""
    return torch.cumprod(1 - betas, dim=0).sqrt()


def table(alphas: Tensor) -> Schedule:
    """A schedule from alpha at N steps, with alpha**2 + sigma**2 = 1 (variance preserving).

    alphas: (N,), falling, in [0, 1]. Entry i is time (i + 1) / N; time 0 is the clean image,
    added here; the network gets N t - 1, the index. Between the entries the angle
    atan2(sigma, alpha) is interpolated.
    """
    alphas = torch.cat([torch.ones(1, dtype=torch.float64), alphas.double()])
    angles = torch.atan2(torch.sqrt(1 - alphas**2), alphas)
    steps = len(angles) - 1

    def angle(t: Tensor) -> Tensor:
        position = t * steps
        left = position.floor().long().clamp(0, steps - 1)
        return torch.lerp(angles[left], angles[left + 1], position - left)

    return Schedule(
        alpha=lambda t: torch.cos(angle(t)),
        sigma=lambda t: torch.sin(angle(t)),
        net_time=lambda t: steps * t - 1,
        steps=steps,
    )


SCHEDULES: dict[str, Callable[..., Schedule]] = {
    "linear": linear,
    "cosine": cosine,
    "scaled_linear": scaled_linear,
    "flow": flow,
    "edm": edm,
}
