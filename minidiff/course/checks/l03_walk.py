"""Exercises of lesson 03, continued: the loop, and how good it is."""

from collections.abc import Callable

import torch
from torch import Tensor

from minidiff.course.checks.cases import Draw
from minidiff.course.checks.exercise import Bug, exercise

# The loop -----------------------------------------------------------------------------------


def sample(denoise, step, x, times, *, told=0, first=0, last=None, back=None) -> Tensor:
    """The right loop, with places in which to plant a mistake."""
    start = x
    stops = times[first:last]
    for now, to in zip(stops, stops[1:], strict=False):
        x0_hat = denoise(start if back == "start" else x, (now, to, times[0])[told])
        x = step(x0_hat if back == "x0_hat" else x, x0_hat, now, to)
    return x0_hat if back == "answer" else x


def _loop(**mistake) -> Callable:
    return lambda denoise, step, x, times: sample(denoise, step, x, times, **mistake)


def _toy_denoise(x: Tensor, t: Tensor) -> Tensor:
    return torch.tanh(x / (0.3 + t))


def _toy_step(x: Tensor, x0_hat: Tensor, t: Tensor, t_to: Tensor) -> Tensor:
    return x0_hat + (t_to + 0.1) / (t + 0.1) * (x - x0_hat)  # sigma = t + 0.1: some noise is left at t = 0


exercise(
    "l03_walk",
    lambda denoise, step, x, times: sample(denoise, step, x, times),
    lambda d: (
        _toy_denoise,
        _toy_step,
        *d.images(1),
        d.uniform(0, 1, d.whole("n", 1, 4) + 1, digits=3).sort(descending=True).values,
    ),
    (
        Bug(
            lambda denoise, step, x, times: sample(denoise, step, x, torch.cat([times, times.new_zeros(1)])),
            "a step too many: from the last time on to 0, which was not asked for.",
            "where the loop ends: at the last of `times`, whatever it is.",
            "there is no visible effect where the times end at 0; elsewhere a picture that is cleaner than it should be.",
        ),
        Bug(
            lambda denoise, step, x, times: sample(lambda z, t: denoise(x, times[0]), step, x, times),
            "a denoiser that was called once, before the loop: every step uses its first answer.",
            "which lines are inside of the loop: after each step the network looks again.",
            "the blurry mean of all that is possible, as from a single step.",
        ),
        Bug(
            _loop(last=-1),
            "a loop without its last step.",
            "where the loop ends: n + 1 times are n steps, and the last of them reaches the last time.",
            "a little noise is left on every picture, more of it the fewer steps there are.",
            "https://github.com/huggingface/diffusers/pull/6477",
        ),
        Bug(
            _loop(first=1),
            "a loop without its first step.",
            "where the loop begins: the first step leaves from times[0].",
            "there is little effect with many steps; with few, specks of noise that the network mistook for strokes.",
            "https://github.com/huggingface/diffusers/issues/2585",
        ),
        Bug(
            _loop(told=1),
            "a denoiser that is given the time it goes to, not the time of x.",
            "the time in the call of denoise: one off.",
            "the network takes noise for picture and leaves some of it standing, more with few steps.",
            "https://github.com/CompVis/latent-diffusion/issues/136",
        ),
        Bug(
            _loop(told=2),
            "a denoiser that is given the first time at every step.",
            "the time in the call of denoise: it should fall with x.",
            "a blurred average: the network treats everything as noise.",
        ),
        Bug(
            _loop(back="start"),
            "a denoiser that is shown the starting noise at every step.",
            "the first argument of denoise: the new x has to go back in.",
            "noise: the network is told that less and less of it is left, but always gets all of it.",
        ),
        Bug(
            _loop(back="x0_hat"),
            "x0_hat handed on as if it were the noisy picture.",
            "the first argument of step, which is x.",
            "strokes get thinner with every step, until nothing is left.",
        ),
        Bug(
            _loop(back="answer"),
            "the last x0_hat returned instead of x.",
            "your last line: the loop has reached x.",
            "there is no visible effect if the last time is 0, where both are the same; a loop that ends earlier jumps to a clean picture.",
        ),
        Bug(
            lambda denoise, step, x, times: sample(denoise, step, x, times.flip(0)),
            "a loop in the wrong direction, from the last time to the first.",
            "the order of the times: they fall, from noise to data.",
            "noise, or no picture at all: a step that leaves from sigma = 0 divides by it.",
        ),
    ),
    returns="a tensor of the shape of `x`",
)


# The order of convergence -------------------------------------------------------------------


def _fit(x: Tensor, y: Tensor) -> Tensor:
    x = x - x.mean()
    return (x * y).sum() / x.square().sum()


def order(steps: Tensor, errors: Tensor) -> Tensor:
    return -_fit(steps.log(), errors.log())


def _order_given(d: Draw):
    """Errors of a power law; in most cases they obey it only nearly, as real ones do."""
    (n,) = d.sizes("N", N=(3, 6))
    steps = torch.tensor(d.random.sample(range(2, 65), n), dtype=torch.float64)
    power = d.choose("order", [1.0, 2.0, 1.5, 4.0])
    scatter = d.choose("scatter", {"errors of an exact law": 0.0, "errors of no exact law": 0.3})
    errors = d.random.uniform(0.1, 5) * steps**-power * (scatter * d.normal(n)).exp()
    return steps, errors


exercise(
    "l03_order",
    order,
    _order_given,
    (
        Bug(
            lambda steps, errors: _fit(steps.log(), errors.log()),
            "the slope itself, which is negative: errors fall.",
            "the sign.",
            "there is no visible effect, except for the minus in front of the number.",
        ),
        Bug(
            lambda steps, errors: -_fit(steps, errors),
            "a slope without logarithms: that of the curve, not of the straight line on logarithmic axes.",
            "both inputs: log(error) = -order * log(steps) + constant.",
            "a number near 0, whatever the sampler.",
        ),
        Bug(
            lambda steps, errors: -_fit(steps, errors.log()),
            "a logarithm of the errors only: exponential decay would be a line then, a power is not.",
            "the steps, which need a logarithm too.",
            "on such axes the points lie on a curve.",
        ),
        Bug(
            lambda steps, errors: -_fit(steps.log(), errors.log2()),
            "two kinds of logarithm mixed, to the base 2 and to the base e.",
            "the two logarithms: any base will do, if it is the same.",
            "order 1.44 where it is 1, and 2.89 where it is 2.",
        ),
        Bug(
            lambda steps, errors: (errors[0] / errors[1]).log2(),
            "the ratio of two errors in base 2: right only if the second took twice as many steps.",
            "the steps, which your answer does not use.",
            "there is no visible effect as long as every run doubles the steps.",
        ),
        Bug(
            lambda steps, errors: -1 / _fit(steps.log(), errors.log()),
            "the slope upside down: log steps against log errors.",
            "which of the two is divided by which: errors stand upright, steps lie.",
            "order 0.5 where it is 2; at order 1 the two agree.",
        ),
    ),
    returns="one number",
    points=3,
)
