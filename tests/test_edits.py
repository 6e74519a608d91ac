"""Start later, keep what is known: image to image and inpainting, for any model."""

import numpy as np
import pytest
import torch
from PIL import Image

from minidiff.diffusion import SAMPLERS, flow, uniform
from minidiff.pipeline.image_to_image import fitted, from_pil, keep, mask_from_pil, prepared, remaining
from minidiff.pipeline.text_to_image import TextToImage

SCHEDULE = flow()


@pytest.fixture(scope="module")
def pipe():
    return TextToImage.load("mnist", "cpu")


@pytest.fixture(scope="module")
def seven(pipe):
    return pipe(["7"], steps=8, seed=1)[0]


def half(height=28, width=28):
    """White, a new picture, on the right."""
    pixels = np.zeros((height, width), np.uint8)
    pixels[:, width // 2 :] = 255
    return Image.fromarray(pixels)


@pytest.mark.parametrize(
    ("steps", "strength", "kept"), [(20, 1.0, 20), (20, 0.6, 12), (25, 0.3, 7), (20, 0.05, 1), (3, 0.99, 2)]
)
def test_the_last_steps_are_left(steps, strength, kept):
    times = uniform(steps, SCHEDULE)
    torch.testing.assert_close(remaining(times, strength), times[-kept - 1 :])


@pytest.mark.parametrize("strength", [-0.1, 1.01, float("nan"), float("inf")])
def test_a_strength_outside_0_to_1_is_refused(strength):
    with pytest.raises(ValueError, match="strength must lie between 0 and 1"):
        remaining(uniform(20, SCHEDULE), strength)


@pytest.mark.parametrize("strength", [0, 0.04])
def test_a_strength_that_leaves_no_step_is_refused(strength):
    with pytest.raises(ValueError, match="leaves no step"):
        remaining(uniform(20, SCHEDULE), strength)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_keeps_what_is_known(sampler):
    known, noise = torch.full((1, 1, 4, 4), 5.0), torch.randn(1, 1, 4, 4)
    mask = torch.zeros(1, 1, 4, 4)
    mask[..., 2:] = 1
    after = keep(known, mask, noise, SCHEDULE)
    walk = SAMPLERS[sampler](lambda x, t: torch.zeros_like(x), noise, uniform(5, SCHEDULE), SCHEDULE, after=after)
    for step in walk:
        wanted = SCHEDULE.add_noise(known, noise, step.t)  # at the time that the step reached, with the same noise
        torch.testing.assert_close(step.x[..., :2], wanted[..., :2])
        assert not torch.allclose(step.x[..., 2:], wanted[..., 2:])
    torch.testing.assert_close(step.x[..., :2], known[..., :2])


def test_a_mask_is_1_where_it_is_white_and_each_place_takes_its_upper_left_pixel():
    pixels = np.zeros((8, 12), np.uint8)
    pixels[0, 4] = pixels[4, 8] = 200
    pixels[1, 1] = 255  # in the middle of a place
    mask = mask_from_pil(Image.fromarray(pixels), (8, 12), (2, 3))
    assert mask[0, 0].tolist() == [[0, 1, 0], [0, 0, 1]]


def test_pictures_become_tensors():
    pixels = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3) * 15
    x = from_pil(Image.fromarray(pixels))
    assert x.shape == (1, 3, 2, 3)
    torch.testing.assert_close(x[0, 1, 0, 2], torch.tensor(pixels[0, 2, 1] / 127.5 - 1, dtype=torch.float32))
    assert from_pil(Image.fromarray(pixels), channels=1).shape == (1, 1, 2, 3)


def test_the_later_the_start_the_nearer_the_picture(pipe, seven):
    true, far = from_pil(seven, 1), []
    for strength in (0.2, 0.5, 0.9):
        made = pipe.decode(pipe.latents(["1"], init=seven, strength=strength, seed=3)) * 2 - 1
        far.append(float((made - true).square().mean()))
    assert far == sorted(far)
    assert far[0] < far[2] / 4


