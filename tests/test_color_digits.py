"""The coloured digits: what is drawn, what is said about it, and what is never in training."""

import itertools
import re
from collections import Counter

import pytest
import torch

from minidiff import data
from minidiff.data.color_digits import ALLOWED, LAYOUTS, OTHERS, PLACES, SIZES, draw
from minidiff.data.mnist import SPLITS

PAIRS = set(data.HELD_OUT.items())


def pixels(name):
    return torch.tensor(data.COLORS[name]) / 127.5 - 1


def pairs(captioned):
    return {(scene.digit, scene.color) for scene in captioned.scenes}


@pytest.fixture(scope="module")
def digits():
    return data.mnist("validation")


@pytest.fixture(scope="module")
def many():
    return data.color_digits(3000, "validation", seed=1)


def ink(picture, background):
    """Which pixels are not the background: (32, 32) bool."""
    return (picture - pixels(background)[:, None, None]).abs().amax(0) > 0


# What nobody has seen --------------------------------------------------------------------


def test_ten_pairs_are_held_out_each_digit_once_and_every_colour():
    assert sorted(data.HELD_OUT) == list(range(10))
    assert set(data.HELD_OUT.values()) == set(data.COLORS)


def test_the_pool_of_training_pairs_is_all_the_others():
    """The structure: `_compose` picks a colour from ALLOWED and from nowhere else."""
    pool = {(digit, color) for digit, colors in ALLOWED.items() for color in colors}
    assert len(pool) == 70 and not pool & PAIRS and pool | PAIRS == set(itertools.product(range(10), data.COLORS))


def test_no_training_batch_holds_a_never_seen_pair():
    seen = Counter()
    for split, seed in itertools.product(("train", "validation", "test"), (0, 1, 2**32 - 1)):
        for batch in itertools.islice(data.color_digit_batches(200, split, seed), 12):
            seen += Counter((scene.digit, scene.color) for scene in batch.scenes)
    assert not PAIRS & set(seen) and len(seen) == 70
    assert min(seen.values()) > 0.5 * max(seen.values())  # all the others come about equally often


def test_never_seen_pairs_come_when_asked_for_and_only_then(many):
    assert pairs(data.color_digits(300, "test", held_out=True)) == PAIRS
    assert len(pairs(many)) == 70 and not PAIRS & pairs(many)


def test_no_training_caption_names_a_never_seen_pair():
    """Read from the words: the colour in front of the digit, or after "in"."""
    a_color, a_digit = "|".join(data.COLORS), "|".join((*data.CLASSES, "[0-9]"))
    for batch in itertools.islice(data.color_digit_batches(500, seed=3), 8):
        for text in batch.captions:
            before, after = re.search(rf"({a_color}) (?:{a_digit})\b|in ({a_color})", text).groups()
            assert (before or after) != data.HELD_OUT[data.read_digit(text)], text


# Pictures --------------------------------------------------------------------------------


def test_pictures_are_floats_in_their_range(many):
    assert many.images.shape == (3000, 3, 32, 32) and many.images.dtype == torch.float32
    assert many.images.min() == -1 and many.images.max() == 1
    assert len(many) == len(many.captions) == len(many.scenes) == 3000


def test_an_ordinary_scene_is_the_digit_itself_in_colour(digits):
    """28x28 in the middle of 32x32; gray 0 is exactly the background, gray 1 exactly the colour, half is half."""
    digit = digits.images[:1].clone()
    digit[0, 0, 3, 3:6] = torch.tensor([-1.0, 0.0, 1.0])
    picture = draw([data.Scene(3, "orange", "purple")], digit)[0]
    gray = (digit[0, 0] + 1) / 2
    mixed = pixels("purple")[:, None, None] * (1 - gray) + pixels("orange")[:, None, None] * gray
    torch.testing.assert_close(picture[:, 2:30, 2:30], mixed, rtol=0, atol=1e-6)
    assert torch.equal(picture[:, 2 + 3, 2 + 3], pixels("purple"))
    assert torch.equal(picture[:, 2 + 3, 2 + 5], pixels("orange"))
    frame = torch.ones(32, 32, dtype=torch.bool)
    frame[2:30, 2:30] = False
    assert (picture[:, frame] == pixels("purple")[:, None]).all()


@pytest.mark.parametrize("color, background", [("white", "black"), ("black", "white"), ("yellow", "blue")])
def test_both_colours_are_exactly_there(color, background, digits):
    """Also where thin strokes were made small: their darkest pixel has the full colour."""
    scenes = [data.Scene(int(label), color, background, "center", "small") for label in digits.labels[:100]]
    for picture in draw(scenes, digits.images[:100]):
        for name in (color, background):
            assert (picture == pixels(name)[:, None, None]).all(0).any()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("place", PLACES)
