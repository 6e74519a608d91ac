"""The prompt box, and the figures of emoji: what stands in them is what was drawn, and what was in training."""

import html
import re

import numpy as np
import pytest
import torch
from drawn import noise
from tiny_words import tiny_pipe, tiny_tokenizer

from minidiff import data, image_files
from minidiff.course import figures, widgets
from minidiff.course.figures.latents import trajectory
from minidiff.course.figures.page import Page
from minidiff.data import STYLES, all_emoji, emoji_caption, emoji_prompt, emoji_seen, emoji_split
from minidiff.diffusion import DEFAULT_SAMPLER

PIPE = tiny_pipe(tiny_tokenizer())
NAMED = {item.name: item for item in all_emoji()}
LONGEST = max(all_emoji(), key=lambda item: len(item.name))


def first(split: str) -> tuple[data.Emoji, str]:
    return next((item, style) for item in all_emoji() for style in STYLES if emoji_split(item, style) == split)


def middles(image, left: int, top: int, size: int, pixels: int) -> torch.Tensor:
    """The RGB picture that is drawn there, (3, pixels, pixels) in [0, 1], each pixel read at its middle."""
    where = ((np.arange(pixels) + 0.5) * size / pixels).astype(int)
    rgb = np.asarray(image.convert("RGB"), dtype=np.float32) / 255
    return torch.from_numpy(rgb[np.ix_(top + where, left + where)]).permute(2, 0, 1)


@pytest.fixture
def pictures(monkeypatch):
    """The pictures on the page drawn last: what is above, what is below, the frame, by the upper left corner."""
    seen, picture = {}, Page.picture

    def keep(page, pixels, left, top, size, title="", below="", frame=None, **style):
        seen[left, top] = pixels, title, below, frame
        return picture(page, pixels, left, top, size, title, below, frame, **style)

    monkeypatch.setattr(Page, "picture", keep)
    return seen


# What a prompt names ------------------------------------------------------------------------


def test_a_thing_is_put_into_a_caption():
    assert emoji_prompt("noto", "red apple") == emoji_prompt("noto", "A  red apple") == "a noto emoji of a red apple"
    assert emoji_prompt("openmoji", "a twemoji emoji of a red apple") == "an openmoji emoji of a red apple"
    assert emoji_prompt("openmoji", "a $5 elephant") == "an openmoji emoji of a $5 elephant"
    for item in all_emoji()[:200]:
        assert (
            emoji_prompt("twemoji", item.name) == emoji_prompt("twemoji", item.thing) == emoji_caption("twemoji", item)
        )
    with pytest.raises(ValueError, match="unknown style 'crayon'"):
        emoji_prompt("crayon", "red apple")


@pytest.mark.parametrize("wording", [0, 1, 2, 3])
def test_whether_an_emoji_was_in_training_in_this_style(wording):
    for split, expected in (
        ("train", "in the emoji's training set, in this style"),
        ("new_things", "never in the emoji's training set, in no style"),
    ):
        assert emoji_seen(emoji_caption(first(split)[1], first(split)[0], wording)) == expected
    item, style = first("new_combinations")
    others = " and ".join(other for other in STYLES if other != style)
    caption = emoji_caption(style, item, wording)
    assert emoji_seen(caption.upper()) == f"in the emoji's training set, not in {style}: only in {others}"
    for other in others.split(" and "):
        assert emoji_seen(emoji_caption(other, item, wording)) == "in the emoji's training set, in this style"


def test_whether_an_emoji_was_in_training_in_a_style_that_is_not_said():
    assert emoji_seen("red apple") == "in the emoji's training set in every style"
    item, style = first("new_combinations")
    others = " and ".join(other for other in STYLES if other != style)
    for words in (item.name, item.thing, emoji_caption(style, item, 6)):
        assert emoji_seen(words) == f"in the emoji's training set in {others}"
    for words in ("", "red", "a red apple with a hat", "<b>"):
        assert emoji_seen(words) == "no emoji has just this name"


# The figures --------------------------------------------------------------------------------


