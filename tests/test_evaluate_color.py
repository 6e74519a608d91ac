"""The pixel rule, on real pictures and on wrong ones, and the table that is made with it."""

import json
import re
from functools import cache
from types import SimpleNamespace

import pytest
import torch

import minidiff.evaluation.color_digits as evaluate_color_module
from minidiff import TextToImage, data
from minidiff.data.color_digits import HELD_OUT, PLACES, SIZES, Scene, draw
from minidiff.diffusion import DEFAULT_SAMPLER
from minidiff.evaluation.color_digits import evaluate_color, look_at, measure
from minidiff.files import asset
from minidiff.formats.model_folder import load_classifier


@pytest.fixture(scope="module")
def real():
    return data.color_digits(2000, "validation", seed=3)


@pytest.fixture(scope="module")
def judge():
    return load_classifier("judge")


def shares(judge, pictures, scenes):
    digit, color, *_ = measure(judge, pictures, scenes)
    return float(digit.double().mean()), float(color.double().mean())


# The pixel rule --------------------------------------------------------------------------


def test_real_pictures_are_read_right(real, judge):
    digit, color, _, features = measure(judge, real.images, real.scenes)
    assert color.double().mean() >= 0.995 and digit.double().mean() >= 0.98 and features.shape == (2000, 64)
    for size in SIZES:
        those = torch.tensor([scene.size == size for scene in real.scenes])
        assert digit[those].double().mean() >= 0.98, size
    for place in PLACES:
        those = torch.tensor([scene.place == place for scene in real.scenes])
        assert digit[those].double().mean() >= 0.97, place


def test_never_seen_pairs_are_read_right_too(judge):
    few = data.color_digits(500, "validation", held_out=True)
    digit, color = shares(judge, few.images, few.scenes)
    assert digit >= 0.98 and color >= 0.995


def test_every_pair_of_colours_is_told(judge):
    """Also where mixing two named colours passes near a third, as red and yellow do near orange."""
    image = data.mnist("validation").images[:1]
    scenes = [Scene(3, c, b) for c in data.COLORS for b in data.COLORS if b != c]
    for size in SIZES:
        sized = [Scene(s.digit, s.color, s.background, size=size) for s in scenes]
        seen = look_at(draw(sized, image.expand(len(sized), -1, -1, -1)))
        assert seen.colors == [s.color for s in sized] and seen.backgrounds == [s.background for s in sized]


def test_the_digit_is_laid_out_as_mnist_has_it():
    """Large or small, wherever, in whatever colours: the gray digit is nearly the one that was drawn from."""
    images = data.mnist("validation").images[:50]
    for place, size, far in (("center", "large", 0.05), ("top left", "large", 0.05), ("bottom right", "small", 0.15)):
        seen = look_at(draw([Scene(1, "yellow", "purple", place, size)] * 50, images))
        assert seen.digits.shape == (50, 1, 28, 28) and seen.digits.min() >= -1 and seen.digits.max() <= 1
        assert (seen.digits - images).abs().mean() / 2 < far, (place, size)


def test_a_little_noise_is_forgiven(real, judge):
    noise = torch.randn(real.images.shape, generator=torch.Generator().manual_seed(0))
    digit, color = shares(judge, (real.images + 0.1 * noise).clamp(-1, 1), real.scenes)
    assert digit > 0.97 and color > 0.99


def test_wrong_pictures_are_seen_through(real, judge):
    turned = [Scene((s.digit + 1) % 10, s.color, s.background, s.place, s.size) for s in real.scenes]
    digit, color = shares(judge, real.images, turned)
    assert digit < 0.02 and color >= 0.995
    swapped = [Scene(s.digit, s.background, s.color, s.place, s.size) for s in real.scenes]
    digit, color = shares(judge, real.images, swapped)
    assert digit >= 0.98 and color == 0
    for field in ("color", "background"):  # one colour right is not enough
        other = next(c for c in data.COLORS if c not in ("red", "blue"))
        wanted = {"digit": 3, "color": "red", "background": "blue"}
        picture = draw([Scene(**wanted | {field: other})], data.mnist("validation").images[:1])
        assert not measure(judge, picture, [Scene(**wanted)])[1].any()


