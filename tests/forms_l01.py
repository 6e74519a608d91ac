"""Right answers to the exercises of lesson 01, each written in another way."""

import math

import torch
from einops import rearrange


def _loop_alphas(betas):
    left, rows = 1.0, []
    for beta in betas.tolist():
        left *= math.sqrt(1 - beta)
        rows.append(left)
    return rows


def _one_by_one(x0, eps, alpha, sigma):
    return torch.stack([a * x + s * e for a, s, x, e in zip(alpha, sigma, x0, eps, strict=True)])


FORMS = {
    "l01_to_model": [
        lambda pixels: 2 * (pixels.float() / 255) - 1,
        lambda pixels: (pixels.numpy() - 127.5) / 127.5,
    ],
    "l01_one_step": [
        lambda x, eps, beta: (1 - beta) ** 0.5 * x.float() + beta**0.5 * eps.float(),
        lambda x, eps, beta: torch.tensor(1 - beta).sqrt() * x + torch.tensor(beta).sqrt() * eps,
    ],
    "l01_alphas": [_loop_alphas, lambda betas: torch.exp(0.5 * torch.log1p(-betas).cumsum(0))],
    "l01_add_noise": [
        _one_by_one,
        lambda x0, eps, alpha, sigma: (
            rearrange(alpha, "b -> b 1 1 1").float() * x0.float() + sigma[:, None, None, None] * eps
        ),
    ],
    "l01_cosine_time": [
        lambda snr: torch.acos((snr / (1 + snr)).sqrt()) * 2 / math.pi,
        lambda snr: [math.atan2(1, math.sqrt(value)) / (math.pi / 2) for value in snr.tolist()],
    ],
}
