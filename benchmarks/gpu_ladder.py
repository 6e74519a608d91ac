"""How fast does training become, rung by rung?

    python benchmarks/gpu_ladder.py --model cifar10
    python benchmarks/gpu_ladder.py --model emoji --batch 256 --no-graphs
    python benchmarks/gpu_ladder.py --table runs/gpu_ladder.json     what it found

Each rung is a switch, and keeps those below it: float32, bfloat16 autocast (weights stay float32), channels_last, fused
AdamW, torch.compile, CUDA graphs. It is the project's own loop that is timed, with averaged weights, clipping, random
numbers drawn on the CPU and the batch on its way to the device. Pictures and states of captions are random, and
lie ready. float32 is as PyTorch has it: on recent GPUs convolutions are computed in TF32, matrix products are not.

It runs on a CPU as well, leaves out what does not exist there, and then says nothing about GPUs.
"""

import json
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path

import torch
import tyro

from minidiff.course.planner import GPUS, work
from minidiff.device import pick_device
from minidiff.diffusion import FLOW, flow
from minidiff.evaluation.report import machine
from minidiff.files import write
from minidiff.networks import Conditional, Precomputed, UNet
from minidiff.registry import choose
from minidiff.training import Progress, TrainConfig, train
from minidiff.training.denoiser import DenoiserRecipe
from minidiff.training.recipes import RECIPES
from minidiff.training.recipes.vae import EMOJI_VAE

# Devices whose peak is known, as PyTorch calls them: the planner's name, whose numbers are from the maker's data sheets.
# Another form of the same chip (such as the H100 for PCIe) has another peak, and is not in the list.
KNOWN = {
    "NVIDIA H200": "H200",
    "NVIDIA H100 80GB HBM3": "H100",
    "NVIDIA A100-SXM4-80GB": "A100 80 GB",
    "NVIDIA A100-SXM4-40GB": "A100 40 GB",
    "NVIDIA A100 80GB PCIe": "A100 80 GB",
    "NVIDIA A100-PCIE-40GB": "A100 40 GB",
    "NVIDIA GeForce RTX 4090": "RTX 4090",
    "Tesla V100-SXM2-16GB": "V100",
    "Tesla V100-SXM2-32GB": "V100",
    "Tesla T4": "T4",
}
BASE = "float32"
RUNGS = {  # name: what it changes in TrainConfig, or None: the memory layout
    "bf16": {"bf16": True},
    "channels_last": None,
    "fused": {"fused": True},
    "compile": {"compile": True},
    "graphs": {"graphs": True},
}


@dataclass
class Options:
    model: str = "emoji"
    """A recipe of a model that generates images (see `minidiff list`): its UNet, at the size of its input."""
    device: str | None = None
    """cpu, cuda or mps; the best there is if left out."""
    batch: int | None = None
    """Pictures a step; the model's own if left out."""
    steps: int = 20
    """Of each timed window."""
    windows: int = 5
    """Timed on each rung; the median counts."""
    warm: int = 10
    """Steps before them, in which compilers work; not counted."""
    seed: int = 0
    bf16: bool = True
    channels_last: bool = True
    fused: bool = True
    compile: bool = True
    graphs: bool = True
    out: Path = Path("runs/gpu_ladder.json")
    """The result is written here."""
    table: Path | None = None
    """Print what this file holds, and do nothing else."""


def missing(rung: str, climbed: list[str], device: torch.device) -> str | None:
    """Why a rung is not there; None where it is."""
    if rung == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        return "this GPU has no circuits for bfloat16"
    if rung == "graphs" and device.type != "cuda":
        return f"CUDA graphs do not exist on {device.type}"
    if rung == "graphs" and "compile" not in climbed:
        return "it is torch.compile that records them"
    return None


def seen(recipe: DenoiserRecipe) -> tuple[tuple[int, int, int], int]:
    """What the UNet sees, (C, H, W), and the tokens of its context."""
    config = recipe.config
    side = config.picture[-1] // config.fold // (EMOJI_VAE.factor if recipe.vae else 1)
    return (config.unet.in_channels, side, side), 32 if recipe.reader else 2  # a label is two tokens


def training(recipe: DenoiserRecipe, climbed: list[str], batch: int, options: Options, device) -> Iterator[Progress]:
    """Train a fresh UNet with these rungs, on the same batch for ever."""
    shape, tokens = seen(recipe)
    torch.manual_seed(options.seed)
    x0, states = torch.randn(batch, *shape), torch.randn(batch, tokens, recipe.config.unet.context_dim)
    net = Conditional(UNet(recipe.config.unet), Precomputed(states[0])).to(device)
    if "channels_last" in climbed:
        net.to(memory_format=torch.channels_last)
    switches = {key: value for rung in climbed for key, value in (RUNGS[rung] or {}).items()}
    config = TrainConfig(steps=options.warm + options.steps * options.windows, seed=options.seed, **switches)
    return train(net, flow(), FLOW, repeat((x0, states)), config, null=states[0])


