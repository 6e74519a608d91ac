"""Classifiers: two of clean images, for evaluation, and one of noisy images, for classifier guidance."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minidiff.networks.unet import DownBlock, TimeEmbedding, UNetConfig


class Judge(nn.Module):
    """The evaluation classifier of digits, (B, 1, 28, 28) in [-1, 1] -> logits (B, 10), from 64 features."""

    def __init__(self):
        super().__init__()
        self.conv = _convolutions(1, (16, 1), (32, 2), (32, 1), (64, 2), (64, 1))  # 28 -> 14 -> 7
        self.squeeze = nn.Linear(64 * 7 * 7, 64)
        self.classify = nn.Linear(64, 10)

    def features(self, x: Tensor) -> Tensor:
        return F.relu(self.squeeze(self.conv(x).flatten(1)))  # (B, 64)

    def forward(self, x: Tensor) -> Tensor:
        return self.classify(F.dropout(self.features(x), 0.3, self.training))  # (B, 10)


class StyleJudge(nn.Module):
    """The evaluation classifier of three emoji styles, (B, 3, 64, 64) in [-1, 1] -> logits (B, 3).

    Features are pooled over all positions, mean and maximum: a style is how a thing is drawn, wherever it is.
    """

    def __init__(self):
        super().__init__()
        # 64 -> 32 -> 16 -> 8
        self.conv = _convolutions(3, (32, 2), (48, 1), (48, 2), (64, 1), (64, 2), (64, 1))
        self.classify = nn.Linear(2 * 64, 3)

    def forward(self, x: Tensor) -> Tensor:
        maps = self.conv(x)  # (B, 64, 8, 8)
        features = torch.cat([maps.mean((2, 3)), maps.amax((2, 3))], dim=1)  # (B, 128)
        return self.classify(F.dropout(features, 0.2, self.training))  # (B, 3)


class SceneJudge(nn.Module):
    """The evaluation detector of scenes, (B, 3, 64, 64) in [-1, 1] -> logits (B, 1 + 100 * 4, 8, 8).

    In each square of 8x8 pixels: nothing, or the centre of one of 100 things in one of 4 styles, thing by thing.
    """

    def __init__(self):
        super().__init__()
        # 64 -> 32 -> 16 -> 8; each square is read from the 59x59 pixels around it
        self.conv = _convolutions(3, (24, 2), (32, 1), (48, 2), (64, 1), (96, 2), (96, 1), (96, 1))
        self.classify = nn.Conv2d(96, 1 + 100 * 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.classify(self.conv(x))  # (B, 401, 8, 8)


class NoisyClassifier(nn.Module):
    """Noisy digits after SpaceToDepth, x (B, 4, 14, 14), and the network time (B,) -> logits (B, 10).

    The digit UNet's encoder and a linear layer, as in Dhariwal and Nichol 2021, section 4.3.
    """

    def __init__(self):
        super().__init__()
        config = UNetConfig(channels=(16, 64), attention=(False, False), layers=1, groups=8)
        self.time_embedding = TimeEmbedding(16, 64)
        self.conv_in = nn.Conv2d(config.in_channels, 16, 3, padding=1)
        first = DownBlock(config, before=16, width=16, heads=1, attention=False, last=False)  # 14 -> 7
        second = DownBlock(config, before=16, width=64, heads=1, attention=False, last=True)
        self.down_blocks = nn.ModuleList([first, second])
        self.norm = nn.GroupNorm(config.groups, 64)
        self.classify = nn.Linear(64 * 7 * 7, 10)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        emb, x = self.time_embedding(time, x.dtype), self.conv_in(x)  # (B, 64), (B, 16, 14, 14)
        for block in self.down_blocks:
            x = block(x, emb, context=None, skips=[])  # no attention, no decoder
        return self.classify(F.silu(self.norm(x)).flatten(1))  # (B, 10)


def _convolutions(before: int, *layers: tuple[int, int]) -> nn.Sequential:
    """layers: width and stride of each."""
    convolutions = nn.Sequential()
    for width, stride in layers:
        convolution = nn.Conv2d(before, width, 3, stride, padding=1)
        convolutions.append(nn.Sequential(convolution, nn.BatchNorm2d(width), nn.ReLU()))
        before = width
    return convolutions


CLASSIFIERS = {
    "judge": Judge,
    "style_judge": StyleJudge,
    "scene_judge": SceneJudge,
    "noisy_classifier": NoisyClassifier,
}
