"""What is each part of the UNet for? Train the digit model without it, for the same number of steps.

    python benchmarks/ablations.py                                   half an hour on one core; stopped, it goes on
    python benchmarks/ablations.py --table assets/ablations.json     what it found

Three seeds, validation split. Lesson 05 shows the table; it reads a copy of the result in assets/ablations.json. How sure a verdict is: see
experiment.py. These are small networks after short training: what a part does for a network of another size, or
after days, is another question.
"""

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
import tyro
from experiment import MEASURES, SCALE, fill, open_results, score, table, validation_loss

from minidiff.evaluation.report import machine
from minidiff.networks import Conditional
from minidiff.networks.inside.ablations import PARTS, without
from minidiff.training.recipes import RECIPES
from minidiff.training.recipes.mnist import digit_model

ABLATED = MEASURES | {"loss": ("validation loss", ".4f", True)}


@dataclass
class Options:
    steps: int = 300
    batch: int = 32
    seeds: tuple[int, ...] = (0, 1, 2)
    n: int = 300  # digits drawn after each
    out: Path = Path("runs/ablations.json")  # every finished run is written here at once
    table: Path | None = None  # print what this file holds, and do nothing else


def used(net: Conditional) -> int:
    """How many parameters still change the output: those with a gradient that is not zero."""
    labels = torch.arange(net.text_encoder.null + 1)  # every class, and none
    size = (len(labels), net.unet.config.in_channels, 14, 14)
    out = net(torch.randn(size), torch.linspace(0, 1000, len(labels)), labels)
    (out * torch.randn(out.shape)).sum().backward()
    return sum(int((p.grad != 0).sum()) for p in net.parameters() if p.grad is not None)


def train_and_score(part: str | None, steps: int, batch: int, n: int, seed: int) -> dict[str, float]:
    pipe = digit_model(part, steps, seed, batch)
    return score(pipe, n, seed) | {"loss": validation_loss(pipe)}


def main(options: Options) -> None:
    torch.set_num_threads(1)
    if options.table:
        print(table(json.loads(options.table.read_text()), ABLATED))
        return
    settings = {
        "command": f"python benchmarks/ablations.py --steps {options.steps} --batch {options.batch}",
        "machine": machine(torch.device("cpu")),
        "n": options.n,
        "scale": SCALE,
        "seeds": list(options.seeds),
    }
    results = open_results(options.out, settings)
    for part in (None, *PARTS):
        torch.manual_seed(0)
        net = RECIPES["mnist"].config.build()
        if part is not None:
            without(net.unet, part)
        about = {"what": "everything" if part is None else f"without {part}: {PARTS[part].about}"}
        about |= {"parameters": used(net), "steps": options.steps}
        work = partial(train_and_score, part, options.steps, options.batch, options.n)
        fill(options.out, results, part or "everything", work, **about)
    print(table(results, ABLATED))


if __name__ == "__main__":
    try:
        main(tyro.cli(Options, description=__doc__))
    except (ValueError, OSError) as error:
        raise SystemExit(f"ablations: {error}") from None
