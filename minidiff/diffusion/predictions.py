"""What a network predicts, and how a denoised estimate is computed from it.

Every common target is  a * x0 + b * eps;  only the two coefficients differ. A network's output
and x_t = alpha * x0 + sigma * eps are two equations in two unknowns: solving them for x0
turns any network into a Denoiser, which is all that guidance and samplers ever see.
"""

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

from minidiff.diffusion.schedules import Schedule, as_time, broadcast

Denoiser = Callable[[Tensor, Tensor | float], Tensor]  # (x, t) -> x0_hat, the denoised estimate


class Prediction(NamedTuple):
    """A name, and (alpha, sigma) -> (a, b), the target's coefficients of data and noise."""

    name: str
    coefficients: Callable[[Tensor, Tensor], tuple[Tensor | float, Tensor | float]]


EPS = Prediction("eps", lambda alpha, sigma: (0, 1))  # Ho et al. 2020
X0 = Prediction("x0", lambda alpha, sigma: (1, 0))
V = Prediction("v", lambda alpha, sigma: (-sigma / _length(alpha, sigma), alpha / _length(alpha, sigma)))
FLOW = Prediction("flow", lambda alpha, sigma: (-1, 1))  # Lipman et al. 2022

PREDICTIONS = {p.name: p for p in (EPS, X0, V, FLOW)}


def _length(alpha: Tensor, sigma: Tensor) -> Tensor:
    """1 on variance-preserving schedules, where v is Salimans and Ho's (2022, section 4)."""
    return (alpha**2 + sigma**2).sqrt()


def target(pred: Prediction, x0: Tensor, eps: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """What the network should predict: a * x0 + b * eps, of the shape of x0.

    alpha, sigma: from `Schedule.at`.
    """
    a, b = pred.coefficients(alpha, sigma)
    return a * x0 + b * eps


def to_x0(pred: Prediction, out: Tensor, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """x0_hat from the network's output: the inverse of `target`, of the shape of x.

    Raises ValueError where the two equations do not determine x0 (eps at alpha = 0).
    """
    if pred is X0:
        return out  # nothing to invert; at sigma = 0 the formula below would be 0 / 0
    a, b = pred.coefficients(alpha, sigma)
    determinant = b * alpha - a * sigma
    if (determinant.abs() < 1e-6).any():
        raise ValueError(
            f"{pred.name}-prediction cannot be turned into an image where alpha is 0 (zero terminal SNR): "
            "there x_t is noise alone. Use v-prediction, or start below t = 1"
        )
    return (b * x - sigma * out) / determinant


def predict(net, schedule: Schedule, x: Tensor, t: Tensor | float, context: Tensor | None = None) -> Tensor:
    """The network's raw output for x_t, of the shape and dtype of x.

    net: called as net(x, time, context) with time (B,). t: a number, or (B,).
    """
    t = as_time(t)
    time = schedule.net_time(t).to(x.dtype).to(x.device).expand(len(x))
    return net(x * broadcast(schedule.net_scale(t), x), time, context).to(x.dtype)


def denoiser(net, schedule: Schedule, pred: Prediction, context: Tensor | None = None) -> Denoiser:
    """A network as a Denoiser. context: (B, L, D) tokens, or None."""

    def denoise(x: Tensor, t: Tensor | float) -> Tensor:
        out = predict(net, schedule, x, t, context)
        return to_x0(pred, out, x, *schedule.at(t, x))

    return denoise
