"""Exercises of lesson 06, colour, that are about scale: larger pictures, and the average that one draws with."""

import math
from collections.abc import Callable
from itertools import count

import torch
from torch import Tensor

from minidiff.course.checks.cases import Draw, once
from minidiff.course.checks.exercise import Bug, exercise

# Times for larger pictures ------------------------------------------------------------------


def larger(t: Tensor, s: float) -> Tensor:
    return s * t / (1 + (s - 1) * t)


exercise(
    "l06_larger",
    larger,
    lambda d: (
        d.uniform(0, 0.95, *d.sizes("N")),
        d.choose("s", {"s = 2": 2.0, "s = 8": 8.0, "s = 1": 1.0, "s = 1.5": 1.5}),
    ),
    (
        Bug(
            lambda t, s: larger(t, s**2),
            "s squared. The variance of the noise is divided by s squared; its standard deviation, and so the ratio, by s.",
            "which of the two sigma is.",
            "large shapes that are still hidden where they should be seen: too many steps at high noise.",
        ),
        Bug(
            lambda t, s: larger(t, math.sqrt(s)),
            "the square root of s. The mean of s squared pixels has a standard deviation divided by s.",
            "over how many pixels you average: s times s of them.",
            "large shapes that appear too early in sampling, only less so than without a shift.",
        ),
        Bug(
            lambda t, s: larger(t, 1 / s),
            "a division by s where you should multiply: this is the time for a smaller picture.",
            "which way it goes: a larger picture needs more noise to look the same from afar.",
            "noise that never quite hides the picture: samples have the same pale layout everywhere.",
        ),
        Bug(
            lambda t, s: t,
            "the same time, unchanged.",
            "the argument `s`: it is not used.",
            "large pictures whose layout is decided in the first few steps.",
        ),
        Bug(
            lambda t, s: s * t,
            "sigma alone made larger, not the ratio of sigma to alpha: times beyond 1 come out.",
            "what should be s times as large: t / (1 - t).",
            "noise that is subtracted from a negative picture, once t is beyond 1.",
        ),
        Bug(
            lambda t, s: (s * t).clamp(max=1),
            "sigma alone made larger, and cut off at 1: what should be s times as large is the ratio of sigma to alpha.",
            "what should be s times as large: t / (1 - t).",
            "pure noise for a large part of sampling, in which nothing happens.",
        ),
        Bug(
            lambda t, s: s * t / (1 - t),
            "the ratio sigma / alpha of the larger picture, not the time at which the schedule reaches it.",
            "the last step: solve r = t / (1 - t) for t.",
            "an error from the sampler, which wants times within [0, 1].",
        ),
        Bug(
            lambda t, s: s * t / (1 + s * t),
            "a slip in the algebra: s * t / (1 + s * t), which is not 1 at t = 1.",
            "how you solved r = t / (1 - t) for t: with the ratio r = s t / (1 - t), t is r / (1 + r).",
            "sampling that starts with some picture in the noise, and ends up pale.",
        ),
        Bug(
            lambda t, s: 2 / math.pi * torch.atan(s * torch.tan(math.pi * t / 2)),
            "the right idea on another schedule, cosine.",
            "alpha and sigma: on the flow schedule they are 1 - t and t.",
            "pictures a little noisier or cleaner than their time says.",
        ),
    ),
    returns="a tensor (N)",
    points=2,
)


# The average that one draws with ------------------------------------------------------------


def album(begin: Callable, n: int, every: int, decay: float) -> Tensor:
    return _album(begin, n, every, decay)


def _average(mean: dict, weights: dict, decay: float, whole: bool = True) -> None:
    for name, weight in weights.items():
        if weight.is_floating_point():
            mean[name] = decay * mean[name] + (1 - decay) * weight
        elif whole:
            mean[name] = weight.clone()


def _copy(weights: dict) -> dict:
    return {name: weight.clone() for name, weight in weights.items()}


def _album(begin, n, every, decay, start: Callable = _copy, update: Callable = _average) -> Tensor:
    """start: the weights before training -> the first mean. update: changes the mean."""
    weights, training_step, draw = begin()
    mean, pictures = start(weights), []
    for step in range(1, n + 1):
        training_step()
        update(mean, weights, decay)
        if step % every == 0:
            pictures.append(draw(mean))
    return torch.stack(pictures)


def _begin(d: Draw) -> Callable[[], tuple[dict[str, Tensor], Callable, Callable]]:
    """A network of two tensors and a counter, an optimizer that changes them in place, and a way to draw."""
    bias, scale, shift = d.normal(3), 1 + d.normal(3), d.random.randint(0, 5)

    def begin():
        weights = {"bias": bias.clone(), "scale": scale.clone(), "seen": torch.tensor(shift)}
        steps = count(1)

        def training_step() -> None:
            weights["bias"].mul_(0.8).add_(next(steps) / 2)
            weights["scale"].add_(0.3 * weights["bias"])
            weights["seen"].add_(10)

        return weights, training_step, draw

    def draw(weights: dict[str, Tensor]) -> Tensor:
        return weights["bias"] + weights["scale"] * weights["seen"] / 100

    return begin


