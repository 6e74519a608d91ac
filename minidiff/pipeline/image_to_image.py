"""Sampling that starts from an image instead of noise, and keeps what is known.

Image to image: an image with the noise of time t added is a good start for sampling from t on. The earlier that t is
in the denoising, the more is changed (SDEdit, Meng et al. 2021). Inpainting: after every step the part that is to stay
is put back, at the noise level of that step (Song et al. 2021; RePaint, Lugmayr et al. 2022, without its resampling).
"""

import math
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from minidiff.diffusion import Schedule
from minidiff.registry import UserError


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


def fitted(init: Image.Image, mask: Image.Image | None, side: int,
           factor: int) -> tuple[Image.Image, Image.Image | None]:  # fmt: skip
    """An image, and its mask if there is one, at the size of a model's images.

    The shorter side becomes `side`, the longer one is rounded down to a multiple of `factor`. Raises UserError for a
    side that is none, and for a mask of another size.
    """
    if side < 1 or side % factor:
        raise UserError(f"size must be a multiple of {factor}, got {side}x{side}")
    if mask:
        _check_size(mask, (init.height, init.width))
    width, height = (int(length * (side / min(init.size)) + 1e-6) // factor * factor for length in init.size)
    size = (width, height)
    return init.resize(size, Image.Resampling.LANCZOS), mask and mask.resize(size, Image.Resampling.NEAREST)


def from_pil(picture: Image.Image, channels: int = 3) -> Tensor:
    """A picture in [-1, 1], (1, channels, H, W)."""
    pixels = np.asarray(picture.convert("RGB" if channels == 3 else "L"), dtype=np.float32)
    return torch.from_numpy(pixels.reshape(*pixels.shape[:2], channels)).permute(2, 0, 1)[None] / 127.5 - 1


def mask_from_pil(mask: Image.Image, size: tuple[int, int], grid: tuple[int, int]) -> Tensor:
    """A mask on the latents' grid, (1, 1, h, w) of 0 and 1: 1 where it is white.

    size: (height, width) of the image, which the mask must have too, or a UserError. grid: (h, w) of the latents. A
    latent pixel takes what its upper left pixel says, as in diffusers.
    """
    _check_size(mask, size)
    return F.interpolate((from_pil(mask, 1) >= 0).float(), size=grid)


def _check_size(mask: Image.Image, size: tuple[int, int]) -> None:
    if (mask.height, mask.width) != size:
        raise UserError(f"the mask is {mask.height}x{mask.width}, and the picture {size[0]}x{size[1]}")


def prepared(init: Image.Image | Tensor, mask: Image.Image | Tensor | None, channels: int, factor: int,
             encode: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor | None]:  # fmt: skip
    """An image to begin from as latents (1 or B, c, h, w), and the mask on their grid, (1 or B, 1, h, w) or None.

    channels: of the model's images. factor: how many pixels a latent pixel is wide. encode: images -> latents.
    """
    if isinstance(init, Image.Image):
        if init.width % factor or init.height % factor:
            raise UserError(f"the sides of a picture must be multiples of {factor}, got {init.height}x{init.width}")
        init = encode(from_pil(init, channels))
    height, width = init.shape[2:]
    if isinstance(mask, Image.Image):
        mask = mask_from_pil(mask, (height * factor, width * factor), (height, width))
    if mask is not None and (mask.ndim != 4 or mask.shape[1:] != (1, height, width)):
        raise UserError(f"the mask must have shape {(1, 1, height, width)}, got {tuple(mask.shape)}")
    return init, None if mask is None else mask.to(init)