@pytest.mark.parametrize(
    "pictures",
    [torch.zeros(3, 3, 32, 32), torch.full((2, 3, 32, 32), -1.0), torch.rand(4, 3, 32, 32) * 2 - 1, torch.rand(2, 3, 16, 40) * 2 - 1],
    ids=["gray", "black", "noise", "another size"],
)  # fmt: skip
def test_pictures_that_show_nothing(pictures, judge):
    scenes = [Scene(1, "white", "black")] * len(pictures)
    digit, color, _, features = measure(judge, pictures, scenes)
    assert digit.shape == color.shape == (len(pictures),) and features.isfinite().all() and not color.any()


def test_one_stray_pixel_does_not_decide():
    picture = draw([Scene(3, "red", "blue")], data.mnist("validation").images[:1])
    picture[0, :, 1, 1] = 1.0  # white
    seen = look_at(picture)
    assert (seen.colors, seen.backgrounds) == (["red"], ["blue"])


# The report ------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def quick(monkeypatch, request):
    """Fewer real pictures, read once, but where the test is about them."""
    if "right" not in request.node.name:
        monkeypatch.setattr(evaluate_color_module, "REAL", 100)
    monkeypatch.setattr(data, "mnist", mnist)


mnist = cache(data.mnist)


class Painter:
    """A model that needs no network: it reads the prompt and draws real digits, but for what `wrong` says."""

    config, device = SimpleNamespace(name="painter"), torch.device("cpu")

    def __init__(self, wrong=lambda scene, scale: scene, handwriting=None):
        self.wrong, self.handwriting, self.asked = wrong, handwriting, []
        self.mnist = mnist("validation")

    def latents(self, prompts, *, steps, scale, sampler, seed):
        self.asked += [(prompt, scale, seed + k) for k, prompt in enumerate(prompts)]
        self.how = steps, sampler
        scenes, rows = [], []
        for k, prompt in enumerate(prompts):
            color, word, background = re.fullmatch(r"an? (\w+) (\w+) on an? (\w+) background", prompt).groups()
            scenes.append(self.wrong(Scene(data.CLASSES.index(word), color, background), scale))
            those = (self.mnist.labels == scenes[-1].digit).nonzero().flatten()
            rows.append(those[(seed + k if self.handwriting is None else self.handwriting) % len(those)])
        return draw(scenes, self.mnist.images[torch.stack(rows)])

    def decode(self, latents):
        return (latents + 1) / 2


def rows_of(report):
    return {(row.pairs, row.scale): row for row in report.rows}


def test_a_model_that_does_it_right():
    pipe = Painter()
    report = evaluate_color(pipe, 120, (1, 4), steps=7, sampler="euler", seed=50)
    assert set(rows_of(report)) == {(pairs, scale) for pairs in ("seen", "never-seen") for scale in (None, 1, 4)}
    for row in report.rows:
        assert row.digit > 0.96 and row.color > 0.99 and row.both > 0.96 and abs(row.diversity - 1) < 0.15
    assert pipe.how == (7, "euler")
    assert all(row.diversity == 1 for row in report.rows if row.scale is None)


def test_what_is_asked_for():
    pipe = Painter()
    evaluate_color(pipe, 120, (1, 4), seed=50)
    asked = {scale: [(prompt, seed) for prompt, s, seed in pipe.asked if s == scale] for scale in (1, 4)}
    assert asked[1] == asked[4] and len(asked[1]) == 240  # the same prompts from the same noise
    assert sorted(seed for _, seed in asked[1]) == list(range(50, 290))  # no noise twice
    prompts = [prompt for prompt, _ in sorted(asked[1], key=lambda pair: pair[1])]
    held_out = [f" {color} {data.CLASSES[digit]} on" for digit, color in HELD_OUT.items()]
    assert not any(pair in prompt for pair in held_out for prompt in prompts[:120])
    assert all(held_out[i % 10] in prompt for i, prompt in enumerate(prompts[120:]))
    assert len({prompt.split()[-2] for prompt in prompts[120:]}) == 8
    again, other = Painter(), Painter()
    evaluate_color(again, 120, (1, 4), seed=50)
    evaluate_color(other, 120, (1, 4), seed=51)
    assert again.asked == pipe.asked and {a[0] for a in other.asked} != {a[0] for a in pipe.asked}


