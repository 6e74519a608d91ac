"""Widgets: a figure with controls, for notebooks. `widgets.corruption()` is one of WIDGETS."""

from collections.abc import Callable

from ipywidgets import VBox

from minidiff.course.widgets.view import WIDGETS
from minidiff.registry import discover

__all__ = ["WIDGETS"]

discover(__name__)


def __getattr__(name: str) -> Callable[..., VBox]:
    if name in WIDGETS:
        return WIDGETS[name]
    raise AttributeError(f"there is no widget {name!r}; there is {', '.join(WIDGETS)}")
