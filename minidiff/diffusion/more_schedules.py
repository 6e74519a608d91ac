"""Schedules from schedules: without any signal at t = 1, and along the path of another one."""

from dataclasses import replace

import torch
from torch import Tensor

from minidiff.diffusion.schedules import Schedule, table


def zero_terminal_snr(schedule: Schedule) -> Schedule:
    """A table shifted and stretched so that no signal is left at t = 1.

    Lin et al. 2023, algorithm 1. Raises ValueError for a closed form, which needs no such care.
    """
    if schedule.steps is None:
        raise ValueError("zero_terminal_snr works on a table (linear, scaled_linear)")
    knots = torch.arange(1, schedule.steps + 1, dtype=torch.float64) / schedule.steps
    alphas = schedule.alpha(knots)
    first, last = alphas[0], alphas[-1]
    return table((alphas - last) * first / (first - last))


def rescheduled(path: Schedule, trained: Schedule) -> Schedule:
    """Sample along `path` with a network that was trained on `trained`.

    At the same ratio of noise to signal, two schedules hold the same x up to a factor. So the network gets
    the time of `trained` at which the ratio is the same, and its input is multiplied by that factor. Karras et al. 2022, section 2 and appendix B.
    """

    def trained_time(t: Tensor) -> Tensor:
        return trained.time_of(path.sigma(t) / path.alpha(t))

    def net_scale(t: Tensor) -> Tensor:
        s = trained_time(t)
        # sqrt(alpha^2 + sigma^2) rather than alpha: it is never zero
        factor = torch.hypot(trained.alpha(s), trained.sigma(s)) / torch.hypot(path.alpha(t), path.sigma(t))
        return factor * trained.net_scale(s)

    return replace(
        path,
        net_time=lambda t: trained.net_time(trained_time(t)),
        net_scale=net_scale,
        steps=None,
    )