def test_the_picture_is_large_and_the_way_to_it_below(pictures, unclipped):
    image = figures.prompt_box(PIPE, "a red seven", scale=2.0, seed=3, steps=11)
    result = PIPE.decode(PIPE.latents("a red seven", scale=2.0, seed=3, steps=11))[0]
    large, title, _, _ = pictures.pop((16, 30))
    torch.testing.assert_close(large, result, rtol=0, atol=1e-5)
    torch.testing.assert_close(middles(image, 16, 30, 256, 32), result, rtol=0, atol=1.5 / 255)
    assert "the result" in title
    steps = list(PIPE.stream("a red seven", scale=2.0, seed=3, steps=11))
    times = PIPE.times(11, DEFAULT_SAMPLER).tolist()
    for (picture, title, below, frame), k in zip(pictures.values(), (1, 3, 5, 7, 9, 11), strict=True):
        assert torch.allclose(picture, PIPE.decode(steps[k - 1].x0_hat)[0], atol=1e-5)
        assert (title, below) == (f"t = {times[k - 1]:.2f}", f"step {k}")
        assert bool(frame) == (k == 11)
    assert not unclipped


def test_a_step_on_the_way_is_large_and_framed_below(pictures, unclipped):
    times, estimates = trajectory(PIPE, "a red seven", PIPE.config.scale, 0, 11)
    figures.prompt_box(PIPE, "a red seven", steps=11, step=6)
    large, title, _, _ = pictures.pop((16, 30))
    assert torch.equal(large, estimates[5]) and f"t = {times[5]:.2f}" in title and "the result" not in title
    assert [below for _, _, below, frame in pictures.values() if frame] == ["step 5"]
    for wrong in (0, 12):
        with pytest.raises(ValueError, match=f"step must lie between 1 and 11, got {wrong}"):
            figures.prompt_box(PIPE, "a red seven", steps=11, step=wrong)
    assert not unclipped


@pytest.mark.filterwarnings("ignore:left out")  # two of them are longer than the model reads
@pytest.mark.parametrize("prompt", ["", "a red seven " * 90, "семь 七 🌱\n$x$ \x00", "W" * 200])
def test_any_words_have_room(prompt, unclipped):
    assert figures.prompt_box(PIPE, prompt, steps=1).size == figures.prompt_box(PIPE, "red", steps=2).size
    assert not unclipped


def test_each_drawn_emoji_stands_beside_its_truth(pictures, unclipped):
    pairs = [(NAMED["red apple"], "noto"), *[(LONGEST, "openmoji")] * 4]
    drawn, truth = noise((2, 5, 3, 64, 64)).mul(0.2).add(0.5).clamp(0, 1)
    image = figures.emoji_grid(pairs, drawn, truth)
    assert image.size == (900, 24 + 2 * 150)
    shown = list(pictures.values())
    assert [title for _, title, _, _ in shown] == ["generated", "truth"] * 4 + ["", ""]
    for k in range(5):
        assert torch.equal(shown[2 * k][0], drawn[k]) and torch.equal(shown[2 * k + 1][0], truth[k])
    assert not unclipped
    with pytest.raises(ValueError, match="5 names, 4 generated and 5 true"):
        figures.emoji_grid(pairs, drawn[:4], truth)


def test_the_names_in_the_readme_are_whole_and_the_longest_is_cut(monkeypatch):
    held_out = data.emoji("new_combinations")
    pairs = [*list(zip(held_out.items, held_out.styles, strict=True))[:24], (LONGEST, "noto")]
    written, text = [], Page.text
    monkeypatch.setattr(Page, "text", lambda page, *args, **look: written.append(args[2]) or text(page, *args, **look))
    figures.emoji_grid(pairs, *torch.zeros(2, len(pairs), 3, 4, 4))
    assert written[:48:2] == [item.name for item, _ in pairs[:24]]
    assert written[1::2] == [style for _, style in pairs]
    assert written[48].endswith("…") and LONGEST.name.startswith(written[48][:-1])


