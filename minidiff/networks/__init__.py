"""The networks: plain nn.Modules. Nothing here knows what diffusion is."""

from minidiff.networks.classifier import Judge
from minidiff.networks.conditional import Conditional, LabelEncoder
from minidiff.networks.fold import Fold
from minidiff.networks.unet import UNet, UNetConfig

__all__ = ["Conditional", "Fold", "Judge", "LabelEncoder", "UNet", "UNetConfig"]
