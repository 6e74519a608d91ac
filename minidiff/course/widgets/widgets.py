"""The widgets: thin views over the figures. Each function returns a box, which the last line of a cell shows."""

from collections.abc import Sequence
from functools import lru_cache

import ipywidgets as ui
from ipywidgets import Dropdown, FloatSlider, IntSlider, SelectionSlider, Text, ToggleButtons, VBox
from torch import Tensor

from minidiff import data
from minidiff.course import figures
from minidiff.course.examples import CRYING, PROMPT, THING, digits, scenes, some_emoji
from minidiff.course.figures.latents import PARTS, trajectory
from minidiff.course.figures.metrics import DAMAGES
from minidiff.course.figures.words import PICTURES, resolutions
from minidiff.course.planner import GPUS, Plan
from minidiff.course.widgets import WIDGETS, view
from minidiff.diffusion import DEFAULT_SAMPLER, SAMPLERS, SCHEDULES
from minidiff.networks import CLIP, block_names
from minidiff.pipeline.text_to_image import TextToImage
from minidiff.registry import register
from minidiff.tokenizer import Tokenizer


@register(WIDGETS)
def corruption(pictures: Tensor | None = None) -> VBox:
    """The forward process. pictures: (N, C, H, W) in [-1, 1], else a hundred digits."""
    pictures = digits() if pictures is None else pictures
    return view(
        lambda picture, schedule, t: figures.corruption(pictures[picture], schedule, t),
        "An image at time t: how much of it is left, and the histogram of its pixels.",
        picture=_which(pictures),
        schedule=Dropdown(options=list(SCHEDULES), value="flow"),
        t=FloatSlider(0.3, max=1.0, step=0.02),
    )


@register(WIDGETS)
def schedules(pictures: Tensor | None = None) -> VBox:
    """Schedules compared, and an image at time t under each. pictures: (N, C, H, W) in [-1, 1], else digits."""
    pictures = digits() if pictures is None else pictures
    return view(
        lambda schedules, picture, t: figures.schedules(list(schedules), t, pictures[picture]),
        "Hold Ctrl or Shift to choose several schedules.",
        schedules=ui.SelectMultiple(options=list(SCHEDULES), value=("linear", "cosine", "flow"), rows=len(SCHEDULES)),
        picture=_which(pictures),
        t=FloatSlider(0.3, max=1.0, step=0.02),
    )


@register(WIDGETS)
def one_step(pipe: TextToImage, pictures: Tensor | None = None) -> VBox:
    """The denoised estimate in one forward pass. pictures: (N, C, H, W) in [-1, 1], else digits."""
    pictures = digits() if pictures is None else pictures
    return view(
        lambda picture, prompt, t: figures.one_step(pipe, pictures[picture], [t], prompt or None),
        "The clean image, the noisy one, and the network's estimate in one forward pass.",
        picture=_which(pictures),
        prompt=_prompt(pipe),
        t=FloatSlider(0.5, max=1.0, step=0.02),
    )


@register(WIDGETS)
def sampler(pipe: TextToImage) -> VBox:
    """An image of a class generated from noise, with the sampler, steps, seed and guidance scale of your choice."""
    classes = data.DATASETS[pipe.config.labels].classes
    return view(
        lambda prompt, sampler, steps, seed, scale: figures.sampler(pipe, prompt, sampler, steps, seed, scale),
        "Small: the denoised estimates. Large: the result, and where 1000 steps from the same noise end.",
        prompt=Dropdown(options=classes, value=classes[7 % len(classes)]),
        sampler=Dropdown(options=list(SAMPLERS), value=DEFAULT_SAMPLER),
        steps=IntSlider(value=8, min=1, max=20),
        seed=IntSlider(max=4),
        scale=SelectionSlider(options=[1.0, 1.5, 2.0, 4.0], value=1.5),
    )


