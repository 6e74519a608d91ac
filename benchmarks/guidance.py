"""What does guidance gain, and what does it cost? Classifier guidance and classifier-free guidance, on the same noise.

    python benchmarks/guidance.py                                     some minutes on one core; stopped, it goes on
    python benchmarks/guidance.py --table assets/guidance.json        what it found

For each scale n digits are generated, with the labels of n validation digits. With classifier guidance the denoiser is
unconditional, and the noisy classifier alone says which digit it shall be; with classifier-free guidance (cfg) the
denoiser is conditioned on the digit. The accuracy is that of the shipped judge, which took no part in guidance; what the
guide itself reads in the finished images has a column of its own. Diversity is the mean distance between two images of
the same class, over that of the n validation digits, in the judge's features; the class is the one that the judge reads,
since at a small scale the class asked for is mostly not the one generated. Lesson 07 reads a copy of the result in assets/guidance.json.
"""

import json
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from experiment import open_results
from torch import Tensor

from minidiff import TextToImage, data
from minidiff.diffusion import DEFAULT_SAMPLER
from minidiff.evaluation.judges import judged
from minidiff.evaluation.metrics import diversity
from minidiff.evaluation.report import machine
from minidiff.files import write
from minidiff.formats.model_folder import load_classifier
from minidiff.pipeline.classifier_guidance import classifier_log_p

CLASSIFIER, CFG = "classifier guidance", "cfg"


@dataclass
class Options:
    n: int = 200
    """Digits drawn at each scale."""
    scales: tuple[float, ...] = (0, 1, 2, 4, 8, 16, 32)
    """For both kinds of guidance."""
    steps: int = 20
    sampler: str = DEFAULT_SAMPLER
    seed: int = 0
    """Of the choice of labels; picture k starts from the noise of seed 1000 * seed + k."""
    out: Path = Path("runs/guidance.json")
    """Every finished row is written here at once."""
    table: Path | None = None
    """Print what this file holds, and do nothing else."""


def draw(pipe: TextToImage, guide, kind: str, scale: float, labels: Tensor, options: Options) -> Tensor:
    """One digit for each label, (N, 1, 28, 28) in [-1, 1]."""
    drawn = []
    for part in labels.split(100):
        how = {"scale": scale}
        if kind == CLASSIFIER:
            log_p = classifier_log_p(guide, part, pipe.schedule.net_time)
            how = {"scale": 0.0, "log_p": log_p, "log_p_scale": scale}
        first = 1000 * options.seed + 100 * len(drawn)
        asked = [str(digit) for digit in part.tolist()]
        drawn.append(pipe.latents(asked, steps=options.steps, sampler=options.sampler, seed=first, **how))
    return pipe.decode(torch.cat(drawn)).cpu() * 2 - 1


def measured(pipe: TextToImage, guide, judge, pictures: Tensor, labels: Tensor) -> dict[str, float]:
    """What the judge and the guide read in the images, and how much the images of a class differ."""
    features, answers = judged(judge, pictures)
    right = (answers == labels).double()
    with torch.no_grad():
        probability = guide(pipe.fold.encode(pictures), torch.zeros(len(pictures))).softmax(1)
    return {
        "accuracy": float(right.mean()),
        "error": float(right.std() / len(right) ** 0.5),
        "diversity": diversity(features, answers),
        "guide_accuracy": float((probability.argmax(1) == labels).double().mean()),
        "guide_confidence": float(probability[torch.arange(len(labels)), labels].mean()),
    }


def table(results: dict) -> str:
    lines = [f"{'':20}{'scale':>7}{'judged right':>16}{'diversity':>11}{'guide reads right':>19}"]
    for row in results["rows"]:
        judged_right = f"{row['accuracy']:.1%} +- {row['error']:.1%}"
        lines.append(
            f"{row['guidance']:20}{row['scale']:>7g}{judged_right:>16}{row['diversity']:>11.0%}{row['guide_accuracy']:>19.1%}"
        )
    lines.append("{command}\nn = {n} a row, {split} labels, seed {seed}, {steps} steps of {sampler}".format(**results))
    lines.append(f"{results['seconds']:.0f} seconds on {results['machine']}")
    return "\n".join(lines)


def main(options: Options) -> None:
    torch.set_num_threads(1)
    if options.table:
        print(table(json.loads(options.table.read_text())))
        return
    settings = {
        "command": f"python benchmarks/guidance.py --n {options.n} --steps {options.steps} --seed {options.seed}",
        "machine": machine(torch.device("cpu")),
        "n": options.n,
        "split": "validation",
        "seed": options.seed,
        "sampler": options.sampler,
        "steps": options.steps,
    }
    results = open_results(options.out, settings)
    pipe, guide, judge = TextToImage.load("mnist", "cpu"), load_classifier("noisy_classifier"), load_classifier("judge")
    digits = data.mnist("validation")
    order = torch.randperm(len(digits), generator=torch.Generator().manual_seed(options.seed))[: options.n]
    labels = digits.labels[order]
    real = measured(pipe, guide, judge, digits.images[order], labels)
    results["real"] = {"accuracy": real["accuracy"], "guide_accuracy": real["guide_accuracy"]}
    done = {(row["guidance"], row["scale"]) for row in results["rows"]}
    for kind in (CLASSIFIER, CFG):
        for scale in options.scales:
            if (kind, scale) in done:
                continue
            start = time.perf_counter()
            row = measured(pipe, guide, judge, draw(pipe, guide, kind, scale, labels, options), labels)
            row["diversity"] /= real["diversity"]
            results["rows"].append({"guidance": kind, "scale": scale, **{k: round(v, 5) for k, v in row.items()}})
            results["seconds"] = round(results["seconds"] + time.perf_counter() - start, 1)
            options.out.parent.mkdir(parents=True, exist_ok=True)
            write(options.out, json.dumps(results, indent=1) + "\n")
            print(results["rows"][-1], flush=True)
    print(table(results))


if __name__ == "__main__":
    try:
        main(tyro.cli(Options, description=__doc__))
    except (ValueError, OSError) as error:
        raise SystemExit(f"guidance: {error}") from None