def test_inpainting_keeps_the_left_half_to_the_pixel(pipe, seven):
    made = np.asarray(pipe(["8"], init=seven, mask=half(), strength=1.0, seed=0)[0]).astype(int)
    was = np.asarray(seven).astype(int)
    assert abs(made - was)[:, :14].max() <= 1
    assert abs(made - was)[:, 14:].max() > 100


def test_strength_1_with_a_mask_begins_with_noise_alone_and_without_one_nearly_so(pipe, seven):
    z = torch.randn(1, 4, 14, 14)
    plain = next(pipe.stream(["7"], latents=z, steps=4)).x
    masked = next(pipe.stream(["7"], latents=z, steps=4, init=seven, strength=1.0, mask=torch.ones(1, 1, 14, 14))).x
    torch.testing.assert_close(masked, plain)


def test_one_picture_serves_several_prompts(pipe, seven):
    both = pipe.latents(["1", "8"], init=seven, strength=0.7, seed=5, mask=half())
    assert both.shape == (2, 4, 14, 14)
    alone = pipe.latents(["8"], init=seven, strength=0.7, seed=6, mask=half())
    torch.testing.assert_close(both[1:], alone, rtol=0, atol=1e-4)


def test_latents_are_taken_as_they_are(pipe, seven):
    z = pipe.to_latents(from_pil(seven, 1))
    torch.testing.assert_close(pipe.latents(["8"], init=z, seed=2), pipe.latents(["8"], init=seven, seed=2))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mask": half()}, "a mask says what to keep"),
        ({"init": Image.new("L", (30, 27))}, "size must be a multiple of 2, got 27x30"),
        ({"init": Image.new("L", (28, 28)), "mask": half(28, 26)}, "the mask is 28x26, and the picture 28x28"),
        ({"init": Image.new("L", (28, 28)), "size": 28}, "size is that of the image"),
        ({"init": Image.new("L", (28, 28)), "strength": 1.5}, "strength must lie between 0 and 1"),
        ({"init": Image.new("L", (28, 28)), "mask": torch.ones(1, 4, 14, 14)}, "the mask must have shape"),
    ],
)
def test_what_cannot_be_is_refused(pipe, options, message):
    with pytest.raises(ValueError, match=message):
        pipe.stream(["7"], **options)


def test_prepared_leaves_no_mask_where_none_was_given():
    z, mask = prepared(torch.zeros(1, 4, 2, 2), None, (1, 4, 3), 8, None)
    assert z.shape == (1, 4, 2, 2)
    assert mask is None


@pytest.mark.parametrize(
    ("size", "side", "factor", "becomes"),
    [
        ((256, 256), 64, 4, (64, 64)),
        ((768, 512), 512, 8, (768, 512)),
        ((300, 200), 64, 8, (96, 64)),
        ((9, 30), 16, 2, (16, 52)),
    ],
)
def test_a_picture_and_its_mask_are_made_as_large_as_the_models(size, side, factor, becomes):
    mask = Image.new("L", size)
    mask.paste(255, (size[0] // 2, 0, *size))
    init, small = fitted(Image.new("RGB", size, "red"), mask, side, factor)
    assert init.size == small.size == becomes
    white = (size[0] - size[0] // 2) / size[0]
    assert set(np.unique(small)) == {0, 255} and (np.asarray(small) == 255).mean() == pytest.approx(white, abs=0.05)
    assert fitted(init, None, side, factor)[1] is None


def test_a_picture_that_was_enlarged_comes_back(seven):
    again, _ = fitted(seven.resize((112, 112), Image.Resampling.NEAREST), None, 28, 2)
    assert (from_pil(again, 1) - from_pil(seven, 1)).abs().mean() < 0.03


def test_sizes_that_cannot_be():
    picture = Image.new("RGB", (16, 16))
    with pytest.raises(ValueError, match="the mask is 15x16, and the picture 16x16"):
        fitted(picture, Image.new("L", (16, 15)), 16, 2)
    for side in (15, 0, -2):
        with pytest.raises(ValueError, match=f"size must be a multiple of 2, got {side}x{side}"):
            fitted(picture, None, side, 2)
