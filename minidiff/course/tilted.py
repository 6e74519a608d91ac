"""Exact samples of a tilted density, to compare guidance with."""

import torch
from torch import Tensor


def tilted(points: Tensor, wanted: Tensor, w: float, std: float, n: int = 300, seed: int = 0) -> Tensor:
    """n samples of p(x) p(c | x)^w, (n, D), by rejection: draw from p, keep with probability p(c | x)^w.

    points: (N, D); p is a Gaussian of standard deviation std around each, as for `ideal`. wanted: (N,) bool, those of class c.
    """
    generator, kept = torch.Generator().manual_seed(seed), points[:0]
    while len(kept) < n:
        x = points[torch.randint(len(points), (n,), generator=generator)]
        x = x + std * torch.randn(x.shape, generator=generator, dtype=x.dtype)
        p_class = torch.softmax(-torch.cdist(x, points).square() / (2 * std**2), dim=1)[:, wanted].sum(1)
        kept = torch.cat([kept, x[torch.rand(n, generator=generator) < p_class**w]])
    return kept[:n]
