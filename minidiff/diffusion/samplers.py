"""Samplers: from noise to an image, step by step.

Each is a generator with one signature that yields every step, so the same loop serves the final
image, the animation and the widget:

    for step in euler(denoise, x, times, schedule): ...

denoise: (x, t) -> x0_hat. x: the start noise (B, C, H, W). times: falling, from `grids`.
noise: x -> fresh noise of its shape, for the samplers that add some at every step.
after: (x, t) -> x, applied to the noisy image after each step, at the time it reached; the identity by default.
"""

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from minidiff.diffusion.predictions import Denoiser
from minidiff.diffusion.schedules import Schedule, as_time

Noise = Callable[[Tensor], Tensor]
After = Callable[[Tensor, Tensor], Tensor]
DEFAULT_SAMPLER = "dpmpp_2m"


class Step(NamedTuple):
    """One step of a sampler."""

    x: Tensor  # the noisy image after the step
    x0_hat: Tensor  # the denoised estimate that the step used
    t: Tensor  # the time it reached


class InDiffusers(NamedTuple):
    """How diffusers runs a sampler: what is needed to read a scheduler's config. The defaults are its multistep solvers'."""

    scheduler: str = "DPMSolverMultistepScheduler"  # the class
    spacing: str = "linspace"  # of the times, where the config does not say: a name in GRIDS
    spare: int = 1  # see `grids.linspace` and `grids.leading`
    ends_at_first: bool = False  # may the last step end at the table's first entry instead of t = 0?
    scales_noise: bool = False  # does x start as sigma * noise, rather than as the noise itself?
    draws_noise: bool = False  # is fresh noise added at every step?


SAMPLERS: dict[str, Callable[..., Iterator[Step]]] = {}
IN_DIFFUSERS: dict[str, InDiffusers] = {}  # a sampler that is not in here is taken to have the defaults


def sampler(like: InDiffusers = InDiffusers()) -> Callable:
    """A decorator: registers a sampler under its function's name."""

    def register(function: Callable[..., Iterator[Step]]) -> Callable[..., Iterator[Step]]:
        SAMPLERS[function.__name__], IN_DIFFUSERS[function.__name__] = function, like
        return function

    return register


def _identity(x: Tensor, t: Tensor) -> Tensor:
    return x


class Stop(NamedTuple):
    """One of the times, with its coefficients as plain numbers (float64)."""

    t: Tensor
    alpha: float
    sigma: float

    @property
    def log_snr(self) -> float:
        """log(alpha / sigma); infinite at sigma = 0."""
        alpha, sigma = torch.tensor([self.alpha, self.sigma], dtype=torch.float64).log().tolist()
        return alpha - sigma


def stops(times: Tensor, schedule: Schedule) -> list[Stop]:
    """The times (n + 1,) with their coefficients. Raises ValueError unless they fall, within [0, 1], to 0 at the end at most."""
    times = as_time(times)
    if times.ndim != 1 or len(times) < 2:
        raise ValueError(f"times must be a row of at least two, got shape {tuple(times.shape)}")
    if not ((times >= 0) & (times <= 1)).all() or (times.diff() > 0).any() or times[-2] == 0:
        raise ValueError("times must fall, within [0, 1], and reach 0 only at the end")
    return [
        Stop(*row) for row in zip(times, schedule.alpha(times).tolist(), schedule.sigma(times).tolist(), strict=True)
    ]


@sampler(InDiffusers("DDPMScheduler", "leading", spare=0, draws_noise=True))
@torch.no_grad()
def ddpm(
    denoise: Denoiser, x: Tensor, times: Tensor, schedule: Schedule, *,
    noise: Noise = torch.randn_like, after: After = _identity, variance: str = "small",
) -> Iterator[Step]:  # fmt: skip
    """Ancestral sampling: draw the next x from q(x_next | x, x0_hat), a Gaussian.

    Ho et al. 2020, equations 6 and 7, for any alpha and sigma and any stride. variance: "small" is
    the posterior's own (right if x0 is known), "large" is that of the forward step (right if x0 is
    standard normal). Raises ValueError for another name.
    """
    if variance not in ("small", "large"):
        raise ValueError(f'variance must be "small" or "large", got {variance!r}')
    for now, to in pairwise(stops(times, schedule)):
        x0_hat = denoise(x, now.t)
        kept = now.alpha / to.alpha  # the forward step from `to` to `now` keeps this much ...
        added = now.sigma**2 - kept**2 * to.sigma**2  # ... and adds noise of this variance
        x = kept * to.sigma**2 / now.sigma**2 * x + to.alpha * added / now.sigma**2 * x0_hat
        if to.sigma > 0:  # a clean image gets no more noise
            var = added * to.sigma**2 / now.sigma**2 if variance == "small" else added
            x = x + var**0.5 * noise(x)
        x = after(x, to.t)
        yield Step(x, x0_hat, to.t)


