"""MNIST: 70,000 handwritten digits, 28x28. LeCun, Cortes and Burges 1998."""

import gzip
import re

import numpy as np
import torch
from torch import Tensor

from minidiff.data.dataset import Pictures
from minidiff.files import asset

CLASSES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SPLITS = {  # file, first, last: 5,000 of the training digits are for validation
    "train": ("train", 0, 55_000),
    "validation": ("train", 55_000, 60_000),
    "test": ("t10k", 0, 10_000),
}


def mnist(split: str = "train") -> Pictures:
    """The digits of one split: "train" (55,000), "validation" (5,000) or "test" (10,000).

    images are (N, 1, 28, 28) in [-1, 1]: -1 is paper, 1 is ink. Captions take turns:
    "a handwritten seven", "the digit 7", "7". Raises ValueError for another split.
    """
    if split not in SPLITS:
        raise ValueError(f"no split {split!r}; there is {', '.join(SPLITS)}")
    file, first, last = SPLITS[split]
    images = _read(f"{file}-images-idx3-ubyte.gz", header=16).reshape(-1, 1, 28, 28)[first:last]
    labels = _read(f"{file}-labels-idx1-ubyte.gz", header=8)[first:last].long()
    captions = [_caption(label, i) for i, label in enumerate(labels.tolist())]
    return Pictures(images.float() / 127.5 - 1, labels, captions)


def _read(name: str, header: int) -> Tensor:
    """An idx file: a header of 32-bit numbers that says what we know already, then bytes."""
    with gzip.open(asset(f"mnist/{name}")) as file:
        return torch.from_numpy(np.frombuffer(file.read(), np.uint8, offset=header).copy())


def _caption(digit: int, i: int) -> str:
    return (f"a handwritten {CLASSES[digit]}", f"the digit {digit}", str(digit))[i % 3]


def read_digit(prompt: str) -> int:
    """The one digit that a prompt names, in words or figures: "a handwritten seven" -> 7.

    No language is understood here; the prompt is looked up. Raises ValueError if it names no digit, or
    more than one.
    """
    found = []
    for word in re.findall(r"[a-z]+|[0-9]+", prompt.lower()):
        if word in CLASSES:
            found.append(CLASSES.index(word))
        elif word.isdigit():
            found += [int(figure) for figure in word]
    if len(found) == 1:
        return found[0]
    problem = f"names {len(found)} digits" if found else "names no digit" if prompt.strip() else "is empty"
    raise ValueError(f'the prompt "{prompt}" {problem}: name one, from zero to nine or from 0 to 9')
