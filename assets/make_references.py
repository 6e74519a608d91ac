"""Draw where the samplers end: 1000 steps of the default sampler, with the shipped weights, for the sampler widget.

    python assets/make_references.py                about eight minutes on 2 cores
    python assets/make_references.py --steps 20     a trial

Digits 0 to 9, seeds 0 to 4, four guidance scales; the start noise of a seed is that of TextToImage.
Writes assets/references.safetensors: pictures (10, 5, 4, 28, 28) uint8, seeds, scales, and a fingerprint of the
weights, by which the widget knows for which model they are.
"""

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro

from minidiff import TextToImage
from minidiff.course.figures.diffusion import fingerprint
from minidiff.files import write_tensors

SEEDS, SCALES = (0, 1, 2, 3, 4), (1.0, 1.5, 2.0, 4.0)


@dataclass
class Options:
    steps: int = 1000
    out: Path = Path(__file__).resolve().parent / "references.safetensors"


def main(options: Options) -> None:
    pipe = TextToImage.load("mnist", device="cpu")
    pipe.net.to(memory_format=torch.channels_last)
    # Small pictures: two workers of one thread draw faster than one of two threads.
    torch.set_num_threads(1)
    shape = pipe.fold.encode(torch.zeros(1, *pipe.config.picture)).shape[1:]
    noises = torch.stack([torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) for seed in SEEDS])
    prompts = [str(digit) for digit in range(10) for _ in SEEDS]
    begun = time.perf_counter()

    def draw(scale: float) -> torch.Tensor:
        start = noises.repeat(10, 1, 1, 1)  # digit by digit, the seeds in turn
        for k, step in enumerate(pipe.stream(prompts, steps=options.steps, scale=scale, latents=start), start=1):
            if k % max(1, options.steps // 10) == 0:
                print(f"scale {scale}: {k} of {options.steps} steps, {time.perf_counter() - begun:.0f} s", flush=True)
        pixels = (pipe.decode(step.x) * 255).round().byte()
        return pixels.reshape(10, len(SEEDS), *pixels.shape[2:])

    with ThreadPoolExecutor(2) as pool:
        drawn = dict(zip(sorted(SCALES, reverse=True), pool.map(draw, sorted(SCALES, reverse=True)), strict=True))
    tensors = {
        "pictures": torch.stack([drawn[scale] for scale in SCALES], dim=2),
        "seeds": torch.tensor(SEEDS),
        "scales": torch.tensor(SCALES, dtype=torch.float64),
        "weights": fingerprint(pipe),
    }
    write_tensors(options.out, tensors)
    print(f"{tuple(tensors['pictures'].shape)} in {options.out}, {time.perf_counter() - begun:.0f} s")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
