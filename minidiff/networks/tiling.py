"""Large images in tiles: a network sees one square at a time, and memory is needed for one only."""

from collections.abc import Callable

import torch
from torch import Tensor


def in_tiles(f: Callable[[Tensor], Tensor], x: Tensor, tile: int, factor: int, enter: int, leave: int) -> Tensor:
    """f of overlapping squares of x, (B, C, H, W); where two overlap, they are blended linearly.

    tile: pixels of a side. factor: pixels to a latent position. enter, leave: what a latent position is in x, in f(x).
    """
    side = max(tile // factor, 4)  # in latent positions
    overlap = side // 4
    height, width = (n // enter for n in x.shape[-2:])
    total = weights = torch.zeros(())  # until the first tile tells the number of channels
    for top in _starts(height, side, overlap):
        for left in _starts(width, side, overlap):
            rows, columns = (slice(k * enter, (k + side) * enter) for k in (top, left))
            part = f(x[..., rows, columns])
            down, across = (_fade(length, overlap * leave) for length in part.shape[-2:])
            fade = (down[:, None] * across).to(part)
            if total.ndim == 0:
                total = part.new_zeros(*part.shape[:2], height * leave, width * leave)
                weights = part.new_zeros(height * leave, width * leave)
            rows, columns = (slice(k * leave, (k + side) * leave) for k in (top, left))
            total[..., rows, columns] += fade * part
            weights[rows, columns] += fade
    return total / weights


def _starts(length: int, side: int, overlap: int) -> list[int]:
    """Where tiles begin; the last ends where the image does."""
    last = max(0, length - side)
    return [*range(0, last, side - overlap), last]


def _fade(length: int, overlap: int) -> Tensor:
    """1 in the middle of a tile, falling linearly towards 0 on both sides, (length,)."""
    k = (torch.arange(length) + 0.5) / overlap
    return torch.minimum(k, k.flip(0)).clamp(max=1)
