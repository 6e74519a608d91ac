"""The figures of the widgets: what stands in them is what was computed, read back from their pixels."""

import io

import matplotlib
import numpy as np
import pytest
import torch
from drawn import NEAR, assert_drawn, count, noise, read_back
from PIL import Image

from minidiff import TextToImage, data, files, image_files
from minidiff.course import figures, lessons
from minidiff.course.figures.diffusion import fingerprint, reference
from minidiff.diffusion import DEFAULT_SAMPLER, SAMPLERS, SCHEDULES, cosine, edm, flow


def around(middle: int, radius: float) -> tuple[int, int, int, int]:
    """The box that is `radius` around the origin of the playground's axes, whose middle is there."""
    side = round(radius * 316 / 6)
    return middle - side, 190 - side, middle + side, 190 + side


@pytest.mark.parametrize("t", [0.0, 0.3, 0.85])
def test_corruption_shows_x_t(digit, t):
    image = figures.corruption(digit, "flow", t, seed=4)
    by_hand = (1 - t) * digit + t * noise((1, 28, 28), 4)
    assert_drawn(image, 20, 40, 224, (by_hand[0] + 1) / 2)


def test_the_numbers_beside_a_corrupted_picture(digit, words):
    figures.corruption(digit, "flow", 0.4)
    assert words[2:] == [
        "flow",
        "t",
        "0.4",
        r"$\alpha_t$",
        "0.6",
        r"$\sigma_t$",
        "0.4",
        "SNR",
        "2.25",
        "ln SNR",
        "0.811",
    ]


def test_what_grows_with_the_noise_is_shrunk(digit):
    by_hand = (digit + 8 * noise((1, 28, 28))) / (1 + 8**2) ** 0.5
    assert_drawn(figures.corruption(digit, "edm", 0.1), 20, 40, 224, (by_hand[0] + 1) / 2)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_corruption_from_end_to_end_in_colour(schedule):
    picture = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    start, end = (figures.corruption(picture, schedule, t) for t in (0.0, 1.0))
    assert start.size == end.size == (760, 300)
    red, green, blue = np.asarray(start.convert("RGB"))[40 + 14, 20 + 14] / 255  # 28 to a pixel: the first one
    np.testing.assert_allclose([red, green, blue], (picture[:, 0, 0] + 1) / 2, atol=NEAR * 3)
    assert image_files.encode(start) != image_files.encode(end)


def test_schedules_show_the_same_noise_under_each(digit):
    image = figures.schedules(["flow", "edm", "cosine"], 0.25, digit, seed=2)  # drawn in the order of SCHEDULES
    eps = noise((1, 28, 28), 2)
    for column, path in enumerate((cosine(), flow(), edm())):
        alpha, sigma = float(path.alpha(torch.tensor(0.25))), float(path.sigma(torch.tensor(0.25)))
        shown = (alpha * digit + sigma * eps) / ((1 + sigma**2) ** 0.5 if alpha == 1 else 1)
        inside = slice(2, -2)  # a coloured frame covers the edge
        drawn = read_back(image, 48 + 148 * column, 338, 88)[inside, inside]
        expected = ((shown[0] + 1) / 2).clamp(0, 1)[inside, inside]
        torch.testing.assert_close(drawn, expected, rtol=0, atol=NEAR)
    assert image_files.encode(image) == image_files.encode(
        figures.schedules(["cosine", "edm", "flow"], 0.25, digit, seed=2)
    )


def test_schedules_has_a_colour_for_each_and_a_mark_at_t():
    every = figures.schedules(list(SCHEDULES), 0.5)
    for colour in figures.COLOURS[: len(SCHEDULES)]:
        assert count(every, colour) > 50
    one = figures.schedules(["flow"], 0.5)
    assert count(one, figures.look("flow", SCHEDULES)["color"]) > 50 and count(one, figures.BLUE) == 0
    middle = (48 + 95 - 3, 56, 48 + 95 + 3, 244)  # of the left axes, where t is 0.5
    assert count(one, figures.GRAY, middle) > 100 > count(figures.schedules(["flow"], 0.2), figures.GRAY, middle)
    assert figures.schedules([], 0.5).size == one.size  # nothing chosen yet


