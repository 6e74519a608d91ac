"""Things to turn in a notebook: ipywidgets as thin views over the pure functions of viz.

Each function returns a box; on the last line of a cell it is shown. The tab key moves between the controls, the arrow
keys turn them.
"""

from collections.abc import Sequence
from functools import cache, lru_cache

from ipywidgets import (
    Dropdown,
    FloatLogSlider,
    FloatSlider,
    IntSlider,
    SelectionSlider,
    SelectMultiple,
    Text,
    ToggleButtons,
    VBox,
)
from PIL import Image
from torch import Tensor

from minidiff import data
from minidiff.course import figures
from minidiff.course.figures.editing import PARTS, some_emoji
from minidiff.course.figures.latents import walk, walked
from minidiff.course.figures.metrics import DAMAGES
from minidiff.course.figures.retrieval import PICTURES, scenes
from minidiff.course.figures.words import heights
from minidiff.course.planner import GPUS, Plan
from minidiff.course.widgets.view import WIDGETS, view
from minidiff.diffusion import SAMPLERS, SCHEDULES
from minidiff.networks import CLIP, room_names
from minidiff.pipeline.text_to_image import TextToImage
from minidiff.registry import register
from minidiff.tokenizer import Tokenizer

PROMPT = "a red seven on a blue background"
CRYING = "a twemoji emoji of a crying face"


@register(WIDGETS)
def corruption(pictures: Tensor | None = None) -> VBox:
    """Noise eats a picture. pictures: (N, C, H, W) in [-1, 1], else a hundred digits."""
    pictures = _digits() if pictures is None else pictures
    return view(
        lambda picture, schedule, t: figures.corruption(pictures[picture], schedule, t),
        "A picture at time t: how much of it is left, and the values of its pixels.",
        picture=_which(pictures),
        schedule=Dropdown(options=list(SCHEDULES), value="flow"),
        t=_time(0.3),
    )


@register(WIDGETS)
def schedules(pictures: Tensor | None = None) -> VBox:
    """Schedules side by side, and a picture at time t under each. pictures: (N, C, H, W) in [-1, 1], else digits."""
    pictures = _digits() if pictures is None else pictures
    names = list(SCHEDULES)
    return view(
        lambda schedules, picture, t: figures.schedules(list(schedules), t, pictures[picture]),
        "Hold Ctrl or Shift to choose several schedules.",
        schedules=SelectMultiple(options=names, value=("linear", "cosine", "flow"), rows=len(names)),
        picture=_which(pictures),
        t=_time(0.3),
    )


@register(WIDGETS)
def one_step(pipe: TextToImage, pictures: Tensor | None = None) -> VBox:
    """What the network believes to be behind the noise, asked once. pictures: (N, C, H, W) in [-1, 1], else digits."""
    pictures = _digits() if pictures is None else pictures
    return view(
        lambda picture, prompt, t: figures.one_step(pipe, pictures[picture], [t], prompt or None),
        "The clean picture, the noisy one, and the network's answer in one step.",
        picture=_which(pictures),
        prompt=_prompt(),
        t=_time(0.5),
    )


@register(WIDGETS)
def sampler(pipe: TextToImage) -> VBox:
    """A digit out of noise, with the sampler, the steps, the seed and the guidance scale of your choice."""
    return view(
        lambda digit, sampler, steps, seed, scale: figures.sampler(pipe, digit, sampler, steps, seed, scale),
        "Small: what the network believed on the way. Large: the result, and where 1000 steps from the same noise end.",
        digit=Dropdown(options=[str(digit) for digit in range(10)], value="7"),
        sampler=Dropdown(options=list(SAMPLERS), value="dpmpp_2m"),
        steps=IntSlider(value=8, min=1, max=20),
        seed=IntSlider(value=0, min=0, max=4),
        scale=SelectionSlider(options=[1.0, 1.5, 2.0, 4.0], value=1.5),
    )


