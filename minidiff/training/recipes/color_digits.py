"""Digits in colour, from text."""

from pathlib import Path

from minidiff.data import color_digit_batches
from minidiff.formats.model_config import ModelConfig
from minidiff.networks import UNetConfig
from minidiff.training.denoiser import Batches, DenoiserRecipe
from minidiff.training.distributed import my_rows
from minidiff.training.loop import TrainConfig
from minidiff.training.recipe import RECIPES

COLOR_DIGITS = ModelConfig(
    name="color_digits",
    # 3 x 32 x 32 is folded to 12 x 16 x 16; attention at 8x8, and at 4x4, where a position sees most of the digit;
    # context_dim: the width of the text tower
    unet=UNetConfig(
        12, 12, (32, 64, 64), (False, True, True), layers=1, heads=4, context_dim=64, groups=8, pooled=True
    ),
    picture=(3, 32, 32),
    scale=2.0,
)


def captioned(batch: int, seed: int, tars: Path | None) -> Batches:
    """Images and captions: generated digits, or those of a folder of tars, of which every process reads its own."""
    if tars:
        from minidiff.data.webdataset import find_shards, pair_batches

        return pair_batches(find_shards(tars), 32, batch, seed, mine=my_rows(batch))
    return ((pictures.images, pictures.captions) for pictures in color_digit_batches(batch, seed=seed))


RECIPES["color_digits"] = DenoiserRecipe(
    about="digits in colour, from text that clip's text tower reads",
    after='draw with it: minidiff sample "a red seven on a blue background" --model {folder}',
    takes=(*DenoiserRecipe.takes, "data"),
    config=COLOR_DIGITS,
    batches=captioned,
    batch=32,
    train=TrainConfig(steps=20_000, times="noisier"),
    reader="clip",
)
