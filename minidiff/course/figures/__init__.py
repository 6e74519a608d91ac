"""Figures: pure functions, the same arguments give the same PIL image. `figures.corruption(...)` is one of FIGURES."""

from collections.abc import Callable

from PIL.Image import Image

from minidiff.course.figures.page import BLUE, FIGURES, GRAY, GREEN, ORANGE, PURPLE, RED, SKY, STYLE
from minidiff.registry import discover

__all__ = ["BLUE", "FIGURES", "GRAY", "GREEN", "ORANGE", "PURPLE", "RED", "SKY", "STYLE"]

discover(__name__)


def __getattr__(name: str) -> Callable[..., Image]:
    if name in FIGURES:
        return FIGURES[name]
    raise AttributeError(f"there is no figure {name!r}; there is {', '.join(FIGURES)}")
