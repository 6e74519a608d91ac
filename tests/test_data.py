"""The shipped digits, their captions, and the order they come in."""

import gzip
import itertools
import pkgutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from minidiff import data
from minidiff.data.mnist import idx_dataset
from minidiff.files import asset
from minidiff.registry import UserError


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
    with pytest.raises(ValueError, match="unknown split 'dev'; there is train, validation, test"):
        data.mnist("dev")


# A data set of one's own ---------------------------------------------------------------------

CLOTHES = ("t-shirt", "shirt", "ankle boot", "sneaker")


def idx(values, *shape):
    """An idx file of bytes in this shape; the values repeat."""
    header = struct.pack(f">BBBB{len(shape)}I", 0, 0, 8, len(shape), *shape)
    return header + bytes(values[k % len(values)] for k in range(torch.Size(shape).numel()))


@pytest.fixture
def clothes(tmp_path):
    """A data set of 24 and 6 images, registered; its training files are gzipped, the others plain."""
    for name, content in {
        "train-images-idx3-ubyte.gz": gzip.compress(idx([0, 255], 24, 28, 28)),
        "train-labels-idx1-ubyte.gz": gzip.compress(idx(range(4), 24)),
        "t10k-images-idx3-ubyte": idx([255], 6, 28, 28),
        "t10k-labels-idx1-ubyte": idx([3, 2], 6),
    }.items():
        (tmp_path / name).write_bytes(content)
    yield idx_dataset("clothes", tmp_path, CLOTHES, "clothes")
    del data.DATASETS["clothes"]


def test_a_data_set_of_idx_files_is_one_call(clothes, tmp_path):
    assert data.labelled()["clothes"] is clothes and clothes.picture == (1, 28, 28)
    assert clothes.about() == f"clothes, 28x28, 4 classes; here: {tmp_path}"
    assert data.DATASETS["mnist"].about() == "70,000 handwritten digits, 28x28, 10 classes; comes with minidiff"
    train, validation, test = (clothes.load(split) for split in ("train", "validation", "test"))
    assert train.labels.tolist() + validation.labels.tolist() == list(range(4)) * 6 and len(validation) == 2
    assert train.images.shape == (22, 1, 28, 28) and train.images[0, 0, 0, :2].tolist() == [-1, 1]
    assert test.captions[:2] == ["a photo of a sneaker", "a photo of an ankle boot"] and (test.images == 1).all()
    for split in (train, validation, test):
        assert [clothes.read(caption) for caption in split.captions] == split.labels.tolist()
    with pytest.raises(UserError, match='"a hat" names no thing: name one of t-shirt, shirt, ankle boot, sneaker'):
        clothes.read("a hat")
    assert len(data.mnist("test", asset("mnist"))) == 10_000  # a folder instead of the registered one
    assert clothes.load("test", tmp_path).labels.tolist() == test.labels.tolist()


@pytest.mark.parametrize(
    "name, content, problem",
    [
        ("images-idx3", idx([0], 6, 28, 28)[:-1], "has 4,703 bytes after its header, which promises 4,704"),
        ("images-idx3", idx([0], 6, 28, 28) + b"x", "has more bytes after its header, which promises 4,704"),
        ("images-idx3", idx([0], 6, 32, 32), "holds images of 32x32, expected 28x28"),
        ("images-idx3", idx([0], 6), "is not an idx file of bytes in 3 dimensions"),
        ("images-idx3", b"", "is not an idx file"),
        ("labels-idx1", b"<html>please log in</html>", "is not an idx file of bytes in 1 dimensions"),
        ("labels-idx1", idx([0], 5), "has 6 t10k images and 5 labels"),
        ("labels-idx1", idx([4], 6), "has a label 4; clothes has labels 0 to 3"),
    ],
)
def test_an_idx_file_that_is_wrong(clothes, tmp_path, name, content, problem):
    (tmp_path / f"t10k-{name}-ubyte").write_bytes(content)
    with pytest.raises(UserError, match=problem) as error:
        clothes.load("test")
    assert str(tmp_path) in str(error.value) and "\n" not in str(error.value)


def test_an_idx_file_that_is_missing_or_damaged(clothes, tmp_path):
    (tmp_path / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(UserError, match="has no file t10k-labels-idx1-ubyte or t10k-labels-idx1-ubyte.gz"):
        clothes.load("test")
    path = tmp_path / "train-images-idx3-ubyte.gz"
    whole = path.read_bytes()
    for content in (whole[:-9], b"no gzip at all", whole[:20] + b"x" + whole[21:]):
        path.write_bytes(content)
        with pytest.raises(UserError, match="train-images-idx3-ubyte.gz"):
            clothes.load("train")


def test_every_module_is_imported_and_every_data_set_describes_itself():
    assert all(f"minidiff.data.{module.name}" in sys.modules for module in pkgutil.iter_modules(data.__path__))
    for name, dataset in data.DATASETS.items():
        assert "\n" not in dataset.about() and len(dataset.picture) == 3
        assert bool(dataset.classes) == bool(dataset.read) == (name in data.labelled())
        assert all(dataset.read(word) == label for label, word in enumerate(dataset.classes))


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
    with pytest.raises(ValueError, match="unknown cloud .* there is spiral, moons"):
        data.points("square")
