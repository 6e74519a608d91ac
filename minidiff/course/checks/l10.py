"""Exercises of lesson 10, latents: from a latent back to pixels. The others: l10_*.py."""

from collections.abc import Callable

import torch
from torch import Tensor

from minidiff.course.checks.exercise import Bug, exercise


def picture(z: Tensor, decode: Callable[[Tensor], Tensor], scaling: float) -> Tensor:
    return _pixels(decode(z / scaling))


def _pixels(x: Tensor) -> Tensor:
    return ((x + 1) / 2).clamp(0, 1)


def decoder(z: Tensor) -> Tensor:
    """Stands for a VAE's decoder: (B, c, h, w) -> (B, c, 2 h, 2 w); as with a real one, some pixels leave [-1, 1]."""
    large = z.repeat_interleave(2, 2).repeat_interleave(2, 3)
    return 1.3 * torch.tanh(large - 0.2 * large.flip(3)) + 0.1


def _stretched(z, decode, scaling):
    x = decode(z / scaling)
    low, high = x.amin((1, 2, 3), keepdim=True), x.amax((1, 2, 3), keepdim=True)
    return (x - low) / (high - low)


def _shown(how: Callable[[Tensor], Tensor]) -> Callable:
    """Decoded as it should be, and brought to [0, 1] in another way."""
    return lambda z, decode, scaling: how(decode(z / scaling))


exercise(
    "l10_picture",
    picture,
    lambda d: (
        *d.images(1),
        decoder,
        d.choose("scaling", {"scaling = 0.5": 0.5, "scaling = 0.18215": 0.18215, "scaling = 1.3": 1.3}),
    ),
    (
        Bug(
            lambda z, decode, scaling: _pixels(decode(z)),
            "latents that were decoded as they are. The decoder knows those of before the scaling.",
            "what you hand to `decode`.",
            "the right shapes in dull gray, or in glaring colours where the scaling is above 1.",
            "https://github.com/AILab-CVC/CV-VAE/issues/4",
        ),
        Bug(
            lambda z, decode, scaling: _pixels(decode(z * scaling)),
            "the scaling the wrong way: the encoder multiplies by it, so the decoder divides by it.",
            "the sign between z and `scaling`.",
            "very low contrast: at 0.18215 the decoder's input is a thirtieth of what it should be.",
            "https://github.com/Project-MONAI/GenerativeModels/pull/214",
        ),
        Bug(
            lambda z, decode, scaling: _pixels(decode(z / scaling / scaling)),
            "a division by the scaling that was done twice.",
            "how often `scaling` stands in your line.",
            "glaring colours and burst edges.",
        ),
        Bug(
            lambda z, decode, scaling: _pixels(decode(z) / scaling),
            "pixels that were divided by the scaling. It belongs to the latents.",
            "what you divide: before `decode`, not behind it.",
            "black and white with little between.",
            "https://github.com/priyammaz/PyTorch-Adventures/issues/4",
        ),
        Bug(
            lambda z, decode, scaling: _pixels(decode(z.clamp(-1, 1) / scaling)),
            "latents that were clamped to [-1, 1], as if they were pixels. They have no such limits.",
            "what you clamp: the picture, at the end.",
            "strong colours turn pale.",
        ),
        Bug(
            _shown(lambda x: (x + 1) / 2),
            "a picture that was not clamped: a decoder leaves [-1, 1] here and there.",
            "the last thing you do before you return.",
            "specks of the opposite colour, where 1.01 times 255 runs over into 2.",
        ),
        Bug(
            _shown(lambda x: x.clamp(0, 1)),
            "a picture in [-1, 1] that was taken for one in [0, 1]: all that is darker than gray is cut off.",
            "the step from -1, 1 to 0, 1: a shift and a factor.",
            "deep shadows; gray becomes black.",
        ),
        Bug(
            _shown(lambda x: x.clamp(-1, 1)),
            "a picture that is still in [-1, 1].",
            "the step from -1, 1 to 0, 1: a shift and a factor.",
            "black, or wild colours, wherever it is darker than gray.",
        ),
        Bug(
            _shown(lambda x: (x + 1).clamp(0, 1)),
            "a shift without the factor: all that is lighter than gray becomes white.",
            "what you do after the shift.",
            "an overexposed picture.",
        ),
        Bug(
            _shown(lambda x: (x / 2).clamp(0, 1)),
            "the factor without the shift.",
            "where -1 ends up: at 0.",
            "a picture at half its brightness, the dark half of it black.",
        ),
        Bug(
            _shown(lambda x: (x + 1 / 2).clamp(0, 1)),
            "a missing bracket: x + 1 / 2 is x + 0.5.",
            "where -1 ends up, and where 1 does.",
            "too much contrast: shadows black, lights white.",
        ),
        Bug(
            _shown(lambda x: (x.clamp(0, 1) + 1) / 2),
            "a clamp to [0, 1] that came before the shift: half of the values are lost.",
            "the order: shift and factor first, then clamp.",
            "fog: nothing is darker than gray.",
        ),
        Bug(
            _shown(lambda x: x.sigmoid()),
            "a sigmoid in place of a shift, a factor and a clamp.",
            "where -1 ends up: at 0, not at 0.27.",
            "neither black nor white anywhere.",
        ),
        Bug(
            _stretched,
            "each picture stretched from its own smallest value to its largest.",
            "what is subtracted and divided by: the same for all pictures.",
            "one burst pixel makes all the others pale, and an animation flickers.",
        ),
    ),
    returns="a tensor (B, C, H, W)",
)
