"""What every data set is: images, labels, captions, and a name in DATASETS."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count

import numpy as np
import torch
from torch import Tensor

from minidiff.registry import UserError, choose


@dataclass(frozen=True)
class Pictures:
    """A data set, or a split of one, that fits into memory."""

    images: Tensor  # (N, C, H, W) float32 in [-1, 1]
    labels: Tensor  # (N,) int64
    captions: list[str]  # N of them

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True)
class Dataset:
    """A data set as the commands know it: DATASETS[name], registered in the file that defines it."""

    load: Callable[..., Pictures]  # (split, folder=None), or whatever has images in [-1, 1] and captions
    about: Callable[[], str]  # one line for `minidiff list`
    picture: tuple[int, int, int]  # channels, height, width
    classes: tuple[str, ...] = ()  # class names in the order of the labels; empty where there are captions only
    read: Callable[[str], int] | None = None  # the label of the one class that a prompt names


DATASETS: dict[str, Dataset] = {}


def labelled() -> dict[str, Dataset]:
    """The data sets with classes: a model of one looks its label up and needs no text encoder."""
    return {name: dataset for name, dataset in DATASETS.items() if dataset.classes}


def read_class(
    prompt: str, classes: Sequence[str], other_names: Mapping[str, str] | None = None, kind: str = "thing",
    names: str = "",
) -> int:  # fmt: skip
    """The label of the one class that a prompt names: "a photo of a cat" -> 3. The prompt is looked up, not understood.

    other_names: such as {"car": "automobile"}. kind, names: what a class is called, and which there are, in the error.
    Raises UserError for a prompt that names no class, or more than one.
    """
    labels = {_words(name): label for label, name in enumerate(classes)}
    labels |= {_words(other): classes.index(name) for other, name in (other_names or {}).items()}
    longest_first = sorted(labels, key=len, reverse=True)  # "t-shirt" before "shirt"
    found = re.findall(f"(?<= )(?:{'|'.join(map(re.escape, longest_first))})(?= )", f" {_words(prompt)} ")
    if len(found) == 1:
        return labels[found[0]]
    problem = f"names {len(found)} {kind}s" if found else f"names no {kind}" if prompt.strip() else "is empty"
    raise UserError(f'the prompt "{prompt}" {problem}: name one{names or " of " + ", ".join(classes)}')


def _words(text: str) -> str:
    """Its words in lower case and its digits, each between spaces."""
    return " ".join(re.findall(r"[^\W\d_]+|[0-9]", text.lower()))


def photo_caption(name: str) -> str:
    """ "a photo of a cat", "a photo of an airplane"."""
    return f"a photo of {'an' if name[0].lower() in 'aeiou' else 'a'} {name}"


def random_numbers(seed: int, split: str, splits: Iterable[str], step: int, n: int) -> np.random.Generator:
    """A generator for each seed, split and step, to draw n images with. Raises UserError for what cannot be."""
    choose(split, dict.fromkeys(splits), "split")
    if n < 1:
        raise UserError(f"there must be at least 1 picture, got {n}")
    if seed < 0:
        raise UserError(f"seed must be at least 0, got {seed}")
    return np.random.default_rng((seed, list(splits).index(split), step))  # numpy mixes all three


def batches(pictures: Pictures, size: int, seed: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless (images, labels) of `size` images, each image once an epoch, shuffled by seed and epoch. Raises UserError."""
    if not 1 <= size <= len(pictures):
        raise UserError(f"a batch must hold 1 to {len(pictures)} pictures, got {size}")
    for epoch in count(seed):
        order = torch.randperm(len(pictures), generator=torch.Generator().manual_seed(epoch))
        for rows in order[: len(order) // size * size].split(size):  # the last, incomplete batch is dropped
            yield pictures.images[rows], pictures.labels[rows]
