"""Pictures with captions. Nothing here knows what a model is."""

from minidiff.data.mnist import CLASSES, mnist, read_digit
from minidiff.data.pictures import Pictures, batches

__all__ = ["CLASSES", "Pictures", "batches", "mnist", "read_digit"]