@pytest.mark.parametrize("prompt, scale", [(None, 0.0), ("7", 1.0)])
def test_one_step_is_the_first_estimate_of_a_trajectory(pipe, digit, prompt, scale):
    image = figures.one_step(pipe, digit, [0.0, 0.4, 1.0], prompt, seed=6)
    first = next(pipe.stream([prompt or "0"], steps=1, scale=scale, seed=6))
    eps = pipe.fold.decode(noise((1, 4, 14, 14), 6))[0]
    for column, t in enumerate((0.0, 0.4, 1.0)):
        assert_drawn(image, 56 + 160 * (column + 1), 34, 150, (((1 - t) * digit + t * eps)[0] + 1) / 2)
    assert_drawn(image, 20, 34, 150, (digit[0] + 1) / 2)
    assert_drawn(image, 56 + 160, 200, 150, (digit[0] + 1) / 2)  # at t = 0 there is nothing to do
    assert_drawn(image, 56 + 480, 200, 150, pipe.decode(first.x0_hat)[0, 0])


def test_one_step_alone_and_at_most_seven(pipe, digit):
    alone = figures.one_step(pipe, digit, [0.5])
    assert count(alone, figures.BLUE, (446, 34, 742, 350)) > 100  # the error at all times
    assert figures.one_step(pipe, digit, [k / 6 for k in range(7)]).width == 760
    for times in ([], [0.5] * 8):
        with pytest.raises(ValueError, match="the number of times must lie between 1 and 7"):
            figures.one_step(pipe, digit, times)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_sampler_shows_the_trajectory_and_its_end(pipe, sampler):
    image = figures.sampler(pipe, "3", sampler, 9, 1, 1.5)
    taken = list(pipe.stream(["3"], steps=9, scale=1.5, sampler=sampler, seed=1))
    assert_drawn(image, 392, 54, 170, pipe.decode(taken[-1].x)[0, 0])
    assert_drawn(image, 580, 54, 170, reference(pipe, "3", 1, 1.5)[0])
    assert_drawn(image, 12, 54, 80, pipe.decode(taken[0].x0_hat)[0, 0])
    assert_drawn(image, 12 + 270, 162, 80, pipe.decode(taken[-1].x0_hat)[0, 0])  # the eighth and last


def test_estimates_carry_the_time_of_their_forward_pass(pipe, words):
    figures.sampler(pipe, "3", "euler", 4, 0, 1.0)
    assert [word for word in words if word][1:-1] == [
        *("t = 1.00", "t = 0.75", "t = 0.50", "t = 0.25"),
        "euler, 4 steps",
        f"{DEFAULT_SAMPLER}, 1000 steps",
    ]


def test_one_step_of_a_sampler_is_one_estimate(pipe):
    image = figures.sampler(pipe, "3", "euler", 1, 0, 1.0)
    assert read_back(image, 12 + 90, 54, 80).min() > 0.9  # no second one


def test_the_references_are_of_the_shipped_weights(pipe):
    for digit, seed, scale in ((7, 2, 1.5), (0, 4, 4.0), (9, 0, 1.0)):
        ours = pipe.decode(pipe.latents([str(digit)], steps=40, scale=scale, seed=seed))[0]
        gap = (ours - reference(pipe, f"the digit {digit}", seed, scale)).square().mean().sqrt()
        other = (ours - reference(pipe, str(digit), (seed + 1) % 5, scale)).square().mean().sqrt()
        assert gap < 0.06 < 0.15 < other


def test_no_reference_where_nobody_drew_one(pipe):
    assert reference(pipe, "7", 5, 1.5) is None
    assert reference(pipe, "7", 0, 3.0) is None
    trained_by_you = TextToImage(pipe.config, pipe.config.build(), "cpu")
    assert not torch.equal(fingerprint(trained_by_you), fingerprint(pipe))
    assert reference(trained_by_you, "7", 0, 1.5) is None
    assert figures.sampler(pipe, "7", "ddim", 2, 7, 3.0).size == (760, 276)


def test_the_references_are_whole():
    known = files.read_tensors(files.asset("references.safetensors"))
    assert known["pictures"].shape == (10, 5, 4, 28, 28) and known["pictures"].dtype == torch.uint8
    assert (known["seeds"].tolist(), known["scales"].tolist()) == ([0, 1, 2, 3, 4], [1.0, 1.5, 2.0, 4.0])
    assert known["pictures"].amax((3, 4)).min() > 200  # ink in each
    assert len({bytes(p) for p in known["pictures"].reshape(200, -1).numpy()}) == 200  # no two the same


