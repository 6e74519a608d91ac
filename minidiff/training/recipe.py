"""What a recipe is: something to train, and how. The recipes themselves are in recipes/."""

from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import torch

from minidiff.training.checkpoint import averaged, whole
from minidiff.training.distributed import is_first
from minidiff.training.optimise import Net, OptimConfig, Progress

Run = Generator[tuple[int, int, float]]  # steps done, steps in all, loss


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """RECIPES[name], set in the file that defines it, is what `minidiff train NAME` trains."""

    name: str = ""  # filled in by `recipes`
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


def reported(
    run: Generator[Progress[Net]], config: OptimConfig, folder: Path, net: Net, keep: Callable[[Net, Path], None]
) -> Run:
    """Report each step. Then, also when stopped early, keep(net, a folder) writes what is trained, once more at each call.

    It writes what the last checkpoint holds, so that no run is said to be kept that is not.
    """
    progress = None
    with closing(run):  # it saves what is done; what goes wrong there is for the user to see
        try:
            for progress in run:
                yield progress.step, config.steps, float(progress.loss)
        except GeneratorExit:
            pass
    if is_first():
        step = averaged(folder, net)
        if progress and step != progress.step:
            raise OSError(f"{folder} has no checkpoint of step {progress.step}, the last one is of step {step}")
        with whole(folder) as part:
            keep(net, part)
