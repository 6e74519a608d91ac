"""Exercises of lesson 08, CLIP: the matrix and its loss. The others are in l08_towers.py and l08_merges.py."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from minidiff.course.checks.cases import Draw
from minidiff.course.checks.exercise import Bug, exercise

# The matrix: pictures against texts ---------------------------------------------------------


def matrix(pictures: Tensor, texts: Tensor, log_scale: Tensor) -> Tensor:
    return log_scale.exp() * _unit(pictures) @ _unit(texts).T


def _unit(z: Tensor, **norm) -> Tensor:
    return z / z.norm(**({"dim": 1, "keepdim": True} | norm))


def _compared(pictures: Callable, texts: Callable, factor: Callable = torch.exp) -> Callable[..., Tensor]:
    """The matrix from embeddings that were prepared, and a scale that was read, in another way."""
    return lambda p, t, log_scale: factor(log_scale) * pictures(p) @ texts(t).T


def _as_is(z: Tensor) -> Tensor:
    return z


def _matrix_given(d: Draw):
    b, t, size = d.sizes("B T D", T=(1, 4))
    scale = d.choose("lengths", [1.0, 0.2, 3.0])
    log_scale = d.choose("log_scale", {"log_scale = 0.5": 0.5, "log_scale = 5": 5.0, "log_scale = -1": -1.0})
    return scale * d.normal(b, size), d.normal(t, size) / scale, torch.tensor(log_scale)


# fmt: skip


exercise(
    "l08_matrix",
    matrix,
    _matrix_given,
    (
        Bug(
            _compared(_as_is, _as_is),
            "products of embeddings as long as they came: nothing was brought to length 1.",
            "the step before the product: divide every row by its length.",
            "a search that prefers what has a long embedding, whatever it shows.",
            "https://github.com/monatis/clip.cpp/issues/116",
        ),
        Bug(
            _compared(_unit, _as_is),
            "pictures of length 1, and texts as long as they came.",
            "the texts: they need the same division.",
            "captions with long embeddings win more often than they should.",
            "https://github.com/patrickjohncyh/fashion-clip/issues/31",
        ),
        Bug(
            _compared(_as_is, _unit),
            "texts of length 1, and pictures as long as they came.",
            "the pictures: they need the same division.",
            "there is no visible effect in a search by picture, but scores of different pictures cannot be compared.",
        ),
        Bug(
            _compared(lambda z: _unit(z, dim=0), lambda z: _unit(z, dim=0)),
            "embeddings normalised over the wrong axis: over the batch, for each feature.",
            "the `dim` of the norm: an embedding is a row, so its length runs over dim 1.",
            "the match of a picture changes with the other pictures of its batch.",
            "https://github.com/alireza-nasiri/SoundCLR/issues/4",
        ),
        Bug(
            _compared(lambda z: z / z.norm(), lambda z: z / z.norm()),
            "one length for the whole batch: the norm ran over all numbers.",
            "the `dim` of the norm: every row has a length of its own, so it needs dim=1 and keepdim=True.",
            "long rows win, and everything gets paler the larger the batch is.",
        ),
        Bug(
            _compared(lambda z: _unit(z) ** 2 * z.sign(), lambda z: _unit(z) ** 2 * z.sign()),
            "lengths without their root, or numbers that were squared.",
            "the length: the root of the sum of squares. Then each number itself is divided, not its square.",
            "similarities that are too small, and no row is exactly similar to itself.",
        ),
        Bug(
            _compared(lambda z: z / z.square().sum(1, keepdim=True), lambda z: z / z.square().sum(1, keepdim=True)),
            "rows divided by the square of their length.",
            "the length: the root of the sum of squares.",
            "what has a short embedding wins more often than it should.",
        ),
        Bug(
            _compared(_unit, _unit, factor=lambda s: s),
            "a scale that was not exponentiated.",
            "the factor: what is learned is the logarithm, so the matrix is multiplied by exp(log_scale).",
            "a matrix so pale that the softmax gives every caption nearly the same probability.",
            "https://github.com/BAAI-DCAI/M3D/issues/52",
        ),
        Bug(
            _compared(_unit, _unit, factor=lambda s: (-s).exp()),
            "a matrix divided by exp(log_scale) where it should be multiplied.",
            "the sign in the exponent: the scale is 1 / temperature.",
            "the more sure the network wants to be, the paler the matrix gets.",
        ),
        Bug(
            _compared(_unit, _unit, factor=torch.ones_like),
            "the cosines alone: the scale is missing.",
            "log_scale: you have not used it.",
            "a matrix so pale that even a perfect network can hardly bring the loss down.",
        ),
        Bug(
            lambda pictures, texts, log_scale: matrix(texts, pictures, log_scale),
            "a matrix with a row for each text: it is transposed.",
            "the order of the product: rows are pictures, columns are texts.",
            "there is no visible effect in training, since the loss is symmetric; in a search you get the pictures of a text for the texts of a picture.",
        ),
    ),
    returns="a tensor (B, T)",
)


# The contrastive loss -----------------------------------------------------------------------


def contrastive(logits: Tensor) -> Tensor:
    return (_rows(logits) + _rows(logits.T)) / 2


def _rows(logits: Tensor) -> Tensor:
    """How surprising the right entry of each row is, on average."""
    return -logits.log_softmax(1).diagonal().mean()


def _contrastive_given(d: Draw):
    (n,) = d.sizes("N", N=(2, 4))
    scale, lead = d.choose(
        "logits", {"": (1.0, 0.0), "pairs that fit": (1.0, 2.0), "logits up to a hundred": (30.0, 0.0)}
    )
    return (scale * d.normal(n, n) + lead * torch.eye(n),)


exercise(
    "l08_contrastive",
    contrastive,
    _contrastive_given,
    (
        Bug(
            _rows,
            "a one-sided loss: every picture looks for its text, and no text for its picture.",
            "the second half: the same loss along the other axis, and the mean of the two.",
            "pictures find their captions; captions were never trained to find their pictures.",
            "https://github.com/openai/CLIP/issues/83",
        ),
        Bug(
            lambda logits: _rows(logits.T),
            "a one-sided loss: every text looks for its picture, and no picture for its text.",
            "the second half: the same loss along the other axis, and the mean of the two.",
            "captions find their pictures; pictures were never trained to find their captions.",
            "https://github.com/lucidrains/DALLE-pytorch/issues/32",
        ),
        Bug(
            lambda logits: _rows(logits) + _rows(logits.T),
            "the sum of both halves where their mean belongs.",
            "the end: divide by 2.",
            "there is no visible effect, but the loss is twice as large, and steps are as if the learning rate were higher.",
        ),
        Bug(
            lambda logits: len(logits) * contrastive(logits),
            "a sum over the pairs where their mean belongs.",
            "the end: a mean over the N pairs.",
            "a loss that grows with the batch.",
        ),
        Bug(
            lambda logits: -contrastive(logits),
            "a sign: the loss is minus the logarithm.",
            "the sign: a logarithm of a probability is negative, and a loss should shrink towards 0.",
            "a matrix that is dark along its diagonal: training pushes apart what belongs together.",
        ),
        Bug(
            lambda logits: -(logits.softmax(1).diagonal() + logits.softmax(0).diagonal()).mean() / 2,
            "probabilities without their logarithm.",
            "what you take the mean of: the logarithm of the right entry's probability.",
            "pairs that are quite wrong teach hardly anything, and these are most of the pairs at the beginning.",
        ),
        Bug(
            lambda logits: (_rows(logits.softmax(1)) + _rows(logits.T.softmax(1))) / 2,
            "a softmax inside a softmax: cross_entropy takes the logits themselves.",
            "what you hand to cross_entropy, which has its own softmax.",
            "a loss that cannot fall far, and a diagonal that stays pale.",
            "https://github.com/gitabcworld/MatchingNetworks/issues/5",
        ),
        Bug(
            lambda logits: -logits.flatten().log_softmax(0).reshape(logits.shape).diagonal().mean(),
            "one softmax over the whole matrix.",
            "the axis of the softmax: one softmax over each row, and one over each column.",
            "a loss that never gets below the logarithm of N: the probabilities of N right answers add up to 1.",
        ),
        Bug(
            lambda logits: -(logits.log_softmax(1).mean() + logits.log_softmax(0).mean()) / 2,
            "a mean over all entries: every caption is taken for right.",
            "which entries you keep: those on the diagonal.",
            "a matrix that turns to one flat colour: all pairs are pulled together.",
        ),
        Bug(
            lambda logits: -((logits.softmax(1) + logits.softmax(0)) / 2).diagonal().log().mean(),
            "the logarithm of a mean of probabilities, where the mean of two logarithms belongs.",
            "the order: logarithm first, mean of the halves afterwards.",
            "there is no visible effect at first: a pair that fails one way is forgiven if it succeeds the other way.",
        ),
        Bug(
            lambda logits: F.binary_cross_entropy_with_logits(logits, torch.eye(len(logits)).to(logits)),
            "yes or no for each pair by itself: a sigmoid and no softmax.",
            "what an entry competes with: its row and its column.",
            "it may train, but it is another loss, in which nearly every entry of the matrix is a no.",
        ),
    ),
    returns="one number, as a tensor",
    gradient=("logits",),
)
