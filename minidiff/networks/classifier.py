"""The judge: a small classifier of clean digits, and the features by which pictures are compared."""

import torch.nn.functional as F
from torch import Tensor, nn


class Judge(nn.Module):
    """Reads a digit, (B, 1, 28, 28) in [-1, 1] -> logits (B, 10), by way of 64 features."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Sequential(
            _convolve(1, 16),
            _convolve(16, 32, stride=2),  # 28 -> 14
            _convolve(32, 32),
            _convolve(32, 64, stride=2),  # 14 -> 7
            _convolve(64, 64),
        )
        self.squeeze = nn.Linear(64 * 7 * 7, 64)
        self.classify = nn.Linear(64, 10)

    def features(self, x: Tensor) -> Tensor:
        return F.relu(self.squeeze(self.conv(x).flatten(1)))  # (B, 64)

    def forward(self, x: Tensor) -> Tensor:
        return self.classify(F.dropout(self.features(x), 0.3, self.training))  # (B, 10)


def _convolve(before: int, width: int, stride: int = 1) -> nn.Module:
    return nn.Sequential(nn.Conv2d(before, width, 3, stride, padding=1), nn.BatchNorm2d(width), nn.ReLU())
