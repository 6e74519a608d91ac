"""Training that is killed and stopped at random moments, and resumed: python benchmarks/kills.py

Small versions of five recipes are trained by `minidiff train`, each run in a process of its own, forked from one that has
imported everything, so that the signals fall into training and not into imports. A run that was killed is resumed by the
same command until it is done. Then its weights, moments, model and log must be, bit for bit, those of a run that nobody
disturbed, with nothing else in its folder. Needs an operating system that can fork.
"""

import json
import os
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
import tyro

from minidiff.cli.main import main
from minidiff.data import Pictures, batches, color_digit_batches, emoji_batches
from minidiff.data.mnist import mnist
from minidiff.data.shards import write_shards
from minidiff.evaluation.report import machine
from minidiff.networks import CLIPConfig, CLIPTextConfig, CLIPVisionConfig, VAEConfig
from minidiff.training.checkpoint import checkpoints, header, read_log
from minidiff.training.recipe import RECIPES, Recipe, Run
from minidiff.training.recipes.vae import train_vae

NAMES = ("mnist", "color_digits", "clip", "vae", "emoji")
STEPS, EVERY = 12, 3  # of a run, and from one checkpoint to the next


@dataclass
class Options:
    kills: int = 100
    """SIGKILLs at random moments, shared by the recipes."""
    burst: int = 37
    """SIGKILLs in quick succession of one run of the first recipe, with a checkpoint at every step."""
    stops: int = 10
    """SIGTERM, SIGINT and SIGHUP, so many of each, shared by the recipes."""
    recipes: tuple[str, ...] = NAMES
    seed: int = 0


class SmallVAE(Recipe):
    def run(self, folder: Path, device: torch.device, config, batch: int) -> Run:
        images = (each.images for each in emoji_batches(batch, "validation", config.seed))
        return train_vae(folder, device, images, config, VAEConfig(channels=(4, 4), layers=1, groups=2))


def shrink() -> None:
    """The recipes, so small that a run takes seconds; and what all runs read, read once."""
    few = mnist("validation")
    few = Pictures(few.images[:256], few.labels[:256], few.captions[:256])
    RECIPES["mnist"] = replace(RECIPES["mnist"], batches=lambda batch, seed, folder: batches(few, batch, seed))
    torch.optim.AdamW([torch.zeros(1, requires_grad=True)])  # the first one imports for seconds
    next(color_digit_batches(4))
    next(emoji_batches(2, "validation"))

    for name in ("mnist", "color_digits", "emoji"):
        model = RECIPES[name].config
        unet = replace(model.unet, channels=(8, 8), attention=(False, True), heads=2, groups=4)
        RECIPES[name] = replace(RECIPES[name], config=replace(model, unet=unet))
    generator = torch.Generator().manual_seed(0)
    latents = {"latents": (64, 4, 16, 16), "states": (64, 2, 32, 64)}
    latents = {key: torch.randn(shape, generator=generator).half() for key, shape in latents.items()}
    RECIPES["emoji"] = replace(RECIPES["emoji"], encode=lambda folder, *_: write_shards(folder, [latents], rows=16))
    texts = cache(lambda: next(color_digit_batches(128)).captions)
    vision = CLIPVisionConfig(32, 8, width=16, layers=1, heads=2, activation="gelu")
    clip = CLIPConfig(CLIPTextConfig(length=24, width=16, layers=1, heads=2, activation="gelu"), vision, dim=16)
    RECIPES["clip"] = replace(RECIPES["clip"], texts=texts, merges=20, model=clip)
    RECIPES["vae"] = SmallVAE(about="", batch=2, train=RECIPES["vae"].train)
    checkpoint_every(EVERY)


def checkpoint_every(steps: int) -> None:
    for name in NAMES:
        RECIPES[name] = replace(RECIPES[name], train=replace(RECIPES[name].train, save_every=steps))


