"""Clouds of points in the plane: data small enough to see all of it."""

import math

import torch
from torch import Generator, Tensor

from minidiff.registry import choose


def points(name: str = "spiral", n: int = 500, seed: int = 0) -> Tensor:
    """n points of CLOUDS[name], (n, 2) float32, within about [-1.2, 1.2] as pixels are; UserError for an unknown name."""
    cloud, generator = choose(name, CLOUDS, "cloud"), torch.Generator().manual_seed(seed)
    return cloud(n, generator) + 0.02 * torch.randn(n, 2, generator=generator)


def _spiral(n: int, generator: Generator) -> Tensor:
    turn = torch.rand(n, generator=generator).sqrt()  # the root: evenly along the arm
    angle = 3.5 * math.pi * turn
    return torch.stack([turn * angle.cos(), turn * angle.sin()], dim=1)


def _moons(n: int, generator: Generator) -> Tensor:
    angle = math.pi * torch.rand(n, generator=generator)
    upper = (torch.arange(n) % 2 * 2 - 1).float()  # 1 and -1 in turns
    return torch.stack([0.6 * angle.cos() + 0.3 * upper, upper * (0.7 * angle.sin() - 0.2)], dim=1)


def _islands(n: int, generator: Generator) -> Tensor:
    angle = 2 * math.pi * torch.randint(5, (n,), generator=generator) / 5 + math.pi / 2
    return torch.stack([angle.cos(), angle.sin()], dim=1) + 0.08 * torch.randn(n, 2, generator=generator)


CLOUDS = {"spiral": _spiral, "moons": _moons, "islands": _islands}
