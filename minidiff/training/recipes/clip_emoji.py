"""CLIP for emoji."""

from collections.abc import Iterator
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from minidiff.data.emoji import CaptionedEmojis, emoji_batches
from minidiff.training.optimise import OptimConfig
from minidiff.training.recipe import RECIPES
from minidiff.training.recipes.contrastive import ClipRecipe, small_clip


def also_true_emoji(batch: CaptionedEmojis) -> Tensor:
    """(B, B) bool: is caption j true of image i too? It is where all that it says of style, name and tags is.

    Tags alone ("twemoji emoji: fruit, red") are true of every emoji that has these tags.
    """

    def fits(item, style, caption, own, own_style) -> bool:
        if own_style in caption and style != own_style:
            return False
        if own.name in caption:
            return item.name == own.name
        return set(caption.partition(": ")[2].split(", ")) <= set(item.tags)

    true = [
        [fits(item, style, *about) for about in zip(batch.captions, batch.items, batch.styles, strict=True)]
        for item, style in zip(batch.items, batch.styles, strict=True)
    ]
    return torch.tensor(true).fill_diagonal_(False)


def varied(images: Tensor, generator: Generator, most: int = 4) -> Tensor:
    """The images shifted by up to `most` pixels, half of them blurred: generated ones are not sharp either."""
    blurred = F.interpolate(F.avg_pool2d(images, 2), scale_factor=2, mode="bilinear")
    some = torch.rand(len(images), 1, 1, 1, generator=generator) < 0.5
    wide = F.pad(torch.where(some, blurred, images), (most,) * 4, value=1.0)  # white around
    corners = torch.randint(2 * most + 1, (len(images), 2), generator=generator).tolist()
    side = images.shape[-1]
    return torch.stack([picture[:, y : y + side, x : x + side] for picture, (y, x) in zip(wide, corners, strict=True)])


def batches(batch: int, seed: int) -> Iterator[CaptionedEmojis]:
    generator = Generator().manual_seed(seed)
    for pictures in emoji_batches(batch, seed=seed):
        yield replace(pictures, images=varied(pictures.images, generator))


RECIPES["clip_emoji"] = ClipRecipe(
    about="words and images of emoji in one space",
    texts=lambda: next(emoji_batches(16_384)).captions,
    merges=1000,  # common words in one token, rare ones in several: one for each of 3,000 would be most of the network
    batches=batches,
    also_true=also_true_emoji,
    model=small_clip(length=32, size=64),
    train=OptimConfig(steps=6000, lr=2e-3, warmup=200, weight_decay=0.05, betas=(0.9, 0.98)),
)
