"""Widgets: a figure with controls, for notebooks. `widgets.corruption()` is one of WIDGETS."""

from minidiff.course import attributes
from minidiff.course.widgets.view import WIDGETS

__all__ = ["WIDGETS"]

__getattr__ = attributes(__name__, WIDGETS, "widget")
