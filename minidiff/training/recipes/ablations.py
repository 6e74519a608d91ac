"""Training the digit model without a part, to see what the part is for."""

from minidiff import data
from minidiff.networks.inside.ablations import without
from minidiff.pipeline.text_to_image import TextToImage
from minidiff.training.loop import TrainConfig
from minidiff.training.recipes.presets import PRESETS, fit, untrained


def digit_model(part: str | None, steps: int, seed: int = 0, batch: int = 64) -> TextToImage:
    """The small digit model, trained on the CPU for so many steps without `part` (None: with all it has).

    part: a name in `minidiff.networks.inside.ablations.PARTS`. The same seed is the same start, the same pictures
    in the same order, and the same noise for every part. Raises ValueError for an unknown part.
    """
    config = PRESETS["mnist"].config
    net = untrained(config, seed)
    if part is not None:
        without(net.unet, part)
    # the usual 100 steps of warming up would be most of a short run
    settings = TrainConfig(steps=steps, seed=seed, warmup=min(TrainConfig.warmup, 1 + steps // 10))
    for progress in fit(net, config, data.batches(data.mnist("train"), batch, seed), settings):
        pass
    return TextToImage(config, progress.net, "cpu")
