"""Guidance: closures around a Denoiser that move its estimate toward what is wanted.

The scale w follows one convention: w = 0 is unconditional, w = 1 is conditional, w > 1 amplifies.
A guidance in GUIDANCES is called as (net, schedule, pred, context, null, scale, **options) and returns a Denoiser.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from minidiff.diffusion.predictions import Denoiser, Prediction, denoiser, predict, to_x0
from minidiff.diffusion.schedules import Schedule, as_time, broadcast


def cfg(
    net, schedule: Schedule, pred: Prediction, context: Tensor, null: Tensor, scale: float, *,
    rescale: float = 0.0, interval: tuple[float, float] = (0.0, 1.0),
) -> Denoiser:  # fmt: skip
    """Classifier-free guidance: predict with and without the text, and amplify the difference.

    context: (B, L, D), what the image should show. null: the null context, (1, L, D) or (B, L, D). Ho and
    Salimans 2022, equation 6, whose w is this scale - 1. rescale: see `rescaled`. interval: the times t at
    which the scale holds; elsewhere it is 1 (Kynkaanniemi et al. 2024).

    The same algebra as `amplified`, on the network's raw outputs: two copies of x in one batch cost one forward
    pass, nothing is rounded through 1 / alpha, and `rescale` is diffusers'.
    """
    if scale == 1:  # the conditional prediction alone
        return denoiser(net, schedule, pred, context)
    if scale == 0 and tuple(interval) == (0, 1):
        return denoiser(net, schedule, pred, null.expand_as(context))

    def denoise(x: Tensor, t: Tensor | float) -> Tensor:
        both = torch.cat([null.expand_as(context), context])
        time = as_time(t)
        out_null, out_text = predict(
            net, schedule, torch.cat([x, x]), torch.cat([time, time]) if time.ndim else time, both
        ).chunk(2)
        out = out_null + _amount(scale, interval, time, x) * (out_text - out_null)
        if rescale:
            out = rescaled(out, out_text, rescale)
        return to_x0(pred, out, x, *schedule.at(t, x))

    return denoise


def amplified(good: Denoiser, bad: Denoiser, scale: float, interval: tuple[float, float] = (0.0, 1.0)) -> Denoiser:
    """Two denoisers as one: from the bad estimate toward the good one, and for scale > 1 beyond it."""

    def denoise(x: Tensor, t: Tensor | float) -> Tensor:
        x0_good, x0_bad = good(x, t), bad(x, t)
        return x0_bad + _amount(scale, interval, as_time(t), x) * (x0_good - x0_bad)

    return denoise


def autoguidance(
    net, schedule: Schedule, pred: Prediction, context: Tensor, null: Tensor, scale: float, *,
    weak: Denoiser, interval: tuple[float, float] = (0.0, 1.0),
) -> Denoiser:  # fmt: skip
    """Away from a worse model instead of from the unconditional prediction: both see the text. Karras et al. 2024.

    weak: a smaller or less trained denoiser of the same x, with the same condition. null is not used.
    """
    return amplified(denoiser(net, schedule, pred, context), weak, scale, interval)


GUIDANCES: dict[str, Callable[..., Denoiser]] = {"cfg": cfg, "autoguidance": autoguidance}


def _amount(scale: float, interval: tuple[float, float], time: Tensor, like: Tensor) -> Tensor:
    """The scale within the interval and 1 outside, ready to be multiplied with `like` (B, C, H, W)."""
    low, high = interval
    return broadcast(torch.where((low <= time) & (time <= high), scale, 1.0), like)


def rescaled(out: Tensor, out_text: Tensor, amount: float) -> Tensor:
    """Guidance raises contrast: bring each image's standard deviation back toward that of the conditional output.

    out, out_text: (B, C, H, W). amount: 0 leaves out as it is, 1 gives it the standard deviation of out_text.
    Lin et al. 2024, equations 14 to 16.
    """
    own, wanted = (o.std(dim=(1, 2, 3), keepdim=True) for o in (out, out_text))
    return amount * out * (wanted / own) + (1 - amount) * out


def guide(
    denoise: Denoiser, log_p: Callable[[Tensor, Tensor, Tensor], Tensor], schedule: Schedule, scale: float
) -> Denoiser:
    """Classifier guidance: move x0_hat along the gradient of log p(c | x_t).

    log_p: (x, t, x0_hat) -> (B,). One that looks at x, a classifier of noisy images, is exact at
    scale 1 (Dhariwal and Nichol 2021, by Tweedie's formula); one that looks at x0_hat is the
    approximation of Chung et al. 2022 (DPS). Raises ValueError at alpha = 0: start just below t = 1.
    """

    def guided(x: Tensor, t: Tensor | float) -> Tensor:
        alpha, sigma = schedule.at(t, x)
        if (alpha < 1e-6).any():
            raise ValueError("guide divides by alpha, which is 0 here: start just below t = 1")
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            x0_hat = denoise(x, t)
            (gradient,) = torch.autograd.grad(log_p(x, as_time(t), x0_hat).sum(), x)
        return x0_hat.detach() + scale * sigma**2 / alpha * gradient

    return guided


def clipped(denoise: Denoiser, low: float = -1.0, high: float = 1.0) -> Denoiser:
    """A Denoiser whose estimate stays within the range of images."""
    return lambda x, t: denoise(x, t).clamp(low, high)