@sampler(InDiffusers("DDIMScheduler", "leading", spare=0, ends_at_first=True))
@torch.no_grad()
def ddim(
    denoise: Denoiser, x: Tensor, times: Tensor, schedule: Schedule, *,
    noise: Noise = torch.randn_like, after: After = _identity, eta: float = 0.0,
) -> Iterator[Step]:  # fmt: skip
    """Add noise to the denoised estimate again, up to the next level: the noise that it leaves over in x.

    Song et al. 2020, equations 12 and 16. eta: how much of that noise is drawn anew, from 0 (none:
    the same start gives the same image) to 1 (as much as `ddpm`).
    """
    if not 0 <= eta <= 1:
        raise ValueError(f"eta must lie in [0, 1], got {eta}")
    for now, to in pairwise(stops(times, schedule)):
        x0_hat = denoise(x, now.t)
        eps_hat = (x - now.alpha * x0_hat) / now.sigma
        added = now.sigma**2 - (now.alpha / to.alpha * to.sigma) ** 2
        fresh = eta * to.sigma / now.sigma * max(added, 0.0) ** 0.5
        x = to.alpha * x0_hat + (to.sigma**2 - fresh**2) ** 0.5 * eps_hat
        if fresh > 0:
            x = x + fresh * noise(x)
        x = after(x, to.t)
        yield Step(x, x0_hat, to.t)


@sampler(InDiffusers("EulerDiscreteScheduler", spare=0, scales_noise=True))
@torch.no_grad()
def euler(
    denoise: Denoiser, x: Tensor, times: Tensor, schedule: Schedule, *,
    noise: Noise = torch.randn_like, after: After = _identity,
) -> Iterator[Step]:  # fmt: skip
    """Euler's method on the probability-flow ODE: x changes as alpha and sigma do. First order; equal to ddim at eta = 0."""
    for now, to in pairwise(stops(times, schedule)):
        x0_hat = denoise(x, now.t)
        eps_hat = (x - now.alpha * x0_hat) / now.sigma
        x = x + (to.alpha - now.alpha) * x0_hat + (to.sigma - now.sigma) * eps_hat
        x = after(x, to.t)
        yield Step(x, x0_hat, to.t)


@sampler(InDiffusers("HeunDiscreteScheduler", spare=0, scales_noise=True))
@torch.no_grad()
def heun(
    denoise: Denoiser, x: Tensor, times: Tensor, schedule: Schedule, *,
    noise: Noise = torch.randn_like, after: After = _identity,
) -> Iterator[Step]:  # fmt: skip
    """Look ahead with Euler, then step with the mean of both slopes: second order, two function evaluations a step.

    Karras et al. 2022, algorithm 1 (to which it is equal at alpha = 1). The last step, to sigma = 0,
    has no second slope and stays Euler's.
    """
    for now, to in pairwise(stops(times, schedule)):
        x0_hat = denoise(x, now.t)
        eps_hat = (x - now.alpha * x0_hat) / now.sigma
        if to.sigma > 0:
            ahead = x + (to.alpha - now.alpha) * x0_hat + (to.sigma - now.sigma) * eps_hat
            x0_ahead = denoise(ahead, to.t)
            eps_ahead = (ahead - to.alpha * x0_ahead) / to.sigma
            x0_hat, eps_hat = (x0_hat + x0_ahead) / 2, (eps_hat + eps_ahead) / 2
        x = x + (to.alpha - now.alpha) * x0_hat + (to.sigma - now.sigma) * eps_hat
        x = after(x, to.t)
        yield Step(x, x0_hat, to.t)


@sampler()
@torch.no_grad()
def dpmpp_2m(
    denoise: Denoiser, x: Tensor, times: Tensor, schedule: Schedule, *,
    noise: Noise = torch.randn_like, after: After = _identity,
) -> Iterator[Step]:  # fmt: skip
    """DPM-Solver++(2M): second order with one function evaluation a step, by remembering the last x0_hat.

    Lu et al. 2022b, algorithm 2. `width` is the step's length in log(alpha / sigma), the time in which
    the equation is simplest. The first step, and the last to sigma = 0, are first order.
    """
    last_x0_hat, last_width = None, None
    for now, to in pairwise(stops(times, schedule)):
        x0_hat = denoise(x, now.t)
        middle, width = x0_hat, to.log_snr - now.log_snr
        if last_x0_hat is not None and last_width is not None and to.sigma > 0:
            # a straight line through the last two estimates, read at the middle of this step
            middle = x0_hat + width / (2 * last_width) * (x0_hat - last_x0_hat)
        shrink = to.sigma / now.sigma
        x = shrink * x + (to.alpha - shrink * now.alpha) * middle
        last_x0_hat, last_width = x0_hat, width
        x = after(x, to.t)
        yield Step(x, x0_hat, to.t)
