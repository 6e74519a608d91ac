"""The figures of words: what stands in them is what was computed, whatever somebody typed."""

import pytest
import torch
from drawn import assert_drawn, count, noise
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from tiny_words import tiny_clip, tiny_pipe, tiny_tokenizer

from minidiff import data, image_files
from minidiff.course import figures
from minidiff.course.examples import PROMPT, scenes
from minidiff.course.figures.page import Page, readable, two_lines, wide
from minidiff.course.figures.words import heat, resolutions
from minidiff.diffusion import DEFAULT_SAMPLER, denoiser
from minidiff.networks import attention_maps

ODD = [
    "",
    " ",
    "elephants $7$ $",
    "семь 七 🌱\n\tשבע",
    "W" * 300,
    "a red seven " * 900,
    "\x00\ud800",
    "<|endoftext|> $x^2",
]


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_tokenizer()


@pytest.fixture(scope="module")
def tiny(tokenizer):
    return tiny_pipe(tokenizer)


@pytest.fixture(scope="module")
def model(tokenizer):
    return tiny_clip(tokenizer)


@pytest.fixture
def drawn(monkeypatch):
    """The pictures on a page, by the place of their upper left corner, and all words, in the order of drawing."""
    seen, written, picture, image = {}, [], Page.picture, Page.image

    def keep(page, pixels, left, top, *size, **words):
        seen[left, top] = pixels.cpu()
        return picture(page, pixels, left, top, *size, **words)

    def read(page):
        written.extend(text.get_text() for text in page.figure.findobj(Text) if text.get_text())
        return image(page)

    monkeypatch.setattr(Page, "picture", keep)
    monkeypatch.setattr(Page, "image", read)
    return seen, written


# Guidance -----------------------------------------------------------------------------------


def test_guidance_ends_with_the_picture_of_the_pipeline(pipe):
    image = figures.guidance(pipe, "7", None, 4.0, seed=3, steps=7)
    assert image.size == (760, 502)
    assert_drawn(image, 532, 48, 212, pipe.decode(pipe.latents(["7"], steps=7, scale=4.0, seed=3))[0, 0])
    first = next(pipe.stream(["7"], steps=7, scale=4.0, seed=3))
    assert_drawn(image, 16, 402, 90, pipe.decode(first.x0_hat)[0, 0])
    for row, scale in enumerate((0.0, 1.0)):
        first = next(pipe.stream(["7"], steps=7, scale=scale, seed=3))
        assert_drawn(image, 16, 48 + 118 * row, 90, pipe.decode(first.x0_hat)[0, 0])


@torch.no_grad()
@pytest.mark.parametrize("scale, negative", [(0.0, None), (1.0, "2"), (4.0, None), (4.0, "2")])
def test_both_predictions_are_of_the_guided_trajectory(pipe, drawn, scale, negative):
    """At every step shown: without + scale * (with - without) is the guided estimate."""
    figures.guidance(pipe, "7", negative, scale, seed=1, steps=9)
    pictures, written = drawn
    taken = list(pipe.stream(["7"], negative=negative, scale=scale, seed=1, steps=9))
    times = pipe.times(9, DEFAULT_SAMPLER)
    for column, k in enumerate((0, 2, 4, 6, 8)):
        x = taken[k - 1].x if k else noise((1, 4, 14, 14), 1)
        parts = (pipe.net.unet, pipe.schedule, pipe.prediction)
        without, conditional = (
            denoiser(*parts, c)(x, times[k]) for c in (pipe.encode_negative(negative, 1), pipe.encode(["7"]))
        )
        torch.testing.assert_close(without + scale * (conditional - without), taken[k].x0_hat, rtol=0, atol=1e-4)
        for row, estimate in enumerate((without, conditional, None, taken[k].x0_hat)):
            if estimate is not None:
                shown = pictures[16 + 98 * column, 48 + 118 * row]
                torch.testing.assert_close(shown, pipe.decode(estimate)[0], rtol=0, atol=1e-4)
        assert f"t = {float(times[k]):.2f}" in written
    assert f"guided: first row + {scale:g} × difference" in written
    assert ('negative prompt: "2"' if negative else "unconditional") in written


