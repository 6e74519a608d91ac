"""What latents look like, without the VAE: each of their pixels as one pixel, by a linear map.

A VAE's latents are close to small images in odd colours. Which colours, the VAE can be asked: encode images of known
colours, and fit a linear map. That costs one call of the encoder, once; a preview then costs nothing.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from minidiff.networks import VAE

SIDE = 32  # latent pixels a side of the image that is encoded
PATCHES = 8  # patches of one colour a side


@torch.no_grad()
def latent_to_rgb(vae: VAE) -> Callable[[Tensor], Tensor]:
    """Latents (B, c, h, w) -> images (B, 3, h, w) in [0, 1]: the least-squares fit to patches of random colours."""
    colors = 2 * torch.rand(1, 3, PATCHES, PATCHES, generator=Generator().manual_seed(0)) - 1
    picture = F.interpolate(colors, size=SIDE * vae.factor).to(next(vae.parameters()))
    latents = vae.encode(picture).float().flatten(2)[0].T.cpu()  # (SIDE * SIDE, c)
    wanted = F.interpolate(colors, size=SIDE).flatten(2)[0].T  # (SIDE * SIDE, 3)
    known = torch.cat([latents, torch.ones(len(latents), 1)], dim=1)
    fit = torch.linalg.lstsq(known, wanted).solution  # (c + 1, 3); the last row is what is added

    def to_rgb(latents: Tensor) -> Tensor:
        weight = fit.to(latents)
        pixels = torch.einsum("bchw,cd->bdhw", latents, weight[:-1]) + weight[-1][:, None, None]
        return ((pixels + 1) / 2).clamp(0, 1)

    return to_rgb
