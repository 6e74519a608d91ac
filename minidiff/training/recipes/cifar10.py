"""Photographs of ten kinds of things."""

from dataclasses import replace

from minidiff.formats.model_config import ModelConfig
from minidiff.networks import UNetConfig
from minidiff.training.loop import TrainConfig
from minidiff.training.recipe import RECIPES
from minidiff.training.recipes.mnist import labelled_recipe

# 32.5 million parameters, after Ho et al. 2020, appendix B (35.7 million). One level fewer, since our attention has a
# feed-forward network behind it; no dropout. Not trained in full yet.
# An image of the batch takes about 0.11 GiB in float32 (on a CPU): a small GPU needs a smaller batch.
CIFAR10 = ModelConfig(
    name="cifar10",
    # at 32x32, 16x16 and 8x8; attention also in the middle, at 8x8
    unet=UNetConfig(3, 3, channels=(128, 256, 256), attention=(False, True, False), heads=4, context_dim=128),
    picture=(3, 32, 32),
    fold=1,  # at full resolution: colour edges are fine
    labels="cifar10",
)

RECIPES["cifar10"] = replace(
    labelled_recipe("cifar10"),
    about="photographs, from a label; needs a GPU, on which it has not been run yet",
    after='draw with it: minidiff sample "a photo of a cat" --model {folder}',
    config=CIFAR10,
    batch=128,
    # Ho et al. took 800,000 steps at a constant rate; here it decays to 0, so that a shorter run ends well too
    train=TrainConfig(steps=200_000, lr=2e-4, warmup=500, weight_decay=0.0, ema=0.9999, save_every=2000),
    flip=True,
    fast=True,
)
