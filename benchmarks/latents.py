"""Latents against pixels: how many pictures a second does the same UNet learn from?

    python benchmarks/latents.py                              about 2 minutes on 2 cores
    python benchmarks/latents.py --table runs/latents.json    what it found

All rows train the UNet of the emoji model on 3 x 64 x 64 pictures, with the project's own loop: the same batch, loss, AdamW,
clipping and averaged weights. Only the first and the last convolution differ, since what they see has other channels.

- latents: of the VAE, computed before, as `minidiff train emoji` does
- latents, encoded in the loop: the VAE's encoder works at every step as well
- folded pixels: 2 x 2 as one, so that nothing is lost and the UNet sees a quarter as many places
- pixels: as they are

The rows take turns, a step each, so that a busy moment of the machine hits all alike. Weights and pictures are
random: what they show changes no speed. How well each row learns is another question, and not asked here.
"""

import json
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

import torch
import tyro
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from minidiff.course.planner import work
from minidiff.device import pick_device
from minidiff.diffusion import FLOW, flow
from minidiff.evaluation.report import machine
from minidiff.files import write
from minidiff.networks import VAE, Conditional, Precomputed, SpaceToDepth, UNet, UNetConfig
from minidiff.training import Progress, TrainConfig, train
from minidiff.training.recipes.emoji import EMOJI
from minidiff.training.recipes.vae import EMOJI_VAE

TOKENS = 32  # of a caption
PICTURES = 128  # random ones, from which batches are taken
WARM = 2  # rounds that find memory and are not counted


@dataclass
class Options:
    repeats: int = 9
    """Steps of each row, after two that are not counted."""
    batch: int = 32
    """Pictures a step: the emoji model's own."""
    seed: int = 0
    device: str | None = None
    """cpu, cuda or mps; the best there is if left out."""
    side: int = 64
    """Pixels of a picture's side."""
    out: Path = Path("runs/latents.json")
    """The result is written here."""
    table: Path | None = None
    """Print what this file holds, and do nothing else."""


def rows(vae: VAE) -> dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]]:
    """Name: (what is done to all pictures before, what is done to a batch at every step)."""
    fold = SpaceToDepth(EMOJI.fold)

    def latents(x: Tensor) -> Tensor:
        with torch.no_grad():
            return fold.encode(vae.encode(x.to(vae.quant_conv.weight.device)))

    return {
        "latents": (lambda x: torch.cat([latents(part).cpu() for part in x.split(16)]), lambda x: x),
        "latents, encoded in the loop": (lambda x: x, latents),
        "folded pixels": (lambda x: x, SpaceToDepth(2).encode),
        "pixels": (lambda x: x, lambda x: x),
    }


def training(config: UNetConfig, pictures: Tensor, each: Callable, options: Options, device) -> Iterator[Progress]:
    """Train a fresh UNet; states of captions are there already, as they are for the emoji model."""
    torch.manual_seed(options.seed)
    states = torch.randn(len(pictures), TOKENS, config.context_dim)
    net = Conditional(UNet(config), Precomputed(states[0])).to(device, memory_format=torch.channels_last)

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        for step in count():
            where = (torch.arange(options.batch) + step * options.batch) % len(pictures)
            yield each(pictures[where]), states[where]

    plan = TrainConfig(steps=options.repeats + WARM, seed=options.seed)
    return train(net, flow(), FLOW, batches(), plan, null=states[0])


def encoding_flops(vae: VAE, side: int) -> int:
    """Operations to encode a picture, counted as `minidiff.networks.flops` counts those of a UNet."""
    x = torch.zeros(1, vae.config.in_channels, side, side, device=vae.quant_conv.weight.device)
    counter = FlopCounterMode(display=False)
    with sdpa_kernel(SDPBackend.MATH), counter, torch.no_grad():  # attention as two plain matrix products
        vae.encode(x)
    return counter.get_total_flops()


def measure(options: Options) -> dict:
    """The result, as it is written to a file."""
    if options.repeats < 2:
        raise ValueError(f"repeats must be at least 2, got {options.repeats}: quartiles need some")
    if options.batch < 1:
        raise ValueError(f"batch must be at least 1, got {options.batch}")
    device = pick_device(options.device)
    torch.manual_seed(options.seed)
    vae = VAE(EMOJI_VAE).eval().requires_grad_(False).to(device, memory_format=torch.channels_last)
    pictures = torch.rand(PICTURES, 3, options.side, options.side) * 2 - 1
    results, trials = [], []
    for name, (before, each) in rows(vae).items():
        prepared = before(pictures)
        _, channels, side, _ = each(prepared[:1]).shape
        config = replace(EMOJI.unet, in_channels=channels, out_channels=channels)
        asked = work(config, side, TOKENS)
        flops = 3 * asked.flops  # there, and back twice the work
        if "loop" in name:
            flops += encoding_flops(vae, options.side)
        about = {"name": name, "shape": [channels, side, side], "parameters": asked.parameters, "flops": flops}
        results.append(about | {"seconds": [], "cpu_seconds": []})
        trials.append(training(config, prepared, each, options, device))
    for turn in range(-WARM, options.repeats):
        for row, trial in zip(results, trials, strict=True):
            start, cpu = time.perf_counter(), time.process_time()
            next(trial)
            if device.type != "cpu":
                torch.accelerator.synchronize()  # a GPU answers before it is done
            if turn >= 0:
                row["seconds"].append(round(time.perf_counter() - start, 6))
                row["cpu_seconds"].append(round(time.process_time() - cpu, 6))
    return {
        "command": f"python benchmarks/latents.py --repeats {options.repeats} --batch {options.batch}",
        "machine": machine(device),
        "batch": options.batch,
        "n": options.repeats,
        "seed": options.seed,
        "side": options.side,
        "rows": results,
    }


def table(results: dict) -> str:
    """A line a row, the median with quartiles, and its ratio to the last row, pixels."""
    last, batch = results["rows"][-1], results["batch"]
    lines = [
        f"{'':30}{'the UNet sees':>15}{'parameters':>12}{'GFLOP a picture':>17}"
        f"{'pictures/s':>12}{'quartiles':>18}{'ratio':>8}{'in CPU time':>13}"
    ]
    for row in results["rows"]:
        low, middle, high = (batch / s for s in statistics.quantiles(row["seconds"], n=4, method="inclusive")[::-1])
        ratio, cpu = (statistics.median(last[k]) / statistics.median(row[k]) for k in ("seconds", "cpu_seconds"))
        seen, quartiles = " x ".join(map(str, row["shape"])), f"{low:.1f} to {high:.1f}"
        lines.append(
            f"{row['name']:30}{seen:>15}{row['parameters']:>12,}{row['flops'] / 1e9:>17.3f}"
            f"{middle:>12.1f}{quartiles:>18}{ratio:>8.1f}{cpu:>13.1f}"
        )
    lines += [
        "ratio: pictures a second (median) over those of pixels. FLOP: of a training step, without the optimizer's"
    ]
    lines += ["{command}: n = {n} steps a row, in turns, batch {batch}, seed {seed}".format(**results)]
    lines += [f"float32; {results['machine']}"]
    return "\n".join(lines)


def main(options: Options) -> None:
    if options.table:
        print(table(json.loads(options.table.read_text())))
        return
    results = measure(options)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    write(options.out, json.dumps(results, indent=1) + "\n")
    print(table(results))


if __name__ == "__main__":
    try:
        main(tyro.cli(Options, description=__doc__))
    except (ValueError, OSError) as error:
        raise SystemExit(f"latents: {error}") from None
