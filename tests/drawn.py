"""Figures read back from their pixels. (From what was written on them: conftest.py.)"""

import numpy as np
import torch
from PIL import Image

NEAR = 8 / 255  # figures have 256 colours


def noise(shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def read_back(image: Image.Image, left: int, top: int, size: int) -> torch.Tensor:
    """The 28x28 gray picture that is drawn there, in [0, 1]: each pixel read at its middle."""
    middles = (np.arange(28) + 0.5) * size / 28
    gray = np.asarray(image.convert("L"), dtype=np.float32) / 255
    return torch.from_numpy(gray[np.ix_((top + middles).astype(int), (left + middles).astype(int))])


def assert_drawn(image, left, top, size, pixels):
    torch.testing.assert_close(read_back(image, left, top, size), pixels.clamp(0, 1), rtol=0, atol=NEAR)


def count(image: Image.Image, colour: str, box=None) -> int:
    """Pixels of nearly that colour."""
    pixels = np.asarray(image.convert("RGB").crop(box), dtype=int)
    wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return int((np.abs(pixels - wanted).max(2) < 24).sum())
