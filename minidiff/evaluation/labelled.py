"""How good are generated images of a data set with classes? Numbers from metrics.py, each beside what real images get."""

from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import torch

from minidiff import data
from minidiff.diffusion import DEFAULT_SAMPLER
from minidiff.evaluation import judges, metrics
from minidiff.evaluation.report import Evaluation, Report, drawn, fraction, machine, table
from minidiff.formats.model_folder import load_classifier
from minidiff.pipeline.text_to_image import TextToImage
from minidiff.registry import UserError, choose


@dataclass(frozen=True)
class LabelledReport(Report):
    """The numbers of n images. `_real`: what real images get in the same place."""

    n: int
    scale: float
    sampler: str
    steps: int
    features: str
    accuracy: float | None  # fraction of images that the judge reads as the digit asked for; None: no digits
    accuracy_real: float | None
    calibration: float | None  # the judge's expected calibration error: how far its confidence is from its accuracy
    calibration_real: float | None
    frechet: float
    frechet_error: float  # standard error, by bootstrap
    frechet_floor: float  # real vs. real at the same n
    frechet_floor_std: float  # over draws of the real n
    diversity: float  # mean distance within a class, as a fraction of that of real images
    precision: float
    precision_real: float
    recall: float
    recall_real: float
    memorisation: float  # distance to the nearest training image, over that to the nearest held-out one
    memorisation_real: float

    def table(self) -> list[str]:
        low, high = (max(0.0, self.frechet + side * 1.96 * self.frechet_error) for side in (-1, 1))
        judged = [] if self.accuracy is None else [
            ("digit accuracy", f"{self.accuracy:.1%}", f"{self.accuracy_real:.1%}"),
            ("  the judge's calibration error", f"{self.calibration:.3f}", f"{self.calibration_real:.3f}"),
        ]  # fmt: skip
        rows = [("", "generated", "real"), *judged] + [
            ("Frechet distance", f"{self.frechet:.2f}", f"{self.frechet_floor:.2f} +- {self.frechet_floor_std:.2f}"),
            ("  95 % interval (bootstrap)", f"{low:.2f} to {high:.2f}", ""),
            ("  ratio to the floor", f"{self.frechet / self.frechet_floor:.2f}", "1"),
            ("diversity within a class", f"{self.diversity:.1%}", "100%"),
            ("precision", f"{self.precision:.3f}", f"{self.precision_real:.3f}"),
            ("recall", f"{self.recall:.3f}", f"{self.recall_real:.3f}"),
            ("memorisation ratio", f"{self.memorisation:.3f}", f"{self.memorisation_real:.3f}"),
        ]
        return table(rows)

    def notes(self) -> list[str]:
        return [f"real: {self.n} images against the rest of the split; features: {self.features}"]


def evaluate(
    pipe: TextToImage, n: int = 1000, *, split: str = "test", scale: float | None = None,
    sampler: str = DEFAULT_SAMPLER, steps: int = 20, seed: int = 0, labels: str | None = None,
    inception: Path | None = None, features: judges.Features | None = None, progress=lambda iterable, **_: iterable,
) -> LabelledReport:  # fmt: skip
    """Generate n images and compare them with real ones of `split`, which training never saw.

    The classes asked for are those of n real images, which are measured like the generated ones; the rest of the split
    is what both are compared with. labels: a data set with classes, None for the model's. features: the space to
    measure in; or inception: the file with Inception's weights; None for the judge's, which knows digits only.
    progress: wraps the loop, such as tqdm. Raises UserError if n does not fit the split, or the judge the classes.
    """
    labels = labels or pipe.config.labels
    digits = labels == "mnist"
    if inception:
        features = judges.inception(inception, pipe.device)
    elif not digits and features is None:
        raise UserError(f"the judge reads digits, not {labels}: measure in Inception's features, with --inception")
    dataset = choose(labels, data.labelled(), "labels")
    real = dataset.load(split)
    if not 65 <= n <= len(real) // 2:
        raise UserError(f"n must lie between 65 (a covariance of 64 features) and {len(real) // 2}, got {n}")
    scale = pipe.config.scale if scale is None else scale
    order = torch.randperm(len(real), generator=torch.Generator().manual_seed(seed))
    one, rest = order[:n], order[n:]  # the real images that play the generator's part, and what all are compared with
    wanted = real.labels[one]

    prompts = [dataset.classes[label] for label in wanted.tolist()]
    images = drawn(pipe, prompts, seed, progress, steps=steps, scale=scale, sampler=sampler)

    measured = dict.fromkeys(("accuracy", "accuracy_real", "calibration", "calibration_real"))
    if digits:
        judge, clouds = load_classifier("judge", pipe.device), []
        for name, shown, asked in (("", images, wanted), ("_real", real.images, real.labels)):
            seen, answers = judges.judged(judge, shown)
            clouds.append(seen)
            measured["accuracy" + name] = fraction(answers == asked)
            confidence = judge.classify(seen.float().to(pipe.device)).softmax(1).amax(1).cpu()
            measured["calibration" + name] = metrics.calibration_error(confidence, answers == asked)
    fake, known = (features(images), features(real.images)) if features else clouds
    train = dataset.load("train").images
    for name, shown, cloud in (("", images, fake), ("_real", real.images[one], known[one])):
        measured["precision" + name], measured["recall" + name] = metrics.precision_recall(known[rest[:n]], cloud)
        measured["memorisation" + name] = metrics.memorisation(shown, train, real.images[rest])
    measured["frechet_floor"], measured["frechet_floor_std"] = metrics.floor(known, n, seed=seed)
    return LabelledReport(
        model=pipe.config.name, n=n, split=split, seed=seed, scale=scale, sampler=sampler, steps=steps,
        features="Inception's" if features else "the judge's", machine=machine(pipe.device),
        frechet=metrics.frechet(fake, known[rest]),
        frechet_error=float(metrics.bootstrap(lambda rows: metrics.frechet(rows, known[rest]), fake, seed=seed).std()),
        diversity=metrics.diversity(fake, wanted) / metrics.diversity(known[one], wanted),
        **measured,
    )  # fmt: skip


@cache
def labelled_evaluation(name: str) -> Evaluation:
    """That of the data set with classes `name`."""
    about = "accuracy, Frechet distance, diversity, precision and recall, memorisation"
    return Evaluation(about, partial(evaluate, labels=name), dataset=name)
