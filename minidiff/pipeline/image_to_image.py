"""Sampling that starts from an image instead of noise, and keeps what is known.

Image to image: an image with the noise of time t added is a good start for sampling from t on. The earlier that t is
in the denoising, the more is changed (SDEdit, Meng et al. 2021). Inpainting: after every step the part that is to stay
is put back, at the noise level of that step (Song et al. 2021; RePaint, Lugmayr et al. 2022, without its resampling).
"""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from minidiff.diffusion import Schedule
from minidiff.image_files import read_image
from minidiff.registry import UserError

Picture = Image.Image | np.ndarray | str | Path  # what `read_image` reads
LARGEST = 4096  # pixels of a side that is drawn


def remaining(times: Tensor, strength: float) -> Tensor:
    """The times of the last int(n * strength) of n steps. Raises UserError outside 0 to 1, or if no step is left."""
    if not (math.isfinite(strength) and 0 <= strength <= 1):
        raise UserError(f"strength must lie between 0 and 1, got {strength}")
    steps = len(times) - 1
    if not int(steps * strength):
        raise UserError(f"strength {strength} of {steps} steps leaves no step: take a greater strength, or more steps")
    return times[steps - int(steps * strength) :]


def keep(known: Tensor, mask: Tensor, noise: Tensor, schedule: Schedule,
         end: Tensor | float = 0.0) -> Callable[[Tensor, Tensor], Tensor]:  # fmt: skip
    """What a sampler does after each step: puts back the known part, with this noise at the time it reached.

    known, noise: (B, c, h, w). mask: (1 or B, 1, h, w), 1 where a new image is generated, 0 where the known one stays.
    end: the last time, after which the known part is clean.
    """

    def after(x: Tensor, t: Tensor) -> Tensor:
        return mask * x + (1 - mask) * (known if t <= end else schedule.add_noise(known, noise, t))

    return after


def check_size(height: int, width: int, factor: int) -> None:
    """Raises UserError for sides of an image, in pixels, that are no multiples of `factor`, or above LARGEST."""
    fits = min(height, width) >= 1 and height % factor == width % factor == 0
    if not fits or max(height, width) > LARGEST:
        need = f"at most {LARGEST}" if fits else f"a multiple of {factor}"
        raise UserError(f"size must be {need}, got {height}x{width}")


def fitted(init: Image.Image, mask: Image.Image | None, side: int,
           factor: int) -> tuple[Image.Image, Image.Image | None]:  # fmt: skip
    """An image, and its mask if there is one, at the size of a model's images.

    The shorter side becomes `side`, the longer one is rounded down to a multiple of `factor`. Raises UserError for a
    side that is none, and for a mask of another size.
    """
    check_size(side, side, factor)
    if mask:
        _check_same(mask, (init.height, init.width))
    width, height = (int(length * (side / min(init.size)) + 1e-6) // factor * factor for length in init.size)
    check_size(height, width, factor)
    size = (width, height)
    return init.resize(size, Image.Resampling.LANCZOS), mask and mask.resize(size, Image.Resampling.NEAREST)


def from_pil(picture: Picture, channels: int = 3) -> Tensor:
    """A picture, read by `read_image`, in [-1, 1], (1, channels, H, W)."""
    pixels = np.asarray(read_image(picture).convert("RGB" if channels == 3 else "L"), dtype=np.float32)
    return torch.from_numpy(pixels.reshape(*pixels.shape[:2], channels)).permute(2, 0, 1)[None] / 127.5 - 1


def mask_from_pil(mask: Picture, size: tuple[int, int], grid: tuple[int, int]) -> Tensor:
    """A mask on the latents' grid, (1, 1, h, w) of 0 and 1: 1 where it is white.

    size: (height, width) of the image, which the mask must have too, or a UserError. grid: (h, w) of the latents. A
    latent pixel takes what its upper left pixel says, as in diffusers.
    """
    _check_same(mask := read_image(mask, "the mask"), size)
    return F.interpolate((from_pil(mask, 1) >= 0).float(), size=grid)


def _check_same(mask: Image.Image, size: tuple[int, int]) -> None:
    if (mask.height, mask.width) != size:
        raise UserError(f"the mask is {mask.height}x{mask.width}, and the picture {size[0]}x{size[1]}")


def prepared(init: Picture | Tensor, mask: Picture | Tensor | None, shape: tuple[int, int, int], factor: int,
             encode: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor | None]:  # fmt: skip
    """An image to begin from as latents (1 or B, c, h, w), and the mask on their grid, (1 or B, 1, h, w) or None.

    shape: B, c, and the channels of the model's images. factor: how many pixels a latent pixel is wide. encode: images ->
    latents. Raises UserError for what does not fit.
    """
    count, latent_channels, channels = shape
    if not isinstance(init, Tensor):
        pixels = from_pil(init, channels)
        check_size(pixels.shape[2], pixels.shape[3], factor)
        init = encode(pixels)
    if (
        not init.is_floating_point()
        or init.ndim != 4
        or init.shape[0] not in (1, count)
        or init.shape[1] != latent_channels
    ):
        wanted = f"({_or_one(count)}, {latent_channels}, h, w)"
        raise UserError(f"init must be floats of shape {wanted}, got {tuple(init.shape)} of {init.dtype}")
    height, width = init.shape[2:]
    if mask is None:
        return init, None
    if not isinstance(mask, Tensor):
        mask = mask_from_pil(mask, (height * factor, width * factor), (height, width))
    if mask.ndim != 4 or mask.shape[0] not in (1, count) or mask.shape[1:] != (1, height, width):
        raise UserError(f"the mask must have shape ({_or_one(count)}, 1, {height}, {width}), got {tuple(mask.shape)}")
    if not (mask.min() >= 0 and mask.max() <= 1):
        raise UserError("the mask must lie between 0 and 1")
    return init, mask.to(init)


def _or_one(count: int) -> str:
    return "1" if count == 1 else f"1 or {count}"