def test_the_difference_in_orange_and_blue(pipe, drawn):
    image = figures.guidance(pipe, "7", None, 4.0, steps=4)
    pictures, _ = drawn
    gap = (pictures[16, 166] - pictures[16, 48])[0]
    red, _, blue = pictures[16, 284]
    assert (red > blue)[gap > 0.05].all() and (red < blue)[gap < -0.05].all()
    assert count(image, figures.ORANGE, (16, 284, 106, 374)) > 20 < count(image, figures.BLUE, (16, 284, 106, 374))


def test_the_difference_in_colours(tiny, drawn):
    figures.guidance(tiny, PROMPT, "", 3.0, steps=3)
    pictures, _ = drawn
    gap, shown = pictures[16, 166] - pictures[16, 48], pictures[16, 284]
    big = gap.abs() > 1e-4
    assert big.any() and ((shown > 0.5) == (gap > 0))[big].all()


def test_a_negative_prompt_that_is_the_prompt_leaves_no_difference(tiny, drawn):
    figures.guidance(tiny, PROMPT, PROMPT, 3.0, steps=3)
    pictures, written = drawn
    assert all((pictures[16 + 98 * k, 284] == 0.5).all() for k in range(3))
    assert {f'prompt: "{PROMPT}"', f'negative prompt: "{PROMPT}"'} <= set(written)


def test_no_negative_prompt_and_an_empty_one(pipe, tiny):
    for model, prompt in ((pipe, "7"), (tiny, PROMPT)):
        assert image_files.encode(figures.guidance(model, prompt, steps=2)) == image_files.encode(
            figures.guidance(model, prompt, "", steps=2)
        )
        assert image_files.encode(figures.guidance(model, prompt, steps=1)) != image_files.encode(
            figures.guidance(model, prompt, "2", steps=1)
        )


@pytest.mark.parametrize("prompt", ODD)
@pytest.mark.filterwarnings("ignore:left out, for there is room")
def test_any_prompt_fits_on_the_pages(tiny, model, tokenizer, unclipped, prompt):
    figures.guidance(tiny, prompt, prompt, 10.0, steps=6)
    figures.attention(tiny, prompt, 1, steps=2)
    figures.clip(model, tokenizer, own=prompt)
    figures.clip(model, tokenizer, captions=[prompt] * 12)
    assert unclipped == []


def test_what_cannot_be_drawn_is_named(pipe):
    for bad, words in (
        ({"steps": 0}, "steps must be at least 1"),
        ({"scale": float("nan")}, "scale must be a finite number"),
        ({"seed": -1}, "seed must lie between 0"),
        ({"prompt": ""}, "is empty"),
        ({"negative": "cat"}, "names no digit"),
    ):
        with pytest.raises(ValueError, match=words):
            figures.guidance(pipe, **({"prompt": "7"} | bad))


# CLIP ---------------------------------------------------------------------------------------


def test_the_matrix_is_that_of_the_model(model, tokenizer, drawn):
    images, captions = scenes().images[:3], ["a red seven", "a four"]
    figures.clip(model, tokenizer, images, captions, own="black")
    _, written = drawn
    cosines = model(tokenizer([*captions, "black"]), images) / model.logit_scale.exp()
    numbers = [word for word in written if word.lstrip("-").replace(".", "").isdigit()]
    assert numbers == [f"{value:.2f}" for value in cosines.T.flatten().tolist()]  # a row a caption
    assert [word for word in written if word.startswith('"')] == ['"a red seven"', '"a four"', '"black"']


