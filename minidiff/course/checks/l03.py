"""Exercises of lesson 03, sampling: a single step. The loop is in l03_walk.py."""

from collections.abc import Callable

import torch
from torch import Tensor

from minidiff.course.checks.cases import Draw
from minidiff.course.checks.catch import catch
from minidiff.course.checks.exercise import Bug, exercise


def _given(d: Draw, tensors: int) -> tuple[Tensor, ...]:
    """Tensors of one shape; alpha and sigma at a time, and at an earlier one, which may be the end."""
    t = d.uniform(0.05, 1, 2).sort(descending=True).values
    t[1] *= d.choose("to", {"": 0.9, "the last step, to sigma_to = 0": 0.0})
    _, alpha, sigma = d.at(t)
    return *d.images(tensors), alpha[0], sigma[0], alpha[1], sigma[1]


# torch.sqrt takes no plain number


# DDPM's ancestral step ----------------------------------------------------------------------


def _added(alpha, sigma, alpha_to, sigma_to):
    return sigma**2 - (alpha / alpha_to * sigma_to) ** 2


def _mean(x, x0_hat, alpha, sigma, alpha_to, sigma_to):
    keep, pull = alpha / alpha_to * sigma_to**2, alpha_to * _added(alpha, sigma, alpha_to, sigma_to)
    return (keep * x + pull * x0_hat) / sigma**2


def _std(alpha, sigma, alpha_to, sigma_to):
    return _added(alpha, sigma, alpha_to, sigma_to).sqrt() * sigma_to / sigma


def ancestral_step(x, x0_hat, noise, alpha, sigma, alpha_to, sigma_to) -> Tensor:
    at = alpha, sigma, alpha_to, sigma_to
    return _mean(x, x0_hat, *at) + _std(*at) * noise


def _ancestral(mean: Callable = _mean, std: Callable = _std) -> Callable:
    return lambda x, x0_hat, noise, *at: mean(x, x0_hat, *at) + std(*at) * noise


exercise(
    "l03_ancestral_step",
    ancestral_step,
    lambda d: _given(d, 3),
    (
        Bug(
            _ancestral(std=lambda *at: _added(*at).sqrt()),
            "noise added at the last step too: its standard deviation is that of the forward step, which is not 0 at sigma_to = 0.",
            "the factor of the noise: it should have sigma_to in it, and so vanish with it.",
            "a grain lies over the finished picture.",
            "https://github.com/TeaPearce/Conditional_Diffusion_MNIST/issues/10",
        ),
        Bug(
            _ancestral(std=lambda *at: _added(*at).sqrt() * (at[-1] > 0)),
            "the large variance, that of the forward step, in place of the small one, that of the posterior.",
            "the factor of the noise: sigma_to / sigma is missing.",
            "there is no visible effect with many steps; with few, specks of noise stay around the strokes.",
            "https://github.com/zoubohao/DenoisingDiffusionProbabilityModel-ddpm-/issues/18",
        ),
        Bug(
            _ancestral(std=lambda *at: _std(*at) ** 2),
            "a variance where a standard deviation belongs.",
            "the factor of the noise: take the root.",
            "too little noise comes back, and strokes come out too bold and too smooth.",
        ),
        Bug(
            _ancestral(std=lambda alpha, sigma, alpha_to, sigma_to: sigma_to),
            "all the noise of the new level put on top of the mean, which still holds most of the old noise.",
            "the factor of the noise: it only makes up for the noise that the mean has lost.",
            "broken strokes: x has more noise in it than its time says.",
        ),
        Bug(
            _ancestral(std=lambda *at: 0.0),
            "the mean alone, without fresh noise.",
            "the argument `noise`: it is not used.",
            "bold, smooth shapes: x has less noise in it than its time says.",
        ),
        Bug(
            _ancestral(mean=lambda x, x0_hat, *at: _mean(x0_hat, x, *at)),
            "the mean's two factors swapped between x and x0_hat.",
            "which factor goes to 0 with sigma_to: it stands in front of x, since nothing noisy may be left at the end.",
            "a grain over thin strokes: the last step returns x, noise and all.",
        ),
        Bug(
            _ancestral(mean=lambda x, x0_hat, a, s, a_to, s_to: a_to * x0_hat, std=lambda *at: at[-1]),
            "x0_hat noised from scratch: x itself is forgotten at every step.",
            "the argument x: the mean lies between x and x0_hat.",
            "digits still, but not DDPM's: every step starts a new picture, and the trajectory flickers.",
        ),
        Bug(
            lambda x, x0_hat, noise, a, s, a_to, s_to: ancestral_step(x, x0_hat, noise, a_to**2 / a, s, a_to, s_to),
            "alpha / alpha_to upside down.",
            "the ratio: what the forward step keeps is less than 1, and alpha is the smaller of the two.",
            "no picture at all: the numbers grow without end, or there is the root of a negative one.",
        ),
    ),
    returns="a tensor of the shape of `x`",
    points=2,
)


