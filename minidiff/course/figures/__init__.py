"""Figures: pure functions, the same arguments give the same PIL image. `figures.corruption(...)` is one of FIGURES."""

from minidiff.course import attributes
from minidiff.course.figures.page import BLUE, COLOURS, FIGURES, GRAY, GREEN, ORANGE, PURPLE, RED, SKY, STYLE, look

__all__ = ["BLUE", "COLOURS", "FIGURES", "GRAY", "GREEN", "ORANGE", "PURPLE", "RED", "SKY", "STYLE", "look"]

__getattr__, __dir__ = attributes(__name__, FIGURES, "figure")
