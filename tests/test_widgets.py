"""Widgets without a browser: turn a control, and the picture is what the pure function draws."""

import html
import io
import re
from functools import cache
from pathlib import Path

import ipywidgets
import pytest
import torch
from PIL import Image
from tiny_words import tiny_clip, tiny_pipe, tiny_tokenizer

import minidiff
from minidiff import TextToImage, data, image_files
from minidiff.course import figures, widgets
from minidiff.course.figures.metrics import DAMAGES
from minidiff.course.planner import Plan
from minidiff.diffusion import DEFAULT_SAMPLER, SAMPLERS

PIPE = TextToImage.load("mnist", device="cpu")
PICTURES = data.mnist("validation").images[:10]
TOKENIZER = tiny_tokenizer()
READS, CLIP = tiny_pipe(TOKENIZER), tiny_clip(TOKENIZER)
SCENES = data.color_digits(9, "validation")

MADE = {  # name: how it is made, what it shows for its controls' values, another value for every control
    "corruption": (
        lambda: widgets.corruption(PICTURES),
        lambda v: figures.corruption(PICTURES[v["picture"]], v["schedule"], v["t"]),
        {"picture": 5, "schedule": "edm", "t": 0.9},
    ),
    "schedules": (
        lambda: widgets.schedules(PICTURES),
        lambda v: figures.schedules(v["schedules"], v["t"], PICTURES[v["picture"]]),
        {"schedules": ("edm", "linear"), "picture": 5, "t": 0.9},
    ),
    "one_step": (
        lambda: widgets.one_step(PIPE, PICTURES),
        lambda v: figures.one_step(PIPE, PICTURES[v["picture"]], [v["t"]], v["prompt"] or None),
        {"picture": 5, "prompt": "eight", "t": 0.9},
    ),
    "sampler": (
        lambda: widgets.sampler(PIPE),
        lambda v: figures.sampler(PIPE, v["prompt"], v["sampler"], v["steps"], v["seed"], v["scale"]),
        {"prompt": "two", "sampler": "heun", "steps": 3, "seed": 4, "scale": 4.0},
    ),
    "playground": (
        widgets.playground,
        lambda v: figures.playground(v["cloud"], v["t"], v["sampler"], v["steps"]),
        {"cloud": "moons", "t": 0.9, "sampler": "heun", "steps": 3},
    ),
    "metric": (
        widgets.metric,
        lambda v: figures.metric(v["damage"], v["amount"]),
        {"damage": "repeats", "amount": 0.9},
    ),
    "unet": (
        lambda: widgets.unet(PIPE, PICTURES),
        lambda v: figures.unet(PIPE, PICTURES[v["picture"]], v["block"], v["t"], v["prompt"] or None),
        {"block": "up_blocks.1", "picture": 5, "t": 0.9, "prompt": "eight"},
    ),
    "guidance": (
        lambda: widgets.guidance(PIPE, "7", steps=6),
        lambda v: figures.guidance(PIPE, v["prompt"], v["negative"], v["scale"], v["seed"], 6),
        {"prompt": "a three", "negative": "8", "scale": 4.0, "seed": 2},
    ),
    "clip": (
        lambda: widgets.clip(CLIP, TOKENIZER, SCENES.images, SCENES.captions),
        lambda v: figures.clip(
            CLIP, TOKENIZER, *(part[v["first"] :][:7] for part in (SCENES.images, SCENES.captions)), v["own"]
        ),
        {"own": "a cat", "first": 2},
    ),
    "attention": (
        lambda: widgets.attention(READS, steps=6),
        lambda v: figures.attention(READS, v["prompt"], v["step"], v["seed"], 6, size=v["resolution"]),
        {"prompt": "a small green three on a white background, top left", "step": 2, "resolution": 8, "seed": 3},
    ),
    "planner": (
        widgets.planner,
        lambda v: figures.planner(Plan(**v)),
        {
            "width": 64,
            "pixels": 256,
            "millions": 10.0,
            "batch": 16,
            "gpu": "H100",
            "gpus": 1,
            "mfu": 0.5,
            "price": 4.0,
        },  # fmt: skip
    ),
}


