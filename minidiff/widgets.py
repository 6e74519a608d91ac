"""Things to turn in a notebook: ipywidgets as thin views over the pure functions of viz.

Each function returns a box; on the last line of a cell it is shown. The tab key moves between the controls, the arrow
keys turn them.
"""

from collections.abc import Callable
from functools import cache

import ipywidgets
from ipywidgets import Dropdown, FloatSlider, IntSlider, SelectionSlider, SelectMultiple, ToggleButtons, VBox
from PIL import Image
from torch import Tensor

from minidiff import data, viz
from minidiff.diffusion import SAMPLERS, SCHEDULES
from minidiff.networks import room_names
from minidiff.pipeline import TextToImage


def corruption(pictures: Tensor | None = None) -> VBox:
    """Noise eats a picture. pictures: (N, C, H, W) in [-1, 1], else a hundred digits."""
    pictures = _digits() if pictures is None else pictures
    return _view(
        lambda picture, schedule, t: viz.corruption(pictures[picture], schedule, t),
        "A picture at time t: how much of it is left, and the values of its pixels.",
        picture=_which(pictures),
        schedule=Dropdown(options=list(SCHEDULES), value="flow"),
        t=_time(0.3),
    )


def schedules(pictures: Tensor | None = None) -> VBox:
    """Schedules side by side, and a picture at time t under each. pictures: (N, C, H, W) in [-1, 1], else digits."""
    pictures = _digits() if pictures is None else pictures
    names = list(SCHEDULES)
    return _view(
        lambda schedules, picture, t: viz.schedules(list(schedules), t, pictures[picture]),
        "Hold Ctrl or Shift to choose several schedules.",
        schedules=SelectMultiple(options=names, value=("linear", "cosine", "flow"), rows=len(names)),
        picture=_which(pictures),
        t=_time(0.3),
    )


def one_step(pipe: TextToImage, pictures: Tensor | None = None) -> VBox:
    """What the network believes to be behind the noise, asked once. pictures: (N, C, H, W) in [-1, 1], else digits."""
    pictures = _digits() if pictures is None else pictures
    return _view(
        lambda picture, prompt, t: viz.one_step(pipe, pictures[picture], [t], prompt or None),
        "The clean picture, the noisy one, and the network's answer in one step.",
        picture=_which(pictures),
        prompt=_prompt(),
        t=_time(0.5),
    )


def sampler(pipe: TextToImage) -> VBox:
    """A digit out of noise, with the sampler, the steps, the seed and the guidance scale of your choice."""
    return _view(
        lambda digit, sampler, steps, seed, scale: viz.sampler(pipe, digit, sampler, steps, seed, scale),
        "Small: what the network believed on the way. Large: the result, and where 1000 steps from the same noise end.",
        digit=Dropdown(options=[str(digit) for digit in range(10)], value="7"),
        sampler=Dropdown(options=list(SAMPLERS), value="dpmpp_2m"),
        steps=IntSlider(value=8, min=1, max=20),
        seed=IntSlider(value=0, min=0, max=4),
        scale=SelectionSlider(options=[1.0, 1.5, 2.0, 4.0], value=1.5),
    )


def playground() -> VBox:
    """Points on a page, noised and walked back with the best denoiser there can be."""
    return _view(
        viz.playground,
        "Left: the cloud at time t; arrows point to where points are likelier. Right: from noise back to the cloud.",
        cloud=Dropdown(options=list(data.CLOUDS), value="spiral"),
        t=_time(0.3),
        sampler=Dropdown(options=list(SAMPLERS), value="euler"),
        steps=IntSlider(value=10, min=1, max=40),
    )


def metric() -> VBox:
    """Real digits, damaged on purpose: which number notices?"""
    return _view(
        viz.metric,
        "Above: some of the digits. Below: what is measured, and (gray) where undamaged real digits fall.",
        damage=Dropdown(options=list(viz.DAMAGES), value="blur"),
        amount=FloatSlider(value=0.5, min=0.0, max=1.0, step=0.05, readout_format=".2f"),
    )


def unet(pipe: TextToImage, pictures: Tensor | None = None) -> VBox:
    """What each room of the network makes of a noisy picture. pictures: (N, C, H, W) in [-1, 1], else digits."""
    pictures = _digits() if pictures is None else pictures
    names = room_names(pipe.net.unet)
    return _view(
        lambda room, picture, t, prompt: viz.unet(pipe, pictures[picture], room, t, prompt or None),
        "Small pictures: channels of the room's output, all on the colour scale on the right.",
        room=ToggleButtons(options=names, value=names[1]),
        picture=_which(pictures),
        t=_time(0.5),
        prompt=_prompt(),
    )


def _view(draw: Callable[..., Image.Image], caption: str, **controls: ipywidgets.Widget) -> VBox:
    """Controls, the picture that `draw` makes of their values, and a caption."""
    for name, control in controls.items():
        control.description = name
        control.tooltip = name
        control.style.description_width = "80px"  # room for the longest name
        control.layout.width = "760px" if isinstance(control, ToggleButtons) else "420px"
        if hasattr(control, "continuous_update"):
            control.continuous_update = False  # one drawing when the slider is let go, not fifty on the way
    picture = ipywidgets.Image(format="png")

    def redraw(_=None) -> None:
        # only the bytes change: the browser keeps the element, so nothing flickers
        picture.value = viz.encode(draw(**{name: control.value for name, control in controls.items()}))

    for control in controls.values():
        control.observe(redraw, names="value")
    first = draw(**{name: control.value for name, control in controls.items()})
    picture.value = viz.encode(first)
    picture.layout = ipywidgets.Layout(width=f"{first.width}px", height=f"{first.height}px")
    return VBox([*controls.values(), picture, ipywidgets.HTML(caption)])


@cache
def _digits() -> Tensor:
    return data.mnist("validation").images[:100]


def _which(pictures: Tensor) -> IntSlider:
    return IntSlider(value=min(3, len(pictures) - 1), min=0, max=len(pictures) - 1)


def _prompt() -> Dropdown:
    return Dropdown(options=[("nothing", ""), *((str(d), str(d)) for d in range(10))], value="")


def _time(value: float) -> FloatSlider:
    return FloatSlider(value=value, min=0.0, max=1.0, step=0.02, readout_format=".2f")
