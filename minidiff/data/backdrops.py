"""What scenes are set in: plain colours, and places that a few curves and gradients draw, 64x64."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from minidiff.registry import register

SIDE, FINE = 64, 4  # pixels of a picture; the places are drawn so many times larger and averaged
VARIANTS = 8  # pictures of each place, which differ in the run of the hills and in where the sun or the stars are

COLORS = {  # RGB, 0 to 255
    "white": (255, 255, 255), "gray": (176, 182, 188), "black": (34, 36, 42), "red": (226, 92, 84),
    "orange": (255, 168, 88), "yellow": (255, 225, 110), "green": (132, 204, 128), "blue": (116, 178, 244),
    "purple": (172, 140, 228), "pink": (255, 186, 208),
}  # fmt: skip
PHRASES = {  # where a scene is
    "grass": "on grass", "night": "at night", "sea": "by the sea", "desert": "in the desert", "snow": "in the snow",
    "sunset": "at sunset",
}  # fmt: skip
PLACES: dict[str, Callable[[Generator], Tensor]] = {}  # name: a picture (3, H, W) from 0 to 255 for random numbers

_line = torch.linspace(0, 1, SIDE * FINE)
X, Y = _line[None, :].expand(SIDE * FINE, -1), _line[:, None].expand(-1, SIDE * FINE)  # from left, from the top


def backdrop(name: str) -> Tensor:
    """Every picture of a backdrop, (V, 3, 64, 64) from 0 to 255: one of a plain colour, VARIANTS of a place."""
    if name in COLORS:
        return torch.tensor(COLORS[name]).float()[None, :, None, None].expand(1, 3, SIDE, SIDE)
    variants = [PLACES[name](Generator().manual_seed(seed)) for seed in range(VARIANTS)]
    return F.avg_pool2d(torch.stack(variants), FINE)


@register(PLACES)
def grass(generator: Generator) -> Tensor:
    sky = _fade((112, 190, 246), (214, 238, 252), Y / 0.6)
    far = _over(
        sky, _fade((164, 212, 112), (134, 194, 92), (Y - 0.5) / 0.2), _below(_hills(0.56, 0.05, 1.1, generator))
    )
    return _over(
        far, _fade((122, 200, 74), (72, 158, 58), (Y - 0.62) / 0.38), _below(_hills(0.68, 0.04, 0.8, generator))
    )


@register(PLACES)
def night(generator: Generator) -> Tensor:
    sky = _fade((14, 18, 56), (62, 66, 138), Y / 0.8)
    for x, y, size in _random(generator, 11, 3).tolist():
        sky = _over(sky, _flat(255, 246, 206), _disc(0.03 + 0.94 * x, 0.03 + 0.62 * y, 0.009 + 0.007 * size))
    far = _over(sky, _flat(36, 40, 92), _below(_hills(0.74, 0.05, 1.3, generator)))
    return _over(far, _flat(22, 26, 62), _below(_hills(0.84, 0.03, 0.9, generator)))


@register(PLACES)
def sea(generator: Generator) -> Tensor:
    sky = _fade((124, 200, 250), (226, 244, 254), Y / 0.45)
    water = _over(sky, _fade((28, 122, 198), (92, 202, 222), (Y - 0.42) / 0.33), _below(torch.full_like(X, 0.42)))
    shore = _hills(0.78, 0.03, 0.9, generator)
    foam = _over(water, _flat(240, 252, 255), _below(shore - 0.035))
    return _over(foam, _fade((250, 230, 178), (232, 200, 138), (Y - 0.75) / 0.25), _below(shore))


@register(PLACES)
def desert(generator: Generator) -> Tensor:
    sky = _fade((248, 206, 140), (255, 240, 206), Y / 0.6)
    x, y, _ = _random(generator, 3).tolist()
    sky = _over(sky, _flat(255, 252, 236), _disc(0.15 + 0.7 * x, 0.12 + 0.1 * y, 0.085))
    far = _over(
        sky, _fade((236, 180, 106), (226, 164, 90), (Y - 0.5) / 0.2), _below(_hills(0.56, 0.06, 1.0, generator))
    )
    return _over(
        far, _fade((222, 154, 78), (196, 122, 58), (Y - 0.65) / 0.35), _below(_hills(0.72, 0.06, 0.7, generator))
    )


@register(PLACES)
def snow(generator: Generator) -> Tensor:
    sky = _fade((150, 186, 226), (216, 230, 246), Y / 0.6)
    for x, y, size in _random(generator, 10, 3).tolist():
        sky = _over(sky, _flat(255, 255, 255), _disc(0.03 + 0.94 * x, 0.03 + 0.5 * y, 0.013 + 0.008 * size))
    far = _over(
        sky, _fade((226, 236, 250), (206, 220, 242), (Y - 0.55) / 0.2), _below(_hills(0.6, 0.06, 1.2, generator))
    )
    return _over(
        far, _fade((255, 255, 255), (226, 236, 248), (Y - 0.7) / 0.3), _below(_hills(0.72, 0.04, 0.8, generator))
    )


@register(PLACES)
def sunset(generator: Generator) -> Tensor:
    sky = _fade((96, 58, 138), (240, 112, 98), Y / 0.42)
    sky = torch.where(Y < 0.42, sky, _fade((240, 112, 98), (255, 206, 108), (Y - 0.42) / 0.28))
    x = 0.2 + 0.6 * _random(generator, 1).item()
    sky = _over(sky, _flat(255, 240, 170), _disc(x, 0.66, 0.13))
    far = _over(sky, _flat(148, 64, 104), _below(_hills(0.7, 0.03, 1.2, generator)))
    return _over(far, _flat(92, 42, 88), _below(_hills(0.8, 0.04, 0.8, generator)))


def _random(generator: Generator, *shape: int) -> Tensor:
    return torch.rand(shape, generator=generator)


def _flat(*color: int) -> Tensor:
    return torch.tensor(color).float()[:, None, None]


def _fade(top: tuple[int, int, int], bottom: tuple[int, int, int], how_far: Tensor) -> Tensor:
    return torch.lerp(_flat(*top), _flat(*bottom), how_far.clamp(0, 1))


def _hills(height: float, rise: float, waves: float, generator: Generator) -> Tensor:
    """Where the ground begins at each x, measured from the top."""
    first, second = (2 * math.pi * _random(generator, 2)).tolist()
    ridge = torch.sin(2 * math.pi * waves * X + first) + 0.4 * torch.sin(4.6 * math.pi * waves * X + second)
    return height + rise * ridge / 1.4


def _below(edge: Tensor) -> Tensor:
    return (edge < Y).float()


def _disc(x: float, y: float, radius: float) -> Tensor:
    return ((X - x) ** 2 + (Y - y) ** 2 < radius**2).float()


def _over(back: Tensor, front: Tensor, where: Tensor) -> Tensor:
    return torch.lerp(back, front.expand_as(back), where)
