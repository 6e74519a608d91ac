"""Scenes from text, in the latents of a VAE; latents and text states are computed as the scenes are drawn."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from minidiff.data.scenes import SIDE, scene_batches
from minidiff.device import pick_device
from minidiff.files import asset
from minidiff.formats.clip import load_clip
from minidiff.formats.model_config import ModelConfig
from minidiff.formats.vae import load_vae
from minidiff.networks import UNetConfig
from minidiff.training.denoiser import DenoiserRecipe
from minidiff.training.loop import TrainConfig
from minidiff.training.recipe import RECIPES

READER, VAE = "clip_scenes", "weights/scenes/vae"

SCENES = ModelConfig(
    name="scenes",
    # The VAE encodes 3 x 64 x 64 to 8 x 16 x 16, and the UNet takes it as it is, at 16x16, 8x8 and 4x4
    unet=UNetConfig(8, 8, (64, 96, 128), (False, True, True), layers=1, heads=4, context_dim=64, groups=8, pooled=True),
    picture=(3, SIDE, SIDE),
    fold=1,
    scale=3.0,
)


@torch.no_grad()
def encoded(batch: int, seed: int, _: Any = None) -> Iterator[tuple[Tensor, Tensor]]:
    """Latents (B, c, h, w), the posteriors' means, and the captions' states (B, L, D), without end, on the CPU.

    They are drawn and encoded on the best device there is: a GPU is not fed by one core.
    """
    device = pick_device(None)
    vae, (clip, tokenizer) = load_vae(asset(VAE), device), load_clip(READER, device)
    for scenes in scene_batches(batch, seed=seed, device=device):
        yield vae.encode(scenes.images).cpu(), clip.text_model(tokenizer(scenes.captions).to(device)).cpu()


RECIPES["scenes"] = DenoiserRecipe(
    about="things in places, from text that clip_scenes's text tower reads, in the latents of a VAE; no weights yet",
    after='draw with it: minidiff sample "an owl in the snow, fluent style" --model {folder}',
    config=SCENES,
    batches=encoded,
    batch=32,
    train=TrainConfig(steps=30_000, lr=8e-4, warmup=500, betas=(0.9, 0.99), times="noisier"),  # at 2e-3 it diverged
    reader=READER,
    vae=VAE,
    fast=True,
)
