"""`minidiff train`: a model from nothing, or a stopped run gone on with."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from tyro.conf import Positional


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
