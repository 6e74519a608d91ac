"""Data sets of idx files, 28x28 in gray; and MNIST: 70,000 handwritten digits (LeCun, Cortes and Burges 1998)."""

import gzip
import math
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from minidiff.data.dataset import DATASETS, Dataset, Pictures, photo_caption, read_class
from minidiff.files import ROOTS, whole
from minidiff.registry import UserError, choose

CLASSES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
FIGURES = {str(k): name for k, name in enumerate(CLASSES)}
read_digit = partial(
    read_class, classes=CLASSES, other_names=FIGURES, kind="digit", names=", from zero to nine or from 0 to 9"
)
SPLITS = {"train": "train", "validation": "train", "test": "t10k"}  # and the file that each is in
LARGEST = 2**30  # bytes of a file's images: a million of them
VALIDATION = 12  # one in so many of the training file's images, the last ones, is for validation: 5,000 of 60,000


def idx_dataset(
    name: str, folder: str | Path, classes: tuple[str, ...], about: str = "images",
    caption: Callable[[int, int], str] | None = None, read: Callable[[str], int] | None = None,
) -> Dataset:  # fmt: skip
    """Register a data set of idx files, MNIST's format, such as Fashion-MNIST; returns it.

    folder: where train-images-idx3-ubyte, train-labels-idx1-ubyte and the same two of t10k are, plain or .gz; or the
    name of one in assets/. caption: from a label and the image's index; None: "a photo of a sneaker". read: prompts.
    """
    folder = next((root / folder for root in ROOTS if (root / folder).is_dir()), Path(folder))

    def load(split: str = "train", where: str | Path | None = None) -> Pictures:
        file, here = choose(split, SPLITS, "split"), Path(where or folder)
        images = read_idx(here, f"{file}-images-idx3-ubyte", (28, 28))
        labels = read_idx(here, f"{file}-labels-idx1-ubyte", ()).long()
        if len(images) != len(labels):
            raise UserError(f"{here} has {len(images):,} {file} images and {len(labels):,} labels")
        if len(labels) and labels.max() >= len(classes):
            raise UserError(f"{here} has a label {labels.max()}; {name} has labels 0 to {len(classes) - 1}")
        if file == "train":
            cut = len(images) - len(images) // VALIDATION
            rows = slice(cut) if split == "train" else slice(cut, None)
            images, labels = images[rows], labels[rows]
        captions = [caption(k, i) if caption else photo_caption(classes[k]) for i, k in enumerate(labels.tolist())]
        return Pictures(images[:, None].float() / 127.5 - 1, labels, captions)

    def described() -> str:
        here = f"here: {folder}" if folder.is_dir() else f"not here: its idx files belong in {folder}"
        shipped = any(folder.is_relative_to(root) for root in ROOTS)
        return f"{about}, 28x28, {len(classes)} classes; {'comes with minidiff' if shipped else here}"

    DATASETS[name] = Dataset(load, described, (1, 28, 28), classes, read or partial(read_class, classes=classes))
    return DATASETS[name]


def read_idx(folder: Path, name: str, shape: tuple[int, ...]) -> Tensor:
    """The bytes of an idx file, (N, *shape) uint8. Raises UserError for one that is missing, cut short or another kind."""
    path = next((path for path in (whole(folder) / name, folder / f"{name}.gz") if path.is_file()), None)
    if path is None:
        raise UserError(f"{folder} has no file {name} or {name}.gz")
    dimensions = 1 + len(shape)
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as file:
            # the header: 0, 0, 8 for bytes, the number of dimensions, then each dimension as a big-endian 32-bit number
            header = file.read(4 + 4 * dimensions)
            if len(header) < 4 + 4 * dimensions or header[:4] != bytes((0, 0, 8, dimensions)):
                raise UserError(f"{path} is not an idx file of bytes in {dimensions} dimensions")
            found = np.frombuffer(header, ">u4", offset=4).tolist()
            if tuple(found[1:]) != shape:
                there, expected = ("x".join(map(str, sides)) for sides in (found[1:], shape))
                raise UserError(f"{path} holds images of {there}, expected {expected}")
            if (promised := math.prod(found)) > LARGEST:
                raise UserError(f"{path} promises {promised:,} bytes; at most {LARGEST:,} are read")
            content = file.read(promised + 1)  # no more: a small .gz can unfold into more than memory holds
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} cannot be read ({error})") from None
    if len(content) != promised:
        there = f"{len(content):,}" if len(content) < promised else "more"
        raise UserError(f"{path} has {there} bytes after its header, which promises {promised:,}")
    return torch.from_numpy(np.frombuffer(content, np.uint8).copy()).view(found)


def mnist(split: str = "train", folder: str | Path | None = None) -> Pictures:
    """The digits of one split: "train" (55,000), "validation" (5,000) or "test" (10,000).

    images are (N, 1, 28, 28): -1 is paper, 1 is ink. folder: None for the files that come with minidiff. Raises UserError.
    """
    return DATASETS["mnist"].load(split, folder)


def _caption(digit: int, i: int) -> str:
    return (f"a handwritten {CLASSES[digit]}", f"the digit {digit}", str(digit))[i % 3]


idx_dataset("mnist", "mnist", CLASSES, "70,000 handwritten digits", _caption, read_digit)
