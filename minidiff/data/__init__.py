"""Pictures with captions. Nothing here knows what a model is."""

from minidiff.data.cifar import CIFAR_CLASSES, cifar_samples
from minidiff.data.mnist import CLASSES, mnist, read_digit
from minidiff.data.pictures import Pictures, batches
from minidiff.data.points import CLOUDS, points

__all__ = [
    "CIFAR_CLASSES",
    "CLASSES",
    "CLOUDS",
    "Pictures",
    "batches",
    "cifar_samples",
    "mnist",
    "points",
    "read_digit",
]