# DDIM ---------------------------------------------------------------------------------------


def ddim_step(x, x0_hat, alpha, sigma, alpha_to, sigma_to) -> Tensor:
    return alpha_to * x0_hat + sigma_to * (x - alpha * x0_hat) / sigma


exercise(
    "l03_ddim_step",
    ddim_step,
    lambda d: _given(d, 2),
    (
        Bug(
            lambda x, x0_hat, a, s, a_to, s_to: a_to * x0_hat + s_to * (x - a * x0_hat),
            "eps_hat without its division by sigma.",
            "how eps_hat is read from x = alpha * x0_hat + sigma * eps_hat.",
            "the noise fades too fast, and strokes come out too bold and too smooth.",
        ),
        Bug(
            lambda x, x0_hat, a, s, a_to, s_to: ddim_step(
                x, x0_hat, a.sqrt(), (1 - a).sqrt(), a_to.sqrt(), (1 - a_to).sqrt()
            ),
            "alpha taken for alpha-bar: roots are drawn of it, and sigma is made from it.",
            "the formula you started from: in the DDIM paper alpha means alpha-bar. Here alpha and sigma are the factors.",
            "the noise is taken away at the wrong pace, and specks of it stay all over the picture.",
            "https://github.com/lucidrains/denoising-diffusion-pytorch/issues/81",
        ),
        Bug(
            lambda x, x0_hat, a, s, a_to, s_to: a_to * x0_hat + s * (x - a * x0_hat) / s,
            "the old sigma in front of eps_hat: the noise never gets less.",
            "the factor of eps_hat: it is that of the time you go to.",
            "noise, at the end as at the start.",
        ),
        Bug(
            lambda x, x0_hat, a, s, a_to, s_to: a * x0_hat + s_to * (x - a * x0_hat) / s,
            "the old alpha in front of x0_hat: the picture lags one step behind the noise.",
            "the factor of x0_hat: it is that of the time you go to.",
            "gray and broken: the picture is too faint at every step.",
        ),
        Bug(
            lambda x, x0_hat, a, s, a_to, s_to: a_to * x0_hat + s_to * x,
            "x in place of the noise.",
            "what stands behind sigma_to: x holds the picture too, so take that out first.",
            "strokes too thin or too bold: the noise is too weak and has a ghost of the picture in it.",
        ),
        Bug(
            lambda x, x0_hat, a, s, a_to, s_to: ddim_step(x, x0_hat, a, s, s_to, a_to),
            "x0_hat and eps_hat swapped in the last line: alpha_to belongs to the picture.",
            "which factor stands in front of x0_hat.",
            "a pattern of black and white: the last step returns the noise and not the picture.",
        ),
        Bug(
            lambda x, x0_hat, a, s, a_to, s_to: a_to * x0_hat,
            "x0_hat without noise: nothing is put back.",
            "the second half of the sum, sigma_to * eps_hat.",
            "bold, smooth strokes: from the first step on there is no noise for the network to see through.",
        ),
        Bug(
            lambda x, x0_hat, a, s, a_to, s_to: a_to * x0_hat + s_to * (x - x0_hat) / s,
            "x0_hat taken away from x at full strength, where x holds only alpha times as much.",
            "the numerator of eps_hat.",
            "a gray weave: a negative of the picture sits in the noise and eats at it from step to step.",
        ),
    ),
    returns="a tensor of the shape of `x`",
)


