"""Pictures with captions. Nothing here knows what a model is."""

from minidiff.data.mnist import CLASSES, mnist, read_digit
from minidiff.data.pictures import Pictures, batches
from minidiff.data.points import CLOUDS, points

__all__ = ["CLASSES", "CLOUDS", "Pictures", "batches", "mnist", "points", "read_digit"]
