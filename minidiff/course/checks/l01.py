"""Exercises of lesson 01, corruption."""

import math

import torch
from torch import Tensor

from minidiff.course.checks.exercise import Bug, exercise

# Pixels for a network -----------------------------------------------------------------------


def to_model(pixels: Tensor) -> Tensor:
    return pixels.double() / 127.5 - 1


exercise(
    "l01_to_model",
    to_model,
    lambda d: (d.uniform(0, 255, *d.choose("shape", [(5,), (2, 3), d.sizes("B C H W")]), digits=0).to(torch.uint8),),
    (
        Bug(
            lambda pixels: (pixels * 2).double() / 255 - 1,
            "bytes that overflow: 2 * 128 is 0 in uint8, which ends at 255.",
            "the order: make floats of the bytes first, then compute.",
            "light pixels come out dark, with hard edges where 127 turns into 128.",
        ),
        Bug(
            lambda pixels: pixels.double() / 255,
            "pictures in [0, 1] where [-1, 1] is expected.",
            "the last operation: noise is symmetric around 0, so the picture should be too.",
            "everything comes out washed out and gray, and black is never reached.",
            "https://github.com/labmlai/annotated_deep_learning_paper_implementations/issues/241",
        ),
        Bug(
            lambda pixels: pixels.double() / 255 - 0.5,
            "pictures in [-0.5, 0.5]: centred, but half as large as they should be.",
            "the divisor, which should be half of 255.",
            "the noise takes over too early, since every picture has half its contrast.",
        ),
        Bug(
            lambda pixels: pixels.double() / 128 - 1,
            "a division by 128 instead of 127.5: white becomes 0.992, not 1.",
            "the divisor: 0 to 255 has its middle at 127.5.",
            "white is a shade too dark. The eye does not notice, but a saved picture differs from the one that was loaded.",
        ),
        Bug(
            lambda pixels: (pixels - 127.5).double(),
            "pixels that were centred but not divided: they run from -127.5 to 127.5.",
            "the size of the numbers: noise has standard deviation 1 and would hardly show.",
            "the corrupted picture looks clean until the very end.",
        ),
        Bug(
            lambda pixels: (pixels / 127.5).to(torch.uint8).double() - 1,
            "whole numbers where fractions are needed: all grays fall on -1, 0 or 1.",
            "the dtype: change it to float before you divide, and do not change it back.",
            "three gray levels are left, like a bad photocopy.",
        ),
    ),
    returns="a tensor of floats, in the shape of `pixels`",
)


# One step of the forward process ------------------------------------------------------------


def one_step(x: Tensor, eps: Tensor, beta: float) -> Tensor:
    return math.sqrt(1 - beta) * x + math.sqrt(beta) * eps


exercise(
    "l01_one_step",
    one_step,
    lambda d: (*d.images(2), d.number_in("beta", 0, 1)),
    (
        Bug(
            lambda x, eps, beta: math.sqrt(1 - beta) * x + beta * eps,
            "beta where its square root belongs: beta is a variance, but noise is multiplied by a standard deviation.",
            "the factor in front of eps.",
            "almost no noise arrives, and after a thousand steps the picture has faded to gray instead of turned to noise.",
            "https://github.com/acids-ircam/diffusion_models/issues/1",
        ),
        Bug(
            lambda x, eps, beta: (1 - beta) * x + math.sqrt(beta) * eps,
            "1 - beta where its square root belongs, in front of the picture.",
            "the factor in front of x: its square and the square of the other must add up to 1.",
            "the picture fades too fast, and the noise ends weaker than standard deviation 1.",
        ),
        Bug(
            lambda x, eps, beta: (1 - beta) * x + beta * eps,
            "a blend of picture and noise, (1 - beta) and beta, without the two square roots.",
            "both factors: it is their squares that add up to 1.",
            "the picture turns gray rather than noisy.",
        ),
        Bug(
            lambda x, eps, beta: x + math.sqrt(beta) * eps,
            "noise added to a picture that is not shrunk.",
            "the factor in front of x, which makes room for the noise that comes.",
            "pixel values grow from step to step and saturate in black and white.",
            "https://github.com/MinkaiXu/GeoDiff/issues/18",
        ),
        Bug(
            lambda x, eps, beta: math.sqrt(beta) * x + math.sqrt(1 - beta) * eps,
            "the two factors swapped: the square root of beta belongs to the noise.",
            "which factor stands in front of x.",
            "after a single step nothing but noise is left.",
        ),
        Bug(
            lambda x, eps, beta: math.sqrt(1 - beta) * x - math.sqrt(beta) * eps,
            "noise taken away where it should be added.",
            "the sign in front of eps.",
            "there is no visible effect, since -eps is as likely as eps. But the network is then taught the wrong sign.",
        ),
    ),
    returns="a tensor of the shape of `x`, (B, C, H, W)",
)


