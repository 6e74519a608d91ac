"""Emoji in three styles, from text, in the latents of a VAE."""

from pathlib import Path

from minidiff.formats.model_config import ModelConfig
from minidiff.networks import UNetConfig
from minidiff.training.denoiser import Batches, DenoiserRecipe
from minidiff.training.distributed import my_rows
from minidiff.training.latent_cache import latent_batches
from minidiff.training.loop import TrainConfig
from minidiff.training.recipe import RECIPES

EMOJI = ModelConfig(
    name="emoji",
    unet=UNetConfig(
        in_channels=4,  # the VAE encodes 3 x 64 x 64 to 4 x 16 x 16, and the UNet takes it as it is
        out_channels=4,
        channels=(32, 64, 72),  # at 16x16, 8x8, 4x4; with its text tower and VAE the model has 7 MB at most
        attention=(False, True, True),
        layers=1,
        heads=4,
        context_dim=64,  # the width of the text tower
        groups=8,
        pooled=True,
    ),
    picture=(3, 64, 64),
    fold=1,
    scale=3.0,
)


def _latents(batch: int, seed: int, folder: Path | None) -> Batches:
    assert folder  # where a recipe with a VAE keeps its latents
    return latent_batches(folder, batch, seed, my_rows(batch))


RECIPES["emoji"] = DenoiserRecipe(
    about="emoji in three styles, from text that clip_emoji's text tower reads, in the latents of vae",
    after='draw with it: minidiff sample "a twemoji emoji of a red apple" --model {folder}',
    config=EMOJI,
    batches=_latents,
    batch=32,
    train=TrainConfig(steps=38_000, times="noisier"),
    reader="clip_emoji",
    vae="weights/emoji/vae",
    fast=True,
)