def _training_weights(begin, n, every, decay):
    weights, training_step, draw = begin()
    pictures = []
    for step in range(1, n + 1):
        training_step()
        if step % every == 0:
            pictures.append(draw(weights))
    return torch.stack(pictures)


def _put_in_for_good(begin, n, every, decay):
    weights, training_step, draw = begin()
    mean, pictures = _copy(weights), []
    for step in range(1, n + 1):
        training_step()
        _average(mean, weights, decay)
        if step % every == 0:
            for name, weight in weights.items():
                weight.copy_(mean[name])
            pictures.append(draw(weights))
    return torch.stack(pictures)


def _only_when_drawing(begin, n, every, decay):
    weights, training_step, draw = begin()
    mean, pictures = _copy(weights), []
    for step in range(1, n + 1):
        training_step()
        if step % every == 0:
            _average(mean, weights, decay)
            pictures.append(draw(mean))
    return torch.stack(pictures)


def _drawn_before_the_update(begin, n, every, decay):
    weights, training_step, draw = begin()
    mean, pictures = _copy(weights), []
    for step in range(1, n + 1):
        training_step()
        if step % every == 0:
            pictures.append(draw(mean))
        _average(mean, weights, decay)
    return torch.stack(pictures)


def _everything_averaged(mean, weights, decay):
    for name, weight in weights.items():
        mean[name] = decay * mean[name] + (1 - decay) * weight


def _album_given(d: Draw):
    every = d.whole("every", 1, 3)
    return once("begin", _begin(d)), every * d.random.randint(1, 3), every, d.number_in("decay", 0, 1)


exercise(
    "l06_album",
    album,
    _album_given,
    (
        Bug(
            _training_weights,
            "pictures drawn with the weights that are in training, not with their average.",
            "what you hand to `draw`.",
            "colours that change from one checkpoint to the next, and grain that comes and goes.",
            "https://github.com/acids-ircam/diffusion_models/issues/10",
        ),
        Bug(
            _put_in_for_good,
            "an average that was copied into the weights to draw, and never taken out again: training went on from it.",
            "what is in `weights` after a picture is drawn: what was in it before.",
            "a loss that jumps up after every picture; progress is slower the more often one looks.",
            "https://github.com/harubaru/waifu-diffusion/pull/31",
        ),
        Bug(
            lambda begin, n, every, decay: _album(begin, n, every, 1 - decay),
            "decay swapped: it is the weight of the old mean.",
            "which of the two decay belongs to.",
            "as if there were no average.",
            "https://github.com/dome272/Diffusion-Models-pytorch/issues/38",
        ),
        Bug(
            _only_when_drawing,
            "an average that is updated only when a picture is drawn.",
            "which lines are inside the `if`.",
            "pictures as of the random start, long after the loss has fallen.",
        ),
        Bug(
            _drawn_before_the_update,
            "pictures drawn before the step's weights have gone into the average.",
            "the order of the two: first average, then draw.",
            "there is hardly any effect: every picture is one step late.",
        ),
        Bug(
            lambda begin, n, every, decay: _album(
                begin, n, every, decay, update=lambda *parts: _average(*parts, whole=False)
            ),
            "a counter that was forgotten: what is no floating-point number has stayed as it was before training.",
            "the tensors of whole numbers: the newest one is copied.",
            "networks with counters or running sums draw as if they had never been trained.",
            "https://github.com/pytorch/ignite/issues/2590",
        ),
        Bug(
            lambda begin, n, every, decay: _album(begin, n, every, decay, update=_everything_averaged),
            "a counter that was averaged: half a step does not exist.",
            "the tensors of whole numbers: the newest one is copied.",
            "there is hardly any effect, until code that reads the counter meets a fraction.",
            "https://github.com/YU1ut/MixMatch-pytorch/issues/27",
        ),
        Bug(
            lambda begin, n, every, decay: _album(
                begin,
                n,
                every,
                decay,
                start=lambda weights: {name: torch.zeros_like(weight) for name, weight in weights.items()},
            ),
            "an average that starts from zeros.",
            "how the average begins: with a copy of the weights before training.",
            "gray pictures, until the zeros are forgotten; with a decay of 0.9999 that takes tens of thousands of steps.",
            "https://github.com/tensorflow/tensorflow/issues/2825",
        ),
        Bug(
            lambda begin, n, every, decay: _album(begin, n, every, decay, start=dict),
            "an average that begins with the weights after the first step: a copied dict holds the same tensors, "
            "and training changes them in place.",
            "how the average begins: every tensor needs a `clone`, before training starts.",
            "there is hardly any effect after many steps, but a mean that is updated in place would ruin training.",
        ),
    ),
    returns="a tensor or a list, of one picture after the other (n / every, ...)",
    points=3,
)
