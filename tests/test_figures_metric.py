"""The metric explorer: each damage is what it says, and is noticed by the metrics that should notice it."""

import pytest
import torch
from drawn import assert_drawn, count

from minidiff import data, image_files
from minidiff.course import figures
from minidiff.course.figures import metrics as figures_metric
from minidiff.course.figures.metrics import DAMAGES

REAL = figures_metric._real()


@pytest.fixture(scope="module")
def digit_rows():
    return torch.randperm(3000, generator=torch.Generator().manual_seed(0))[:500]


def harmed(damage, amount, rows):
    return DAMAGES[damage](REAL, rows, amount, torch.Generator().manual_seed(1))


def noticed_by(words):
    """The measures whose row on the page ends with the word noticed."""
    called = [row[0] for row in figures_metric.ROWS.values()]
    rows = {name: words[words.index(name) + 3] for name in called}  # its name, the value, real digits', the mark
    return {name for name, mark in rows.items() if mark == "noticed"}


def test_the_three_parts_of_the_real_digits_share_nothing():
    pictures = torch.cat([REAL.pool.images, REAL.heldout.images]).flatten(1)
    assert pictures.shape == (5000, 784)
    assert torch.equal(pictures.sum(0), data.mnist("validation").images.flatten(1)[
        torch.randperm(5000, generator=torch.Generator().manual_seed(0))].sum(0))  # fmt: skip
    assert len(pictures.unique(dim=0)) == 5000
    assert len(torch.cat([pictures, REAL.train.images.flatten(1)]).unique(dim=0)) == 7000


@pytest.mark.parametrize("damage", DAMAGES)
def test_no_damage_is_no_damage(damage, digit_rows):
    digits, _ = harmed(damage, 0.0, digit_rows)
    own = digits.images.flatten(1)
    assert len(own) == len(digits.asked) == 500 == len(own.unique(dim=0))
    pool = REAL.pool.images.flatten(1)
    nearest = torch.cdist(own, pool).min(1)
    assert nearest.values.max() < 0.1  # each is one of the real digits
    assert torch.equal(REAL.pool.asked[nearest.indices], digits.asked)


def test_damages_are_what_they_say(digit_rows):
    before = REAL.pool.images[digit_rows]
    blurred, _ = harmed("blur", 0.5, digit_rows)
    torch.testing.assert_close(blurred.images.mean(), before.mean(), rtol=0.01, atol=0)  # ink is spread, not lost
    assert blurred.images.var() < 0.8 * before.var()
    noisy, _ = harmed("noise", 0.5, digit_rows)
    gray = (before > -0.5) & (before < 0.5)  # where nothing was cut off
    assert abs((noisy.images - before)[gray].std() - 0.2) < 0.005
    for amount, left in ((0.25, 8), (1.0, 2)):
        assert len(harmed("missing classes", amount, digit_rows)[0].asked.unique()) == left
    repeated, words = harmed("repeats", 0.5, digit_rows)
    different = len(repeated.images.flatten(1).unique(dim=0))
    assert abs(different - 250) <= 5 and words == f"500 images of {different} different digits"
    copied, words = harmed("copies of training digits", 0.3, digit_rows)
    distance = torch.cdist(copied.images.flatten(1), REAL.train.images.flatten(1)).min(1)
    assert int((distance.values < 0.1).sum()) == 150 and words.startswith("150 of 500")
    assert torch.equal(REAL.train.asked[distance.indices[:150]], copied.asked[:150])
    mistaken, words = harmed("wrong labels", 0.3, digit_rows)
    assert int((mistaken.asked != REAL.pool.asked[digit_rows]).sum()) == 150 and words.startswith("150 of 500")
    usual, words = harmed("missing styles", 1.0, digit_rows)
    assert torch.equal(usual.asked, REAL.pool.asked[digit_rows]) and "the 17 % most typical" in words
    assert len(usual.images.flatten(1).unique(dim=0)) == 500


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_real_digits_are_not_noticed(words, seed):
    figures.metric("copies of training digits", 0.0, seed=seed)
    assert noticed_by(words) == set()


@pytest.mark.parametrize(
    "damage, amount, noticing, silent",
    [
        ("blur", 0.6, {"digit accuracy", "Frechet / floor (log)", "precision", "recall"}, {"memorisation"}),
        ("noise", 0.6, {"digit accuracy", "Frechet / floor (log)", "precision", "recall"}, {"memorisation"}),
        ("missing classes", 0.5, {"Frechet / floor (log)", "recall"}, {"digit accuracy", "precision", "memorisation"}),
        ("missing styles", 0.5, {"recall", "diversity / real"}, {"digit accuracy", "memorisation"}),
        ("repeats", 0.6, {"recall"}, {"digit accuracy", "precision", "Frechet / floor (log)"}),
        ("copies of training digits", 0.3, {"memorisation"}, {
            "digit accuracy", "Frechet / floor (log)", "precision", "recall", "diversity / real"}),
        ("wrong labels", 0.1, {"digit accuracy", "diversity / real"}, {
            "Frechet / floor (log)", "precision", "recall", "memorisation"}),
    ],
)  # fmt: skip
def test_who_notices_what(words, damage, amount, noticing, silent):
    figures.metric(damage, amount)
    found = noticed_by(words)
    assert noticing <= found and not silent & found


def test_the_sheet_shows_the_digits_under_what_was_asked_for():
    image = figures.metric("wrong labels", 1.0, seed=3)
    generator = torch.Generator().manual_seed(3)
    digits, _ = DAMAGES["wrong labels"](REAL, torch.randperm(3000, generator=generator)[:500], 1.0, generator)
    for asked, row in ((0, 0), (4, 1), (9, 2)):
        expected = digits.images[digits.asked == asked][row, 0]
        assert_drawn(image, 16 + 73 * asked, 56 + 62 * row, 56, (expected + 1) / 2)


def test_the_bars():
    well, ill = figures.metric("copies of training digits", 0.0), figures.metric("copies of training digits", 1.0)
    row = (166, 254 + 32 * 5, 496, 254 + 32 * 5 + 22)  # memorisation
    assert count(well, figures.ORANGE) == 0 and count(well, figures.BLUE, row) > 2500
    assert (
        count(ill, figures.BLUE, row) == 0 and count(ill, figures.ORANGE, (670, row[1], 760, row[3])) > 50
    )  # "noticed"
    assert well.size == ill.size == (760, 474)


@pytest.mark.parametrize("damage", DAMAGES)
def test_nothing_is_clipped_and_nothing_random(unclipped, damage):
    for amount in (0.0, 0.35, 1.0):
        image = figures.metric(damage, amount)
    assert unclipped == []
    assert image_files.encode(image) == image_files.encode(figures.metric(damage, 1.0))
    assert image_files.encode(image) != image_files.encode(figures.metric(damage, 1.0, seed=1))


def test_fewer_digits_notice_less(words):
    figures.metric("missing styles", 0.3, n=100)
    few = noticed_by(words)
    words.clear()
    figures.metric("missing styles", 0.3, n=500)
    assert few < noticed_by(words)


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="unknown damage 'fire'; there is blur, noise, missing classes"):
        figures.metric("fire", 0.5)
    for amount in (-0.1, 1.1):
        with pytest.raises(ValueError, match="amount must lie between 0 and 1"):
            figures.metric("blur", amount)
    for n in (99, 501):
        with pytest.raises(ValueError, match="n must lie between 100 and 500"):
            figures.metric("blur", 0.5, n=n)
