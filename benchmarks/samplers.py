"""Every sampler at 5, 10, 20, 50 and 1000 steps, with the same weights and the same start noise.

    python benchmarks/samplers.py            about an hour on 2 cores
    python benchmarks/samplers.py --n 100 --steps 5 10

For each: the Frechet distance of n generated digits (no guidance, w = 1) to real validation digits, with
the standard error from 200 bootstrap resamples, and the time. The judge's features, see minidiff/evaluation/judges.py.
Ends with 20 steps of the default sampler against 1000 steps of ddpm.
"""

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
import tyro

from minidiff import TextToImage, data
from minidiff.diffusion import DEFAULT_SAMPLER, SAMPLERS
from minidiff.evaluation.judges import judged
from minidiff.evaluation.metrics import bootstrap, floor, frechet
from minidiff.evaluation.report import machine
from minidiff.formats.model_folder import load_classifier

QUICK, SLOW = (DEFAULT_SAMPLER, 20), ("ddpm", 1000)  # the comparison that matters


@dataclass
class Options:
    n: int = 500  # pictures for each cell of the table
    steps: tuple[int, ...] = (5, 10, 20, 50, 1000)
    samplers: tuple[str, ...] = tuple(SAMPLERS)
    seed: int = 0
    device: str | None = None


def main(options: Options) -> None:
    pipe = TextToImage.load("mnist", options.device)
    pipe.net.to(memory_format=torch.channels_last)
    judge = load_classifier("judge", pipe.device)
    real = data.mnist("validation")
    real_features, _ = judged(judge, real.images.to(pipe.device))
    order = torch.randperm(len(real), generator=torch.Generator().manual_seed(options.seed))
    prompts = [str(digit) for digit in real.labels[order[: options.n]].tolist()]
    rest = real_features[order[options.n :]]
    mean, std = floor(real_features, options.n)
    print(f"n = {options.n}, seed {options.seed}, scale 1, {machine(pipe.device)}")
    print(f"real against real: {mean:.2f} +- {std:.2f}\n")
    print(f"{'sampler':10}{'steps':>7}{'calls':>7}{'Frechet':>10}{'+-':>7}{'seconds':>9}")

    # Small pictures: on a CPU, n workers of one thread draw faster than one of n threads.
    workers = torch.get_num_threads() if pipe.device.type == "cpu" else 1
    torch.set_num_threads(torch.get_num_threads() // workers)
    parts = torch.arange(options.n).chunk(workers)

    def draw(sampler: str, steps: int) -> tuple[torch.Tensor, float]:
        def draw_part(rows: torch.Tensor) -> torch.Tensor:
            asked = [prompts[row] for row in rows.tolist()]
            return pipe.latents(asked, steps=steps, scale=1.0, sampler=sampler, seed=options.seed + int(rows[0]))

        start = time.perf_counter()
        with ThreadPoolExecutor(workers) as pool:
            latents = torch.cat(list(pool.map(draw_part, parts)))
        return pipe.decode(latents), time.perf_counter() - start

    draw("euler", 2)  # warm up

    def resampled(cell: tuple[str, int]) -> torch.Tensor:
        """The distance of resamples. The same rows for every cell: the prompts and start noises are the same too, so
        that differences are less noisy than the numbers themselves."""
        return bootstrap(lambda rows: frechet(rows, rest), features[cell], draws=200)

    features, seconds = {}, {}
    for steps in options.steps:  # the short ones first: there is something to read early
        for sampler in options.samplers:
            cell = sampler, steps
            pictures, seconds[cell] = draw(*cell)
            features[cell], _ = judged(judge, pictures * 2 - 1)
            calls = 2 * steps - 1 if sampler == "heun" else steps
            score, error = frechet(features[cell], rest), float(resampled(cell).std())
            print(f"{sampler:10}{steps:>7}{calls:>7}{score:>10.2f}{error:>7.2f}{seconds[cell]:>9.1f}", flush=True)
            if cell == SLOW and QUICK in seconds:  # beside it once more, as the machine may have been busier
                seconds[QUICK] = max(seconds[QUICK], draw(*QUICK)[1])

    if QUICK in features and SLOW in features:
        difference = frechet(features[QUICK], rest) - frechet(features[SLOW], rest)
        error = float((resampled(QUICK) - resampled(SLOW)).std())
        print(f"\n{QUICK[0]} in {QUICK[1]} steps minus {SLOW[0]} in {SLOW[1]}: {difference:+.2f} +- {error:.2f}")
        print(f"time: 1/{seconds[SLOW] / seconds[QUICK]:.0f}, the quicker one timed twice and the longer taken")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