# The closed form, with one time for every picture -------------------------------------------


def _per_picture(value: Tensor) -> Tensor:
    return value.reshape(-1, 1, 1, 1)


def add_noise(x0: Tensor, eps: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    return _per_picture(alpha) * x0 + _per_picture(sigma) * eps


exercise(
    "l01_add_noise",
    add_noise,
    lambda d: (*(images := d.images(2)), *d.coefficients(len(images[0]))[1:]),
    (
        Bug(
            lambda x0, eps, alpha, sigma: _per_picture(alpha).sqrt() * x0 + _per_picture(sigma) * eps,
            "a root drawn of alpha, as papers do that call its square alpha.",
            "the factor in front of x0. In this course alpha is the factor itself.",
            "pictures that are too clear under the noise at every time.",
        ),
        Bug(
            lambda x0, eps, alpha, sigma: _per_picture(alpha).sqrt() * x0 + _per_picture(1 - alpha).sqrt() * eps,
            "alpha taken for alpha-bar: roots are drawn of it and of 1 - alpha, and sigma is not used.",
            "both factors. In this course alpha and sigma are the factors themselves.",
            "the noise comes too late, and is too weak at intermediate times.",
        ),
        Bug(
            lambda x0, eps, alpha, sigma: alpha * x0 + sigma * eps,
            "silent broadcasting: (B,) times (B, C, H, W) multiplies columns, not pictures, and raises no error if W is B.",
            "the shapes of alpha and sigma: they need to be (B, 1, 1, 1).",
            "the left edge is clean and the right edge noisy, in every picture alike.",
            "https://github.com/IrisRainbowNeko/HCP-Diffusion/pull/82",
        ),
        Bug(
            lambda x0, eps, alpha, sigma: alpha.reshape(-1, 1) * x0 + sigma.reshape(-1, 1) * eps,
            "silent broadcasting: (B, 1) times (B, C, H, W) multiplies rows, not pictures, and raises no error if H is B.",
            "the shapes of alpha and sigma: they need to be (B, 1, 1, 1).",
            "the upper edge is clean and the lower edge noisy, in every picture alike.",
        ),
        Bug(
            lambda x0, eps, alpha, sigma: _per_picture(sigma) * x0 + _per_picture(alpha) * eps,
            "alpha and sigma swapped: alpha belongs to the picture.",
            "which factor stands in front of x0.",
            "at t = 0 there is only noise, and at t = 1 the clean picture.",
        ),
        Bug(
            lambda x0, eps, alpha, sigma: _per_picture(alpha) * x0 + _per_picture(sigma) ** 2 * eps,
            "a variance where a standard deviation belongs: sigma is squared.",
            "the factor in front of eps.",
            "the noise comes too late and is too weak at intermediate times.",
            "https://github.com/huggingface/diffusion-models-class/issues/18",
        ),
        Bug(
            lambda x0, eps, alpha, sigma: _per_picture(alpha) ** 2 * x0 + _per_picture(sigma) * eps,
            "alpha-bar where alpha belongs: alpha is squared.",
            "the factor in front of x0. In this course alpha is the factor itself.",
            "the pictures are too dim at every time.",
            "https://github.com/ermongroup/ddim/issues/44",
        ),
        Bug(
            lambda x0, eps, alpha, sigma: alpha[0] * x0 + sigma[0] * eps,
            "one time for the whole batch: all pictures get that of the first.",
            "how alpha and sigma are indexed.",
            "all pictures of a batch are equally noisy.",
            "https://github.com/Stability-AI/StableCascade/issues/142",
        ),
        Bug(
            lambda x0, eps, alpha, sigma: x0 + _per_picture(sigma) * eps,
            "noise added to a picture that is not shrunk: alpha is not used.",
            "the factor in front of x0.",
            "the picture never vanishes: at t = 1 it still shows through.",
        ),
    ),
    returns="a tensor of the shape of `x0`, (B, C, H, W)",
    points=2,
)
