"""Which recipe? Change one thing at a time, train for the same CPU time, and compare on the validation split.

    python benchmarks/recipe.py                                 an hour and more on one core; stopped, it goes on
    python benchmarks/recipe.py --table assets/recipe.json      what it found
    python benchmarks/recipe.py --only "batch 16" "lr 4e-3" --seconds 240 --out runs/long.json

The first row is the baseline; the Frechet distance decides, accuracy comes second. Equal CPU time: all rows take
turns in one-step measurements first, so that a busy moment of the machine hits them alike; then each trains
as many steps as fit into the seconds, on one thread. How sure a verdict is: see experiment.py.

What holds after seconds need not hold after hours. Of the averaging of the weights nothing can be said here: in its
first steps it follows faster, and reaches 0.99 only after 900.
"""

import json
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
import tyro
from experiment import SCALE, fill, open_results, score, table

from minidiff import TextToImage, data
from minidiff.diffusion import uniform
from minidiff.evaluation.report import machine
from minidiff.formats.model_config import ModelConfig
from minidiff.networks import UNetConfig
from minidiff.training import Progress, TrainConfig
from minidiff.training.denoiser import fit, untrained

UNET = UNetConfig(4, 4, (32, 64), (False, True), layers=1, heads=4, context_dim=64, groups=8)
PLAIN = replace(UNET, in_channels=1, out_channels=1, channels=(16, 32, 64), attention=(False, False, True))
THREE = replace(UNET, channels=(32, 64, 64), attention=(False, True, True))


@dataclass(frozen=True)
class Recipe:
    """One way to train a digit model. The defaults are the baseline."""

    name: str
    what: str  # the one thing that is different, for the table
    model: ModelConfig = ModelConfig("mnist", UNET)
    train: TrainConfig = TrainConfig(
        lr=2e-3, weight_decay=0.01, clip=1.0, drop=0.1, times="logit_normal", ema=0.999, weighting="none"
    )
    batch: int = 32
    start: float = 1.0  # the time that drawing starts at


def but(name: str, what: str, batch: int = 32, start: float = 1.0, **changes) -> Recipe:
    """The baseline with `changes` in its ModelConfig or TrainConfig."""
    base = Recipe(name, what)
    of_model = {key: value for key, value in changes.items() if hasattr(base.model, key)}
    of_train = {key: value for key, value in changes.items() if key not in of_model}
    return Recipe(name, what, replace(base.model, **of_model), replace(base.train, **of_train), batch, start)


RECIPES = [
    Recipe("baseline", "baseline: flow, flow schedule, logit-normal t, batch 32, rate 2e-3, folded, (32, 64)"),
    but("batch 64", "batch 64", batch=64),
    but("batch 16", "batch 16", batch=16),
    but("lr 4e-3", "learning rate 4e-3", lr=4e-3),
    but("lr 1e-3", "learning rate 1e-3", lr=1e-3),
    but("large", "channels (48, 96)", unet=replace(UNET, channels=(48, 96))),
    but("small", "channels (24, 48)", unet=replace(UNET, channels=(24, 48))),
    but("uniform t", "t uniform", times="uniform"),
    but("min-SNR", "min-SNR weighting, gamma 5", weighting="min_snr"),
    but("v", "predicts v", prediction="v"),
    but("x0", "predicts x0", prediction="x0"),
    but("cosine v", "cosine schedule, predicts v", schedule="cosine", prediction="v"),
    but("linear eps", "linear schedule, predicts eps", schedule="linear", prediction="eps"),
    but("ema 0", "weights not averaged", ema=0.0),
    but("three levels", "channels (32, 64, 64)", unet=THREE),
    but("plain", "not folded, channels (16, 32, 64)", unet=PLAIN, fold=1),
]


@dataclass
class Options:
    seconds: float = 70.0  # CPU time of each training run
    seeds: tuple[int, ...] = (0, 1, 2)
    n: int = 300  # digits drawn after each
    out: Path = Path("runs/recipe.json")  # every finished run is written here at once
    only: tuple[str, ...] = ()  # names of rows besides the baseline; all if empty
    table: Path | None = None  # print what this file holds, and do nothing else


def training(recipe: Recipe, digits: data.Pictures, steps: int, seed: int) -> Iterator[Progress]:
    """Train a fresh network for so many steps."""
    # the usual 100 steps of warming up would be most of a short run
    config = replace(recipe.train, steps=steps, seed=seed, warmup=min(recipe.train.warmup, 1 + steps // 10))
    return fit(untrained(recipe.model, seed), recipe.model, data.batches(digits, recipe.batch, seed), config)


def seconds_a_step(recipes: list[Recipe], digits: data.Pictures, rounds: int = 9) -> list[float]:
    """Median CPU time of a training step of each; they take turns."""
    trials = [training(recipe, digits, 1000, seed=0) for recipe in recipes]
    took = [[] for _ in trials]
    for _ in range(2 + rounds):  # the first two find memory
        for trial, times in zip(trials, took, strict=True):
            start = time.process_time()
            next(trial)
            times.append(time.process_time() - start)
    return [statistics.median(times[2:]) for times in took]


def train_and_score(recipe: Recipe, digits: data.Pictures, steps: int, n: int, seed: int) -> dict[str, float]:
    start = time.process_time()
    for progress in training(recipe, digits, steps, seed):
        pass
    seconds = time.process_time() - start
    pipe = TextToImage(recipe.model, progress.net, "cpu")
    pipe.times = lambda steps, sampler: uniform(steps, pipe.schedule, start=recipe.start)
    return score(pipe, n, seed) | {"trained": seconds}


def main(options: Options) -> None:
    torch.set_num_threads(1)
    settings = {
        "command": f"python benchmarks/recipe.py --seconds {options.seconds:g}",
        "machine": machine(torch.device("cpu")),
        "n": options.n,
        "scale": SCALE,
        "seeds": list(options.seeds),
    }
    if options.table:
        print(table(json.loads(options.table.read_text())))
        return
    results = open_results(options.out, settings)
    unknown = set(options.only) - {recipe.name for recipe in RECIPES}
    if unknown:
        raise ValueError(f"no row {', '.join(sorted(unknown))}; there is {', '.join(r.name for r in RECIPES)}")
    recipes = [RECIPES[0]] + [r for r in RECIPES[1:] if not options.only or r.name in options.only]

    digits = data.mnist("train")
    if not {recipe.name for recipe in recipes} <= set(results.get("seconds_a_step", {})):
        took = seconds_a_step(recipes, digits)
        results["seconds_a_step"] = {r.name: round(t, 4) for r, t in zip(recipes, took, strict=True)}
    for recipe in recipes:
        steps = max(1, round(options.seconds / results["seconds_a_step"][recipe.name]))
        parameters = sum(p.numel() for p in recipe.model.build().parameters())
        work = partial(train_and_score, recipe, digits, steps, options.n)
        fill(options.out, results, recipe.name, work, what=recipe.what, steps=steps, parameters=parameters)
    print(table(results))


if __name__ == "__main__":
    try:
        main(tyro.cli(Options, description=__doc__))
    except (ValueError, OSError) as error:
        raise SystemExit(f"recipe: {error}") from None
