"""Scenes from text, in the latents of a VAE; latents and text states are computed as the scenes are drawn."""

from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import torch
from torch import Tensor

from minidiff.data.scenes import SIDE, Scenes, scenes
from minidiff.device import pick_device
from minidiff.files import asset
from minidiff.formats.clip import load_clip
from minidiff.formats.model_config import ModelConfig
from minidiff.formats.vae import load_vae
from minidiff.networks import CLIP, VAE, UNetConfig
from minidiff.tokenizer import Tokenizer
from minidiff.training.denoiser import DenoiserRecipe
from minidiff.training.loop import TrainConfig
from minidiff.training.recipe import RECIPES

READER, TAKES = "clip_scenes", "weights/scenes/vae"

SCENES = ModelConfig(
    name="scenes",
    # The VAE encodes 3 x 64 x 64 to 8 x 16 x 16, and the UNet takes it as it is, at 16x16, 8x8 and 4x4
    unet=UNetConfig(8, 8, (64, 96, 128), (False, True, True), layers=1, heads=4, context_dim=64, groups=8, pooled=True),
    picture=(3, SIDE, SIDE),
    fold=1,
    scale=3.0,
)


@torch.no_grad()
def encoded(drawn: Scenes, vae: VAE, clip: CLIP, tokenizer: Tokenizer) -> tuple[Tensor, Tensor]:
    """Latents (B, c, h, w), the posteriors' means, and the captions' states (B, L, D), on the CPU."""
    device = next(vae.parameters()).device
    return vae.encode(drawn.images).cpu(), clip.text_model(tokenizer(drawn.captions).to(device)).cpu()


def batches(batch: int, seed: int, _: Any = None) -> Iterator[Callable[[], tuple[Tensor, Tensor]]]:
    """`encoded` by the shipped VAE and text tower, without end; as functions, see `optimise`."""
    device = pick_device(None)  # the best there is draws and encodes: a GPU is not fed by one core
    parts = load_vae(asset(TAKES), device), *load_clip(READER, device)
    for number in count(1):
        yield lambda number=number: encoded(scenes(batch, "train", seed, number, device), *parts)


RECIPES["scenes"] = DenoiserRecipe(
    about="things in places, from text that clip_scenes's text tower reads, in the latents of a VAE; no weights yet",
    after='draw with it: minidiff sample "an owl in the snow, fluent style" --model {folder}',
    config=SCENES,
    batches=batches,
    batch=32,
    train=TrainConfig(steps=30_000, lr=8e-4, warmup=500, betas=(0.9, 0.99), times="noisier"),  # at 2e-3 it diverged
    reader=READER,
    vae=TAKES,
    fast=True,
)