def start(name: str, folder: Path) -> int:
    """Train in a process of its own; what it says goes into said.txt beside the folder. Returns its number."""
    sys.stdout.flush()
    folder.with_suffix(".txt").touch()
    if child := os.fork():
        return child
    status = 70
    try:
        said = os.open(folder.with_suffix(".txt"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(said, 1)
        os.dup2(said, 2)
        main(["train", name, "--steps", str(STEPS), "--batch", "4", "--device", "cpu", "--out", str(folder)])
        status = 0
    except SystemExit as stop:
        status = int(stop.code or 0)
    except KeyboardInterrupt:  # before the command has begun
        status = 130
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(status)


def disturbed(child: int, number: signal.Signals, after: float, log: Path | None = None) -> int:
    """The exit status of a process that gets a signal after so many seconds: negative if the signal ended it.

    log: the seconds are counted from the first step that it writes there.
    """

    def rows() -> int:
        return log.read_bytes().count(b"\n") if log and log.exists() else 0

    before, end = rows(), time.monotonic() + after
    while time.monotonic() < end:
        if (found := os.waitpid(child, os.WNOHANG))[0]:
            return os.waitstatus_to_exitcode(found[1])
        if log and rows() == before:
            end = time.monotonic() + after
        time.sleep(0.002)
    os.kill(child, number)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def kept(folder: Path) -> dict:
    """All that must be equal: the model's files, the tensors of the last checkpoint, and the log but for its seconds."""
    found = {str(path.relative_to(folder)): path for path in sorted(folder.rglob("*")) if path.is_file()}
    last = checkpoints(folder)
    tensors = last[-1].read_bytes()
    files = {name: path.read_bytes() for name, path in found.items() if path not in last and path.name != "log.jsonl"}
    log = [{key: value for key, value in row.items() if key != "seconds"} for row in read_log(folder)]
    length = int.from_bytes(tensors[:8], "little")  # of the header, which says how often to save
    return files | {
        "step": header(last[-1])["step"],
        "tensors": tensors[8 + length :],
        "log": log,
        "many": len(last) > 3,
    }


def differences(folder: Path, wanted: dict) -> list[str]:
    found = kept(folder)
    return [name for name in {**wanted, **found} if wanted.get(name) != found.get(name)]


class Trials:
    """Runs of one recipe in `room`, what came of them in `count`, and what was wrong in `problems`."""

    def __init__(self, name: str, room: Path, rng: np.random.Generator):
        self.name, self.room, self.rng = name, room, rng
        self.count, self.problems, self.runs = Counter(), [], 0
        begun = time.monotonic()
        self.folder = self.fresh()
        self.finish()
        self.wanted, self.seconds = kept(self.folder), time.monotonic() - begun

    def fresh(self) -> Path:
        self.runs += 1
        return self.room / f"{self.name}{self.runs}"

    def finish(self) -> None:
        """Resume the run until it is done."""
        if os.waitstatus_to_exitcode(os.waitpid(start(self.name, self.folder), 0)[1]):
            self.problems.append(f"{self.folder.name} cannot go on: {self.folder.with_suffix('.txt').read_text()}")

    def compare(self) -> None:
        self.count["runs"] += 1
        if wrong := differences(self.folder, self.wanted):
            self.problems.append(f"{self.folder.name} differs: {wrong}")

    def disturb(self, number: signal.Signals, times: int, quick: bool = False) -> None:
        """So many signals at random moments. A run that is done in spite of them is compared, and another one begun.

        quick: in the time of two steps from the first step that is made.
        """
        self.folder, hit = self.fresh(), 0
        while hit < times:
            after = self.rng.uniform(0, 2 * self.seconds / STEPS if quick else self.seconds)
            log = self.folder / "log.jsonl" if quick else None
            status = disturbed(start(self.name, self.folder), number, after, log)
            said = self.folder.with_suffix(".txt").read_text()
            if status == 0:
                self.compare()
                self.folder = self.fresh()
                continue
            hit += 1
            there = checkpoints(self.folder)
            moment = "before the first step" if not there or header(there[-1])["step"] == 0 else "in training"
            moment = "after the last step" if there and header(there[-1])["step"] == STEPS else moment
            self.count[f"{number.name} {moment}"] += 1
            gently = number != signal.SIGKILL
            if status != 130 if gently and moment != "before the first step" else status not in (130, -number):
                self.problems.append(f"{self.folder.name}: {number.name} gave {status}: {said}")
            if gently and "the same command resumes it" in said and not there:
                self.problems.append(f"{self.folder.name}: {number.name} left no checkpoint")
        self.finish()
        self.compare()


def measure(options: Options, room: Path, each: Callable[[str], None] = print) -> dict[str, Trials]:
    torch.set_num_threads(1)  # threads do not survive a fork
    shrink()
    rng = np.random.default_rng(options.seed)
    trials = {name: Trials(name, room, rng) for name in options.recipes}
    for number, times in (
        (signal.SIGKILL, options.kills), *((number, options.stops) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)),
    ):  # fmt: skip
        shares = np.bincount(np.arange(times) % len(trials), minlength=len(trials)).tolist()
        for trial, share in zip(trials.values(), shares, strict=True):
            if share:
                trial.disturb(number, share)
                each(f"{trial.name}: {dict(trial.count)}")
    if options.burst:
        checkpoint_every(1)
        first = trials[options.recipes[0]]
        first.disturb(signal.SIGKILL, options.burst, quick=True)
    return trials


if __name__ == "__main__":
    options = tyro.cli(Options, description=__doc__)
    with TemporaryDirectory() as room:
        trials = measure(options, Path(room), lambda line: print(line, file=sys.stderr, flush=True))
    problems = [problem for trial in trials.values() for problem in trial.problems]
    counts = {name: dict(trial.count) for name, trial in trials.items()}
    print(
        json.dumps(
            {"machine": machine(torch.device("cpu")), "seed": options.seed, "counts": counts, "problems": problems},
            indent=2,
        )
    )
    sys.exit(bool(problems))
