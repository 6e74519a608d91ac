"""Exercises of lesson 02 that are averages: of the points one could be looking at, and of the weights."""

from collections.abc import Callable
from itertools import count

import torch
from torch import Tensor

from minidiff.course.checks.cases import Draw, once
from minidiff.course.checks.exercise import Bug, exercise

# The best guess there is --------------------------------------------------------------------


def best_guess(x: Tensor, points: Tensor, alpha: float, sigma: float) -> Tensor:
    return torch.softmax(-_squares(x, alpha * points) / (2 * sigma**2), dim=1) @ points


def _squares(x: Tensor, points: Tensor) -> Tensor:
    """Squared distances, (B, N)."""
    return (x[:, None] - points[None]).square().sum(2)


def _guess_given(d: Draw):
    b, n, size = d.sizes("B N D")
    points = d.normal(n, size)
    points[0] = points[-1] if d.choose("points", {"": False, "two equal points": n > 2}) else points[0]
    return d.normal(b, size), points, *(float(value) for value in d.coefficients(low=0.4)[1:])


exercise(
    "l02_best_guess",
    best_guess,
    _guess_given,
    (
        Bug(
            lambda x, points, alpha, sigma: points[_squares(x, alpha * points).argmin(1)],
            "the nearest point alone. The best guess is a mean over all points, each weighted by its probability.",
            "how the distances become weights.",
            "sharp pictures from the first step on, and every one of them out of the training data.",
        ),
        Bug(
            lambda x, points, alpha, sigma: torch.softmax(-_squares(x, points) / (2 * sigma**2), dim=1) @ points,
            "distances to the points themselves; but x lies near one that has been shrunk.",
            "the distance: it goes from x to alpha * point.",
            "estimates that are pulled toward points too near the centre.",
        ),
        Bug(
            lambda x, points, alpha, sigma: torch.softmax(-_squares(x, alpha * points) / sigma**2, dim=1) @ points,
            "sigma**2 where the exponent of a Gaussian has 2 * sigma**2.",
            "the divisor in the exponent.",
            "estimates that are a little too confident.",
        ),
        Bug(
            lambda x, points, alpha, sigma: torch.softmax(-_squares(x, alpha * points) / (2 * sigma), dim=1) @ points,
            "a standard deviation where the variance belongs: sigma is not squared.",
            "the divisor in the exponent.",
            "estimates that are too vague, most of all where there is little noise.",
        ),
        Bug(
            lambda x, points, alpha, sigma: points.mean(0).expand(len(x), -1),
            "the plain mean of all points, wherever x is.",
            "the weights: they should depend on the distance.",
            "the same blurry picture for every x and at every t.",
        ),
        Bug(
            lambda x, points, alpha, sigma: (
                torch.softmax(-_squares(x, alpha * points) / (2 * sigma**2), dim=0) @ points
            ),
            "weights that add up to 1 over the batch: the softmax runs along the wrong axis.",
            "the axis of the softmax: for each x, the weights of the N points add up to 1.",
            "estimates that change with the rest of the batch.",
            "https://github.com/labmlai/annotated_deep_learning_paper_implementations/issues/146",
        ),
        Bug(
            lambda x, points, alpha, sigma: (
                torch.softmax(-_squares(x, alpha * points).sqrt() / (2 * sigma**2), dim=1) @ points
            ),
            "the distance where its square belongs.",
            "the exponent: no root.",
            "estimates that give too much weight to points far away.",
        ),
        Bug(
            lambda x, points, alpha, sigma: torch.softmax(_squares(x, alpha * points) / (2 * sigma**2), dim=1) @ points,
            "a missing minus sign: the points farthest away weigh most.",
            "the sign in the exponent.",
            "estimates on the opposite side of the cloud.",
        ),
        Bug(
            lambda x, points, alpha, sigma: (
                torch.softmax(-_squares(x, alpha * points) / (2 * sigma**2), dim=1) @ (alpha * points)
            ),
            "a mean of the shrunk points: this is alpha * x0_hat.",
            "what the weights are multiplied with: the points themselves.",
            "pictures that fade to gray as t grows.",
        ),
        Bug(
            lambda x, points, alpha, sigma: torch.exp(-_squares(x, alpha * points) / (2 * sigma**2)) @ points,
            "weights that do not add up to 1.",
            "what comes after exp: divide by the sum over the points, which is what softmax does.",
            "pictures much too bright where many points are near, and dark where none is.",
        ),
    ),
    returns="a tensor (B, D)",
    points=3,
)


# The average of the weights -----------------------------------------------------------------


def ema(begin: Callable, n: int, decay: float) -> dict[str, Tensor]:
    return _average(begin, n, decay, lambda weights: {name: weight.clone() for name, weight in weights.items()})


