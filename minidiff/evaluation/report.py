"""What the evaluations share: a registry, images generated to be measured, and the report of what was found."""

import dataclasses
import json
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from minidiff.data import DATASETS
from minidiff.device import pick_device
from minidiff.formats.clip import SHIPPED, load_clip
from minidiff.networks import CLIP
from minidiff.pipeline.text_to_image import TextToImage
from minidiff.registry import choose

SETTINGS = {  # how a report says what it was made with, if it has the field
    "n": "n = {n}",
    "seed": "seed {seed}",
    "scale": "scale {scale:g}",
    "steps": "{steps} steps of {sampler}",
    "split": "{split} split",
}
FORMATS = {"scale": "g", "nearness": ".2f"}  # of the columns that are neither counts nor fractions


@dataclass(frozen=True, kw_only=True)
class Report:
    """What an evaluation measured, and with what. A subclass adds `rows` or a table of its own, and `notes` below it."""

    model: str
    split: str  # of the real images
    seed: int
    machine: str

    def json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=2)

    def table(self) -> list[str]:
        cells = [[_cell(name, value) for name, value in vars(row).items()] for row in self.rows]
        return table([[name.replace("_", " ") for name in vars(self.rows[0])], *cells])

    def notes(self) -> list[str]:
        return []

    def __str__(self) -> str:
        settings = [words.format(**vars(self)) for name, words in SETTINGS.items() if name in vars(self)]
        what = [f"{self.model}: {', '.join(settings)}", f"machine: {self.machine}"]
        return "\n".join([*self.table(), *self.notes(), *what])


def _cell(name: str, value: str | float | None) -> str:
    if value is None or isinstance(value, str):
        return value or "real"
    return format(value, "," if isinstance(value, int) else FORMATS.get(name, ".1%"))


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of cells as lines, each column as wide as its widest cell; the first is aligned left, the others right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip() for row in rows]


def drawn(pipe: TextToImage, prompts: list[str], seed: int, progress=lambda parts, **_: parts, **how) -> Tensor:
    """An image of each prompt, (N, C, H, W) in [-1, 1], a hundred at a time; image k has the seed `seed` + k.

    progress: wraps the loop, such as tqdm. how: options of `TextToImage.stream`.
    """
    parts = [prompts[i : i + 100] for i in range(0, len(prompts), 100)]
    images = [
        pipe.decode(pipe.latents(part, seed=seed + 100 * k, **how)).cpu()
        for k, part in enumerate(progress(parts, unit="00 images"))
    ]
    return torch.cat(images) * 2 - 1


def machine(device: torch.device) -> str:
    """What the numbers were measured on, in words."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return f"{device.type} ({name}, {torch.get_num_threads()} threads), torch {torch.__version__}"


# Which evaluation? -------------------------------------------------------------------------

Model = tuple  # what is measured: (TextToImage,), or (CLIP, Tokenizer)


@dataclass(frozen=True)
class Evaluation:
    """One way to measure a model: EVALUATIONS[name], set in the file that defines it."""

    about: str  # one line, for a list
    measure: Callable[
        ..., Report
    ]  # (*model, **options); its signature says which options there are, and their defaults
    dataset: str  # a name in DATASETS: the real images, whose size the model's must have
    of: type = TextToImage  # or CLIP


EVALUATIONS: dict[str, Evaluation] = {}


def load(name: str, device: str | None = None) -> Model:
    """A CLIP with its tokenizer, or a TextToImage alone: a shipped model, or one in a folder. Raises UserError."""
    if name in SHIPPED or (Path(name) / "clip.json").exists():
        return load_clip(name, pick_device(device))
    return (TextToImage.load(name, device),)


def fitting(model: Model, name: str | None = None) -> Evaluation:
    """The evaluation called `name`; None: the model's own. Raises UserError where it cannot measure the model.

    A TextToImage has its own by its name, else by the data set of its labels. A CLIP has no name: by its image size.
    """
    first = model[0]
    if isinstance(first, CLIP):
        names, size = list(EVALUATIONS), (3, *2 * [first.config.vision.size])
    else:
        config, size = first.config, first.config.picture
        names = [config.name] if config.text else [config.name, config.labels]
    fit = {k: e for k, e in EVALUATIONS.items() if isinstance(first, e.of) and DATASETS[e.dataset].picture == size}
    name = name or next((own for own in names if own in fit), names[0])
    kind = f"evaluation for {'x'.join(map(str, size))} images"
    return choose(name, fit, kind, ": choose one with --evaluation" if fit else "")
