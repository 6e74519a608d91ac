"""`minidiff train`: train a model, or resume a run that was stopped."""

import sys
from dataclasses import dataclass, replace
from pathlib import Path

from tyro.conf import Positional

from minidiff.cli.progress import follow, on_stop


def interrupt(*_) -> None:
    """What stops the command at once, where no step is lost by it."""
    raise KeyboardInterrupt("stopped before or after training: what the folder of the run holds is as it was")


@dataclass
class Train:
    """Train a model from scratch, or resume a run that was stopped. Ctrl-C, SIGTERM and SIGHUP keep what is done; exit
    status 130."""

    what: Positional[str]
    """A recipe, or a data set with labels; `minidiff list` names them."""
    out: Path | None = None
    """Folder of the run; runs/ and the name of what is trained if not given. A run that is there is resumed."""
    minutes: float | None = None
    """How long, measured by the speed of the first steps. For models that generate images."""
    steps: int | None = None
    """How many batches instead. None: the recipe's own number."""
    batch: int | None = None
    """Images a step. None: the recipe's own number."""
    accumulate: int | None = None
    """Parts a step is computed in, one after the other, where memory is short. For models that generate images."""
    prediction: str | None = None
    """What the network predicts; `minidiff list` names the choices. For models that generate images."""
    schedule: str | None = None
    """The noise schedule; `minidiff list` names the choices. For models that generate images."""
    data: Path | None = None
    """Folder of the data, instead of the data set's own: of its idx files or its archive, which is fetched into it; or of tars
    of images and captions in webdataset's format, where the recipe reads captions."""
    seed: int = 0
    """The same seed gives the same weights on the same machine."""
    device: str | None = None
    """cpu, cuda or mps. None: the best there is."""

    @on_stop(interrupt)
    def run(self) -> None:
        from minidiff.registry import UserError, choose

        folder = self.out or Path("runs") / self.what
        if folder.exists() and not folder.is_dir():
            raise UserError(f'cannot train in "{folder}": it is a file')
        options = ("minutes", "steps", "batch", "accumulate", "prediction", "schedule", "data")
        given = {name: value for name in options if (value := getattr(self, name)) is not None}
        for name, value in given.items():
            if isinstance(value, int | float) and not 0 < value < float("inf"):
                raise UserError(f"{name} must be a number above 0, got {value}")
        if "minutes" in given and "steps" in given:
            raise UserError("give minutes or steps, not both")
        from minidiff.device import pick_device
        from minidiff.training.checkpoint import alone, read_log
        from minidiff.training.distributed import is_first, join, leave, size
        from minidiff.training.recipes import recipes

        recipe = choose(self.what, recipes(), "recipe")
        for name in given:
            if name not in recipe.takes:
                raise UserError(f"{self.what} does not take --{name}; it takes --{', --'.join(recipe.takes)}")
        device = join(pick_device(self.device))
        if size() > 1 and "accumulate" not in recipe.takes:  # its loss needs the whole batch at once
            raise UserError(f"{self.what} is trained by one process: leave torchrun away")
        config = replace(recipe.train, seed=self.seed)
        config = replace(config, **{name: given.pop(name) for name in ("steps", "accumulate") if name in given})
        with alone(folder):
            run = recipe.run(folder, device, config, given.pop("batch", recipe.batch), **given)
            done = follow(run, self.what)
        first = is_first()
        leave()
        if first:
            log = read_log(folder)
            if skipped := sum(row["loss"] is None for row in log):
                print(f"{skipped} steps were skipped: their loss or gradient was not finite")
            step = log[-1]["step"] if log else 0
            print(f"{folder}: {'done' if done else f'stopped; the same command resumes it after step {step}'}")
            if said := recipe.finished(folder, device):
                print(said)
        if not done:
            sys.exit(130)
