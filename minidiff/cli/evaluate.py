"""`minidiff evaluate`: how good is a model?"""

import inspect
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from minidiff.registry import UserError

OPTIONS = ("n", "split", "steps", "scale", "sampler", "seed", "inception")  # those that an evaluation may take


@dataclass
class Evaluate:
    """Measure a model: its images against real, held-out ones, or how well a CLIP matches images with captions."""

    model: Positional[str] = "mnist"
    """A shipped model, "clip" among them, or a folder with one."""
    evaluation: str | None = None
    """Which of the evaluations in `minidiff list`. None: the model's own."""
    n: Annotated[int | None, arg(aliases=["-n"])] = None
    """Images to generate, of each kind if there are several; numbers are only comparable at equal n. None: the usual
    number."""
    split: Literal["test", "validation"] | None = None
    """Real images to compare with; None: test. To choose between settings, take validation."""
    steps: int | None = None
    """Sampling steps. None: 20."""
    scale: float | None = None
    """Guidance scale. None: the model's own, or several where the evaluation compares them."""
    sampler: str | None = None
    """One of the samplers in `minidiff list`. None: the usual one."""
    seed: int | None = None
    """Of the noise and of the choice of real images. None: 0."""
    json: bool = False
    """Print the numbers as JSON, one object."""
    inception: Path | None = None
    """Measure in Inception's features from this .safetensors file instead of the judge's (see benchmarks/README.md)."""
    device: str | None = None
    """cpu, cuda or mps. None: the best there is."""

    def run(self) -> None:
        from tqdm import tqdm

        from minidiff.evaluation import fitting, load
        from minidiff.formats.clip import SHIPPED

        model = load(self.model, self.device)
        measure = fitting(model, self.evaluation or (self.model if self.model in SHIPPED else None)).measure
        takes = inspect.signature(measure).parameters
        options = {name: value for name in OPTIONS if (value := getattr(self, name)) is not None}
        for name in options:
            if name not in takes:
                there = ", ".join(f"--{option}" for option in OPTIONS if option in takes)
                raise UserError(f"this evaluation of {self.model} does not take --{name}; it takes {there}")
        more = {"model": self.model, "progress": partial(tqdm, leave=False, delay=1)}
        report = measure(*model, **options, **{name: value for name, value in more.items() if name in takes})
        print(report.json() if self.json else report)
