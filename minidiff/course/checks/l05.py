"""Exercises of lesson 05, the UNet: how it embeds the time, and how it normalises."""

import math

import torch
from torch import Tensor

from minidiff.course.checks.cases import Draw
from minidiff.course.checks.exercise import Bug, exercise

# Time as waves ------------------------------------------------------------------------------


def time_embedding(t: Tensor, dim: int) -> Tensor:
    return _waves(1000 * t, dim // 2)


def _waves(time: Tensor, half: int, divisor: float | None = None, factor: float = 1.0, sign: int = -1) -> Tensor:
    angles = _angles(time, half, divisor, sign) * factor
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


def _angles(time: Tensor, half: int, divisor: float | None = None, sign: int = -1) -> Tensor:
    rates = torch.exp(sign * math.log(10_000) / (divisor or half) * torch.arange(half, dtype=torch.float64))
    return time[:, None] * rates


exercise(
    "l05_time_embedding",
    time_embedding,
    lambda d: (d.uniform(0, 1, *d.sizes("B"), digits=4), 2 * d.whole("dim / 2", 1, 4)),
    (
        Bug(
            lambda t, dim: _waves(t, dim // 2),
            "t itself in the waves, which were made for times up to 1000.",
            "what the rates are multiplied by: between 0 and 1 even the fastest wave makes only a sixth of a turn.",
            "in the shipped model, loose specks: to the network every step looks like the last one.",
            "https://github.com/sihyun-yu/REPA/issues/40",
        ),
        Bug(
            lambda t, dim: _waves(1000 * t, dim // 2).roll(dim // 2, dims=-1),
            "the sines first.",
            "the order in which the two halves are joined: cosines first. Either will do, if the weights have learned it.",
            "there is no visible effect in a network trained this way; in the shipped model, scribbles and grain, since its weights meet each wave in the wrong position.",
            "https://github.com/flashinfer-ai/flashinfer/pull/3819",
        ),
        Bug(
            lambda t, dim: _waves(1000 * t, dim // 2, dim // 2 - 1),
            "the exponent divided by half - 1: the slowest wave comes out exactly 10,000 times slower than the fastest.",
            "the divisor of the exponent. Papers differ here; this course, like Stable Diffusion, divides by half.",
            "there is no visible effect in a network trained this way; in the shipped model, too many strokes, all too bold, since every time is slightly wrong.",
            "https://github.com/kohya-ss/sd-scripts/pull/1187",
        ),
        Bug(
            lambda t, dim: _waves(1000 * t, dim // 2, dim),
            "the exponent divided by dim where half of it is meant: the slowest wave is too fast.",
            "the divisor of the exponent: there are dim / 2 waves.",
            "in the shipped model, faint digits in grain.",
        ),
        Bug(
            lambda t, dim: torch.stack(
                [_angles(1000 * t, dim // 2).cos(), _angles(1000 * t, dim // 2).sin()], dim=-1
            ).flatten(1),
            "cosine and sine in turns.",
            "how they are joined: all cosines, then all sines.",
            "there is no visible effect in a network trained this way; in the shipped model, scribbles and grain.",
            "https://github.com/huggingface/diffusers/issues/3981",
        ),
        Bug(
            lambda t, dim: _waves(1000 * t, dim // 2, factor=math.pi / 180),
            "angles taken for degrees: they were multiplied by pi / 180.",
            "the angles: torch's cos and sin take radians.",
            "in the shipped model, loose specks: the waves turn 57 times too slowly.",
        ),
        Bug(
            lambda t, dim: _waves(1000 * t, dim // 2, factor=2 * math.pi),
            "rates taken for turns: there is a factor of 2 pi.",
            "the angles: time times rate, and nothing else.",
            "in the shipped model, digits under grain.",
        ),
        Bug(
            lambda t, dim: _waves((1000 * t).floor(), dim // 2),
            "time cut down to a whole number.",
            "where time is made an integer: here it is continuous.",
            "there is no visible effect: the time is wrong by less than a thousandth.",
            "https://github.com/NVlabs/DiffusionNFT/issues/42",
        ),
        Bug(
            lambda t, dim: _waves(1000 * t, dim // 2, sign=1),
            "rates that grow: from 1 to nearly 10,000 turns where they should fall.",
            "the sign in the exponent.",
            "in the shipped model, scribbles and grain. Such a network could not be trained either: neighbouring times look unrelated.",
            "https://github.com/harvardnlp/annotated-transformer/issues/131",
        ),
        Bug(
            lambda t, dim: _angles(1000 * t, dim // 2).repeat(1, 2).cos(),
            "cosines in both halves.",
            "the second half: the sines tell on which side of a cosine's hill you are.",
            "in the shipped model, digits under grain; a wave alone cannot tell on which side of its hill it is.",
        ),
    ),
    returns="a tensor (B, dim)",
)


# GroupNorm ----------------------------------------------------------------------------------


def group_norm(x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    return _affine(_normed(x, groups, eps), weight, bias)


def _affine(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return x * weight[:, None, None] + bias[:, None, None]


def _normed(x: Tensor, groups: int, eps: float, dims=(2, 3, 4), correction: int = 0) -> Tensor:
    parts = x.reshape(x.shape[0], groups, -1, *x.shape[2:])  # (B, G, C / G, H, W)
    var, mean = torch.var_mean(parts, dim=dims, keepdim=True, correction=correction)
    return ((parts - mean) / (var + eps).sqrt()).reshape(x.shape)


def _eps_outside(x, groups, weight, bias, eps) -> Tensor:
    parts = x.reshape(x.shape[0], groups, -1)
    var, mean = torch.var_mean(parts, dim=2, keepdim=True, correction=0)
    return _affine(((parts - mean) / (var.sqrt() + eps)).reshape(x.shape), weight, bias)


def _no_root(x, groups, weight, bias, eps) -> Tensor:
    parts = x.reshape(x.shape[0], groups, -1)
    var, mean = torch.var_mean(parts, dim=2, keepdim=True, correction=0)
    return _affine(((parts - mean) / (var + eps)).reshape(x.shape), weight, bias)


def _no_mean(x, groups, weight, bias, eps) -> Tensor:
    parts = x.reshape(x.shape[0], groups, -1)
    return _affine((parts / (parts.square().mean(2, keepdim=True) + eps).sqrt()).reshape(x.shape), weight, bias)


def _every_other(x, groups, weight, bias, eps) -> Tensor:
    order = torch.arange(x.shape[1]).reshape(-1, groups).T.flatten()  # group 0 gets channels 0, G, 2 G, ...
    return _affine(_normed(x[:, order], groups, eps)[:, order.argsort()], weight, bias)


def _group_norm_given(d: Draw):
    b, groups, each, h, w = d.sizes("B G K H W", G=(1, 3), K=(1, 3))
    x = d.choose("size", [2.0, 0.3, 10.0]) * d.normal(b, groups * each, h, w) + d.normal(1)
    if d.choose("content", {"": False, "a group of one value": True}):
        x[0, :each] = 0.5
    return x, groups, 1 + d.normal(groups * each), d.normal(groups * each), d.choose("eps", [0.1, 0.01, 1e-5])


exercise(
    "l05_group_norm",
    group_norm,
    _group_norm_given,
    (
        Bug(
            lambda x, groups, weight, bias, eps: _affine(_normed(x, x.shape[1], eps), weight, bias),
            "one mean for every channel: that is instance norm.",
            "how many channels have a mean in common: C / groups of them.",
            "in the shipped model, digits broken into pieces, in front of a grid.",
            "https://github.com/onnx/onnx-tensorrt/pull/1052",
        ),
        Bug(
            lambda x, groups, weight, bias, eps: _affine(_normed(x, 1, eps), weight, bias),
            "one mean for a whole picture: the groups are not used.",
            "the axes of the mean: each group has its own.",
            "in the shipped model, gray digits behind a grid.",
            "https://github.com/brainpy/BrainPy/issues/765",
        ),
        Bug(
            lambda x, groups, weight, bias, eps: _affine(_normed(x, groups, eps, dims=(0, 2, 3, 4)), weight, bias),
            "a mean over the batch: a picture then depends on its neighbours.",
            "the axes of the mean: the first one, the batch, stays.",
            "a picture that changes with what else is in the batch, and is another one when drawn alone.",
            "https://github.com/sonos/tract/pull/2863",
        ),
        Bug(
            lambda x, groups, weight, bias, eps: _affine(_normed(x, groups, eps, dims=2), weight, bias),
            "a mean of its own at every pixel.",
            "the axes of the mean: height and width belong to them.",
            "in the shipped model, noise: flat areas become as strong as strokes.",
            "https://github.com/pytorch/pytorch/issues/75862",
        ),
        Bug(
            _every_other,
            "groups made of every other channel: the channels of a group lie side by side.",
            "the reshape: (B, groups, C / groups, H, W), in this order.",
            "there is no visible effect in a network trained this way; in the shipped model, gray digits behind a grid.",
            "https://github.com/tenstorrent/tt-metal/pull/56202",
        ),
        Bug(
            lambda x, groups, weight, bias, eps: _affine(_normed(x, groups, eps, correction=1), weight, bias),
            "the unbiased variance, with n - 1 below: torch's var has it unless told otherwise.",
            "the variance: divide by n (correction=0).",
            "there is no visible effect: a group has hundreds of values. Against another library, results differ after the third digit.",
            "https://github.com/pytorch/pytorch/issues/22617",
        ),
        Bug(
            _eps_outside,
            "eps added outside of the root.",
            "the denominator: the root of (variance + eps).",
            "there is no visible effect, until a group is nearly constant.",
            "https://github.com/taokong/group_normalization/issues/1",
        ),
        Bug(
            _no_root,
            "a division by the variance.",
            "the denominator: the standard deviation is its root.",
            "in the shipped model, nothing but black: what is strong is made weak.",
            "https://github.com/rinuboney/ladder/issues/17",
        ),
        Bug(
            _no_mean,
            "RMS norm, a division alone: the mean was never taken away.",
            "the numerator.",
            "there is little effect in a network trained this way; in the shipped model, gray shapes on gray.",
        ),
        Bug(
            lambda x, groups, weight, bias, eps: _normed(x, groups, eps),
            "weight and bias forgotten.",
            "the last line: every channel has a scale and a shift of its own.",
            "in the shipped model, doubled strokes full of grain.",
        ),
        Bug(
            lambda x, groups, weight, bias, eps: _normed(_affine(x, weight, bias), groups, eps),
            "weight and bias before the normalisation, which undoes a part of them.",
            "the order: normalise, then scale and shift.",
            "in the shipped model, strokes too bold, and specks around them.",
        ),
    ),
    returns="a tensor of the shape of `x`, (B, C, H, W)",
)