@register(WIDGETS)
def playground() -> VBox:
    """Points in the plane, noised, and sampled from noise with the best denoiser there can be."""
    return view(
        figures.playground,
        "Left: the data at time t; arrows point to where the density grows. Right: from noise back to the data.",
        cloud=Dropdown(options=list(data.CLOUDS)),
        t=FloatSlider(0.3, max=1.0, step=0.02),
        sampler=Dropdown(options=list(SAMPLERS), value=DEFAULT_SAMPLER),
        steps=IntSlider(value=10, min=1, max=40),
    )


@register(WIDGETS)
def metric() -> VBox:
    """Real digits, damaged on purpose: which metric notices?"""
    return view(
        figures.metric,
        "Above: some of the digits. Below: the metrics, and (gray) where undamaged real digits fall.",
        damage=Dropdown(options=list(DAMAGES)),
        amount=FloatSlider(value=0.5, min=0.0, max=1.0, step=0.05, readout_format=".2f"),
    )


@register(WIDGETS)
def unet(pipe: TextToImage, pictures: Tensor | None = None) -> VBox:
    """The feature maps of each block for a noisy image. pictures: (N, C, H, W) in [-1, 1], else digits."""
    pictures = digits() if pictures is None else pictures
    names = block_names(pipe.net.unet)
    return view(
        lambda block, picture, t, prompt: figures.unet(pipe, pictures[picture], block, t, prompt or None),
        "Small images: channels of the block's output, all on the colour scale on the right.",
        block=ToggleButtons(options=names, value=names[1]),
        picture=_which(pictures),
        t=FloatSlider(0.5, max=1.0, step=0.02),
        prompt=_prompt(pipe),
    )


@register(WIDGETS)
def guidance(pipe: TextToImage, prompt: str = PROMPT, steps: int = 20) -> VBox:
    """What a prompt changes in the prediction at every step, and the effect of amplifying it."""
    return view(
        lambda prompt, negative, scale, seed: figures.guidance(pipe, prompt, negative, scale, seed, steps),
        "Predictions without and with the prompt, for the same noisy images, and their difference. Enter generates.",
        lambda prompt, negative, **_: pipe.unread(prompt) or pipe.unread(negative),
        prompt=Text(value=prompt),
        negative=Text(placeholder="none"),
        scale=FloatSlider(pipe.config.scale, max=10.0, step=0.5, readout_format=".1f"),
        seed=IntSlider(max=9),
    )


@register(WIDGETS)
def clip(
    model: CLIP, tokenizer: Tokenizer,
    pictures: Tensor | None = None, captions: Sequence[str] | None = None, own: str = "a seven in red",
) -> VBox:  # fmt: skip
    """Which caption fits which image, and how well does one of your own?

    pictures: (N, 3, H, W) in [-1, 1], of the model's input size, with one caption each, or ValueError; else `scenes`.
    """
    if pictures is None:
        pictures, captions = scenes().images, scenes().captions
    captions = captions or []
    if len(pictures) != len(captions):
        raise ValueError(f"{len(pictures)} pictures and {len(captions)} captions: give each picture one")
    last = max(len(pictures) - PICTURES, 0)
    return view(
        lambda own, first=0: figures.clip(
            model, tokenizer, pictures[first : first + PICTURES], captions[first : first + PICTURES], own
        ),
        "Rows are captions, the last one yours: change it and press Enter. Columns are images.",
        lambda own, **_: tokenizer.unread(own),
        own=Text(value=own),
        **({"first": IntSlider(max=last)} if last else {}),
    )


@register(WIDGETS)
def attention(pipe: TextToImage, prompt: str = PROMPT, steps: int = 20) -> VBox:
    """Which word is attended to where, at which step."""
    return view(
        lambda prompt, step, resolution, seed: figures.attention(pipe, prompt, step, seed, steps, size=resolution),
        "The attention that each word gets from every pixel, over the denoised estimate. Below: its fraction of the whole.",
        lambda prompt, **_: pipe.unread(prompt),
        prompt=Text(value=prompt),
        step=IntSlider(value=min(5, steps), min=1, max=steps),
        resolution=Dropdown(options=[(f"{height} pixels high", height) for height in resolutions(pipe)]),
        seed=IntSlider(max=9),
    )


