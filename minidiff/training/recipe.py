"""What a recipe is: something to train, and how. The recipes themselves are in recipes/."""

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from minidiff.training.distributed import is_first
from minidiff.training.optimise import Net, OptimConfig, Progress

Run = Generator[tuple[int, int, float], None, None]  # steps done, steps in all, loss


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """RECIPES[name], set in the file that defines it, is what `minidiff train NAME` trains."""

    about: str  # one line for `minidiff list`
    after: str = ""  # what to do with the result, with {folder} in it
    takes: tuple[str, ...] = ("steps", "batch")  # options of `minidiff train`, besides seed and device
    batch: int  # images a step
    train: OptimConfig

    def run(self, folder: Path, device: torch.device, config: OptimConfig, batch: int) -> Run:
        """Train and write the result to `folder`; a run that was stopped is resumed."""
        raise NotImplementedError

    def finished(self, folder: Path, device: torch.device) -> str:
        """What to say at the end."""
        return self.after.format(folder=folder)


RECIPES: dict[str, Recipe] = {}


def reported(run: Iterator[Progress[Net]], config: OptimConfig, folder: Path, keep: Callable[[Net], None]) -> Run:
    """Report each step; at the end, also when stopped early, call keep(averaged network), which writes to `folder`."""
    progress = None
    try:
        for progress in run:
            yield progress.step, config.steps, float(progress.loss)
    finally:
        if progress and is_first():
            folder.mkdir(parents=True, exist_ok=True)
            keep(progress.net)
