"""The networks: plain nn.Modules, and tools to look inside them. Nothing here depends on diffusion."""

from minidiff.networks.classifiers import CLASSIFIERS, Judge, NoisyClassifier, SceneJudge, StyleJudge
from minidiff.networks.clip import CLIP, CLIPConfig, CLIPText, CLIPTextConfig, CLIPVision, CLIPVisionConfig
from minidiff.networks.conditioning import Conditional, LabelEncoder, Precomputed
from minidiff.networks.inside.attention_maps import AttentionMap, attention_maps
from minidiff.networks.inside.blocks import Block, Skip, block_names, blocks, count, flops, receptive_field, skips
from minidiff.networks.space_to_depth import SpaceToDepth
from minidiff.networks.unet import UNet, UNetConfig
from minidiff.networks.vae import VAE, Posterior, VAEConfig

__all__ = [
    "CLASSIFIERS", "CLIP", "VAE", "AttentionMap", "Block", "CLIPConfig", "CLIPText", "CLIPTextConfig", "CLIPVision",
    "CLIPVisionConfig", "Conditional", "Judge", "LabelEncoder", "NoisyClassifier", "Posterior", "Precomputed",
    "SceneJudge", "Skip", "SpaceToDepth", "StyleJudge", "UNet", "UNetConfig", "VAEConfig", "attention_maps", "block_names", "blocks", "count",
    "flops", "receptive_field", "skips",
]  # fmt: skip