def timed(trial: Iterator[Progress], batch: int, options: Options, device: torch.device) -> dict:
    """Pictures a second in every window, and the most memory that was taken at once in all of them, in bytes."""
    torch.compiler.reset()  # what another rung compiled
    cuda = device.type == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats(device)

    def seconds(steps: int) -> float:
        start = time.perf_counter()
        for _ in range(steps):
            next(trial)
        if device.type != "cpu":
            torch.accelerator.synchronize()  # a GPU answers before it is done
        return time.perf_counter() - start

    seconds(options.warm)
    speeds = [batch * options.steps / seconds(options.steps) for _ in range(options.windows)]
    return {"images_s": speeds, "memory": torch.cuda.max_memory_allocated(device) if cuda else None}


def measure(options: Options) -> dict:
    """The result, as it is written to a file."""
    for name in ("steps", "windows", "warm"):
        if getattr(options, name) < 1:
            raise ValueError(f"{name} must be at least 1, got {getattr(options, name)}")
    models = {name: recipe for name, recipe in RECIPES.items() if isinstance(recipe, DenoiserRecipe)}
    recipe, device = choose(options.model, models, "model"), pick_device(options.device)
    batch = recipe.batch if options.batch is None else options.batch
    if batch < 1:
        raise ValueError(f"batch must be at least 1, got {batch}")
    shape, tokens = seen(recipe)
    flops = 3 * work(recipe.config.unet, shape[1], tokens).flops  # there, and back, which is twice the work
    known = KNOWN.get(torch.cuda.get_device_name(device)) if device.type == "cuda" else None
    peak = GPUS[known].tflops * 1e12 if known else None
    climbed, rows, left_out = [], [], {}
    for rung in (BASE, *(rung for rung in RUNGS if getattr(options, rung))):
        trying = climbed if rung == BASE else [*climbed, rung]
        if why := missing(rung, climbed, device):
            left_out[rung] = why
            continue
        try:
            found = timed(training(recipe, trying, batch, options, device), batch, options, device)
        except RuntimeError as error:  # a compiler that is not there, or does not know this device; too little memory
            said = str(error).partition("\n")[0]
            if rung == BASE:
                raise ValueError(f"training failed: {said}") from None
            left_out[rung] = f"failed: {said}"
            continue
        climbed = trying
        speed = statistics.median(found["images_s"])
        rows.append(
            {"rung": rung, **found, "median": speed, "mfu": speed * flops / peak if peak else None}
            | {"ratio": speed / rows[-1]["median"] if rows else 1.0}
        )
    return {
        "model": options.model,
        "machine": machine(device),
        "device": device.type,
        "shape": list(shape),
        "flops": flops,
        "batch": batch,
        "steps": options.steps,
        "windows": options.windows,
        "seed": options.seed,
        "peak": peak,
        "rows": rows,
        "left_out": left_out,
    }


def table(results: dict) -> str:
    lines = [f"{'rung':16}{'images/s':>12}{'lowest to highest':>22}{'ratio':>8}{'of all':>8}{'MFU':>8}{'memory':>12}"]
    for row in results["rows"]:
        span = f"{min(row['images_s']):.1f} to {max(row['images_s']):.1f}"
        mfu = "" if row["mfu"] is None else f"{row['mfu']:.1%}"
        memory = "" if row["memory"] is None else f"{row['memory'] / 1e9:.2f} GB"
        name = row["rung"] if row["rung"] == BASE else f"+ {row['rung']}"
        of_all = row["median"] / results["rows"][0]["median"]
        lines.append(f"{name:16}{row['median']:>12.1f}{span:>22}{row['ratio']:>8.2f}{of_all:>8.2f}{mfu:>8}{memory:>12}")
    lines += [f"left out: {rung} ({why})" for rung, why in results["left_out"].items()]
    about = [
        "ratio: to the rung before; of all: to the first. images/s: median of {windows} windows of {steps} steps",
        "{model}: the UNet sees {shape}, {flops:.3g} FLOP a picture to train; batch {batch}, seed {seed}",
        "{machine}",
    ]
    if results["peak"]:
        about.append("MFU: model FLOP a second over the data sheet's peak of 16-bit matrix products, {peak:.3g}")
    if results["device"] == "cpu":
        about.append("Measured on a CPU: nothing about GPUs follows from it.")
    return "\n".join(lines + [line.format(**results) for line in about])


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
        raise SystemExit(f"gpu_ladder: {error}") from None
