"""Widgets: a figure with controls and a caption, for notebooks. `widgets.corruption()` is one of WIDGETS."""

import html
import warnings
from collections.abc import Callable

import ipywidgets
from ipywidgets import Text, ToggleButtons, VBox
from PIL.Image import Image

from minidiff import image_files
from minidiff.course import attributes
from minidiff.registry import UserError
from minidiff.tokenizer import shorten

__all__ = ["WIDGETS"]

WIDGETS: dict[str, Callable[..., VBox]] = {}  # name -> what makes one


def view(
    draw: Callable[..., Image], caption: str, note: Callable[..., str] | None = None, **controls: ipywidgets.Widget
) -> VBox:
    """Controls, the figure that `draw` makes of their values, and a caption.

    note: one line about the values, "" for none. With it there is a line above the figure, which also says why a
    figure cannot be drawn (a UserError); the last one stays then.
    """
    for name, control in controls.items():
        control.description = control.tooltip = name
        control.style.description_width = "80px"  # the longest name fits
        control.layout.width = {ToggleButtons: "760px", Text: "640px"}.get(type(control), "420px")
        if hasattr(control, "continuous_update"):
            control.continuous_update = False  # one drawing when the slider is let go, not fifty on the way
    picture = ipywidgets.Image(format="png")  # no tooltip: in the browser it is an error, for what has no description
    line = ipywidgets.HTML()

    def redraw(_=None) -> None:
        values = {name: control.value for name, control in controls.items()}
        try:
            with warnings.catch_warnings(action="ignore"):  # what is left out of a prompt is said in the note
                image, said = draw(**values), note(**values) if note else ""
        except UserError as error:
            if not (note and picture.value):
                raise
            image, said = None, str(error)
        # one line, read out when it changes; it may quote what somebody typed: nothing in it is HTML
        line.value = f'<span role="status">{html.escape(shorten(said, 200)) or "&nbsp;"}</span>'
        if image:  # only the bytes change: the browser keeps the element, so nothing flickers
            picture.value = image_files.encode(image)
            picture.layout.width, picture.layout.height = f"{image.width}px", f"{image.height}px"

    redraw()
    for control in controls.values():
        control.observe(redraw, names="value")
    return VBox([*controls.values(), *([line] if note else []), picture, ipywidgets.HTML(caption)])


__getattr__, __dir__ = attributes(__name__, WIDGETS, "widget")