def test_a_digit_is_whole_and_where_it_should_be(place, size, digits):
    images, labels = digits.images[:500], digits.labels[:500].tolist()
    shown = draw([data.Scene(label, "black", "white", place, size) for label in labels], images)
    in_the_middle = draw([data.Scene(label, "black", "white", "center", size) for label in labels], images)
    for picture, middle in zip(shown, in_the_middle, strict=True):
        rows, columns = (ink(picture, "white").any(axis).nonzero().flatten() for axis in (1, 0))
        assert rows.min() >= 1 and rows.max() <= 30 and columns.min() >= 1 and columns.max() <= 30
        assert torch.equal(picture[0].flatten().sort().values, middle[0].flatten().sort().values)  # nothing was cut
        ends = {
            "top": rows.min() == 1,
            "bottom": rows.max() == 30,
            "left": columns.min() == 1,
            "right": columns.max() == 30,
        }
        assert all(ends[side] for side in place.split() if side != "center")
        if place == "center":
            assert abs(rows.min() + rows.max() - 31) <= 12 and abs(columns.min() + columns.max() - 31) <= 12


def test_small_is_smaller(digits):
    labels = digits.labels[:200].tolist()
    tall = {}
    for size in SIZES:
        shown = draw([data.Scene(label, "red", "green", size=size) for label in labels], digits.images[:200])
        tall[size] = torch.stack([ink(picture, "green").any(1).sum() for picture in shown]).double().mean()
    assert 0.6 < tall["small"] / tall["large"] < 0.75


def test_a_picture_is_the_same_alone_and_in_a_batch(many, digits):
    labels = digits.labels[:20].tolist()
    scenes = [data.Scene(label, "red", "blue", *LAYOUTS[i % 10]) for i, label in enumerate(labels)]
    kept = digits.images[:20].clone()
    together = draw(scenes, digits.images[:20])
    alone = torch.cat([draw([scene], image[None]) for scene, image in zip(scenes, digits.images[:20], strict=True)])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-6)
    assert torch.equal(digits.images[:20], kept)  # what was given is not drawn over
    assert draw([], digits.images[:0]).shape == (0, 3, 32, 32)
    blank = draw(scenes[:1], torch.full((1, 1, 28, 28), -1.0))
    assert (blank == pixels("blue")[:, None, None]).all()


def test_the_splits_draw_different_digits():
    """Which pixels of an ordinary scene are inked tells its MNIST digit: it must be one of its own split."""
    known = {split: {(image[0] > -1).numpy().tobytes() for image in data.mnist(split).images} for split in SPLITS}
    for split in SPLITS:
        few = data.color_digits(300, split, seed=5)
        few = [pair for pair in zip(few.images, few.scenes, strict=True) if pair[1].place == "center"]
        shapes = {ink(x, s.background)[2:30, 2:30].numpy().tobytes() for x, s in few if s.size == "large"}
        assert len(shapes) > 100 and shapes <= known[split]
        assert all(len(shapes & known[other]) < 3 for other in SPLITS if other != split)


def test_the_digit_shown_is_the_digit_named(digits):
    """The scenes' digits are the labels of the very pictures that are drawn, whatever the split's order."""
    every = data.color_digits(5000, "validation", seed=2)
    assert Counter(scene.digit for scene in every.scenes) == Counter(digits.labels.tolist())  # each digit once
    twice = data.color_digits(10_000, "validation", seed=2)
    assert Counter(scene.digit for scene in twice.scenes) == Counter(digits.labels.tolist() * 2)


# Chance ----------------------------------------------------------------------------------


def same(a, b):
    return a.scenes == b.scenes and a.captions == b.captions and torch.equal(a.images, b.images)


def test_a_batch_depends_on_seed_and_number_alone():
    def batch(k, **how):
        return next(itertools.islice(data.color_digit_batches(16, **how), k, None))

    torch.manual_seed(1)
    first = batch(5, seed=7)
    torch.manual_seed(2)  # nobody else's random numbers are used
    assert same(first, batch(5, seed=7))
    others = [batch(4, seed=7), batch(5, seed=8), batch(5, seed=7 + 2**32), batch(5, seed=7, split="test")]
    layouts = [[(scene.place, scene.size) for scene in each.scenes] for each in (first, *others)]
    assert not any(layout == layouts[0] for layout in layouts[1:])  # the digits alone would differ between splits


def test_no_two_batches_of_neighbouring_seeds_are_the_same():
    """Also where seeds are as large as they get: numbers of more than 32 bits are not cut off."""
    seen = {
        tuple(batch.scenes)
        for seed in (0, 1, 2, 2**32 - 1, 2**32, 2**32 + 1)
        for batch in itertools.islice(data.color_digit_batches(8, "validation", seed), 20)
    }
    assert len(seen) == 120


