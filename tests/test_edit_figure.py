"""The figure of image to image and inpainting, and its widget: what stands in them is what was drawn."""

import pytest
import torch
from drawn import noise
from test_prompt_box import middles, parts, pictures, said  # noqa: F401 (pictures is a fixture)
from tiny_words import tiny_pipe, tiny_tokenizer

from minidiff import image_files
from minidiff.course import figures, widgets
from minidiff.course.examples import some_emoji
from minidiff.course.figures.latents import HOLE, PARTS, part_mask
from minidiff.diffusion import DEFAULT_SAMPLER

PIPE = tiny_pipe(tiny_tokenizer())
PICTURE = noise((3, 32, 32)).mul(0.3).clamp(-1, 1)
COLUMNS = [(16 + 184 * k, 76) for k in range(4)]


def test_the_parts_of_a_picture():
    assert [part_mask(part, 8, 12).sum() for part in PARTS] == [96, 48, 48, 24]
    assert part_mask("lower half", 8, 12)[0, 0, 4:].all() and part_mask("right half", 8, 12)[0, 0, :, 6:].all()
    assert part_mask("middle", 8, 12)[0, 0, 2:6, 3:9].all()
    with pytest.raises(ValueError, match="unknown part 'left half'; there is everything, lower half"):
        part_mask("left half", 8, 12)


@pytest.mark.parametrize("part", PARTS)
def test_where_sampling_starts_and_ends(part, pictures, unclipped):  # noqa: F811
    image = figures.edit(PIPE, PICTURE, "a red seven", strength=0.55, part=part, seed=3, steps=8)
    shown = [pictures[place] for place in COLUMNS]
    assert torch.equal(shown[0][0], (PICTURE + 1) / 2) and [title for _, title, _, _ in shown][0] == "initial image"
    mask = part_mask(part, 32, 32)[0].bool().expand(3, -1, -1)
    assert torch.equal(shown[1][0][~mask], shown[0][0][~mask]) and (shown[1][0][mask] == HOLE.max()).all()
    assert shown[1][2] == f"new: {part}"
    init = PIPE.to_latents(PICTURE[None])
    where = None if part == "everything" else part_mask(part, *init.shape[2:])
    taken = list(PIPE.stream(["a red seven"], init=init, strength=0.55, mask=where, seed=3, steps=8))
    assert len(taken) == 4 and shown[3][2] == "4 of 8 steps"
    torch.testing.assert_close(shown[3][0], PIPE.decode(taken[-1].x)[0], rtol=0, atol=1e-5)
    torch.testing.assert_close(middles(image, *COLUMNS[3], 176, 32), shown[3][0], rtol=0, atol=0.1)
    t = PIPE.times(8, DEFAULT_SAMPLER)[4]
    eps = torch.randn(init.shape[1:], generator=torch.Generator().manual_seed(3))
    begun = PIPE.decode(PIPE.schedule.add_noise(init, eps[None], t))[0]
    torch.testing.assert_close(shown[2][0], begun, rtol=0, atol=1e-5)
    assert shown[2][2] == f"decoded, t = {t:.2f}"
    assert not unclipped


@pytest.mark.parametrize("prompt", ["", "a red seven " * 90, "семь 7 🌱\n$x$ \x00", "W" * 200])
@pytest.mark.filterwarnings("ignore:left out, for there is room")
def test_any_words_have_room(prompt, unclipped):
    assert figures.edit(PIPE, PICTURE, prompt, steps=2).size == (760, 284)
    assert not unclipped


def test_what_cannot_be_drawn():
    with pytest.raises(ValueError, match="strength must lie between 0 and 1, got 1.2"):
        figures.edit(PIPE, PICTURE, "a red seven", strength=1.2)
    with pytest.raises(ValueError, match="strength 0.1 of 4 steps leaves no step"):
        figures.edit(PIPE, PICTURE, "a red seven", strength=0.1, steps=4)


def test_some_emoji_at_the_models_size():
    assert {tuple(picture.shape) for picture in some_emoji(64).values()} == {(3, 64, 64)}
    assert some_emoji(32)["red apple"].shape == (3, 32, 32)


def test_each_change_is_drawn():
    given = {"noise": PICTURE, "gray": torch.zeros(3, 32, 32)}
    controls, line, picture = parts(widgets.edit(PIPE, given, "a red seven", steps=10))
    values = {"picture": "noise", "prompt": "a red seven", "strength": 0.9, "new": "lower half", "seed": 0}
    assert {name: control.value for name, control in controls.items()} == values
    for name, value in (
        ("picture", "gray"),
        ("strength", 0.3),
        ("new", "middle"),
        ("seed", 4),
        ("prompt", "a red xyz"),
    ):
        before = picture.value
        controls[name].value = values[name] = value
        assert picture.value != before
        expected = figures.edit(
            PIPE, given[values["picture"]], *[values[k] for k in ("prompt", "strength", "new", "seed")], 10
        )
        assert picture.value == image_files.encode(expected)
        assert controls[name].tooltip and getattr(controls[name], "continuous_update", False) is False
    assert said(line).startswith("not in the vocabulary")
    assert list(parts(widgets.edit(PIPE, steps=2))[0]["picture"].options) == list(some_emoji(32))
