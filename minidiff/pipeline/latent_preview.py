"""What latents look like, without the VAE: each of their places as one pixel, by a linear map.

A VAE's latents are close to small pictures in odd colours. Which colours, the VAE can be asked: show it
pictures of known colours, and fit a straight line. That costs one call of the encoder, once; a preview then costs nothing.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from minidiff.networks import VAE

SIDE = 32  # places a side of the picture that is shown to the VAE
PATCH = 4  # places a side of each patch of one colour


@dataclass(frozen=True)
class LatentToRGB:
    """Latents (B, c, h, w) -> pictures (B, 3, h, w) in [0, 1]."""

    weight: Tensor  # (c + 1, 3); the last row is what is added

    def __call__(self, latents: Tensor) -> Tensor:
        weight = self.weight.to(latents)
        pixels = torch.einsum("bchw,cd->bdhw", latents, weight[:-1]) + weight[-1][:, None, None]
        return ((pixels + 1) / 2).clamp(0, 1)


@torch.no_grad()
def latent_to_rgb(vae: VAE) -> LatentToRGB:
    """The line that fits best, in the least squares, between the latents of patches of random colours and the colours."""
    parameter = next(vae.parameters())
    patches = SIDE // PATCH
    colors = 2 * torch.rand(1, 3, patches, patches, generator=Generator().manual_seed(0)) - 1
    picture = F.interpolate(colors, size=SIDE * vae.factor).to(parameter)
    latents = vae.encode(picture).float().flatten(2)[0].T.cpu()  # (SIDE * SIDE, c)
    wanted = F.interpolate(colors, size=SIDE).flatten(2)[0].T  # (SIDE * SIDE, 3)
    known = torch.cat([latents, torch.ones(len(latents), 1)], dim=1)
    return LatentToRGB(torch.linalg.lstsq(known, wanted).solution)