def test_the_best_caption_of_each_picture_is_framed(model, tokenizer, monkeypatch):
    pages, draw = [], Page.image
    monkeypatch.setattr(Page, "image", lambda page: pages.append(page) or draw(page))
    known = torch.tensor([[0.1, 0.9, 0.2], [0.8, -0.3, 0.2]])  # 2 pictures, 3 captions
    knowing = type("CLIP", (), {"logit_scale": torch.zeros(()), "__call__": lambda *_: known})()
    image = figures.clip(knowing, tokenizer, scenes().images[:2], ["one", "two", "three"])
    cells = [patch for patch in pages[0].figure.findobj(Rectangle) if patch.get_width() == 66 - 2]
    assert [cell.get_linewidth() == 2 for cell in cells] == [False, True, True, False, False, False]
    assert count(image, figures.ORANGE) > 1000  # the highest, 0.9
    assert image.width == 760 and image.height == figures.clip(model, tokenizer, captions=["1", "2", "3"]).height


def test_the_scenes_differ_and_were_not_held_out(model, tokenizer, unclipped):
    found = scenes()
    assert len(found) == len(set(found.captions)) == 7
    assert all(data.HELD_OUT[scene.digit] != scene.color for scene in found.scenes)
    assert figures.clip(model, tokenizer).size == (760, 364) and figures.clip(model, tokenizer, own="x").size == (
        760,
        410,
    )
    assert unclipped == []


def test_what_does_not_fit_into_the_matrix(model, tokenizer):
    for pictures, captions, words in (
        (torch.zeros(8, 3, 32, 32), None, "number of pictures must lie between 1 and 7"),
        (torch.zeros(0, 3, 32, 32), None, "number of pictures must lie between 1 and 7"),
        (None, [], "number of captions must lie between 1 and 12"),
        (None, ["a"] * 13, "number of captions must lie between 1 and 12"),
        (torch.zeros(1, 3, 28, 28), None, "32x32, got 28x28"),
    ):
        with pytest.raises(ValueError, match=words):
            figures.clip(model, tokenizer, pictures, captions)


@pytest.mark.parametrize("text", ["", PROMPT, "a red elephant", "a red seven " * 900, "семь 七 🌱"])
def test_what_is_not_read_is_said_in_one_line(tokenizer, text):
    line = tokenizer.unread(text)
    assert (line == "") == (text in ("", PROMPT)) and len(line.splitlines()) <= 1 and len(line) < 300


# Attention ----------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("step", [1, 4])
@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_the_maps_are_those_of_the_pass_that_drew_the_step(tiny, drawn, step, scale):
    figures.attention(tiny, "a red seven", step, seed=2, steps=4, scale=scale)
    pictures, written = drawn
    with attention_maps(tiny.net) as passes:
        taken = list(tiny.stream(["a red seven"], seed=2, steps=4, scale=scale))
    assert torch.equal(pictures[16, 44], tiny.decode(taken[step - 1].x0_hat)[0])
    blocks = [each.weights for each in passes[step - 1] if each.size == (16, 16)]
    assert len(blocks) == 3
    maps = torch.stack([weights[-1] for weights in blocks]).mean((0, 1))  # (256, 24)
    fractions = maps.mean(0)
    fractions = [*fractions[:5].tolist(), float(fractions[5:].sum())]
    expected = ["(start)", "a", "red", "seven", "(end)", "(padding)"]
    assert [word for word in written if word in expected] == expected
    assert [word for word in written if word.endswith("%")] == [f"{fraction:.0%}" for fraction in fractions]
    assert abs(sum(fractions) - 1) < 1e-5
    assert f"{fractions[0] + sum(fractions[4:]):.0%} of all attention" in "\n".join(written)
    red = maps[:, 2].reshape(16, 16).repeat_interleave(2, 0).repeat_interleave(2, 1)
    shown = pictures[204 + 92 * 2, 44]
    high, low = red > 1.001 * red.mean(), red < 0.999 * red.mean()
    assert (shown[0] > shown[2])[high].all() and (shown[0] < shown[2])[low].all()


