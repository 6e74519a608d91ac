"""The shipped digits, their captions, and the order they come in."""

import itertools
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from minidiff import data
from minidiff.files import asset


@pytest.fixture(scope="module")
def validation():
    return data.mnist("validation")


def test_the_splits_have_their_sizes_and_do_not_overlap(validation):
    train, test = data.mnist("train"), data.mnist("test")
    assert (len(train), len(validation), len(test)) == (55_000, 5_000, 10_000)
    assert train.labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]  # as published
    assert test.labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    rows = [{image.numpy().tobytes() for image in split.images} for split in (train, validation, test)]
    assert len(set.union(*rows)) == sum(map(len, rows))


def test_pictures_are_floats_from_paper_to_ink(validation):
    assert validation.images.shape == (5000, 1, 28, 28) and validation.images.dtype == torch.float32
    assert validation.images.min() == -1 and validation.images.max() == 1
    assert len(validation.captions) == len(validation.labels) == 5000


def test_every_caption_names_its_digit_and_all_wordings_occur(validation):
    assert [data.read_digit(c) for c in validation.captions] == validation.labels.tolist()
    assert {"a handwritten seven", "the digit 7", "7"} <= set(validation.captions)


@pytest.mark.parametrize(
    "prompt, digit", [("a handwritten seven", 7), ("The digit 3", 3), ("0", 0), ("NINE!", 9), ("draw a 4, please", 4)]
)
def test_prompts_that_name_a_digit(prompt, digit):
    assert data.read_digit(prompt) == digit


@pytest.mark.parametrize(
    "prompt, problem",
    [("a cat", "names no digit"), ("", "is empty"), ("  ", "is empty"), ("42", "names 2 digits"), ("one or two", "2 digits"),
     ("none", "names no digit"), ("٣", "names no digit")],
)  # fmt: skip
def test_prompts_that_do_not(prompt, problem):
    with pytest.raises(ValueError, match=problem):
        data.read_digit(prompt)


def test_an_unknown_split():
    with pytest.raises(ValueError, match="no split 'dev'; there is train, validation, test"):
        data.mnist("dev")


def test_batches_show_every_picture_once_an_epoch_in_an_order_of_its_own(validation):
    few = data.Pictures(torch.arange(10.0).reshape(10, 1, 1, 1), torch.arange(10), [""] * 10)
    order = [labels.tolist() for _, labels in itertools.islice(data.batches(few, 5), 6)]
    epochs = [order[i] + order[i + 1] for i in (0, 2, 4)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    again = [labels.tolist() for _, labels in itertools.islice(data.batches(few, 5), 6)]
    other = [labels.tolist() for _, labels in itertools.islice(data.batches(few, 5, seed=7), 6)]
    assert order == again != other
    for size in (0, 11):
        with pytest.raises(ValueError, match="1 to 10"):
            next(data.batches(few, size))


def test_the_script_that_fetched_them_knows_their_checksums():
    """Unpacked, the shipped files are the published ones."""
    check = (
        "import gzip, hashlib, make_mnist as m;"
        "print(all(hashlib.sha256(gzip.open(m.HERE / f'{n}.gz').read()).hexdigest() == s for n, s in m.SHA256.items()))"
    )
    folder = Path(asset("make_mnist.py")).parent
    assert (
        subprocess.run([sys.executable, "-B", "-c", check], cwd=folder, capture_output=True, text=True).stdout
        == "True\n"
    )


def test_the_cifar_pictures_are_the_first_of_the_test_set():
    photos = data.cifar_samples()
    assert photos.images.shape == (20, 3, 32, 32) and photos.images.dtype == torch.float32
    assert photos.images.min() == -1 and photos.images.max() == 1
    assert photos.labels[:10].tolist() == [3, 8, 8, 0, 6, 6, 1, 6, 3, 1]  # as published
    assert photos.captions[:4] == [
        "a photo of a cat",
        "a photo of a ship",
        "a photo of a ship",
        "a photo of an airplane",
    ]
    sea = photos.images[1]  # a ship: blue is the third channel
    assert sea[2].mean() > sea[0].mean()


@pytest.mark.parametrize("name", data.CLOUDS)
def test_clouds_are_points_on_a_page(name):
    cloud = data.points(name, 300, seed=1)
    assert cloud.shape == (300, 2) and cloud.abs().max() < 1.3
    assert torch.equal(cloud, data.points(name, 300, seed=1)) and not torch.equal(cloud, data.points(name, 300, seed=2))


def test_an_unknown_cloud_is_named():
    with pytest.raises(ValueError, match="spiral, moons, islands"):
        data.points("square")