# Heun ---------------------------------------------------------------------------------------


def heun_step(slope, x, t, t_to) -> Tensor:
    here = slope(x, t)
    return x + (t_to - t) * (here + slope(x + (t_to - t) * here, t_to)) / 2


def _slope(x: Tensor, t: Tensor) -> Tensor:
    """sin(2 x) + x t^2"""
    return torch.sin(2 * x) + x * t**2


exercise(
    "l03_heun_step",
    heun_step,
    lambda d: (_slope, *d.images(1), *d.uniform(0, 1, 2)),
    (
        Bug(
            lambda slope, x, t, t_to: x + (t_to - t) * slope(x, t),
            "an Euler step: there is only one slope.",
            "the second slope, at the point where Euler's step would end.",
            "twice the steps only halve the error, where Heun's would fall to a quarter.",
        ),
        Bug(
            lambda slope, x, t, t_to: x + (t_to - t) * (slope(x, t) + slope(x + (t_to - t) * slope(x, t), t)) / 2,
            "a second slope at the old time.",
            "the time in the second call: that point is reached at t_to.",
            "the cost of Heun with the order of Euler: twice the steps only halve the error.",
            "https://github.com/huggingface/diffusers/pull/1512",
        ),
        Bug(
            lambda slope, x, t, t_to: x + (t_to - t) * (slope(x, t) + slope(x, t_to)) / 2,
            "a second slope at the old x.",
            "the first argument of the second call: step there first, with the first slope.",
            "the cost of Heun with the order of Euler: twice the steps only halve the error.",
        ),
        Bug(
            lambda slope, x, t, t_to: x + 2 * (heun_step(slope, x, t, t_to) - x),
            "two slopes added up and not averaged: the step is twice too long.",
            "the factor 1/2 in front of their sum.",
            "the trajectory overshoots, and strokes come out too bold.",
        ),
        Bug(
            lambda slope, x, t, t_to: x + (t_to - t) * slope(x + (t_to - t) / 2 * slope(x, t), (t + t_to) / 2),
            "the midpoint method: the slope is taken halfway. It is second order too and a good answer, but not Heun's.",
            "where the second slope is taken, at the end of the step, and average it with the first.",
            "there is no visible effect: with equal steps the method is about as good.",
        ),
        Bug(
            lambda slope, x, t, t_to: heun_step(lambda y, s: -slope(y, s), x, t, t_to),
            "a step in the wrong direction: t - t_to where t_to - t belongs.",
            "the sign of the step's length, which is negative when you go toward the data.",
            "noise grows instead of shrinking.",
        ),
        Bug(
            lambda slope, x, t, t_to: x + (t_to - t) * slope(x + (t_to - t) * slope(x, t), t_to),
            "only the second slope used: the first found the point, then was forgotten.",
            "the average: both slopes count half.",
            "as far off as Euler, to the other side: first order.",
        ),
    ),
    returns="a tensor of the shape of `x`",
    points=2,
)


# A test of DDIM's step ----------------------------------------------------------------------


def stays_on_the_path(ddim_step: Callable) -> bool:
    x0, eps = 2 * torch.randn(2, 2, 3, 4)
    for numbers in ((0.6, 0.8, 0.96, 0.28), (0.5, 0.5, 0.8, 0.2), (0.8, 0.6, 1.0, 0.0)):
        alpha, sigma, alpha_to, sigma_to = torch.tensor(numbers)
        x_to = ddim_step(alpha * x0 + sigma * eps, x0, alpha, sigma, alpha_to, sigma_to)
        if not torch.allclose(x_to, alpha_to * x0 + sigma_to * eps, atol=1e-3):
            return False
    return True


catch("l03_catch", "l03_ddim_step", stays_on_the_path, points=2)