def test_the_mean_over_heads_and_blocks_of_one_size(tiny):
    with attention_maps(tiny.net) as passes:
        tiny.latents([PROMPT], steps=1)
    found = heat(passes[0])
    assert list(found) == [(16, 16), (8, 8)] and resolutions(tiny) == [16, 8]
    for (height, width), maps in found.items():
        assert maps.shape == (24, height, width)
        torch.testing.assert_close(maps.sum(0), torch.ones(height, width))
        blocks = [each.weights[-1] for each in passes[0] if each.size == (height, width)]
        by_hand = sum(weights.mean(0) for weights in blocks) / len(blocks)
        torch.testing.assert_close(maps[2, 3, 5], by_hand[3 * width + 5, 2])


@pytest.mark.parametrize(
    "prompt, titles",
    [
        ("", ["(start)", "(end)", "(padding)"]),
        ("red, seven", ["(start)", "red", ",", "seven", "(end)", "(padding)"]),
        ("a hexagon", ["(start)", "a", "hexagon", "(end)", "(padding)"]),  # one word of several pieces
        ("red <|endoftext|> red", ["(start)", "red", "<|endoftext|>", "red", "(end)", "(padding)"]),
    ],
)
def test_the_words_of_a_prompt(tiny, monkeypatch, prompt, titles):
    from minidiff.course.figures import words as figures_words

    monkeypatch.setattr(figures_words, "fitted", lambda text, _: text)
    words = figures_words._words(tiny, prompt)
    assert [title for title, _ in words] == titles
    assert [place for _, places in words for place in places] == list(range(24))  # each token once


@pytest.mark.filterwarnings("ignore:left out, for there is room")
def test_a_prompt_that_is_too_long(tiny, drawn):
    figures.attention(tiny, "red " * 30, steps=1)
    _, written = drawn
    assert written.count("red") == 22 and "(end)" in written and "(padding)" not in written


def test_more_words_than_tiles(drawn, unclipped):
    pipe = tiny_pipe(tiny_tokenizer(length=40))
    image = figures.attention(pipe, "red " * 38, steps=1)
    _, written = drawn
    assert written.count("red") == 22 and "(the rest)" in written  # 24 with the start
    assert image.size == (760, 48 + 4 * 122) and unclipped == []


def test_attention_of_a_model_of_labels(pipe, drawn, unclipped):
    figures.attention(pipe, "a handwritten seven", 2, steps=3)
    _, written = drawn
    assert {
        "(start)",
        "seven",
        'prompt: "a handwritten seven"',
        "step 2 of 3, scale 1.5\nfeature maps of 7 × 7",
    } <= set(written)
    assert unclipped == [] and resolutions(pipe) == [7]


def test_what_attention_cannot_show(tiny, pipe):
    for draw, words in (
        (lambda: figures.attention(tiny, PROMPT, 0), "step must lie between 1 and 20, got 0"),
        (lambda: figures.attention(tiny, PROMPT, 4, steps=3), "step must lie between 1"),
        (lambda: figures.attention(tiny, PROMPT, scale=0), "does not read the prompt"),
        (lambda: figures.attention(tiny, PROMPT, size=9, steps=1), "unknown size '9'; there is 16, 8"),
        (lambda: figures.attention(pipe, ""), "is empty"),
    ):
        with pytest.raises(ValueError, match=words):
            draw()


# Letters ------------------------------------------------------------------------------------


def test_words_as_a_page_can_show_them():
    assert readable("a  red\nseven", 400) == '"a red seven"'
    assert readable("$7", 400) == r'"\$7"'
    assert readable("七7", 400) == '"□7"'
    assert readable("", 400) == '""'
    for text in ODD:
        assert wide(readable(text, 200).replace(r"\$", "$")) <= 200
        assert all(wide(line.replace(r"\$", "$")) <= 200 for line in two_lines(text, 200).splitlines())
    assert readable("W" * 300, 200).endswith('W…"')
    assert two_lines("a small red seven on a blue background", 200).splitlines() == [
        '"a small red seven on a blue',
        'background"',
    ]