def test_wrong_digits_wrong_colours_and_what_only_happens_to_unseen_pairs():
    def next_digit(scene, scale):
        return Scene((scene.digit + 1) % 10, scene.color, scene.background)

    def next_background(scene, scale):
        others = [c for c in data.COLORS if c not in (scene.color, scene.background)]
        return Scene(scene.digit, scene.color, others[0])

    def seen_pairs_only(scene, scale):
        return next_digit(scene, scale) if HELD_OUT[scene.digit] == scene.color else scene

    def half(scene, scale):  # odd digits have the wrong digit, even ones the wrong background
        return (next_digit if scene.digit % 2 else next_background)(scene, scale)

    for wrong, digit, color, both in ((next_digit, 0, 1, 0), (next_background, 1, 0, 0), (half, 0.5, 0.5, 0)):
        row = rows_of(evaluate_color(Painter(wrong), 100, (2,)))["never-seen", 2]
        assert (row.digit, row.color, row.both) == pytest.approx((digit, color, both), abs=0.04)
    rows = rows_of(evaluate_color(Painter(seen_pairs_only), 60, (2,)))
    assert rows["seen", 2].both > 0.95 and rows["never-seen", 2].both < 0.05 and rows["never-seen", 2].color > 0.95


def test_scales_are_measured_apart():
    def only_at_2(scene, scale):
        return scene if scale == 2 else Scene((scene.digit + 3) % 10, scene.color, scene.background)

    rows = rows_of(evaluate_color(Painter(only_at_2), 40, (0, 2)))
    assert rows["seen", 2].digit > 0.9 and rows["seen", 0].digit < 0.1


def test_a_model_that_draws_one_handwriting_has_no_diversity():
    rows = rows_of(evaluate_color(Painter(handwriting=5), 60, (1,)))
    assert rows["seen", 1].diversity < 0.3 and rows["never-seen", 1].diversity < 0.3


def test_a_model_that_draws_noise():
    pipe = Painter()
    pipe.decode = lambda latents: torch.rand(latents.shape, generator=torch.Generator().manual_seed(0))
    for row in evaluate_color(pipe, 40, (1,)).rows:
        assert row.scale is None or (row.digit < 0.4 and row.both < 0.1)


def test_the_table_and_the_json():
    report = evaluate_color(Painter(), 40, (0, 1.5), seed=3, split="validation")
    lines = str(report).splitlines()
    shown = [["seen", "never-seen"][k % 2] + scale for k, scale in enumerate(["real", "real", "0", "0", "1.5", "1.5"])]
    assert ["".join(line.split()[:2]) for line in lines[1:7]] == shown and max(map(len, lines)) <= 120
    for line, row in zip(lines[1:7], report.rows, strict=True):
        numbers = [float(number) / 100 for number in re.findall(r"([\d.]+)%", line)]
        assert numbers == pytest.approx([row.digit, row.color, row.both, row.diversity], abs=6e-4)
    for words in (
        "n = 40",
        "seed 3",
        f"20 steps of {DEFAULT_SAMPLER}",
        "painter",
        "validation",
        "torch",
        "scale 0 ignores the prompt",
    ):
        assert words in str(report)
    assert "ignores" not in str(evaluate_color(Painter(), 20, (1,)))
    read = json.loads(report.json())
    assert read["rows"][0]["scale"] is None and read["rows"][-1]["both"] == report.rows[-1].both and read["n"] == 40


def test_progress_is_told():
    told = []
    evaluate_color(Painter(), 20, (1, 2), progress=lambda rows, unit: told.append((len(rows), unit)) or rows)
    assert told == [(6, "row")]


@pytest.mark.parametrize("how, problem", [({"n": 19}, "n must be at least 20, .* got 19"), ({"scale": ()}, "scale must be"),
                                          ({"scale": (1, float("nan"))}, "scale must be"), ({"split": "dev"}, "unknown split 'dev'")])  # fmt: skip
def test_what_is_wrong_is_said_before_anything_is_drawn(how, problem):
    pipe = Painter()
    with pytest.raises(ValueError, match=problem):
        evaluate_color(pipe, **how)
    assert not pipe.asked


# The shipped model -----------------------------------------------------------------------


def test_the_shipped_model_draws_what_it_was_asked_for_and_what_it_has_never_seen():
    """As many as must be right, 95 % and 80 %, less two standard deviations of 40 coins."""
    rows = {row.pairs: row for row in evaluate_color(TextToImage.load("color_digits", "cpu"), 40, (2,)).rows}
    assert rows["seen"].both > 0.95 - 2 * (0.95 * 0.05 / 40) ** 0.5
    assert rows["never-seen"].both > 0.8 - 2 * (0.8 * 0.2 / 40) ** 0.5
    assert 0.5 < rows["seen"].diversity < 1.2


def test_the_weights_are_as_small_as_promised():
    assert asset("weights/color_digits/model.safetensors").stat().st_size <= 4_000_000
    assert sum(file.stat().st_size for file in asset("weights/clip").iterdir()) <= 1_000_000
