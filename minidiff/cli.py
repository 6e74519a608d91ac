"""`minidiff ...`: what a user types.

Every command is a dataclass, its fields are the options. torch and its friends cost seconds to import, so
they are imported where they are needed: `minidiff --help` answers at once.
"""

import io
import os
import signal
import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass, replace
from functools import partial
from itertools import dropwhile, takewhile
from pathlib import Path
from typing import Annotated, Literal

import tyro
from tyro.conf import Positional, arg


@dataclass
class Sample:
    """Draw pictures from prompts and write them into one file."""

    prompts: Positional[tuple[str, ...]]
    """What to draw, in quotes: "a handwritten seven"."""
    model: str = "mnist"
    """A shipped model (see `minidiff list`) or a folder with one."""
    out: Path = Path("out.png")
    """Where to: .png, .jpg or .webp for a sheet of pictures, .gif or .apng for the denoising as an animation."""
    n: Annotated[int, arg(aliases=["-n"])] = 1
    """Pictures of each prompt."""
    steps: int = 20
    """Steps from noise to picture: more is better, and slower."""
    scale: float | None = None
    """Guidance scale: 0 ignores the prompt, 1 follows it, more amplifies it. None: the model's own."""
    sampler: str = "dpmpp_2m"
    """How to walk: ddpm, ddim, euler, heun or dpmpp_2m."""
    negative: str | None = None
    """A prompt for what it should not be."""
    seed: int = 0
    """The first picture's seed; the next ones count on from it."""
    device: str | None = None
    """cpu, cuda or mps. None: the best there is."""

    def run(self) -> None:
        from minidiff import viz
        from minidiff.files import check_writable, write

        moving = self.out.suffix.lower() in viz.MOVING
        check_writable(self.out, viz.STILL + viz.MOVING)
        if self.n < 1:
            raise ValueError(f"n must be at least 1, got {self.n}")
        from tqdm import tqdm

        from minidiff.pipeline import TextToImage

        pipe = TextToImage.load(self.model, self.device)
        prompts = [prompt for prompt in self.prompts for _ in range(self.n)]
        stream = pipe.stream(
            prompts, negative=self.negative, steps=self.steps, scale=self.scale, sampler=self.sampler, seed=self.seed
        )
        walk = [step.x for step in tqdm(stream, total=self.steps, desc="denoising", leave=False, delay=1)]
        columns = min(self.n if self.n > 1 else len(prompts), 10)
        sheets = [viz.sheet(pipe.decode(x), columns) for x in (walk if moving else walk[-1:])]
        write(self.out, viz.encode(sheets if moving else sheets[0], self.out.suffix.lower()))
        print(f"{self.out}: {len(prompts)} picture{'s' if len(prompts) > 1 else ''}")


@dataclass
class Train:
    """Train a model from nothing, or go on with a run that was stopped (Ctrl-C keeps what is done)."""

    what: Positional[Literal["mnist", "cifar10", "judge"]]
    """mnist: digits. cifar10: photographs; wants a GPU, on which it has not been run yet. judge: what evaluate asks."""
    out: Path | None = None
    """Folder of the run; runs/ and the name of what is trained if not given. A run that is there is gone on with."""
    minutes: float | None = None
    """How long, measured by the speed of the first steps. Not for the judge."""
    steps: int | None = None
    """How many batches instead. None: the preset's number. Not for the judge."""
    batch: int | None = None
    """Pictures a step. None: the preset's number. Not for the judge."""
    data: Path | None = None
    """Folder with CIFAR-10's archive, or to fetch it into (170 MB). None: the user's cache."""
    seed: int = 0
    """The same seed gives the same weights on the same machine."""
    device: str | None = None
    """cpu, cuda or mps. None: the best there is."""

    def run(self) -> None:
        folder = self.out or Path("runs") / self.what
        if folder.exists() and not folder.is_dir():
            raise ValueError(f'cannot train in "{folder}": it is a file')
        for name, value in (("minutes", self.minutes), ("steps", self.steps), ("batch", self.batch)):
            if value is not None and not 0 < value < float("inf"):
                raise ValueError(f"{name} must be a number above 0, got {value}")
        if self.minutes is not None and self.steps is not None:
            raise ValueError("give minutes or steps, not both")
        from minidiff.device import pick_device
        from minidiff.evaluate import judge_accuracy, load_judge
        from minidiff.training.judge import train_judge
        from minidiff.training.presets import PRESETS, train_preset

        device = pick_device(self.device)
        if preset := PRESETS.get(self.what):
            config = replace(preset.train, steps=self.steps or preset.train.steps, seed=self.seed)
            run = train_preset(preset, folder, config, self.batch or preset.batch, device, self.minutes, self.data)
        else:
            run = train_judge(folder, device, seed=self.seed)
        finished = self.follow(run)
        if preset:
            print(f"{folder}: {'done' if finished else 'stopped; the same command goes on'}")
            print(f"draw with it: minidiff sample {preset.prompt} --model {folder}")
        elif finished:
            accuracy = judge_accuracy(load_judge(device, folder), "test")
            print(f"{folder}: done; reads {accuracy:.2%} of the 10,000 test digits right")

    def follow(self, run: Generator[tuple[int, int, float], None, None]) -> bool:
        """Show (step, steps, loss) as a progress bar; False if it was stopped."""
        from tqdm import tqdm

        bar, mean = tqdm(desc=self.what, unit="step", delay=1), None
        with stop_on_ctrl_c() as stopped:
            for step, steps, loss in run:
                mean = loss if mean is None else 0.98 * mean + 0.02 * loss
                bar.total = steps
                bar.set_postfix(loss=f"{mean:.4f}", refresh=False)
                bar.update(step - bar.n)
                if stopped():
                    break
            run.close()  # it writes what is done
        bar.close()
        return not stopped()


