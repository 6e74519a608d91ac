"""Training: the loss, the loop, and what is kept on disk."""

from minidiff.training.loop import TrainConfig, train
from minidiff.training.loss import TIMES, WEIGHTINGS, loss
from minidiff.training.optimise import EMA, OptimConfig, Progress, optimise

__all__ = ["EMA", "OptimConfig", "Progress", "TIMES", "TrainConfig", "WEIGHTINGS", "loss", "optimise", "train"]
