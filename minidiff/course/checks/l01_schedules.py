"""Exercises of lesson 01 about schedules."""

import math

import torch
from torch import Tensor

from minidiff.course.checks.cases import Draw
from minidiff.course.checks.exercise import Bug, exercise

# A table of alphas --------------------------------------------------------------------------


def alphas(betas: Tensor) -> Tensor:
    return torch.cumprod(1 - betas, dim=0).sqrt()


def _alphas_given(d: Draw):
    most = d.choose("betas", {"small betas": 0.02, "": 0.5, "a last beta of 1": 0.9})
    betas = d.uniform(0, most, *d.sizes("N"), digits=3)
    betas[-1] = 1.0 if most == 0.9 else betas[-1]
    return (betas,)


exercise(
    "l01_alphas",
    alphas,
    _alphas_given,
    (
        Bug(
            lambda betas: torch.cumprod(1 - betas, dim=0),
            "alpha-bar where alpha was asked for: the root is missing.",
            "the end of your line: alpha squared is alpha-bar.",
            "the picture vanishes in half the time.",
        ),
        Bug(
            lambda betas: (1 - betas).sqrt(),
            "the factor of each step alone, not of all steps until then.",
            "how the steps combine: each multiplies what the ones before have left.",
            "even the last picture is hardly noisy.",
        ),
        Bug(
            lambda betas: 1 - betas,
            "1 - beta, DDPM's lower-case alpha of a single step: neither multiplied up nor under a root.",
            "how the steps combine, and then the root.",
            "even the last picture is hardly noisy.",
            "https://github.com/yang-song/score_sde_pytorch/issues/73",
        ),
        Bug(
            lambda betas: (1 - torch.cumsum(betas, dim=0)).sqrt(),
            "betas added up where factors should be multiplied.",
            "the running sum: two steps of 0.5 leave a quarter, not nothing.",
            "the picture is gone long before the last step, and then there is the root of a negative number.",
        ),
        Bug(
            lambda betas: torch.cat([torch.ones(1).to(betas), torch.cumprod(1 - betas, dim=0)[:-1]]).sqrt(),
            "a table that begins one step too early: its first entry is the clean picture.",
            "entry 0, which should already have the first beta in it.",
            "there is no visible effect in one picture, but the sampler's last step does nothing and leaves a little noise.",
            "https://github.com/lucidrains/denoising-diffusion-pytorch/issues/18",
        ),
        Bug(
            lambda betas: (1 - torch.cumprod(betas, dim=0)).sqrt(),
            "a product of the betas; it is the 1 - beta that multiply.",
            "what stands inside the product.",
            "there is hardly any noise in any picture.",
        ),
        Bug(
            lambda betas: (1 - torch.cumprod(1 - betas, dim=0)).sqrt(),
            "sigma where alpha was asked for: this is what has come, not what is left.",
            "the outer `1 -`.",
            "the process runs backwards, from noise to picture.",
        ),
    ),
    returns="a tensor (N)",
    points=2,
)


# The same noise on another schedule ---------------------------------------------------------


def cosine_time(snr: Tensor) -> Tensor:
    return torch.atan(snr**-0.5) * 2 / math.pi


exercise(
    "l01_cosine_time",
    cosine_time,
    lambda d: (10 ** d.uniform(-4, 4, *d.sizes("N"), digits=1),),
    (
        Bug(
            lambda snr: torch.atan(1 / snr) * 2 / math.pi,
            "the SNR taken for alpha / sigma; it is that ratio squared.",
            "the root, which should come before the arctangent.",
            "pictures that should look equally noisy do not, except in the middle.",
        ),
        Bug(
            lambda snr: torch.atan(snr**0.5) * 2 / math.pi,
            "the ratio upside down: the tangent of the angle is sigma / alpha.",
            "the sign of the exponent.",
            "the clean pictures get the noisy times.",
        ),
        Bug(
            lambda snr: torch.atan(snr**-0.5),
            "the angle itself, from 0 to pi / 2, where the time from 0 to 1 was asked for.",
            "the last factor: at t = 1 the angle is pi / 2.",
            "pictures are too noisy, and the times run beyond 1.",
        ),
        Bug(
            lambda snr: torch.atan(snr**-0.5) / math.pi,
            "an angle divided by pi, where it ends at pi / 2.",
            "the last factor: it is 2 / pi.",
            "the times never pass one half, and no picture gets noisy.",
        ),
        Bug(
            lambda snr: torch.rad2deg(torch.atan(snr**-0.5)) / 90 * 2 / math.pi,
            "degrees and radians mixed.",
            "the last factor: either 2 / pi for radians, or 1 / 90 for degrees.",
            "all pictures are cleaner than asked for.",
        ),
    ),
    returns="a tensor (N)",
    points=3,
)