@pytest.mark.parametrize("cloud", data.CLOUDS)
def test_playground_noises_and_samples(cloud):
    clean, noisy = (figures.playground(cloud, t, "euler", 20) for t in (0.0, 0.9))
    field = around(214, 2.99)
    assert count(clean, figures.ORANGE, field) == 0 < 500 < count(noisy, figures.ORANGE, field)  # no score at t = 0
    margin = (57, 32, 57 + 12, 348)  # left of the outermost arrows, which point inward
    assert count(noisy, figures.ORANGE, margin) == 0

    def outside(image):  # blue points further than 1.5 from the middle
        blueish = [
            int((pixels[..., 2] - pixels[..., 0] > 60).sum())
            for pixels in (np.asarray(image.convert("RGB").crop(around(214, r)), dtype=int) for r in (2.9, 1.5))
        ]
        return blueish[0] - blueish[1]

    assert outside(clean) == 0 < 100 < outside(noisy)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_playground_with_every_sampler(sampler):
    first, few = (figures.playground("moons", 0.4, sampler, steps) for steps in (1, 12))
    assert image_files.encode(first) != image_files.encode(few)
    assert image_files.encode(few) == image_files.encode(figures.playground("moons", 0.4, sampler, 12))
    ends, whole = (count(few, figures.ORANGE, around(594, radius)) for radius in (1.1, 2.6))  # below the legend
    assert ends > 0.97 * whole > 200  # back on the cloud


def test_bad_input_is_named(pipe, digit):
    with pytest.raises(ValueError, match="unknown schedule 'flows'; there is linear, cosine"):
        figures.corruption(digit, "flows", 0.5)
    with pytest.raises(ValueError, match="unknown schedule 'flows'"):
        figures.schedules(["flow", "flows"], 0.5)
    with pytest.raises(ValueError, match="unknown cloud 'square'; there is spiral"):
        figures.playground("square", 0.5, "euler", 3)
    with pytest.raises(ValueError, match="unknown sampler 'eule'"):
        figures.playground("moons", 0.5, "eule", 3)
    for draw in (
        lambda t: figures.corruption(digit, "flow", t),
        lambda t: figures.schedules(["flow"], t),
        lambda t: figures.one_step(pipe, digit, [t]),
        lambda t: figures.playground("moons", t, "euler", 3),
    ):
        with pytest.raises(ValueError, match="t must lie between 0 and 1, got 1.5"):
            draw(1.5)


def test_figures_leave_no_trace_and_look_the_same_in_a_notebook(digit):
    with matplotlib.rc_context({"font.size": 33, "axes.grid": False}):
        before = dict(matplotlib.rcParams)
        plain = image_files.encode(figures.corruption(digit, "cosine", 0.5))
        assert dict(matplotlib.rcParams) == before
        lessons.style()
        assert image_files.encode(figures.corruption(digit, "cosine", 0.5)) == plain
    assert matplotlib.pyplot.get_fignums() == []


def test_nothing_is_clipped(unclipped, pipe, digit):
    for t in (0.0, 0.5, 1.0):
        for schedule in SCHEDULES:
            figures.corruption(digit, schedule, t)
        figures.schedules(list(SCHEDULES), t, digit)
        figures.one_step(pipe, digit, [t], "a handwritten seven")
    figures.one_step(pipe, digit, [k / 6 for k in range(7)], "a handwritten seven")
    figures.sampler(pipe, "7", "ddpm", 20, 0, 1.5)
    figures.sampler(pipe, "7", DEFAULT_SAMPLER, 3, 9, 1.5)
    figures.playground(list(data.CLOUDS)[-1], 1.0, DEFAULT_SAMPLER, 40)
    assert unclipped == []


def test_figures_can_be_an_animation():
    frames = [figures.playground("moons", t, "euler", 2) for t in (0.1, 0.9)]
    moving = Image.open(io.BytesIO(image_files.encode(frames)))
    moving.seek(moving.n_frames - 1)
    last = np.abs(np.asarray(moving.convert("RGB"), dtype=int) - np.asarray(frames[-1].convert("RGB"), dtype=int))
    assert last.max() == 0
