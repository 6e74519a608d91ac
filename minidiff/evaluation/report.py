"""What the evaluations share: a registry, images generated to be measured, and the report of what was found."""

import dataclasses
import json
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from minidiff.pipeline.text_to_image import TextToImage

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


def fraction(hits: Tensor) -> float:
    """Of bools (N,), how many are True."""
    return float(hits.double().mean())


def drawn(pipe: TextToImage, prompts: list[str], seed: int, progress=lambda parts, **_: parts, **how) -> Tensor:
    """An image of each prompt, (N, C, H, W) in [-1, 1]; image k has the seed `seed` + k. how: options of `stream`."""
    parts = range(0, len(prompts), 100)
    latents = (pipe.latents(prompts[i : i + 100], seed=seed + i, **how) for i in progress(parts, unit="00 images"))
    return torch.cat([pipe.decode(part).cpu() for part in latents]) * 2 - 1


def machine(device: torch.device) -> str:
    """What the numbers were measured on, in words."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return f"{device.type} ({name}, {torch.get_num_threads()} threads), torch {torch.__version__}"


Model = tuple  # what is measured: (TextToImage,), or (CLIP, Tokenizer)


@dataclass(frozen=True)
class Evaluation:
    """One way to measure a model: EVALUATIONS[name], set in the file that defines it."""

    about: str  # one line, for a list
    measure: Callable[..., Report]  # (*model, **options): the options of its signature, with their defaults
    dataset: str  # a name in DATASETS: the real images, whose size the model's must have
    of: type = TextToImage  # or CLIP


EVALUATIONS: dict[str, Evaluation] = {}  # `minidiff.evaluation.evaluations` has all of them
