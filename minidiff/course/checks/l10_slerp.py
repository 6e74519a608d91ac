"""The exercise of lesson 10 about interpolation on a sphere."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from minidiff.course.checks.catch import catch
from minidiff.course.checks.exercise import Bug, exercise

AXES = (1, 2, 3)  # over which a picture's numbers are summed


def slerp(a: Tensor, b: Tensor, amount: float) -> Tensor:
    return _at(_angle(a, b, AXES), a, b, amount)


def _angle(a: Tensor, b: Tensor, axes: tuple[int, ...]) -> Tensor:
    length = [x.square().sum(axes, keepdim=True).sqrt() for x in (a, b)]
    return ((a * b).sum(axes, keepdim=True) / (length[0] * length[1])).acos()


def _at(angle: Tensor, a: Tensor, b: Tensor, amount: float) -> Tensor:
    return (((1 - amount) * angle).sin() * a + (amount * angle).sin() * b) / angle.sin()


def _of_angle(how: Callable[[Tensor, Tensor], Tensor]) -> Callable:
    """The formula with another angle, computed from (a, b)."""
    return lambda a, b, amount: _at(how(a, b), a, b, amount)


def _length(x: Tensor) -> Tensor:
    return x.square().sum(AXES, keepdim=True).sqrt()


def _chord(a, b, amount):
    line = torch.lerp(a, b, amount)
    return line / _length(line) * torch.lerp(_length(a), _length(b), amount)


def _without_sine(a, b, amount):
    angle = _angle(a, b, AXES)
    return ((1 - amount) * angle).sin() * a + (amount * angle).sin() * b


def _right_angle(a, b, amount):
    quarter = torch.tensor(torch.pi / 2, dtype=a.dtype)
    return ((1 - amount) * quarter).sin() * a + (amount * quarter).sin() * b


exercise(
    "l10_slerp",
    slerp,
    lambda d: (*d.images(2), d.number_in("amount", 0, 1)),
    (
        Bug(
            lambda a, b, amount: torch.lerp(a, b, amount),
            "the straight line. It cuts through the sphere: halfway, noise has lost nearly a third of its length.",
            "the weights: sines of angles.",
            "pale and empty in the middle of the row.",
            "https://github.com/soumith/dcgan.torch/issues/14",
        ),
        Bug(
            _chord,
            "the straight line, with its length brought back. It has the right length, and another pace: fast in the middle.",
            "the weights: sines of angles.",
            "nearly the same pictures, unevenly spaced.",
        ),
        Bug(
            _of_angle(lambda a, b: _angle(a, b, (0, 1, 2, 3))),
            "one angle for the whole batch.",
            "the axes that are summed: all but the first. Each picture has an angle of its own.",
            "there is hardly any effect with large pictures, where all angles are nearly right angles; but a picture changes with the rest of its batch.",
        ),
        Bug(
            _of_angle(lambda a, b: _angle(a, b, (1,))),
            "an angle for each pixel.",
            "the axes that are summed: all but the first.",
            "stains: some pixels change early, others late.",
        ),
        Bug(
            _of_angle(lambda a, b: _angle(a, b, (3,))),
            "an angle for each row of a picture.",
            "the axes that are summed: all but the first.",
            "stripes: some rows change early, others late.",
        ),
        Bug(
            _of_angle(lambda a, b: _angle(a, b, (2, 3))),
            "an angle for each channel.",
            "the axes that are summed: all but the first.",
            "colours that change earlier than shapes, or later.",
        ),
        Bug(
            _of_angle(lambda a, b: (a * b).sum(AXES, keepdim=True).acos()),
            "an angle between vectors that were not divided by their lengths. Their product is no cosine then.",
            "what goes into `acos`.",
            "NaN: there is no angle with a cosine above 1.",
        ),
        Bug(
            _of_angle(lambda a, b: (a * b).sum(AXES, keepdim=True) / (_length(a) * _length(b))),
            "the cosine in place of the angle: an `acos` is missing.",
            "what goes into the sines.",
            "noise of a wrong length: grain, or fog.",
        ),
        Bug(
            lambda a, b, amount: slerp(b, a, amount),
            "a way that begins at its end: at amount 0 there should be a.",
            "which of the two has the weight with 1 - amount.",
            "the row the other way round.",
        ),
        Bug(
            _without_sine,
            "weights that were not divided by the sine of the whole angle.",
            "what you get at amount 0: it should be a.",
            "there is no visible effect with noise, whose angles are nearly right angles; with latents of pictures, pale colours.",
        ),
        Bug(
            lambda a, b, amount: slerp(a / _length(a), b / _length(b), amount),
            "directions without lengths: the result has the length 1.",
            "what the weights are multiplied with: a and b as they came.",
            "nearly no noise to begin with: flat and empty.",
        ),
        Bug(
            lambda a, b, amount: (1 - amount) ** 0.5 * a + amount**0.5 * b,
            "roots as weights. They keep the length if the angle is right, but the pace is another.",
            "the weights: sines of angles.",
            "nearly the same pictures, unevenly spaced.",
        ),
        Bug(
            _right_angle,
            "an angle that was taken to be right, without looking.",
            "the angle: it comes from a and b.",
            "there is no visible effect with noise; between latents of two pictures, glaring or pale colours halfway.",
        ),
    ),
    returns="a tensor of the shape of `a`, (B, C, H, W)",
    points=3,
)


# A test of it -------------------------------------------------------------------------------


def on_the_arc(slerp: Callable) -> bool:
    """Between two vectors of one length and known angle all is known; and each image must have its own angle."""
    a, b = torch.zeros(2, 3, 2, 2, 2)
    a[:, 0, 0, 0] = 5.0
    for k, angle in enumerate((0.5, 1.5, 2.5)):
        b[k, 0, 0, 0], b[k, 1, 1, 1] = 5 * math.cos(angle), 5 * math.sin(angle)
    for amount in (0.0, 0.3, 1.0):
        found = slerp(a, b, amount)
        for k, angle in enumerate((0.5, 1.5, 2.5)):
            right = torch.tensor([5 * math.cos(amount * angle), 5 * math.sin(amount * angle)])
            if not torch.allclose(torch.stack([found[k, 0, 0, 0], found[k, 1, 1, 1]]), right, atol=1e-2):
                return False
    return True


catch("l10_catch", "l10_slerp", on_the_arc, points=2)
