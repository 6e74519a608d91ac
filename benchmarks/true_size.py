"""Our code at Stable Diffusion's size, beside diffusers' and transformers': python benchmarks/true_size.py

Random weights of Stable Diffusion 1.5's shape, written in float16 by diffusers (2.1 GB, in a temporary folder), are loaded
by both in float32. One call each of the text tower, the UNet and the VAE's decoder: how far are the outputs apart, how
long does it take, and how much memory? Each side has a process of its own, and they take turns. Needs the `parity` extra;
with accelerate installed diffusers needs less memory to load. --size tiny for a quick look.
"""

import json
import resource
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import torch
import tyro
from torch import Generator, Tensor, nn

from minidiff.evaluation.report import machine
from minidiff.files import read_tensors, write_tensors

SIDES = ("ours", "theirs")
TINY = {
    "unet": {"block_out_channels": (32, 32, 64, 64), "cross_attention_dim": 64},
    "vae": {"block_out_channels": (32, 32, 64, 64)},
    "text": {"hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4},
}


@dataclass
class Options:
    size: Literal["true", "tiny"] = "true"
    n: int = 3
    """Calls of each part in each process, at least; the first is not counted."""
    seconds: float = 3.0
    """Short calls are made more often, for so long."""
    turns: int = 2
    """Processes of each side."""
    side: Literal["ours", "theirs"] | None = None
    """Only one side, in this process, from --folder; what the others call."""
    folder: Path | None = None


def make(folder: Path, size: str) -> None:
    """Random checkpoints of all three parts, as diffusers and transformers write them."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    small = TINY if size == "tiny" else {"unet": {"cross_attention_dim": 768}, "vae": {}, "text": {}}
    large = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
    levels = {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}
    wide = {"block_out_channels": (128, 256, 512, 512), "layers_per_block": 2, **levels}
    torch.manual_seed(0)
    UNet2DConditionModel(**small["unet"]).half().save_pretrained(folder / "unet")
    AutoencoderKL(**wide | small["vae"]).half().save_pretrained(folder / "vae")
    text = CLIPTextConfig(bos_token_id=49406, eos_token_id=49407, **large | small["text"])
    CLIPTextModel(text).half().save_pretrained(folder / "text_encoder")


def loaded(side: str, folder: Path) -> tuple[nn.Module, nn.Module, nn.Module]:
    """The text tower, the UNet and the VAE, in float32."""
    if side == "ours":
        from minidiff.formats.clip import load_clip_text
        from minidiff.formats.unet import load_unet
        from minidiff.formats.vae import load_vae

        return load_clip_text(folder / "text_encoder"), load_unet(folder / "unet"), load_vae(folder / "vae")
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextModel

    text = CLIPTextModel.from_pretrained(folder / "text_encoder", dtype=torch.float32)
    parts = (
        kind.from_pretrained(folder / name, torch_dtype=torch.float32)
        for kind, name in ((UNet2DConditionModel, "unet"), (AutoencoderKL, "vae"))
    )
    return text, *parts


@torch.no_grad()
def measure(options: Options) -> None:
    """One side: times and memory to standard output, outputs into a file."""
    start = time.perf_counter()
    text, unet, vae = loaded(options.side, options.folder)
    seconds = {"load": time.perf_counter() - start}
    generator = Generator().manual_seed(0)
    ids = torch.randint(0, 49000, (1, 77), generator=generator)
    ids[0, -1] = 49407
    side = 64 if options.size == "true" else 16
    z = torch.randn(1, 4, side, side, generator=generator)
    context = torch.randn(1, 77, unet.config.context_dim if options.side == "ours" else unet.config.cross_attention_dim,
                          generator=generator)  # fmt: skip
    t = torch.tensor([500.0])
    ask = {
        "ours": {"text": lambda: text(ids), "unet": lambda: unet(z, t, context), "vae": lambda: vae.decode(z)},
        "theirs": {
            "text": lambda: text(ids).last_hidden_state,
            "unet": lambda: unet(z, t, context).sample,
            "vae": lambda: vae.decode(z / vae.config.scaling_factor).sample,
        },
    }[options.side]
    outputs: dict[str, Tensor] = {}
    for name, call in ask.items():
        times = []
        while len(times) <= options.n or sum(times) < options.seconds:
            start = time.perf_counter()
            outputs[name] = call()
            times.append(time.perf_counter() - start)
        seconds[name] = statistics.median(times[1:])
    write_tensors(options.folder / f"{options.side}.safetensors", outputs)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # kibibytes on Linux
    print(json.dumps({"seconds": seconds, "peak": peak}))


def main(options: Options) -> None:
    if options.side:
        return measure(options)
    with TemporaryDirectory() as where:
        folder = Path(where)
        make(folder, options.size)
        runs = {side: [] for side in SIDES}
        for _ in range(options.turns):
            for side in SIDES:
                command = [sys.executable, __file__, "--side", side, "--folder", where, "--size", options.size]
                command += ["--n", str(options.n), "--seconds", str(options.seconds)]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                runs[side].append(json.loads(done.stdout.splitlines()[-1]))
        ours, theirs = (read_tensors(folder / f"{side}.safetensors") for side in SIDES)
    print(f"{'':8}{'ours':>10}{'theirs':>10}{'ratio':>8}{'largest difference, in the outputs standard deviation':>58}")
    for name in ("load", "text", "unet", "vae"):
        a, b = (statistics.median(run["seconds"][name] for run in runs[side]) for side in SIDES)
        apart = ""
        if name in ours:
            apart = f"{float((ours[name] - theirs[name]).abs().max() / theirs[name].std()):.1e}"
        print(f"{name:8}{a:8.2f} s{b:8.2f} s{a / b:8.2f}{apart:>58}")
    a, b = (max(run["peak"] for run in runs[side]) for side in SIDES)
    print(f"{'memory':8}{a:6.2f} GiB{b:6.2f} GiB{a / b:6.2f}   (peak of the process)")
    print(f"accelerate is {'' if find_spec('accelerate') else 'not '}installed; n = {options.turns} x {options.n}")
    print(f"machine: {machine(torch.device('cpu'))}")


if __name__ == "__main__":
    main(tyro.cli(Options))
