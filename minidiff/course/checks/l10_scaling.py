"""The exercise of lesson 10 about the scaling factor."""

from collections.abc import Callable

from torch import Tensor

from minidiff.course.checks.cases import Draw
from minidiff.course.checks.exercise import Bug, exercise


def scaling(mean: Tensor, log_variance: Tensor) -> Tensor:
    return 1 / (mean.var(correction=0) + log_variance.exp().mean()).sqrt()


def _of_variance(how: Callable[[Tensor, Tensor], Tensor]) -> Callable:
    """1 / root of another variance, computed from (mean, log_variance)."""
    return lambda mean, log_variance: 1 / how(mean, log_variance).sqrt()


def _each_pictures_own(mean, log_variance):
    spreads = (mean.flatten(1).var(1, correction=0) + log_variance.exp().flatten(1).mean(1)).sqrt()
    return 1 / spreads.mean()


def _given(d: Draw):
    # channels of different means, so that it matters what is taken off, and many numbers, so that n or n - 1 does not
    n, c = d.sizes("N C", N=(6, 8), C=(3, 4))
    spread, shift = d.choose("spread", [3.0, 0.8, 0.2]), d.normal(1, c, 1, 1) + d.normal(1)
    return spread * d.normal(n, c, 8, 8) + 2 * shift, d.normal(n, c, 8, 8) + d.choose("log_variance", [0.0, -1.0, -6.0])


exercise(
    "l10_scaling",
    scaling,
    _given,
    (
        Bug(
            lambda mean, log_variance: 1 / scaling(mean, log_variance),
            "the standard deviation itself, not the factor that makes it 1.",
            "the last line: multiply its result by the standard deviation, and you should get 1.",
            "latents whose standard deviation is farther from 1 than without any scaling.",
            "https://github.com/hpcaitech/Open-Sora/issues/838",
        ),
        Bug(
            lambda mean, log_variance: scaling(mean, log_variance) ** 2,
            "one over the variance. Scaled with it, latents of variance 9 get the variance 1/9.",
            "the root: a factor changes the variance by its square.",
            "latents that drown in noise too early.",
        ),
        Bug(
            _of_variance(lambda mean, log_variance: mean.var(correction=0)),
            "the standard deviation of the means alone. A sampled latent has the posterior's noise as well.",
            "the argument `log_variance`: it is not used.",
            "there is no visible effect as long as the posterior is narrow; where it is wide, the latents are too large.",
        ),
        Bug(
            _of_variance(lambda mean, log_variance: mean.square().mean() + log_variance.exp().mean()),
            "the root of the mean square: the overall mean was not taken off.",
            "what is squared: how far a number is from the mean of all.",
            "latents that are a little too small, if their mean is not 0.",
        ),
        Bug(
            _of_variance(lambda mean, log_variance: mean.square().mean()),
            "the root of the mean square of the means: neither their mean was taken off, nor the posterior's noise counted.",
            "both: what is squared, and the argument `log_variance`.",
            "a standard deviation that is near 1 by accident.",
        ),
        Bug(
            _of_variance(
                lambda mean, log_variance: mean.var((0, 2, 3), correction=0) + log_variance.exp().mean((0, 2, 3))
            ),
            "a factor for each channel. Some models do that, but here one factor serves all channels.",
            "the axes over which you average: all of them.",
            "there is no visible effect; but a file of Stable Diffusion has one number.",
        ),
        Bug(
            _of_variance(
                lambda mean, log_variance: mean.var((0, 2, 3), correction=0).mean() + log_variance.exp().mean()
            ),
            "each channel's own mean subtracted. The means differ, and that is part of the overall standard deviation.",
            "which mean is taken off: one for all numbers.",
            "latents that are a little too large.",
        ),
        Bug(
            _each_pictures_own,
            "the mean of each picture's standard deviation, which leaves out the differences between pictures.",
            "the order: one mean and one variance over all pictures, then the root.",
            "latents that are too large, most of all where pictures are simple.",
        ),
        Bug(
            lambda mean, log_variance: 1 / (mean.std(correction=0) + (log_variance / 2).exp().mean()),
            "standard deviations that were added. Of independent parts the variances add up.",
            "what you add.",
            "latents that are too small.",
        ),
        Bug(
            _of_variance(lambda mean, log_variance: mean.var(correction=0) + (2 * log_variance).exp().mean()),
            "log-variances that were taken for logarithms of standard deviations, and squared.",
            "the exponential: of a log-variance it is the variance.",
            "latents that are too small, if the posterior is wide.",
        ),
        Bug(
            _of_variance(lambda mean, log_variance: mean.var(correction=0) + (log_variance / 2).exp().mean()),
            "a variance with a standard deviation added to it.",
            "the exponential: half of the log-variance makes the root.",
            "there is hardly any effect: the factor is a little off.",
        ),
        Bug(
            _of_variance(lambda mean, log_variance: mean.var(correction=0) + log_variance.mean()),
            "log-variances that were added as if they were variances.",
            "the exponential: it is missing.",
            "NaN or glaring latents, if the posterior is narrow: the logarithms are far below 0.",
        ),
        Bug(
            _of_variance(lambda mean, log_variance: log_variance.exp().mean()),
            "the posterior's own width alone, that is, how unsure the encoder is of one number.",
            "the argument `mean`: it is not used.",
            "latents that are scaled up many times: noise never gets hold of them.",
        ),
        Bug(
            lambda mean, log_variance: 1 / mean.abs().amax(),
            "the largest value scaled to 1, as with pixels. Noise has the standard deviation 1, not the range 1.",
            "what is to be 1: the standard deviation.",
            "latents that drown in noise too early; and one odd picture more changes the factor.",
        ),
    ),
    returns="one number",
    points=2,
)
