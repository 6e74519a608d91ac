"""Emoji in three styles, from text, in the latents of a VAE.

Latents and text states are computed once: training then needs neither the VAE nor the text tower.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from minidiff import data
from minidiff.data.emoji import TAGS
from minidiff.data.shards import Shards, shard_batches, write_shards
from minidiff.formats.model_config import ModelConfig
from minidiff.networks import VAE, CLIPText, UNetConfig
from minidiff.tokenizer import Tokenizer
from minidiff.training.denoiser import DenoiserRecipe
from minidiff.training.distributed import my_rows
from minidiff.training.loop import TrainConfig
from minidiff.training.recipe import RECIPES

EMOJI = ModelConfig(
    name="emoji",
    # The VAE encodes 3 x 64 x 64 to 4 x 16 x 16, and the UNet takes it as it is, at 16x16, 8x8 and 4x4; with its text
    # tower, as wide as context_dim, and its VAE the model has 7 MB at most
    unet=UNetConfig(4, 4, (32, 64, 72), (False, True, True), layers=1, heads=4, context_dim=64, groups=8, pooled=True),
    picture=(3, 64, 64),
    fold=1,
    scale=3.0,
)


@torch.no_grad()
def keep_emoji(folder: Path, vae: VAE, text: CLIPText, tokenizer: Tokenizer, split: str = "train") -> None:
    """Write each image of a split into shards: its latent (c, h, w), and the states (W, L, D) of W captions, float16.

    The latents are the posteriors' means, scaled; the captions `captions_of` it.
    """
    pictures, rng = data.emoji(split), np.random.default_rng(0)
    device = next(vae.parameters()).device

    def rows() -> Iterator[dict[str, Tensor]]:
        for where in torch.arange(len(pictures)).split(64):
            captions = [caption for k in where for caption in captions_of(pictures.items[k], pictures.styles[k], rng)]
            states = text(tokenizer(captions).to(device)).unflatten(0, (len(where), -1))
            latents = vae.encode(pictures.floats(where).to(device))
            yield {"latents": latents.half().cpu(), "states": states.half().cpu()}

    write_shards(folder, rows())


def captions_of(item: data.Emoji, style: str, rng: np.random.Generator) -> list[str]:
    """The emoji in every wording, with random tags where there are some."""
    some = [rng.permutation(len(item.tags))[:TAGS] for _ in data.EMOJI_WORDINGS]
    return [data.emoji_caption(style, item, k, [item.tags[tag] for tag in tags]) for k, tags in enumerate(some)]


def latent_batches(folder: Path, batch: int, seed: int, mine: slice = slice(None)) -> Iterator[tuple[Tensor, Tensor]]:
    """Latents (B, c, h, w) and the states (B, L, D) of one caption of each, in a random wording; without end.

    mine: see `shard_batches`. Batch k depends on seed and k alone.
    """
    for step, (latents, states) in enumerate(shard_batches(Shards(folder), ("latents", "states"), batch, seed, mine)):
        wordings = np.random.default_rng((seed, step)).integers(states.shape[1], size=batch)
        yield latents, states[torch.arange(batch), torch.from_numpy(wordings)]


RECIPES["emoji"] = DenoiserRecipe(
    about="emoji in three styles, from text that clip_emoji's text tower reads, in the latents of vae",
    after='draw with it: minidiff sample "a twemoji emoji of a red apple" --model {folder}',
    config=EMOJI,
    batches=lambda batch, seed, latents: latent_batches(latents, batch, seed, my_rows(batch)),
    batch=32,
    train=TrainConfig(steps=38_000, times="noisier"),
    reader="clip_emoji",
    vae="weights/emoji/vae",
    encode=keep_emoji,
    fast=True,
)
