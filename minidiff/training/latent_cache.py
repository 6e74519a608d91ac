"""Latents and text states, computed once: training then needs neither the VAE nor the text tower."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from minidiff import data
from minidiff.data.emoji import TAGS
from minidiff.data.shards import INDEX, Shards, shard_batches, write_shards
from minidiff.networks import VAE, CLIPText
from minidiff.tokenizer import Tokenizer

ROWS = 64  # images encoded at once


@torch.no_grad()
def keep_emoji(folder: Path, vae: VAE, text: CLIPText, tokenizer: Tokenizer, split: str = "train") -> None:
    """Write each image of a split into shards: its latent (c, h, w), and the states (W, L, D) of W captions.

    The latents are the posteriors' means, scaled. A caption for each wording, with random tags. All in float16. Shards
    that are complete already are left as they are.
    """
    if (folder / INDEX).exists():
        return
    pictures, rng = data.emoji(split), np.random.default_rng(0)
    device = next(vae.parameters()).device

    def rows() -> Iterator[dict[str, Tensor]]:
        for first in range(0, len(pictures), ROWS):
            where = range(first, min(first + ROWS, len(pictures)))
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
