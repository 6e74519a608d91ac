"""Digits; and, by the same recipe, any other data set with labels."""

from dataclasses import replace

from minidiff.data import DATASETS, batches
from minidiff.formats.model_config import ModelConfig
from minidiff.networks import UNetConfig
from minidiff.networks.inside.ablations import without
from minidiff.pipeline.text_to_image import TextToImage
from minidiff.training.denoiser import DenoiserRecipe, fit, untrained
from minidiff.training.loop import TrainConfig
from minidiff.training.recipe import RECIPES

MNIST = ModelConfig(
    name="mnist",
    # a 28x28 digit is folded to 4 x 14 x 14; attention at 7x7, where a position sees half of the digit
    unet=UNetConfig(4, 4, channels=(32, 64), attention=(False, True), layers=1, heads=4, context_dim=64, groups=8),
)


def labelled_recipe(name: str) -> DenoiserRecipe:
    """The digits' recipe for a data set with classes; images are folded where their sides can still be halved after."""
    dataset = DATASETS[name]
    channels, height, width = dataset.picture
    fold = 1 if height % 4 or width % 4 else 2
    unet = replace(MNIST.unet, in_channels=channels * fold**2, out_channels=channels * fold**2)
    return DenoiserRecipe(
        about=f"images of {name}, from a label",
        config=replace(MNIST, name=name, unet=unet, picture=dataset.picture, fold=fold, labels=name),
        batches=lambda batch, seed, folder: batches(dataset.load("train", folder), batch, seed),
        after=f"draw with it: minidiff sample {dataset.classes[-1]!r} --model {{folder}}",
        takes=(*DenoiserRecipe.takes, "data"),
    )


RECIPES["mnist"] = replace(
    labelled_recipe("mnist"),
    about="digits, from a label",
    after="draw with it: minidiff sample 7 --model {folder}",
    takes=DenoiserRecipe.takes,
)


def digit_model(part: str | None, steps: int, seed: int = 0, batch: int = 64) -> TextToImage:
    """The digit model, trained on the CPU for so many steps without `part` (None: with all its parts).

    part: a name in PARTS of networks/inside/ablations.py. The same seed gives the same initial weights, images and noise
    for every part. Raises ValueError for an unknown part.
    """
    net = untrained(MNIST, seed)
    if part is not None:
        without(net.unet, part)
    # the usual 100 steps of warm-up would be most of a short run
    config = TrainConfig(steps=steps, seed=seed, warmup=min(TrainConfig.warmup, 1 + steps // 10))
    for progress in fit(net, MNIST, batches(DATASETS["mnist"].load("train"), batch, seed), config):
        pass
    return TextToImage(MNIST, progress.net, "cpu")
