"""CIFAR-10: small colour photographs, 32x32, of ten kinds of things. Krizhevsky 2009."""

import numpy as np
import torch
from PIL import Image

from minidiff.data.pictures import Pictures
from minidiff.files import asset

CIFAR_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def cifar_samples() -> Pictures:
    """The first twenty pictures of CIFAR-10's test set, which come with minidiff.

    images are (20, 3, 32, 32) in [-1, 1]; captions are such as "a photo of a cat".
    """
    files = sorted(asset("cifar10").glob("cifar10_*.png"))
    pixels = np.stack([np.asarray(Image.open(file)) for file in files])  # (20, 32, 32, 3)
    labels = torch.tensor([int(file.stem.split("_")[-1]) for file in files])
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous().float() / 127.5 - 1
    names = [CIFAR_CLASSES[label] for label in labels.tolist()]
    return Pictures(images, labels, [f"a photo of {'an' if name[0] in 'aeiou' else 'a'} {name}" for name in names])