def test_colours_are_those_that_were_drawn():
    """Many colours on one page: none is exchanged for its neighbour."""
    colours = torch.rand(10, 3, 1, 1, generator=torch.Generator().manual_seed(0)).expand(-1, -1, 64, 64).clone()
    colours[0, :, ::2] = torch.rand(3, 32, 64, generator=torch.Generator().manual_seed(1))
    image = figures.reconstructions(colours, colours)
    for k in range(10):
        shown = middles(image, 36 + 144 * (k % 5), 8 + 296 * (k // 5), 128, 64)
        torch.testing.assert_close(shown, colours[k], rtol=0, atol=1.5 / 255)


def test_reconstructions_stand_below_and_say_how_near_they_are(pictures, unclipped):
    clean = torch.full((6, 3, 8, 8), 0.5)
    decoded = clean + torch.tensor([0.0, 0.1, 0.2, 0.1, 0.1, 0.1])[:, None, None, None]
    assert figures.reconstructions(clean, decoded).size == (760, 12 + 2 * 296)
    assert pictures[36 + 144 * 2, 8 + 134][0].equal(decoded[2]) and pictures[36, 8 + 296][0].equal(clean[5])
    assert [below for _, _, below, _ in pictures.values() if below] == [
        "100.0 dB",
        "20.0 dB",
        "14.0 dB",
        *["20.0 dB"] * 3,
    ]
    assert not unclipped
    with pytest.raises(ValueError, match="must have one shape"):
        figures.reconstructions(clean, decoded[:1])


# The widget ---------------------------------------------------------------------------------


def parts(box):
    """The controls by name, the line, the picture."""
    *controls, line, picture, _ = box.children
    return {control.description: control for control in controls}, line, picture


def said(line) -> str:
    return html.unescape(re.fullmatch(r'<span role="status">([^<>]*)</span>', line.value)[1])


@pytest.fixture
def drawings_made(monkeypatch):
    """How often was a picture drawn?"""
    counted, stream = [], PIPE.stream
    monkeypatch.setattr(PIPE, "stream", lambda *args, **options: counted.append(args) or stream(*args, **options))
    return counted


def test_each_change_draws_once_and_the_steps_are_only_looked_up(drawings_made):
    controls, _, picture = parts(widgets.prompt_box(PIPE, "a red seven", style="", steps=4))
    values = {"prompt": "a red seven", "style": "", "scale": 3.0, "seed": 0, "step": 4}
    assert {name: control.value for name, control in controls.items()} == values
    changes = [("step", 1), ("step", 3), ("seed", 2), ("step", 2), ("scale", 1.5), ("style", "noto"), ("prompt", "pen")]
    drawings, asked = 1, "a red seven"
    for name, value in changes:
        before = picture.value
        controls[name].value = value
        values[name] = value
        drawings += name != "step"
        assert len(drawings_made) == drawings
        assert picture.value != before
        asked = (
            f"a noto emoji of {dict(pen='a pen').get(values['prompt'], values['prompt'])}" if values["style"] else asked
        )
        known = figures.prompt_box(PIPE, asked, values["scale"], values["seed"], 4, values["step"])
        drawings_made.pop()
        assert picture.value == image_files.encode(known)


def test_the_controls_are_for_the_keyboard_and_draw_when_let_go():
    controls, _, picture = parts(widgets.prompt_box(PIPE, steps=3))
    assert picture.tooltip is None  # ipywidgets 8 would fail in the browser
    assert list(controls) == ["prompt", "style", "scale", "seed", "step"]
    for control in controls.values():
        assert control.tooltip and not control.disabled and getattr(control, "continuous_update", False) is False
    assert [value for _, value in controls["style"].options] == ["", *STYLES]
    assert (controls["step"].min, controls["step"].max, controls["step"].value) == (1, 3, 3)


def test_what_was_in_training_and_what_is_not_read_is_said():
    controls, line, _ = parts(widgets.prompt_box(PIPE, "a red seven", style="", steps=1))
    assert said(line) == "no emoji has just this name; the model can read every word"
    controls["style"].value = "noto"
    assert said(line).startswith("no emoji has just this name; not in the vocabulary, read in pieces: ")
    item, style = first("new_combinations")
    controls["style"].value, controls["prompt"].value = style, item.name
    assert said(line).startswith(f"in the emoji's training set, not in {style}: only in ")
    controls["style"].value = next(other for other in STYLES if other != style)
    assert said(line).startswith("in the emoji's training set, in this style; ")
    for text in ("<script>alert(1)</script>", "семь\n七 🌱 $x$", "a red seven " * 900):
        controls["prompt"].value = text
        assert "not in the vocab" in said(line) or "left out" in said(line)
        assert len(said(line)) <= 200 and "\n" not in said(line)


def test_what_cannot_be_drawn_is_one_line(pipe):
    """A model of labels draws digits only."""
    controls, line, picture = parts(widgets.prompt_box(pipe, "7", style="", steps=2))
    before = picture.value
    controls["prompt"].value = "<b>cat</b>"
    assert '"<b>cat</b>" names no digit' in said(line) and picture.value == before
    controls["prompt"].value = "8"
    assert "can read every word" in said(line) and picture.value != before
