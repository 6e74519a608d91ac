"""A classifier of noisy digits: what classifier guidance follows."""

import torch.nn.functional as F
from torch import Tensor, nn

from minidiff.networks.unet import DownBlock, TimeEmbedding, UNetConfig


class NoisyClassifier(nn.Module):
    """Reads a noisy folded digit x (B, 4, 14, 14), told the network time (B,) -> logits (B, 10).

    The way down of the digit UNet, and a linear layer that reads it, as in Dhariwal and Nichol 2021, section 4.3, whose
    classifier is the UNet's way down as well.
    """

    def __init__(self):
        super().__init__()
        config = UNetConfig(channels=(16, 64), attention=(False, False), layers=1, groups=8)
        self.time_embedding = TimeEmbedding(16, 64)
        self.conv_in = nn.Conv2d(config.in_channels, 16, 3, padding=1)
        self.down_blocks = nn.ModuleList(
            [
                DownBlock(config, before=16, width=16, heads=1, attention=False, last=False),  # 14 -> 7
                DownBlock(config, before=16, width=64, heads=1, attention=False, last=True),
            ]
        )
        self.norm = nn.GroupNorm(config.groups, 64)
        self.classify = nn.Linear(64 * 7 * 7, 10)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        emb = self.time_embedding(time, x.dtype)  # (B, 64)
        x = self.conv_in(x)  # (B, 16, 14, 14)
        for block in self.down_blocks:
            x = block(x, emb, context=None, skips=[])
        return self.classify(F.silu(self.norm(x)).flatten(1))  # (B, 10)
