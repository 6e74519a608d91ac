"""Training the style judge: in which style is an emoji drawn?"""

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from minidiff.data.emoji import STYLES, emoji_batches
from minidiff.networks import StyleJudge
from minidiff.training.recipes.clip import varied
from minidiff.training.recipes.judge import train_classifier


def train_style_judge(
    folder: Path, device: torch.device, steps: int = 4000, batch: int = 64, seed: int = 0
) -> Iterator[tuple[int, int, float]]:
    """Train on emoji of the train split, shifted and blurred, and write the weights; yields steps done, in all, loss."""
    generator = torch.Generator().manual_seed(seed)

    def shown(images: Tensor) -> tuple[Tensor]:
        return (varied(images, generator).to(device),)  # drawn emoji may lie elsewhere, and are not as sharp

    labelled = (
        (pictures.images, torch.tensor([STYLES.index(style) for style in pictures.styles]))
        for pictures in emoji_batches(batch, seed=seed)
    )
    yield from train_classifier(StyleJudge, shown, labelled, steps, folder, device, seed, smoothing=0.05)