@dataclass
class Evaluate:
    """Draw digits and measure them against real ones that training never saw."""

    model: Positional[str] = "mnist"
    """A shipped model or a folder with one."""
    n: Annotated[int, arg(aliases=["-n"])] = 1000
    """Pictures to draw; numbers are only comparable at equal n."""
    split: Literal["test", "validation"] = "test"
    """Real digits to compare with. For choosing between settings, take validation."""
    steps: int = 20
    """Steps from noise to picture."""
    scale: float | None = None
    """Guidance scale. None: the model's own."""
    sampler: str = "dpmpp_2m"
    """How to walk: ddpm, ddim, euler, heun or dpmpp_2m."""
    seed: int = 0
    """Of the pictures and of the choice of real digits."""
    json: bool = False
    """Print the numbers as JSON, one object."""
    inception: Path | None = None
    """Measure in Inception's features, which this .safetensors file has, instead of the judge's (see the README)."""
    device: str | None = None
    """cpu, cuda or mps. None: the best there is."""

    def run(self) -> None:
        from tqdm import tqdm

        from minidiff.evaluate import evaluate, inception
        from minidiff.pipeline import TextToImage

        pipe = TextToImage.load(self.model, self.device)
        settings = {"split": self.split, "scale": self.scale, "sampler": self.sampler, "steps": self.steps}
        features = inception(self.inception, pipe.device) if self.inception else None
        progress = partial(tqdm, leave=False, delay=1)
        report = evaluate(pipe, self.n, seed=self.seed, features=features, progress=progress, **settings)
        print(report.json() if self.json else report)


@dataclass
class List:
    """The models, samplers, schedules and data that are there."""

    def run(self) -> None:
        from minidiff.data.cifar import ARCHIVE, cifar10_path
        from minidiff.data.mnist import SPLITS
        from minidiff.diffusion import GRIDS, PREDICTIONS, SAMPLERS, SCHEDULES
        from minidiff.pipeline import models

        for name, folder in models().items():
            size = (folder / "model.safetensors").stat().st_size / 1e6
            print(f"model        {name} ({size:.1f} MB)")
        there = f"here: {cifar10_path()}" if cifar10_path().exists() else f"{ARCHIVE.size / 1e6:.0f} MB to be fetched"
        for name, splits, note in (("mnist", SPLITS, "comes with minidiff"), ("cifar10", ARCHIVE.splits, there)):
            sizes = ", ".join(f"{last - first:,} {split}" for split, (_, first, last) in splits.items())
            print(f"data         {name} ({sizes}; {note})")
        for kind, known in (
            ("samplers", SAMPLERS),
            ("schedules", SCHEDULES),
            ("predictions", PREDICTIONS),
            ("grids", GRIDS),
        ):
            print(f"{kind:13}{', '.join(known)}")


@dataclass
class Doctor:
    """What this machine has, and what to type about what is wrong."""

    def run(self) -> None:
        from minidiff.doctor import examine

        sys.exit(examine())


COMMANDS = {"sample": Sample, "train": Train, "evaluate": Evaluate, "list": List, "doctor": Doctor}


@contextmanager
def stop_on_ctrl_c() -> Iterator:
    """Ctrl-C sets a flag to be asked for between two steps; a second one interrupts at once."""
    pressed = []

    def note(*_):
        pressed.append(True)
        signal.signal(signal.SIGINT, before)

    before = signal.signal(signal.SIGINT, note)
    try:
        yield lambda: bool(pressed)
    finally:
        signal.signal(signal.SIGINT, before)


def parse(args: list[str]):
    """The command that was typed. A mistake is said in one line; tyro draws a box around it."""
    box = io.StringIO()
    try:
        with redirect_stderr(box):
            return tyro.extras.subcommand_cli_from_dict(
                COMMANDS,
                prog="minidiff",
                args=args,
                description="Stable Diffusion, built up from the first speck of noise.",
            )
    except SystemExit as stop:
        if not stop.code:
            raise
        lines = (line.strip("│ ") for line in box.getvalue().splitlines()[1:])
        text = dropwhile(is_ruler, lines)
        fail(" ".join(takewhile(lambda line: not is_ruler(line), text)))


def is_ruler(line: str) -> bool:
    return set(line) <= set("─-╰╯")


def fail(message: str) -> None:
    print(f"minidiff: {message}", file=sys.stderr)
    sys.exit(2)


def main(args: list[str] | None = None) -> None:
    command = parse(sys.argv[1:] if args is None else args)
    try:
        command.run()
    except (ValueError, OSError) as error:
        if os.environ.get("MINIDIFF_DEBUG"):  # show where it came from
            raise
        fail(" ".join(str(error).split()))
    except KeyboardInterrupt:
        fail("stopped")
