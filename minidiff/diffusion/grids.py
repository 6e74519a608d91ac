"""Which times a sampler visits: n steps need n + 1 times, from noise down to data.

`uniform` and `karras` are for any schedule. `linspace`, `leading` and `trailing` count in the N
indices of a beta table (index i is time (i + 1) / N) as diffusers does, so that its images can be
repeated; the names are from Lin et al. 2023, table 2. There, `spare=1` gives the
variant that diffusers uses with DPM-Solver++, whose last index is another.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from minidiff.diffusion.schedules import Schedule


def uniform(n: int, schedule: Schedule, start: float = 1.0, end: float = 0.0) -> Tensor:
    """n + 1 evenly spaced times from `start` down to `end`."""
    _positive(n)
    return torch.linspace(start, end, n + 1, dtype=torch.float64)


def karras(
    n: int, schedule: Schedule, sigma_min: float | None = None, sigma_max: float | None = None, rho: float = 7.0
) -> Tensor:
    """Dense where the noise is faint: sigma/alpha to the power 1/rho is evenly spaced, then 0.

    Karras et al. 2022, equation 5. sigma_max: the schedule's own ratio at t = 1, at most 80. sigma_min: its ratio at
    index 0 of a table (0.0292 for Stable Diffusion; a network of a table knows no earlier time), else 0.002.
    """
    _positive(n)
    ends = torch.tensor([1 / (schedule.steps or 1), 1.0], dtype=torch.float64)
    first, last = (schedule.sigma(ends) / schedule.alpha(ends)).tolist()
    most = min(80.0, last) if sigma_max is None else sigma_max
    least = (first if schedule.steps else 0.002) if sigma_min is None else sigma_min
    ramp = torch.linspace(most ** (1 / rho), least ** (1 / rho), n, dtype=torch.float64)
    return torch.cat([schedule.time_of(ramp**rho), torch.zeros(1, dtype=torch.float64)])


def linspace(n: int, schedule: Schedule, spare: int = 0) -> Tensor:
    """Evenly from index N - 1 to 0; with spare=1, rounded and without the index 0."""
    steps = _table_length(n, schedule, spare)
    indices = torch.linspace(steps - 1, 0, n + spare, dtype=torch.float64)[:n]
    return _times(indices.round() if spare else indices, steps)


def leading(n: int, schedule: Schedule, offset: int = 0, spare: int = 0, to_first: bool = False) -> Tensor:
    """Every (N // n)-th index, counted from the clean end: never quite starts at noise.

    offset: added to every index (1 for Stable Diffusion). to_first: end at index 0 instead of
    t = 0 (diffusers' `set_alpha_to_one=False`).
    """
    steps = _table_length(n, schedule, spare)
    stride = steps // (n + spare)
    indices = torch.arange(n - 1 + spare, spare - 1, -1, dtype=torch.float64) * stride + offset
    return _times(indices, steps, to_first)


def trailing(n: int, schedule: Schedule, to_first: bool = False) -> Tensor:
    """Every (N / n)-th index, counted from the noisy end: always starts at t = 1."""
    steps = _table_length(n, schedule)
    indices = (steps - torch.arange(n, dtype=torch.float64) * steps / n).round() - 1
    return _times(indices, steps, to_first)


def _positive(n: int) -> None:
    if n < 1:
        raise ValueError(f"steps must be at least 1, got {n}")


def _table_length(n: int, schedule: Schedule, spare: int = 0) -> int:
    """N, if n + spare indices can be told apart in the table."""
    _positive(n)
    if schedule.steps is None:
        raise ValueError("this grid counts in the steps of a table (linear, scaled_linear); use uniform or karras")
    if n + spare > schedule.steps:
        raise ValueError(f"a table of {schedule.steps} steps has no {n + spare} different indices: take fewer steps")
    return schedule.steps


def _times(indices: Tensor, steps: int, to_first: bool = False) -> Tensor:
    if indices[0] > steps - 1:
        raise ValueError(f"index {int(indices[0])} lies beyond the table, whose last is {steps - 1}: take fewer steps")
    end = torch.tensor([1 / steps if to_first else 0.0], dtype=torch.float64)
    return torch.cat([(indices + 1) / steps, end])


GRIDS: dict[str, Callable[..., Tensor]] = {
    "uniform": uniform,
    "karras": karras,
    "linspace": linspace,
    "leading": leading,
    "trailing": trailing,
}
