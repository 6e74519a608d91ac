"""What the experiments share: a score, rows in a file, and a verdict that knows how unsure it is.

Every row is trained and scored with the same seeds. A seed decides the random start of the weights, the order
of the pictures, the training noise, the digits asked for and the noise they start from: so two rows
are compared seed by seed, and what the seeds have in common falls out of the difference.

A row "helps" or "hurts" if the mean of its differences to the first row is larger than two standard deviations of these
differences; else it is not significant. With three seeds such a difference comes about by chance 7 times in 100
(Student's t with 2 degrees of freedom: two standard deviations are 3.46 standard errors). Of twenty rows
that change nothing, one or two will still be called something: a single verdict is a hint, not a proof.
"""

import json
import statistics
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch

from minidiff import TextToImage, data
from minidiff.evaluation.judges import judged
from minidiff.evaluation.metrics import frechet
from minidiff.evaluation.report import drawn
from minidiff.files import write
from minidiff.formats.model_folder import load_classifier
from minidiff.training import loss

SCALE, STEPS, SAMPLER = 1.5, 10, "dpmpp_2m"  # how the digits are drawn, the same for every row


@cache
def real() -> tuple:
    """The judge, the labels of the validation digits, and what the judge sees in them."""
    judge, digits = load_classifier("judge"), data.mnist("validation")
    return judge, digits.labels, judged(judge, digits.images)[0]


def score(pipe: TextToImage, n: int, seed: int) -> dict[str, float]:
    """Draw n digits and judge them: the share read as the digit asked for, and the Frechet distance.

    The digits asked for are the labels of n validation digits; the distance is to the other validation digits.
    """
    judge, labels, features = real()
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    wanted = labels[order[:n]]
    asked = [str(digit) for digit in wanted.tolist()]
    pictures = drawn(pipe, asked, 100_000 * seed, steps=STEPS, scale=SCALE, sampler=SAMPLER)
    seen, answers = judged(judge, pictures)
    accuracy = float((answers == wanted).double().mean())
    return {"accuracy": accuracy, "frechet": frechet(seen, features[order[n:]])}


def validation_loss(pipe: TextToImage, n: int = 1000) -> float:
    """The mean squared error on validation digits, at evenly spaced times and with the same noise every time.

    Only comparable between models that predict the same thing.
    """
    digits = data.mnist("validation")
    x0, labels = pipe.fold.encode(digits.images[:n]), digits.labels[:n]
    eps = torch.randn(x0.shape, generator=torch.Generator().manual_seed(0))
    t = (torch.arange(n) + 0.5) / n
    parts = zip(*(whole.split(100) for whole in (x0, labels, t, eps)), strict=True)
    with torch.no_grad():
        errors = [loss(pipe.net, pipe.schedule, pipe.prediction, *part) for part in parts]
    return float(torch.stack(errors).mean())


# Rows in a file ----------------------------------------------------------------------------


def open_results(path: Path, settings: dict) -> dict:
    """What the file holds already, to be gone on with; else settings and no rows.

    Raises ValueError where it was made with other settings.
    """
    if not path.exists():
        return settings | {"seconds": 0.0, "rows": []}
    results = json.loads(path.read_text())
    for key, value in settings.items():
        if results.get(key) != value:
            raise ValueError(f"{path} was made with {key} {results.get(key)}, not {value}: take another file")
    return results


def fill(path: Path, results: dict, name: str, work: Callable[[int], dict[str, float]], **about) -> None:
    """Do the seeds of a row that are not there yet: work(seed) -> numbers. Each is written at once.

    about: what else is to be known of a row that is new.
    """
    row = next((row for row in results["rows"] if row["name"] == name), {"name": name} | about)
    for seed in results["seeds"][len(row.get("frechet", [])) :]:
        start = time.process_time()
        numbers = work(seed)
        for key, value in numbers.items():
            row.setdefault(key, []).append(round(value, 5))
        if row not in results["rows"]:
            results["rows"].append(row)
        results["seconds"] = round(results["seconds"] + time.process_time() - start, 1)
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path, json.dumps(results, indent=1) + "\n")
        said = "  ".join(f"{key} {value:.4g}" for key, value in numbers.items())
        print(f"{name:16} seed {seed}  {said}", flush=True)


# What can be said --------------------------------------------------------------------------


def difference(row: list[float], base: list[float]) -> tuple[float, float]:
    """Mean and standard deviation of row - base, seed by seed."""
    each = [a - b for a, b in zip(row, base, strict=False)]  # a row may not have all its seeds yet
    return statistics.mean(each), statistics.stdev(each) if len(each) > 1 else float("inf")


def verdict(row: list[float], base: list[float], less_is_better: bool = True) -> str:
    """ "helps", "hurts", or "not significant" for a mean difference under two standard deviations."""
    mean, std = difference(row, base)
    if abs(mean) <= 2 * std:  # also where both are 0
        return "not significant"
    return "helps" if (mean < 0) == less_is_better else "hurts"


MEASURES = {"frechet": ("Frechet distance", ".2f", True), "accuracy": ("accuracy", ".1%", False)}


def table(results: dict, measures: dict[str, tuple[str, str, bool]] = MEASURES) -> str:
    """Every row against the first, in Markdown. measures: key: (title, format, whether less is better)."""
    titles = ["", "parameters", "steps"]
    for title, _, _ in measures.values():
        titles += [title, "difference", "verdict"]
    rows = [titles, ["---"] * len(titles)]
    for row in results["rows"]:
        cells = [row["what"], f"{row['parameters']:,}", f"{row['steps']:,}"]
        for key, (_, form, less) in measures.items():
            cells += _compared(row[key], results["rows"][0][key], form, less, row is results["rows"][0])
        rows.append(cells)
    seeds = ", ".join(map(str, results["seeds"]))
    drawn = f"{STEPS} steps of {SAMPLER}, scale {SCALE:g}"
    lines = ["| " + " | ".join(cells) + " |" for cells in rows]
    lines += ["", "Mean ± standard deviation of the seeds; a difference ± its standard error, seed by seed."]
    lines += [f"n = {results['n']}, seeds {seeds}, validation split, {drawn}; {results['machine']}"]
    lines += [f"{results['command']}: {results['seconds'] / 60:.0f} minutes of CPU time"]
    return "\n".join(lines)


def _compared(values: list[float], base: list[float], form: str, less_is_better: bool, is_base: bool) -> list[str]:
    """Three cells: the values, their difference to the base, and the verdict."""
    std = f" ± {statistics.stdev(values):{form}}" if len(values) > 1 else ""
    shown = f"{statistics.mean(values):{form}}{std}"
    if is_base:
        return [shown, "", ""]
    mean, std = difference(values, base)
    error = f" ± {std / len(values) ** 0.5:{form}}" if len(values) > 1 else ""
    return [shown, f"{mean:+{form}}{error}", verdict(values, base, less_is_better)]
