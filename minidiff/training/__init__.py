"""Training: the loss, the loop, and what is kept on disk."""

from minidiff.training.loop import EMA, Progress, TrainConfig, train
from minidiff.training.loss import TIMES, loss

__all__ = ["EMA", "TIMES", "Progress", "TrainConfig", "loss", "train"]
