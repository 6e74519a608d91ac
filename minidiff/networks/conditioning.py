"""The condition, what the image should show, as tokens that the UNet attends to."""
# fmt: off

import torch
from torch import Tensor, nn

from minidiff.networks.unet import UNet


class LabelEncoder(nn.Module):
    """A class label as a caption of two tokens, a start token and the label: (B,) int64 -> (B, 2, D).

    Two, because attention over a single key has nothing to choose. `null` is one more label, for "no label": its
    tokens are the null context, learned like the others (Ho and Salimans 2022, section 3.2).
    """

    def __init__(self, classes: int, dim: int):
        super().__init__()
        self.null = classes
        self.start = classes + 1
        self.embedding = nn.Embedding(classes + 2, dim)

    def forward(self, labels: Tensor) -> Tensor:
        tokens = torch.stack([torch.full_like(labels, self.start), labels], dim=1)          # (B, 2)
        return self.embedding(tokens)                                                       # (B, 2, D)


class Precomputed(nn.Module):
    """The text encoder where contexts (B, L, D) are precomputed: returns them. null: the null context, (L, D)."""

    def __init__(self, null: Tensor):
        super().__init__()
        self.null = null

    def forward(self, context: Tensor) -> Tensor:
        return context


class Conditional(nn.Module):
    """A UNet and the encoder of its condition, trained together: (x, time, condition) -> prediction."""

    def __init__(self, unet: UNet, text_encoder: nn.Module):
        super().__init__()
        self.unet = unet
        self.text_encoder = text_encoder

    def forward(self, x: Tensor, time: Tensor, condition: Tensor) -> Tensor:
        context = self.text_encoder(condition)                                              # (B, L, D)
        return self.unet(x, time, context)                                                  # (B, C, H, W)
