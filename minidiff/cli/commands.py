"""What `minidiff ...` can do. Every command is a dataclass, its fields are the options.

torch and its friends cost seconds to import, so they are imported where they are needed: `minidiff --help`
answers at once.
"""

import sys
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from minidiff.cli.sample import Sample


@dataclass
class Train:
    """Train a model from nothing, or go on with a run that was stopped (Ctrl-C keeps what is done)."""

    what: Positional[
        Literal["mnist", "color_digits", "emoji", "cifar10", "clip", "clip_emoji", "vae", "judge", "style_judge",
                "noisy_classifier"]
    ]  # fmt: skip
    """mnist: digits. color_digits: digits in colour, from text, read by clip's text tower. emoji: emoji in three styles, from text, in
    the latents of vae, read by clip_emoji's text tower. cifar10: photographs; wants a GPU, on which it has not been
    run yet. clip, clip_emoji: words and pictures in one space. vae: emoji made small and large again. judge, style_judge:
    what evaluate asks. noisy_classifier: what classifier guidance follows."""
    out: Path | None = None
    """Folder of the run; runs/ and the name of what is trained if not given. A run that is there is gone on with."""
    minutes: float | None = None
    """How long, measured by the speed of the first steps. For models that draw."""
    steps: int | None = None
    """How many batches instead. None: the usual number. For models that draw, clip, clip_emoji and vae."""
    batch: int | None = None
    """Pictures a step. None: the usual number. For models that draw, clip, clip_emoji and vae."""
    accumulate: int = 1
    """Parts a step is computed in, one after the other, where memory is short. For models that draw."""
    data: Path | None = None
    """Folder with CIFAR-10's archive, or to fetch it into (170 MB); None: the user's cache. For color_digits: a folder
    of tars with pictures and captions, as webdataset has them, to train on instead."""
    seed: int = 0
    """The same seed gives the same weights on the same machine."""
    device: str | None = None
    """cpu, cuda or mps. None: the best there is."""

    def run(self) -> None:
        folder = self.out or Path("runs") / self.what
        if folder.exists() and not folder.is_dir():
            raise ValueError(f'cannot train in "{folder}": it is a file')
        for name in ("minutes", "steps", "batch", "accumulate"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise ValueError(f"{name} must be a number above 0, got {value}")
        if self.minutes is not None and self.steps is not None:
            raise ValueError("give minutes or steps, not both")
        from minidiff.cli.progress import follow
        from minidiff.device import pick_device
        from minidiff.training.distributed import is_first, join, leave, my_rows, size
        from minidiff.training.recipes.presets import PRESETS

        preset = PRESETS.get(self.what)
        device = join(pick_device(self.device))
        if size() > 1 and not preset:
            raise ValueError(f"{self.what} is trained by one process: leave torchrun away")
        if preset:
            from minidiff.training.recipes.presets import train_preset

            my_rows(self.batch or preset.batch)  # can all processes have as many?
            config = replace(preset.train, seed=self.seed, accumulate=self.accumulate)
            config = replace(config, steps=self.steps or config.steps)
            run = train_preset(preset, folder, config, self.batch or preset.batch, device, self.minutes, self.data)
            after = f"draw with it: minidiff sample {preset.prompt} --model {folder}"
        elif self.what in ("clip", "clip_emoji"):
            from minidiff.training.recipes.clip import RECIPES
            from minidiff.training.recipes.contrastive import train_clip

            recipe = RECIPES[self.what]
            config = replace(recipe.train, steps=self.steps or recipe.train.steps, seed=self.seed)
            run = train_clip(folder, device, replace(recipe, train=config, batch=self.batch or recipe.batch))
            after = f"how well it matches: minidiff evaluate {folder}"
        elif self.what == "vae":
            from minidiff.data import emoji_batches
            from minidiff.training.recipes.vae import BATCH, TRAIN, train_vae

            config = replace(TRAIN, steps=self.steps or TRAIN.steps, seed=self.seed)
            pictures = (batch.images for batch in emoji_batches(self.batch or BATCH, seed=self.seed))
            run = train_vae(folder, device, pictures, config)
            after = f"what it keeps: python benchmarks/vae.py --vae {folder}"
        else:
            from minidiff.training.recipes.judge import train_judge
            from minidiff.training.recipes.noisy_classifier import train_noisy_classifier
            from minidiff.training.recipes.style_judge import train_style_judge

            classifiers = {"judge": train_judge, "style_judge": train_style_judge}
            train = classifiers.get(self.what, train_noisy_classifier)
            run, after = train(folder, device, seed=self.seed), ""
        finished, first = follow(run, self.what), is_first()
        leave()
        if not first:
            return
        if after:
            print(f"{folder}: {'done' if finished else 'stopped; the same command goes on'}\n{after}")
        elif finished:
            print(f"{folder}: done")
            if self.what == "judge":
                from minidiff.evaluation.digits import judge_accuracy, load_judge

                accuracy = judge_accuracy(load_judge(device, folder), "test")
                print(f"it reads {accuracy:.2%} of the 10,000 test digits right")


@dataclass
class Evaluate:
    """Draw pictures and measure them against real ones that training never saw; or ask a CLIP which caption fits."""

    model: Positional[str] = "mnist"
    """A shipped model, "clip" among them, or a folder with one."""
    n: Annotated[int | None, arg(aliases=["-n"])] = None
    """Pictures to draw; numbers are only comparable at equal n. None: 1000; for color_digits 200 a row, for
    emoji 100 a group."""
    split: Literal["test", "validation"] = "test"
    """Real pictures to compare with. For choosing between settings, take validation."""
    steps: int = 20
    """Steps from noise to picture."""
    scale: float | None = None
    """Guidance scale. None: the model's own; for color_digits 0, 1, 2, 4 and 8."""
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
        report = self.measured()
        print(report.json() if self.json else report)

    def measured(self):
        from tqdm import tqdm

        from minidiff.data.emoji import EMOJI_SIDE
        from minidiff.device import pick_device
        from minidiff.evaluation.clip import retrieval
        from minidiff.evaluation.color_digits import evaluate_color
        from minidiff.evaluation.digits import evaluate, inception
        from minidiff.evaluation.emoji import evaluate_emoji, naming
        from minidiff.formats.clip import SHIPPED, load_clip
        from minidiff.pipeline.text_to_image import TextToImage

        if self.model in SHIPPED or (Path(self.model) / "clip.json").exists():
            clip, tokenizer = load_clip(self.model, pick_device(self.device))
            emoji = clip.config.vision.size == EMOJI_SIDE
            return (naming if emoji else retrieval)(clip, tokenizer, self.split, seed=self.seed)
        pipe = TextToImage.load(self.model, self.device)
        how = {"split": self.split, "sampler": self.sampler, "steps": self.steps, "seed": self.seed}
        how["progress"] = partial(tqdm, leave=False, delay=1)
        if pipe.vae:
            return evaluate_emoji(pipe, 100 if self.n is None else self.n, scale=self.scale, **how)
        if pipe.tokenizer:
            scales = (0, 1, 2, 4, 8) if self.scale is None else (self.scale,)
            return evaluate_color(pipe, 200 if self.n is None else self.n, scales, **how)
        features = inception(self.inception, pipe.device) if self.inception else None
        return evaluate(pipe, 1000 if self.n is None else self.n, scale=self.scale, features=features, **how)


@dataclass
class List:
    """The models, samplers, schedules and data that are there."""

    def run(self) -> None:
        from minidiff.data.cifar import ARCHIVE, cifar10_path
        from minidiff.data.mnist import SPLITS
        from minidiff.diffusion import GRIDS, PREDICTIONS, SAMPLERS, SCHEDULES
        from minidiff.files import asset
        from minidiff.formats.clip import SHIPPED
        from minidiff.formats.model_folder import models

        for name, folder in (models() | {name: asset(f"weights/{name}") for name in SHIPPED}).items():
            size = sum(path.stat().st_size for path in folder.rglob("*.safetensors")) / 1e6
            print(f"model        {name} ({size:.1f} MB)")
        there = f"here: {cifar10_path()}" if cifar10_path().exists() else f"{ARCHIVE.size / 1e6:.0f} MB to be fetched"
        for name, splits, note in (("mnist", SPLITS, "comes with minidiff"), ("cifar10", ARCHIVE.splits, there)):
            sizes = ", ".join(f"{last - first:,} {split}" for split, (_, first, last) in splits.items())
            print(f"data         {name} ({sizes}; {note})")
        print("data         color_digits (drawn from mnist, with captions, when asked for)")
        print("data         emoji (1,556 in three styles, with names; comes with minidiff)")
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
        from minidiff.cli.doctor import examine

        sys.exit(examine())


COMMANDS = {"sample": Sample, "train": Train, "evaluate": Evaluate, "list": List, "doctor": Doctor}
