"""What every data set here is: pictures, labels, captions."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Pictures:
    """A data set that fits into memory."""

    images: Tensor  # (N, C, H, W) float32 in [-1, 1]
    labels: Tensor  # (N,) int64
    captions: list[str]  # N of them

    def __len__(self) -> int:
        return len(self.images)


def batches(pictures: Pictures, size: int, seed: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless (images, labels) of `size` pictures, each picture once an epoch, shuffled by seed and epoch."""
    if not 1 <= size <= len(pictures):
        raise ValueError(f"a batch must hold 1 to {len(pictures)} pictures, got {size}")
    epoch = 0
    while True:
        order = torch.randperm(len(pictures), generator=torch.Generator().manual_seed(seed + epoch))
        for rows in order.split(size):
            if len(rows) == size:  # the last few of an epoch are left out
                yield pictures.images[rows], pictures.labels[rows]
        epoch += 1