@register(WIDGETS)
def playground() -> VBox:
    """Points on a page, noised and walked back with the best denoiser there can be."""
    return view(
        figures.playground,
        "Left: the cloud at time t; arrows point to where points are likelier. Right: from noise back to the cloud.",
        cloud=Dropdown(options=list(data.CLOUDS), value="spiral"),
        t=_time(0.3),
        sampler=Dropdown(options=list(SAMPLERS), value="euler"),
        steps=IntSlider(value=10, min=1, max=40),
    )


@register(WIDGETS)
def metric() -> VBox:
    """Real digits, damaged on purpose: which number notices?"""
    return view(
        figures.metric,
        "Above: some of the digits. Below: what is measured, and (gray) where undamaged real digits fall.",
        damage=Dropdown(options=list(DAMAGES), value="blur"),
        amount=FloatSlider(value=0.5, min=0.0, max=1.0, step=0.05, readout_format=".2f"),
    )


@register(WIDGETS)
def unet(pipe: TextToImage, pictures: Tensor | None = None) -> VBox:
    """What each room of the network makes of a noisy picture. pictures: (N, C, H, W) in [-1, 1], else digits."""
    pictures = _digits() if pictures is None else pictures
    names = room_names(pipe.net.unet)
    return view(
        lambda room, picture, t, prompt: figures.unet(pipe, pictures[picture], room, t, prompt or None),
        "Small pictures: channels of the room's output, all on the colour scale on the right.",
        room=ToggleButtons(options=names, value=names[1]),
        picture=_which(pictures),
        t=_time(0.5),
        prompt=_prompt(),
    )


@register(WIDGETS)
def guidance(pipe: TextToImage, prompt: str = PROMPT, steps: int = 20) -> VBox:
    """What a prompt adds to the belief at every step, and what comes of taking it several times."""
    return view(
        lambda prompt, negative, scale, seed: figures.guidance(pipe, prompt, negative, scale, seed, steps),
        "Beliefs with and without the prompt, about the same noisy pictures; their difference; where it leads."
        " Enter draws.",
        lambda prompt, negative, **_: pipe.unread(prompt) or pipe.unread(negative),
        prompt=Text(value=prompt),
        negative=Text(placeholder="nothing"),
        scale=FloatSlider(value=pipe.config.scale, min=0.0, max=10.0, step=0.5, readout_format=".1f"),
        seed=IntSlider(value=0, min=0, max=9),
    )


@register(WIDGETS)
def clip(
    model: CLIP,
    tokenizer: Tokenizer,
    pictures: Tensor | None = None,
    captions: Sequence[str] | None = None,
    own: str = "a seven in red",
) -> VBox:
    """Which caption fits which picture, and how well does one of your own?

    pictures: (N, 3, H, W) in [-1, 1], of the size that the model sees, with one caption each; else those of `scenes`.
    Seven at a time are shown. Raises ValueError if the numbers differ.
    """
    if pictures is None:
        pictures, captions = scenes().images, scenes().captions
    captions = captions or []
    if len(pictures) != len(captions):
        raise ValueError(f"{len(pictures)} pictures and {len(captions)} captions: give each picture one")
    last = max(len(pictures) - PICTURES, 0)

    def draw(own: str, first: int = 0) -> Image.Image:
        shown = slice(first, first + PICTURES)
        return figures.clip(model, tokenizer, pictures[shown], captions[shown], own)

    return view(
        draw,
        "Rows are captions, the last one yours: change it and press Enter. Columns are pictures.",
        lambda own, **_: tokenizer.unread(own),
        own=Text(value=own),
        **({"first": IntSlider(value=0, min=0, max=last)} if last else {}),
    )


@register(WIDGETS)
def attention(pipe: TextToImage, prompt: str = PROMPT, steps: int = 20) -> VBox:
    """Which word looks where, at which step."""
    sizes = heights(pipe)
    return view(
        lambda prompt, step, rooms, seed: figures.attention(pipe, prompt, step, seed, steps, size=rooms),
        "How much of each word every pixel takes, over what is believed. Below: the word's share of all attention.",
        lambda prompt, **_: pipe.unread(prompt),
        prompt=Text(value=prompt),
        step=IntSlider(value=min(5, steps), min=1, max=steps),
        rooms=Dropdown(options=[(f"{height} pixels high", height) for height in sizes], value=sizes[0]),
        seed=IntSlider(value=0, min=0, max=9),
    )