@cache  # drawing takes time
def made(name: str) -> ipywidgets.VBox:
    return MADE[name][0]()


def parts(box: ipywidgets.VBox) -> tuple[dict, ipywidgets.Image]:
    """The controls by what is written beside them, and the picture."""
    *controls, picture, caption = box.children
    assert isinstance(picture, ipywidgets.Image) and isinstance(caption, ipywidgets.HTML) and caption.value
    return {control.description: control for control in controls if control.description}, picture


def said(box: ipywidgets.VBox) -> str:
    """The line above the picture, where there is one."""
    line = box.children[-3]
    assert isinstance(line, ipywidgets.HTML)
    words = re.fullmatch(r'<span role="status">([^<>]*)</span>', line.value)[1]
    return "" if words == "&nbsp;" else html.unescape(words)


@pytest.mark.parametrize("name", MADE)
def test_every_control_changes_the_picture(name):
    _, expected, others = MADE[name]
    box = made(name)
    controls, picture = parts(box)
    assert controls.keys() == others.keys()
    children, layout = box.children, picture.layout.get_state()

    def values():
        return {key: control.value for key, control in controls.items()}

    assert picture.value == image_files.encode(expected(values()))  # drawn before anything is touched
    for key, other in others.items():
        before = picture.value
        controls[key].value = other
        assert picture.value != before
        assert picture.value == image_files.encode(expected(values()))
    # nothing flickers: the same elements at the same size, only the bytes are new
    size = Image.open(io.BytesIO(picture.value)).size
    if name == "attention":  # a longer prompt has more words
        assert layout["height"] < picture.layout.height
        layout |= {"height": picture.layout.height}
    assert box.children == children and picture.layout.get_state() == layout
    assert (layout["width"], layout["height"]) == tuple(f"{side}px" for side in size)


@pytest.mark.parametrize("name", MADE)
def test_controls_are_labelled_and_for_the_keyboard(name):
    controls, picture = parts(made(name))
    assert picture.tooltip is None  # ipywidgets 8 would fail in the browser
    keyboard = (
        ipywidgets.Text,
        ipywidgets.IntSlider,
        ipywidgets.FloatSlider,
        ipywidgets.FloatLogSlider,
        ipywidgets.Dropdown,
        ipywidgets.SelectionSlider,
        ipywidgets.SelectMultiple,
        ipywidgets.ToggleButtons,  # each button is reached with tab, and pressed with the space bar
    )
    for label, control in controls.items():
        assert isinstance(control, keyboard) and not control.disabled
        assert label and control.tooltip
        assert 7 * len(label) < int(control.style.description_width.removesuffix("px"))  # not cut off
        assert getattr(control, "continuous_update", False) is False


def test_the_range_of_the_controls():
    controls, _ = parts(widgets.sampler(PIPE))  # a new one: other tests turn its controls
    assert (controls["steps"].min, controls["steps"].max, controls["seed"].max) == (1, 20, 4)
    assert controls["sampler"].options == tuple(SAMPLERS) and controls["sampler"].value == DEFAULT_SAMPLER
    assert controls["scale"].options == (1.0, 1.5, 2.0, 4.0)
    controls, _ = parts(made("unet"))
    assert controls["block"].options == ("conv_in", "down_blocks.0", "down_blocks.1", "mid_block", "up_blocks.0",
                                        "up_blocks.1", "conv_out")  # fmt: skip
    controls, _ = parts(made("metric"))
    assert controls["damage"].options == tuple(DAMAGES)
    assert (controls["amount"].min, controls["amount"].max) == (0, 1)
    controls, _ = parts(made("guidance"))
    assert (controls["scale"].min, controls["scale"].max, controls["seed"].max) == (0, 10, 9)
    controls, _ = parts(made("attention"))
    assert (controls["step"].min, controls["step"].max, controls["resolution"].options[0]) == (
        1,
        6,
        ("16 pixels high", 16),
    )
    controls, _ = parts(made("corruption"))
    assert controls["picture"].max == 9 and (controls["t"].min, controls["t"].max) == (0, 1)


