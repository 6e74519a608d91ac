"""Two more multistep samplers, for those who read on: UniPC, and DPM-Solver++(2M) as an SDE."""

import math
from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor

from minidiff.diffusion.predictions import Denoiser
from minidiff.diffusion.samplers import After, InDiffusers, Noise, Step, _identity, sampler, stops
from minidiff.diffusion.schedules import Schedule


@sampler(InDiffusers(draws_noise=True))
@torch.no_grad()
def dpmpp_2m_sde(
    denoise: Denoiser, x: Tensor, times: Tensor, schedule: Schedule, *,
    noise: Noise = torch.randn_like, after: After = _identity,
) -> Iterator[Step]:  # fmt: skip
    """DPM-Solver++(2M) on the reverse SDE instead of the ODE: `dpmpp_2m`, with fresh noise at every step.

    Lu et al. 2022b, appendix on SDE-DPM-Solver++, in its midpoint form.
    """
    last_x0_hat, last_width = None, None
    for now, to in pairwise(stops(times, schedule)):
        x0_hat = denoise(x, now.t)
        middle, width = x0_hat, to.log_snr - now.log_snr
        if last_x0_hat is not None and last_width is not None and to.sigma > 0:
            middle = x0_hat + width / (2 * last_width) * (x0_hat - last_x0_hat)
        shrink, fresh = math.exp(-width), -math.expm1(-2 * width)  # 0 and 1 at the last step
        x = to.sigma / now.sigma * shrink * x + to.alpha * fresh * middle
        if to.sigma > 0:
            x = x + to.sigma * fresh**0.5 * noise(x)
        last_x0_hat, last_width = x0_hat, width
        x = after(x, to.t)
        yield Step(x, x0_hat, to.t)


@sampler(InDiffusers("UniPCMultistepScheduler"))
@torch.no_grad()
def unipc(
    denoise: Denoiser, x: Tensor, times: Tensor, schedule: Schedule, *,
    noise: Noise = torch.randn_like, after: After = _identity,
) -> Iterator[Step]:  # fmt: skip
    """UniPC: `dpmpp_2m` predicts, and the x0_hat found there corrects the step that led there, at no extra evaluation.

    Zhao et al. 2023, algorithms 5 and 6 of order 2, with B(h) = exp(h) - 1.
    """
    step = None  # the last one, to be corrected: start + grow * (x0_hat + old * slope + new * (what is found - x0_hat))
    last: tuple[Tensor, float] | None = None  # its x0_hat and its width
    for now, to in pairwise(stops(times, schedule)):
        found = denoise(x, now.t)
        if step:
            start, grow, x0_hat, slope, old, new = step
            x = after(start + grow * (x0_hat + old * slope + new * (found - x0_hat)), now.t)
        width, shrink = to.log_snr - now.log_snr, to.sigma / now.sigma
        start, grow = shrink * x, to.alpha - shrink * now.alpha  # first order: start + grow * x0_hat
        slope, old, new = torch.zeros_like(found), 0.0, 0.5
        if last and to.sigma > 0:
            ratio = -last[1] / width
            slope, (old, new) = (last[0] - found) / ratio, _corrector(width, ratio)
        x = after(start + grow * (found + slope / 2), to.t)
        step, last = (start, grow, found, slope, old, new), (found, width)
        yield Step(x, found, to.t)


def _corrector(width: float, ratio: float) -> tuple[float, float]:
    """How much the old slope and the new difference count, so that the step is exact for any parabola in log SNR."""
    first = -1 / width - 1 / math.expm1(-width)  # (phi_1 - 1) / B, of the step backward: h = -width
    second = 2 * (-first / width - 1 / (2 * math.expm1(-width)))
    old = (first - second) / (1 - ratio)
    return old, first - old