def test_a_set_depends_on_its_seed(many):
    assert same(many, data.color_digits(3000, "validation", seed=1))
    assert many.scenes != data.color_digits(3000, "validation", seed=2).scenes


def test_most_scenes_are_ordinary_and_all_kinds_occur(many):
    layouts = Counter((scene.place, scene.size) for scene in many.scenes)
    assert set(layouts) == set(LAYOUTS) and abs(layouts["center", "large"] / 3000 - 0.6) < 0.04
    assert {(scene.color, scene.background) for scene in many.scenes} == {
        (color, other) for color in data.COLORS for other in OTHERS[color]
    }


# Captions --------------------------------------------------------------------------------


def test_the_plain_wording():
    seven = data.Scene(7, "red", "blue")
    assert data.caption(seven) == data.caption(seven, 0) == "a red seven on a blue background"
    assert data.caption(data.Scene(8, "orange", "white")) == "an orange eight on a white background"
    assert data.caption(data.Scene(0, "red", "orange")) == "a red zero on an orange background"
    corner = data.Scene(3, "green", "white", "top left", "small")
    assert data.caption(corner) == "a small green three on a white background, top left"


def test_all_the_other_wordings():
    corner, plain = data.Scene(8, "orange", "white", "top left", "small"), data.Scene(8, "orange", "white")
    assert [data.caption(corner, wording) for wording in range(1, len(data.WORDINGS))] == [
        "a small orange 8 on a white background, top left",
        "small orange eight, top left, on white",
        "small orange 8, top left, on white",
        "a small eight in orange, top left, on white",
        "on a white background, a small orange eight, top left",
        "small orange 8, top left, on white",
        "an orange eight",
    ]
    assert [data.caption(plain, wording) for wording in range(1, len(data.WORDINGS))] == [
        "an orange 8 on a white background",
        "orange eight on white",
        "orange 8 on white",
        "an eight in orange on white",
        "on a white background, an orange eight",
        "large orange 8, center, on white",
        "an orange eight",
    ]


def test_a_caption_says_what_is_shown(many):
    """The digit and its colour always, the rest but in the one wording that leaves it open."""
    used = Counter()
    for scene, text in zip(many.scenes, many.captions, strict=True):
        used.update(k for k in range(len(data.WORDINGS)) if data.caption(scene, k) == text)
        named = [word for word in re.findall("[a-z]+", text) if word in data.COLORS]
        assert data.read_digit(text) == scene.digit
        if re.fullmatch(r"an? \w+ \w+", text):
            assert named == [scene.color]
            continue
        assert sorted(named) == sorted([scene.color, scene.background])
        assert ("small" in text) == (scene.size == "small")
        places = [place for place in PLACES if place in text]
        assert places == [scene.place] or (places, scene.place) == ([], "center")
    assert set(used) == set(range(len(data.WORDINGS))) and min(used.values()) > 300


def test_a_and_an(many):
    for text in many.captions:
        for article, word in re.findall(r"\b(an?) (\w+)", text):
            assert (article == "an") == word.startswith(("orange", "eight", "8")), text


# Mistakes --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make, problem",
    [(lambda: data.Scene(10, "red", "blue"), "no scene has 10; there is 0, 1, .*9"),
     (lambda: data.Scene(1, "pink", "blue"), "no scene has 'pink'; there is black, .*purple"),
     (lambda: data.Scene(1, "red", "pink"), "no scene has 'pink'"),
     (lambda: data.Scene(1, "red", "red"), "a red digit on a red background"),
     (lambda: data.Scene(1, "red", "blue", "left"), "no scene has 'left'; there is center, top left"),
     (lambda: data.Scene(1, "red", "blue", size="huge"), "no scene has 'huge'; there is large, small"),
     (lambda: data.caption(data.Scene(1, "red", "blue"), 8), "wording must lie between 0 and 7, got 8"),
     (lambda: data.color_digits(3, "dev"), "unknown split 'dev'; there is train, validation, test"),
     (lambda: data.color_digits(0), "at least 1 picture, got 0"),
     (lambda: data.color_digits(1, seed=-1), "seed must be at least 0, got -1"),
     (lambda: next(data.color_digit_batches(0)), "at least 1 picture, got 0"),
     (lambda: next(data.color_digit_batches(4, "dev")), "unknown split 'dev'"),
     (lambda: draw([data.Scene(1, "red", "blue")], torch.zeros(1, 28, 28)), r"digits must have shape \(1, 1, 28, 28\)")],
)  # fmt: skip
def test_what_is_wrong_is_said_in_one_line(make, problem):
    with pytest.raises(ValueError, match=problem) as error:
        make()
    assert "\n" not in str(error.value)
