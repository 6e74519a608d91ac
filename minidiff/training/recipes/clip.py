"""CLIP for digits in colour."""

from collections.abc import Iterator

import torch
from torch import Tensor

from minidiff.data.color_digits import Captioned, color_digit_batches
from minidiff.training.recipe import RECIPES
from minidiff.training.recipes.contrastive import ClipRecipe, small_clip

LOT, RUN = 4, 32  # batches drawn at once; images of neighbouring colours in a batch
# Larger lots make the colours of a run more alike: with 16 the colours themselves were learned far too late.


def also_true(batch: Captioned) -> Tensor:
    """(B, B) bool: is caption j, which belongs to another image, true of image i too?

    It is where both show the same scene; and where the caption leaves the background open ("a red seven"), where
    they show the same digit in the same colour.
    """
    scenes = _numbered(batch.scenes)
    pairs = _numbered([(scene.digit, scene.color) for scene in batch.scenes])
    scenes_and_captions = zip(batch.scenes, batch.captions, strict=True)
    leaves_open = torch.tensor([scene.background not in text for scene, text in scenes_and_captions])
    true = (scenes[:, None] == scenes) | leaves_open & (pairs[:, None] == pairs)
    return true.fill_diagonal_(False)


def _numbered(things: list) -> Tensor:
    """Equal things have equal numbers, (N,)."""
    number = {thing: k for k, thing in enumerate(things)}
    return torch.tensor([number[thing] for thing in things])


def batches(batch: int, seed: int) -> Iterator[Captioned]:
    """Training images in batches of a few colours and many digits, without end.

    Colours are learned in the first minute. Among images of all colours they nearly always identify the caption, and
    the digit is not needed. So a lot is drawn, sorted by colours, and dealt out in runs of the same ones.
    """
    for lot in color_digit_batches(LOT * batch, seed=seed):
        order = sorted(range(len(lot)), key=lambda k: (lot.scenes[k].color, lot.scenes[k].background))
        runs = [order[k : k + RUN] for k in range(0, len(order), RUN)]
        dealt = [row for k in range(LOT) for run in runs[k::LOT] for row in run]
        for k in range(0, len(dealt), batch):
            rows = dealt[k : k + batch]
            yield Captioned(lot.images[rows], [lot.captions[row] for row in rows], [lot.scenes[row] for row in rows])


RECIPES["clip"] = ClipRecipe(
    about="words and images of color_digits in one space",
    texts=lambda: next(color_digit_batches(4096)).captions,
    merges=10_000,
    batches=batches,
    also_true=also_true,
    model=small_clip(length=24, size=32),
)
