"""The loss of a diffusion model, and the distribution of the times it is computed at."""

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from minidiff.diffusion import Prediction, Schedule, predict, target, to_x0
from minidiff.diffusion.schedules import broadcast


def loss(
    net, schedule: Schedule, pred: Prediction, x0: Tensor, condition: Tensor | None, t: Tensor, eps: Tensor,
    weighting: str = "none",
) -> Tensor:  # fmt: skip
    """Add noise to x0, run the network, compare with the target: the mean squared error, a scalar.

    x0, eps: (B, C, H, W). t: (B,). condition: what `net` takes as its third argument. weighting: a name in
    WEIGHTINGS. Ho et al. 2020, equation 14, for any prediction.
    """
    x = schedule.add_noise(x0, eps, t)
    out = predict(net, schedule, x, t, condition)
    weight = WEIGHTINGS[weighting]
    if weight is None:
        return F.mse_loss(out, target(pred, x0, eps, *schedule.at(t, x0)))
    x0_hat = to_x0(pred, out, x, *schedule.at(t, x0))
    return (broadcast(weight(schedule.snr(t)), x0) * (x0_hat - x0) ** 2).mean()


def _min_snr(snr: Tensor, gamma: float = 5.0) -> Tensor:
    """Each time is weighted by its signal-to-noise ratio, up to gamma.

    Hang et al. 2023, section 3.4. Their weights for eps and v, min(snr, gamma) / snr and min(snr, gamma) / (snr + 1),
    are this one: an error of eps or v is an error of x0 at another scale.
    """
    return snr.clamp(max=gamma)


# The weight of the squared error of x0_hat at a signal-to-noise ratio, (B,) -> (B,). None: the plain squared error of
# what the network predicts, the same weight at every time.
WEIGHTINGS = {"none": None, "min_snr": _min_snr}


def _uniform(n: int, generator: Generator) -> Tensor:
    return torch.rand(n, generator=generator, dtype=torch.float64)


def _logit_normal(n: int, generator: Generator) -> Tensor:
    """More often in the middle, where there is most to learn. Esser et al. 2024, section 3.1."""
    return torch.randn(n, generator=generator, dtype=torch.float64).sigmoid()


def _noisier(n: int, generator: Generator) -> Tensor:
    """The same with its median at t = 0.62: flat colour survives noise in which thin gray strokes are long gone.

    A quarter is uniform. Else one time in 3,500 would lie below 0.05, where the last steps of sampling are: flat areas
    would keep a grain that the network has not learned to take away.
    """
    often = (torch.randn(n, generator=generator, dtype=torch.float64) + 0.5).sigmoid()
    return torch.where(torch.rand(n, generator=generator) < 0.25, _uniform(n, generator), often)


TIMES = {"uniform": _uniform, "logit_normal": _logit_normal, "noisier": _noisier}
