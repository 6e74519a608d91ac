"""The networks: plain nn.Modules, and a look into them. Nothing here knows what diffusion is."""

from minidiff.networks.classifier import Judge
from minidiff.networks.conditional import Conditional, LabelEncoder
from minidiff.networks.fold import Fold
from minidiff.networks.inspect import Room, Skip, count, flops, receptive_field, room_names, rooms, skips
from minidiff.networks.unet import UNet, UNetConfig

__all__ = [
    "Conditional",
    "Fold",
    "Judge",
    "LabelEncoder",
    "Room",
    "Skip",
    "UNet",
    "UNetConfig",
    "count",
    "flops",
    "receptive_field",
    "room_names",
    "rooms",
    "skips",
]
