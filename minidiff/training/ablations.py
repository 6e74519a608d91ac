"""Training the digit model without a part, to see what the part is for."""

import torch

from minidiff import data
from minidiff.diffusion import PREDICTIONS, SCHEDULES
from minidiff.networks import Fold
from minidiff.networks.ablations import without
from minidiff.pipeline import TextToImage
from minidiff.training.loop import TrainConfig, train
from minidiff.training.presets import PRESETS


def digit_model(part: str | None, steps: int, seed: int = 0, batch: int = 64) -> TextToImage:
    """The small digit model, trained on the CPU for so many steps without `part` (None: with all it has).

    part: a name in `minidiff.networks.ablations.PARTS`. The same seed is the same start, the same pictures
    in the same order, and the same noise for every part. Raises ValueError for an unknown part.
    """
    config = PRESETS["mnist"].config
    torch.manual_seed(seed)  # the random start of the weights
    net = config.build().to(memory_format=torch.channels_last)
    if part is not None:
        without(net.unet, part)
    fold = Fold(config.fold)
    batches = ((fold.encode(images), labels) for images, labels in data.batches(data.mnist("train"), batch, seed))
    schedule, pred = SCHEDULES[config.schedule](), PREDICTIONS[config.prediction]
    # the usual 100 steps of warming up would be most of a short run
    settings = TrainConfig(steps=steps, seed=seed, warmup=min(TrainConfig.warmup, 1 + steps // 10))
    for progress in train(net, schedule, pred, batches, settings, null=net.text_encoder.null):
        pass
    return TextToImage(config, progress.net, "cpu")
