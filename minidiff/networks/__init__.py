"""The networks: plain nn.Modules, and a look into them. Nothing here knows what diffusion is."""

from minidiff.networks.classifiers import CLASSIFIERS, Judge, NoisyClassifier, StyleJudge
from minidiff.networks.clip import CLIP, CLIPConfig, CLIPText, CLIPTextConfig, CLIPVision, CLIPVisionConfig
from minidiff.networks.conditioning import Conditional, LabelEncoder, Ready
from minidiff.networks.inside.attention_maps import AttentionMap, attention_maps
from minidiff.networks.inside.blocks import Room, Skip, count, flops, receptive_field, room_names, rooms, skips
from minidiff.networks.space_to_depth import Fold
from minidiff.networks.unet import UNet, UNetConfig
from minidiff.networks.vae import VAE, Posterior, VAEConfig

__all__ = [
    "AttentionMap",
    "CLASSIFIERS",
    "CLIP",
    "CLIPConfig",
    "CLIPText",
    "CLIPTextConfig",
    "CLIPVision",
    "CLIPVisionConfig",
    "Conditional",
    "Fold",
    "Judge",
    "LabelEncoder",
    "NoisyClassifier",
    "Posterior",
    "Ready",
    "Room",
    "Skip",
    "StyleJudge",
    "UNet",
    "UNetConfig",
    "VAE",
    "VAEConfig",
    "attention_maps",
    "count",
    "flops",
    "receptive_field",
    "room_names",
    "rooms",
    "skips",
]