@register(WIDGETS)
def prompt_box(pipe: TextToImage, prompt: str = "a red apple", style: str = "twemoji", steps: int = 20) -> VBox:
    """A prompt, its picture, and how that came out of noise; was there such an emoji in training?

    style: one of the emoji's, which makes the prompt a caption; "" leaves the prompt as it is typed.
    """
    kept = lru_cache(maxsize=1)(walk)  # another step is only looked up

    def asked(prompt: str, style: str) -> str:
        return data.emoji_prompt(style, prompt) if style else prompt

    def note(prompt: str, style: str, **_) -> str:
        told = asked(prompt, style)
        return f"{data.emoji_seen(told)}; {pipe.unread(told) or 'the model can read every word'}"

    return view(
        lambda prompt, style, scale, seed, step: walked(kept(pipe, asked(prompt, style), scale, seed, steps), step),
        "Enter draws. The last slider goes back toward the noise.",
        note,
        prompt=Text(value=prompt),
        style=Dropdown(options=[("as typed", ""), *((each, each) for each in data.STYLES)], value=style),
        scale=FloatSlider(value=pipe.config.scale, min=0.0, max=10.0, step=0.5, readout_format=".1f"),
        seed=IntSlider(value=0, min=0, max=9),
        step=IntSlider(value=steps, min=1, max=steps),
    )


@register(WIDGETS)
def edit(pipe: TextToImage, pictures: dict[str, Tensor] | None = None, prompt: str = CRYING, steps: int = 20) -> VBox:
    """A picture to begin from: how much of the walk is left to it, and which part of it is drawn anew.

    pictures: name -> (3, H, W) in [-1, 1], of a size that the model can draw; else some emoji at the model's own.
    """
    pictures = some_emoji(pipe.config.picture[-1]) if pictures is None else pictures
    return view(
        lambda picture, prompt, strength, new, seed: figures.edit(
            pipe, pictures[picture], prompt, strength, new, seed, steps
        ),
        "Enter draws. strength: how much of the walk is left. new: what is not kept.",
        lambda prompt, **_: pipe.unread(prompt),
        picture=Dropdown(options=list(pictures)),
        prompt=Text(value=prompt),
        strength=FloatSlider(value=0.9, min=0.1, max=1.0, step=0.05),
        new=ToggleButtons(options=PARTS, value="lower half"),
        seed=IntSlider(value=0, min=0, max=9),
    )


@register(WIDGETS)
def planner() -> VBox:
    """What a training like Stable Diffusion's would take: memory, hours, money."""
    start = Plan()
    return view(
        lambda **values: figures.planner(Plan(**values)),
        "Counted: parameters, operations, memory. From data sheets: the GPU's peak and memory. Assumed, by you: mfu and"
        " price.",
        width=SelectionSlider(options=[64, 96, 128, 160, 224, 320, 448], value=start.width),
        pixels=Dropdown(options=[256, 512, 1024], value=start.pixels),
        millions=FloatLogSlider(value=start.millions, base=10, min=0, max=4, step=0.1, readout_format=",.0f"),
        batch=SelectionSlider(options=[2**k for k in range(12)], value=start.batch),
        gpu=Dropdown(options=list(GPUS), value=start.gpu),
        gpus=SelectionSlider(options=[1, 2, 4, 8, 64, 256], value=start.gpus),
        mfu=FloatSlider(value=start.mfu, min=0.05, max=0.6, step=0.05),
        price=FloatSlider(value=start.price, min=0.25, max=8, step=0.25),
    )


@cache
def _digits() -> Tensor:
    return data.mnist("validation").images[:100]


def _which(pictures: Tensor) -> IntSlider:
    return IntSlider(value=min(3, len(pictures) - 1), min=0, max=len(pictures) - 1)


def _prompt() -> Dropdown:
    return Dropdown(options=[("nothing", ""), *((str(d), str(d)) for d in range(10))], value="")


def _time(value: float) -> FloatSlider:
    return FloatSlider(value=value, min=0.0, max=1.0, step=0.02, readout_format=".2f")
