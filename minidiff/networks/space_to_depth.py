"""The simplest latent: an image with each square of pixels moved into channels."""

from einops import rearrange
from torch import Tensor, nn


class SpaceToDepth(nn.Module):
    """Pixels into channels and back: (B, C, H*f, W*f) <-> (B, C*f*f, H, W). Nothing is lost.

    The same as PyTorch's pixel_unshuffle and pixel_shuffle (Shi et al. 2016); `ModelConfig.fold` is the factor f.
    f = 2 leaves a quarter of the positions, so a quarter of the network's work; f = 1 leaves images as they are.
    """

    def __init__(self, factor: int = 2):
        super().__init__()
        self.factor = factor

    def encode(self, images: Tensor) -> Tensor:
        return rearrange(images, "b c (h i) (w j) -> b (c i j) h w", i=self.factor, j=self.factor)

    def decode(self, latents: Tensor) -> Tensor:
        return rearrange(latents, "b (c i j) h w -> b c (h i) (w j)", i=self.factor, j=self.factor)
