"""What several figures compute: a noisy image, and the network's denoised estimate of it."""

from collections.abc import Callable

import torch
from torch import Generator, Tensor

from minidiff.diffusion import denoiser
from minidiff.pipeline.text_to_image import TextToImage
from minidiff.registry import check_between


def noise_of(like: Tensor, seed: int) -> Tensor:
    """Standard normal noise of that shape, from a generator of its own on the CPU."""
    return torch.randn(like.shape, generator=Generator().manual_seed(seed)).to(like)


def noised(pipe: TextToImage, picture: Tensor, times: list[float], seed: int) -> tuple[Tensor, Tensor]:
    """The latents of an image (C, H, W) in [-1, 1], and x_t of them at each time with the same noise, (T, C, h, w)."""
    for t in times:
        check_between("t", t, 0, 1)
    clean = pipe.to_latents(picture[None])
    x = clean.expand(len(times), -1, -1, -1)
    return clean, pipe.schedule.add_noise(x, noise_of(clean, seed), torch.tensor(times, dtype=torch.float64))


@torch.no_grad()
def estimate(
    pipe: TextToImage, x: Tensor, times: list[float], prompt: str | None, net: Callable | None = None
) -> Tensor:
    """x0_hat of every row of x, (T, C, h, w), in one forward pass; unconditional for None. net: in place of the UNet."""
    context = pipe.encode_negative(None, 1) if prompt is None else pipe.encode([prompt])
    denoise = denoiser(net or pipe.net.unet, pipe.schedule, pipe.prediction, context.expand(len(x), -1, -1))
    return denoise(x, torch.tensor(times, dtype=torch.float64))