@register(WIDGETS)
def prompt_box(pipe: TextToImage, prompt: str = f"a {THING}", style: str = "twemoji", steps: int = 20) -> VBox:
    """A prompt, its image, and the trajectory from noise; was there such an emoji in the training set?

    style: one of the emoji's, which makes the prompt a caption; "" leaves the prompt as it is typed.
    """
    sample = lru_cache(maxsize=1)(trajectory)  # another step is only looked up

    def full(prompt: str, style: str, **_) -> str:
        return data.emoji_prompt(style, prompt) if style else prompt

    return view(
        lambda scale, seed, step, **typed: figures.prompt_box(pipe, full(**typed), scale, seed, steps, step, sample),
        "Enter generates. The last slider moves along the sampling trajectory.",
        lambda **all: f"{data.emoji_seen(full(**all))}; {pipe.unread(full(**all)) or 'the model can read every word'}",
        prompt=Text(value=prompt),
        style=Dropdown(options=[("as typed", ""), *((each, each) for each in data.STYLES)], value=style),
        scale=FloatSlider(pipe.config.scale, max=10.0, step=0.5, readout_format=".1f"),
        seed=IntSlider(max=9),
        step=IntSlider(value=steps, min=1, max=steps),
    )


@register(WIDGETS)
def edit(pipe: TextToImage, pictures: dict[str, Tensor] | None = None, prompt: str = CRYING, steps: int = 20) -> VBox:
    """Image to image: how much of the sampling is left to it, and which part of the image is generated anew.

    pictures: name -> (3, H, W) in [-1, 1], of a size that the model can generate; else some emoji at the model's own.
    """
    pictures = some_emoji(pipe.config.picture[-1]) if pictures is None else pictures
    return view(
        lambda picture, new, **values: figures.edit(pipe, pictures[picture], part=new, steps=steps, **values),
        "Enter generates. strength: the fraction of the sampling that is left. new: the part that is not kept.",
        lambda prompt, **_: pipe.unread(prompt),
        picture=Dropdown(options=list(pictures)),
        prompt=Text(value=prompt),
        strength=FloatSlider(value=0.9, min=0.1, max=1.0, step=0.05),
        new=ToggleButtons(options=list(PARTS), value="lower half"),
        seed=IntSlider(max=9),
    )


@register(WIDGETS)
def planner() -> VBox:
    """What a training run like Stable Diffusion's would take: memory, hours, cost."""
    start = Plan()
    return view(
        lambda **values: figures.planner(Plan(**values)),
        "Counted: parameters, operations, memory. From data sheets: the GPU's peak and memory. Assumed: mfu and price.",
        width=SelectionSlider(options=[64, 96, 128, 160, 224, 320, 448], value=start.width),
        pixels=Dropdown(options=[256, 512, 1024], value=start.pixels),
        millions=ui.FloatLogSlider(value=start.millions, base=10, min=0, max=4, step=0.1, readout_format=",.0f"),
        batch=SelectionSlider(options=[2**k for k in range(12)], value=start.batch),
        gpu=Dropdown(options=list(GPUS), value=start.gpu),
        gpus=SelectionSlider(options=[1, 2, 4, 8, 64, 256], value=start.gpus),
        mfu=FloatSlider(value=start.mfu, min=0.05, max=0.6, step=0.05),
        price=FloatSlider(value=start.price, min=0.25, max=8, step=0.25),
    )


def _which(pictures: Tensor) -> IntSlider:
    return IntSlider(value=min(3, len(pictures) - 1), min=0, max=len(pictures) - 1)


def _prompt(pipe: TextToImage) -> Dropdown | Text:
    if pipe.tokenizer:
        return Text(placeholder="unconditional")
    classes = data.DATASETS[pipe.config.labels].classes
    return Dropdown(options=[("unconditional", ""), *((name, name) for name in classes)], value="")
