"""The simplest latent: a picture folded so that each 2x2 square becomes one pixel."""

from einops import rearrange
from torch import Tensor, nn


class Fold(nn.Module):
    """Space folded into channels, (B, C, H*f, W*f) <-> (B, C*f*f, H, W). Nothing is lost.

    A quarter of the pixels (f = 2) is a quarter of the network's work. f = 1 leaves pictures as
    they are. The same as PyTorch's pixel_unshuffle and pixel_shuffle.
    """

    def __init__(self, factor: int = 2):
        super().__init__()
        self.factor = factor

    def encode(self, pictures: Tensor) -> Tensor:
        return rearrange(pictures, "b c (h i) (w j) -> b (c i j) h w", i=self.factor, j=self.factor)

    def decode(self, latents: Tensor) -> Tensor:
        return rearrange(latents, "b (c i j) h w -> b c (h i) (w j)", i=self.factor, j=self.factor)