def test_what_is_typed_is_drawn_or_said():
    box = made("guidance")
    controls, picture = parts(box)
    for text, words in (("", "is empty"), ("<b>cat</b>", '"<b>cat</b>" names no digit'), ("1 2", "names 2 digits")):
        before = picture.value
        controls["prompt"].value = text
        assert words in said(box) and picture.value == before  # the last picture stays
    controls["prompt"].value = "5"
    assert said(box) == "" and picture.value != before
    controls["negative"].value = "nothing"
    assert "names no digit" in said(box)
    controls["negative"].value = ""
    assert said(box) == ""


@pytest.mark.parametrize("make", [
    lambda: (widgets.guidance(READS, steps=2), "prompt"),
    lambda: (widgets.guidance(READS, steps=2), "negative"),
    lambda: (widgets.clip(CLIP, TOKENIZER), "own"),
    lambda: (widgets.attention(READS, steps=2), "prompt"),
])  # fmt: skip
def test_what_is_not_read_is_said(make):
    box, name = make()
    controls, picture = parts(box)
    assert said(box) == ""
    for text, words in (
        ("a red elephant", "elephant"),
        ("a red seven " * 900, "room for 22|reads 22"),
        ("семь\n七 🌱 $x$", "семь"),
        ("<script>alert(1)</script>", "script"),
        ("", "^$"),
        ("red", "^$"),
    ):
        before = picture.value
        controls[name].value = text
        line = said(box)
        assert re.search(words, line) and len(line) <= 200 and "\n" not in line
        assert picture.value != before


def test_a_first_prompt_that_cannot_be_drawn_is_an_error():
    with pytest.raises(ValueError, match="names no digit"):
        widgets.guidance(PIPE, "cat")


def test_only_wrong_values_are_said(monkeypatch):
    box = widgets.clip(CLIP, TOKENIZER)
    controls, _ = parts(box)
    assert "first" not in controls  # all pictures are on the page

    def broken(*_):
        raise RuntimeError("broken on purpose")

    monkeypatch.setattr(figures, "clip", broken)
    with pytest.raises(RuntimeError, match="on purpose"):
        controls["own"].value = "red"


def test_each_picture_of_the_matrix_has_its_caption():
    with pytest.raises(ValueError, match="9 pictures and 2 captions"):
        widgets.clip(CLIP, TOKENIZER, SCENES.images, ["a", "b"])
    with pytest.raises(ValueError, match="9 pictures and 0 captions"):
        widgets.clip(CLIP, TOKENIZER, SCENES.images)


@pytest.mark.parametrize(
    "make", [widgets.corruption, widgets.schedules, lambda: widgets.one_step(PIPE), lambda: widgets.unet(PIPE)]
)
def test_digits_unless_there_are_other_pictures(make):
    controls, _ = parts(make())
    assert controls["picture"].max == 99


def test_pictures_in_colour_and_only_one():
    controls, picture = parts(widgets.corruption(torch.zeros(1, 3, 8, 8)))
    before = picture.value
    controls["t"].value = 0.6
    assert picture.value != before


def test_no_schedule_chosen_is_no_error():
    controls, picture = parts(made("schedules"))
    controls["schedules"].value = ()
    assert picture.value == image_files.encode(
        figures.schedules([], controls["t"].value, PICTURES[0])
    )  # no picture either


def test_errors_are_not_swallowed(monkeypatch):
    controls, _ = parts(widgets.corruption(PICTURES))

    def broken(*_):
        raise RuntimeError("broken on purpose")

    monkeypatch.setattr(figures, "corruption", broken)
    with pytest.raises(RuntimeError, match="on purpose"):
        controls["t"].value = 0.8


def test_only_widgets_needs_ipywidgets():
    package = Path(minidiff.__file__).parent
    for path in set(package.rglob("*.py")) - set((package / "course" / "widgets").glob("*.py")):
        assert not re.search(r"import.*widgets\b", path.read_text()), path
