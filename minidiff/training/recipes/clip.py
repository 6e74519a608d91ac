"""What the two CLIPs are trained on: digits in colour, and emoji."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from minidiff.data.color_digits import Captioned, color_digit_batches
from minidiff.data.emoji import CaptionedEmojis, emoji_batches
from minidiff.networks import CLIPConfig, CLIPTextConfig, CLIPVisionConfig
from minidiff.training.loop import TrainConfig
from minidiff.training.recipes.contrastive import Matched, Recipe

LOT, RUN = 4, 32  # batches drawn at once; pictures of neighbouring colours in a batch
# Larger lots make the colours of a run more alike, and with 16 the colours themselves were learned far too late.


# Digits in colour ----------------------------------------------------------------------------


def also_true(batch: Captioned) -> Tensor:
    """(B, B) bool: is caption j, which belongs to another picture, true of picture i too?

    It is where both show the same scene; and where the caption leaves the background open ("a red seven"), where
    they show the same digit in the same colour. To count these as wrong would teach the network to guess.
    """
    scenes = _numbered(batch.scenes)
    pairs = _numbered([(scene.digit, scene.color) for scene in batch.scenes])
    leaves_open = torch.tensor(
        [scene.background not in text for scene, text in zip(batch.scenes, batch.captions, strict=True)]
    )
    true = (scenes[:, None] == scenes) | leaves_open & (pairs[:, None] == pairs)
    return true.fill_diagonal_(False)


def batches(batch: int, seed: int) -> Iterator[Captioned]:
    """Training pictures in batches of a few colours and many digits, without end.

    Colours are learned in the first minute. Among pictures of all colours they nearly always give the caption away,
    and the digit need not be looked at. So a lot is drawn, sorted by colours, and dealt out in runs of the same ones.
    """
    for lot in color_digit_batches(LOT * batch, seed=seed):
        order = sorted(range(len(lot)), key=lambda k: (lot.scenes[k].color, lot.scenes[k].background))
        runs = [order[k : k + RUN] for k in range(0, len(order), RUN)]
        for k in range(LOT):
            rows = [row for run in runs[k::LOT] for row in run]
            yield Captioned(lot.images[rows], [lot.captions[row] for row in rows], [lot.scenes[row] for row in rows])


def matched_digits(batch: int, seed: int) -> Matched:
    for pictures in batches(batch, seed):
        yield pictures.images, pictures.captions, also_true(pictures)


# Emoji ---------------------------------------------------------------------------------------


def also_true_emoji(batch: CaptionedEmojis) -> Tensor:
    """(B, B) bool: is caption j true of picture i too? It is where all that it says of style, name and tags is.

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


def varied(images: Tensor, generator: torch.Generator, most: int = 4) -> Tensor:
    """The pictures a few pixels to a side, half of them blurred: CLIP will judge pictures that are not sharp either."""
    blurred = F.interpolate(F.avg_pool2d(images, 2), scale_factor=2, mode="bilinear")
    some = torch.rand(len(images), 1, 1, 1, generator=generator) < 0.5
    wide = F.pad(torch.where(some, blurred, images), (most,) * 4, value=1.0)  # white around
    corners = torch.randint(2 * most + 1, (len(images), 2), generator=generator).tolist()
    side = images.shape[-1]
    return torch.stack([picture[:, y : y + side, x : x + side] for picture, (y, x) in zip(wide, corners, strict=True)])


def matched_emoji(batch: int, seed: int) -> Matched:
    generator = torch.Generator().manual_seed(seed)
    for pictures in emoji_batches(batch, seed=seed):
        yield varied(pictures.images, generator), pictures.captions, also_true_emoji(pictures)


def _numbered(things: list) -> Tensor:
    """Equal things have equal numbers, (N,)."""
    number: dict = {}
    return torch.tensor([number.setdefault(thing, len(number)) for thing in things])


# The recipes ---------------------------------------------------------------------------------


def recipe(texts, merges: int, matched, length: int, size: int, **how) -> Recipe:
    """Half a million parameters; ViT-L/14 has 428 million."""
    text = CLIPTextConfig(length=length, width=64, layers=2, heads=4, activation="gelu")
    half = (0.5,) * 3  # pixels from -1 to 1, as they come
    vision = CLIPVisionConfig(size, patch=8, width=80, layers=4, heads=4, activation="gelu", mean=half, std=half)
    return Recipe(CLIPConfig(text, vision, dim=64), texts, merges, matched, **how)


RECIPES = {
    "clip": recipe(lambda: next(color_digit_batches(4096)).captions, 10_000, matched_digits, length=24, size=32),
    # 1,000 merges: common words in one piece, rare ones in several. With one for each of the 3,000 words most of the
    # network would be a list of words
    "clip_emoji": recipe(
        lambda: next(emoji_batches(16_384)).captions,
        1000,
        matched_emoji,
        length=32,
        size=64,
        train=TrainConfig(steps=6000, lr=2e-3, warmup=200, weight_decay=0.05),
    ),
}
