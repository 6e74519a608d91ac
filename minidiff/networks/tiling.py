"""Large pictures in tiles: a network sees one square after the other, and memory is needed for one alone."""

from collections.abc import Callable

import torch
from torch import Tensor


def in_tiles(f: Callable[[Tensor], Tensor], x: Tensor, tile: int, factor: int, enter: int, leave: int) -> Tensor:
    """f of overlapping squares of x, (B, C, H, W); where two overlap, one fades into the other along a line.

    tile: pixels of a side. enter, leave: what one step on the latent's grid is in x and in f(x).
    """
    side = max(tile // factor, 4)  # on the latent's grid
    overlap = side // 4
    height, width = (n // enter for n in x.shape[-2:])
    total = weights = 0
    for top in _starts(height, side, overlap):
        for left in _starts(width, side, overlap):
            rows, columns = (slice(k * enter, (k + side) * enter) for k in (top, left))
            part = f(x[..., rows, columns])
            fade = _fade(part.shape[-2], overlap * leave)[:, None] * _fade(part.shape[-1], overlap * leave)
            fade = fade.to(part)
            if not torch.is_tensor(total):
                total = part.new_zeros(*part.shape[:2], height * leave, width * leave)
                weights = part.new_zeros(height * leave, width * leave)
            rows, columns = (slice(k * leave, (k + side) * leave) for k in (top, left))
            total[..., rows, columns] += fade * part
            weights[rows, columns] += fade
    return total / weights


def _starts(length: int, side: int, overlap: int) -> list[int]:
    """Where tiles begin; the last ends where the picture does."""
    last = max(0, length - side)
    return [*range(0, last, side - overlap), last]


def _fade(length: int, overlap: int) -> Tensor:
    """1 in the middle of a tile, and a line towards 0 on both sides, (length,)."""
    k = (torch.arange(length) + 0.5) / overlap
    return torch.minimum(k, k.flip(0)).clamp(max=1)
