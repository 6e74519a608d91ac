"""Training: the loss, the loop, and what is kept on disk."""

from minidiff.training.loop import EMA, Progress, TrainConfig, train
from minidiff.training.loss import TIMES, WEIGHTINGS, loss

__all__ = ["EMA", "TIMES", "WEIGHTINGS", "Progress", "TrainConfig", "loss", "train"]