def _average(begin: Callable, n: int, decay: float, start: Callable) -> dict[str, Tensor]:
    """start: the weights before training -> the first mean."""
    weights, training_step = begin()
    mean = start(weights)
    for _ in range(n):
        training_step()
        for name in mean:
            mean[name] = decay * mean[name] + (1 - decay) * weights[name]
    return mean


def _begin(d: Draw) -> Callable[[], tuple[dict[str, Tensor], Callable]]:
    """A network of two tensors and an optimizer that changes them in place."""
    bias, weight = d.normal(2), 1 + d.normal(2, 2)

    def begin():
        weights = {"bias": bias.clone(), "weight": weight.clone()}
        tensors, steps = list(weights.values()), count(1)

        def training_step() -> None:
            step = next(steps)
            for tensor in tensors:
                tensor.mul_(0.8).add_(step / 2)

        return weights, training_step

    return begin


def _same_tensors_in_place(begin, n, decay):
    weights, training_step = begin()
    mean = dict(weights)
    for _ in range(n):
        training_step()
        for name in mean:
            mean[name].mul_(decay).add_((1 - decay) * weights[name])
    return mean


def _last_weights(begin, n, decay):
    weights, training_step = begin()
    for _ in range(n):
        training_step()
    return weights


def _before_the_step(begin, n, decay):
    weights, training_step = begin()
    mean = {name: weight.clone() for name, weight in weights.items()}
    for _ in range(n):
        for name in mean:
            mean[name] = decay * mean[name] + (1 - decay) * weights[name]
        training_step()
    return mean


def _plain_mean(begin, n, decay):
    weights, training_step = begin()
    total = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    for _ in range(n):
        training_step()
        for name in total:
            total[name] = total[name] + weights[name]
    return {name: value / n for name, value in total.items()}


def _once_at_the_end(begin, n, decay):
    weights, training_step = begin()
    start = {name: weight.clone() for name, weight in weights.items()}
    for _ in range(n):
        training_step()
    return {name: decay * start[name] + (1 - decay) * weights[name] for name in start}


exercise(
    "l02_ema",
    ema,
    lambda d: (once("begin", _begin(d)), d.whole("n", 1, 5), d.number_in("decay", 0, 1)),
    (
        Bug(
            _last_weights,
            "the last weights, not an average: the mean shares its memory with the weights, so that the two are always equal.",
            "how the mean begins: every tensor needs a `clone`.",
            "as if there were no average: samples change from one checkpoint to the next.",
            "https://github.com/huggingface/diffusers/issues/2321",
        ),
        Bug(
            lambda begin, n, decay: _average(begin, n, decay, lambda weights: weights),
            "one dict under two names: `mean = weights` copies nothing, and writing the mean cuts the dict off from training.",
            "how the mean begins: a new dict, with a `clone` of every tensor.",
            "a network that seems to have stopped learning after the first step.",
        ),
        Bug(
            lambda begin, n, decay: _average(begin, n, decay, dict),
            "an average that begins with the weights after the first step: a copied dict still holds the same tensors, "
            "and that step changes them in place.",
            "how the mean begins: every tensor needs a `clone`, before training starts.",
            "there is hardly any effect after many steps, but a mean that is updated in place would ruin training.",
        ),
        Bug(
            _same_tensors_in_place,
            "a mean that shares its memory with the weights and is updated in place: every update shrinks the network itself.",
            "how the mean begins: every tensor needs a `clone`.",
            "the loss falls late or not at all, since the weights are pulled towards 0 after every step.",
        ),
        Bug(
            lambda begin, n, decay: ema(begin, n, 1 - decay),
            "decay swapped: it is the weight of the old mean.",
            "which of the two decay belongs to.",
            "as if there were no average: it follows the weights at every step.",
        ),
        Bug(
            _before_the_step,
            "a mean taken before the step: the last one is never in it.",
            "the order of the two lines in your loop.",
            "there is no visible effect, since a step is small; but a run of one step returns the random start.",
        ),
        Bug(
            _plain_mean,
            "a plain mean of the weights after every step.",
            "the update: what is older should count less, by the factor decay a step.",
            "noise or blur, since the first weights, which are random, count as much as the last.",
        ),
        Bug(
            lambda begin, n, decay: _average(
                begin, n, decay, lambda weights: {name: torch.zeros_like(weight) for name, weight in weights.items()}
            ),
            "a mean that starts from zeros.",
            "how the mean begins: with the weights before training.",
            "with a decay of 0.999 it takes thousands of steps to forget the zeros, and samples are gray until then.",
        ),
        Bug(
            _once_at_the_end,
            "an update after training, where there should be one after every step.",
            "which lines are inside the loop.",
            "noise: nearly all of the mean is still the random start.",
            "https://github.com/huggingface/diffusers/issues/5783",
        ),
    ),
    returns="a dict with the names of `weights`, of tensors",
    points=2,
)
