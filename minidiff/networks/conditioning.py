"""What the picture should show, as tokens that the UNet can look at."""

import torch
from torch import Tensor, nn

from minidiff.networks.unet import UNet


class LabelEncoder(nn.Module):
    """A label as a caption of two tokens: a start token, and one for the label.

    Two, because attention over a single token has nothing to choose. One label more than there are
    classes stands for "nothing in particular": the null context, learned like the others.
    """

    def __init__(self, classes: int, dim: int):
        super().__init__()
        self.null = classes  # the label that means "no label"
        self.start = classes + 1
        self.embedding = nn.Embedding(classes + 2, dim)

    def forward(self, labels: Tensor) -> Tensor:  # (B,) of int64
        tokens = torch.stack([torch.full_like(labels, self.start), labels], dim=1)  # (B, 2)
        return self.embedding(tokens)  # (B, 2, D)


class Ready(nn.Module):
    """Where the context was computed before: tokens (B, L, D) pass as they are. null: those of "nothing", (L, D)."""

    def __init__(self, null: Tensor):
        super().__init__()
        self.null = null

    def forward(self, context: Tensor) -> Tensor:
        return context


class Conditional(nn.Module):
    """A UNet and the encoder of its conditions, trained together: (x, time, condition) -> out."""

    def __init__(self, unet: UNet, text_encoder: nn.Module):
        super().__init__()
        self.unet = unet
        self.text_encoder = text_encoder

    def forward(self, x: Tensor, time: Tensor, condition: Tensor) -> Tensor:
        return self.unet(x, time, self.text_encoder(condition))
