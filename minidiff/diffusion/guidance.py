"""Guidance: functions around a Denoiser that pull its belief toward what is wanted.

The scale w follows one convention: w = 0 is unconditional, w = 1 is conditional, w > 1 amplifies.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from minidiff.diffusion.predictions import Denoiser, Prediction, predict, to_x0
from minidiff.diffusion.schedules import Schedule, as_time, broadcast


def cfg(
    net,
    schedule: Schedule,
    pred: Prediction,
    context: Tensor,
    null: Tensor,
    scale: float,
    *,
    rescale: float = 0.0,
    interval: tuple[float, float] = (0.0, 1.0),
) -> Denoiser:
    """Classifier-free guidance: ask with and without the text, and amplify the difference.

    context: (B, L, D), what the picture should show. null: the same for nothing, (1, L, D) or
    (B, L, D). Both questions travel as two copies of x in one batch. Ho and Salimans 2022,
    equation 6, whose w is this scale - 1. rescale: see `rescaled`. interval: the times t at which
    the scale holds; elsewhere it is 1 (Kynkaanniemi et al. 2024).
    """
    low, high = interval

    def denoise(x: Tensor, t: Tensor | float) -> Tensor:
        both = torch.cat([null.expand_as(context), context])
        time = as_time(t)
        out_null, out_text = predict(
            net, schedule, torch.cat([x, x]), torch.cat([time, time]) if time.ndim else time, both
        ).chunk(2)
        amplify = torch.where((low <= time) & (time <= high), scale, 1.0)
        out = out_null + broadcast(amplify, x) * (out_text - out_null)
        if rescale:
            out = rescaled(out, out_text, rescale)
        return to_x0(pred, out, x, *schedule.at(t, x))

    return denoise


def rescaled(out: Tensor, out_text: Tensor, amount: float) -> Tensor:
    """Guidance makes contrasts louder: bring each picture's spread back toward that of the text's answer.

    out, out_text: (B, C, H, W). amount: 0 leaves out as it is, 1 gives it the spread of out_text.
    Lin et al. 2024, equations 14 to 16.
    """
    spread, wanted = (o.std(dim=(1, 2, 3), keepdim=True) for o in (out, out_text))
    return amount * out * (wanted / spread) + (1 - amount) * out


def guide(
    denoise: Denoiser, log_p: Callable[[Tensor, Tensor, Tensor], Tensor], schedule: Schedule, scale: float
) -> Denoiser:
    """Classifier guidance: move x0_hat along the gradient of log p(c | x_t).

    log_p: (x, t, x0_hat) -> (B,). One that looks at x, a classifier of noisy pictures, is exact at
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
            (gradient,) = torch.autograd.grad(log_p(x, t, x0_hat).sum(), x)
        return x0_hat.detach() + scale * sigma**2 / alpha * gradient

    return guided


def clipped(denoise: Denoiser, low: float = -1.0, high: float = 1.0) -> Denoiser:
    """A Denoiser whose belief stays within the range of pictures."""
    return lambda x, t: denoise(x, t).clamp(low, high)
