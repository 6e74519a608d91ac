"""The judges: small classifiers of clean pictures. The digits' has the features by which digits are compared."""

import torch
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


class StyleJudge(nn.Module):
    """Tells three styles of emoji apart, (B, 3, 64, 64) in [-1, 1] -> logits (B, 3).

    What it found anywhere counts, and how much of it there is: a style is how things are drawn, wherever they are.
    """

    def __init__(self):
        super().__init__()
        self.conv = nn.Sequential(
            _convolve(3, 32, stride=2),  # 64 -> 32
            _convolve(32, 48),
            _convolve(48, 48, stride=2),  # 32 -> 16
            _convolve(48, 64),
            _convolve(64, 64, stride=2),  # 16 -> 8
            _convolve(64, 64),
        )
        self.classify = nn.Linear(2 * 64, 3)

    def forward(self, x: Tensor) -> Tensor:
        found = self.conv(x)
        found = torch.cat([found.mean((2, 3)), found.amax((2, 3))], dim=1)  # (B, 128)
        return self.classify(F.dropout(found, 0.2, self.training))


def _convolve(before: int, width: int, stride: int = 1) -> nn.Module:
    return nn.Sequential(nn.Conv2d(before, width, 3, stride, padding=1), nn.BatchNorm2d(width), nn.ReLU())
