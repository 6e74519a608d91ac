"""The exercise of lesson 10 about Stable Diffusion's asymmetric padding."""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

from minidiff.course.checks.cases import Draw
from minidiff.course.checks.exercise import Bug, exercise


def smaller(x: Tensor, weight: Tensor) -> Tensor:
    return _padded(0, 1, 0, 1)(x, weight)


def _padded(left: int, right: int, above: int, below: int, **options) -> Callable:
    """The convolution behind other padding."""
    return lambda x, weight: F.conv2d(F.pad(x, (left, right, above, below), **options), weight, stride=2)


def _given(d: Draw):
    b, c, h, w, out = d.sizes("B C H W E", E=(1, 3))
    return d.normal(b, c, 2 * h, 2 * w), d.normal(out, c, 3, 3)


exercise(
    "l10_smaller",
    smaller,
    _given,
    (
        Bug(
            _padded(1, 1, 1, 1),
            "padding on the left and above, alone or on all four sides as nearly every convolution has it. Of sides that are"
            " even, the last row and column of that are never reached; the shape is right, and every window lies one pixel off.",
            "the left edge and the top: nothing is added there. The four numbers of `pad` are left, right, above, below.",
            "Stable Diffusion's weights load without a word, and pictures come back shifted by some pixels.",
            "https://github.com/divamgupta/stable-diffusion-tensorflow/pull/42",
        ),
        Bug(
            _padded(0, 1, 1, 0),
            "padding on the right and above.",
            "the last two numbers of `pad`: above, below.",
            "pictures that come back shifted downward or upward, not to the side.",
        ),
        Bug(
            _padded(1, 0, 0, 1),
            "padding on the left and below.",
            "the first two numbers of `pad`: left, right.",
            "pictures that come back shifted to the side, not downward or upward.",
        ),
        Bug(
            _padded(0, 0, 0, 0),
            "no padding at all: the last row and the last column have no window.",
            "the shape: half of each side is asked for.",
            "you may get an error: shapes do not match, or a large picture comes back smaller by some pixels.",
        ),
        Bug(
            _padded(0, 1, 0, 0),
            "padding on the right, and none below.",
            "the shape: half of the height is asked for, too.",
            "you get an error before any picture: shapes do not match.",
        ),
        Bug(
            _padded(0, 0, 0, 1),
            "padding below, and none on the right. `pad` begins with the last axis.",
            "the shape: half of the width is asked for, too.",
            "you get an error before any picture: shapes do not match.",
        ),
        Bug(
            _padded(0, 1, 0, 1, mode="replicate"),
            "the last row and column repeated, where zeros are asked for.",
            "what is added.",
            "a seam on the right and below: the weights have learned to expect zeros.",
        ),
        Bug(
            _padded(0, 1, 0, 1, mode="reflect"),
            "the picture mirrored at its edge, where zeros are asked for.",
            "what is added.",
            "a seam on the right and below: the weights have learned to expect zeros.",
        ),
        Bug(
            _padded(0, 1, 0, 1, mode="circular"),
            "the first row and column added behind the last ones, as if the picture were a ring.",
            "what is added: zeros.",
            "what lies on the left shimmers through on the right.",
        ),
        Bug(
            _padded(0, 1, 0, 1, value=-1.0),
            "a black edge: -1. What comes in here are features, not pixels.",
            "what is added: zeros.",
            "a seam on the right and below.",
        ),
        Bug(
            lambda x, weight: F.conv2d(F.pad(x, (0, 1, 0, 1)), weight),
            "a convolution that does not move by two: nothing gets smaller.",
            "the stride.",
            "you get an error before any picture: shapes do not match.",
        ),
        Bug(
            lambda x, weight: F.avg_pool2d(F.conv2d(x, weight, padding=1), 2),
            "a convolution at full size, and then the mean of each square of four.",
            "the stride: it is part of the convolution, and the other results are not computed.",
            "pictures that come back blurred, after four times the work.",
        ),
        Bug(
            lambda x, weight: smaller(x, weight.flip(2, 3)),
            "a kernel that was turned by half a turn, as a mathematician's convolution has it. PyTorch's does not turn it.",
            "`weight`: it goes in as it is.",
            "weights that someone else has trained make no sense.",
        ),
        Bug(
            lambda x, weight: smaller(x, weight.transpose(2, 3)),
            "a kernel with rows and columns exchanged.",
            "`weight`: it goes in as it is.",
            "weights that someone else has trained make no sense.",
        ),
    ),
    returns="a tensor (B, C', H / 2, W / 2)",
    points=2,
)
