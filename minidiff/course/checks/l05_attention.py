"""Exercises of lesson 05, the UNet: attention."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from minidiff.course.checks.cases import Draw
from minidiff.course.checks.catch import catch
from minidiff.course.checks.exercise import Bug, exercise


def attention(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    q, k, v = (_split(z, heads) for z in (q, k, v))
    return _join((_scores(q, k) / q.shape[-1] ** 0.5).softmax(-1) @ v)


def _split(z: Tensor, heads: int) -> Tensor:
    return z.unflatten(2, (heads, -1)).transpose(1, 2)  # (B, heads, N, d)


def _join(z: Tensor) -> Tensor:
    return z.transpose(1, 2).flatten(2)  # (B, N, C)


def _scores(q: Tensor, k: Tensor) -> Tensor:
    return q @ k.transpose(-1, -2)  # (B, heads, N, L)


def _scaled(power: Callable[[int, int], float]) -> Callable[..., Tensor]:
    """Attention with scores times power(d, heads)."""

    def wrong(q, k, v, heads):
        q, k, v = (_split(z, heads) for z in (q, k, v))
        return _join((_scores(q, k) * power(q.shape[-1], heads)).softmax(-1) @ v)

    return wrong


def _along(axis: int) -> Callable[..., Tensor]:
    """Attention with its softmax along another axis."""

    def wrong(q, k, v, heads):
        q, k, v = (_split(z, heads) for z in (q, k, v))
        return _join((_scores(q, k) / q.shape[-1] ** 0.5).softmax(axis) @ v)

    return wrong


def _plain_reshape(q, k, v, heads):
    q, k, v = (z.reshape(z.shape[0], heads, z.shape[1], -1) for z in (q, k, v))
    out = (_scores(q, k) / q.shape[-1] ** 0.5).softmax(-1) @ v
    return out.reshape(out.shape[0], out.shape[2], -1)


def _joined_untransposed(q, k, v, heads):
    q, k, v = (_split(z, heads) for z in (q, k, v))
    out = (_scores(q, k) / q.shape[-1] ** 0.5).softmax(-1) @ v
    return out.reshape(out.shape[0], out.shape[2], -1)


def _every_other(q, k, v, heads):
    q, k, v = (z.unflatten(2, (-1, heads)).permute(0, 3, 1, 2) for z in (q, k, v))
    out = (_scores(q, k) / q.shape[-1] ** 0.5).softmax(-1) @ v
    return out.permute(0, 2, 3, 1).flatten(2)


def _no_softmax(q, k, v, heads):
    q, k, v = (_split(z, heads) for z in (q, k, v))
    return _join(_scores(q, k) / q.shape[-1] ** 0.5 @ v)


# fmt: skip


def _attention_given(d: Draw):
    b, n, places, heads, width = d.sizes("B N L heads d", heads=(1, 3), d=(1, 3))
    q, k = 1.5 * d.normal(b, n, heads * width), 1.5 * d.normal(b, places, heads * width)
    return q, k, d.normal(b, places, heads * width), heads


exercise(
    "l05_attention",
    attention,
    _attention_given,
    (
        Bug(
            _scaled(lambda d, heads: 1 / d),
            "scores divided by d where its root belongs.",
            "the scale: 1 / sqrt(d).",
            "there is no visible effect in the shipped model: attention is a little too even.",
            "https://github.com/delzac/cntkx/issues/10",
        ),
        Bug(
            _scaled(lambda d, heads: 1.0),
            "scores that are not scaled.",
            "the scale: a sum of d products has a standard deviation of sqrt(d), so divide by that.",
            "there is little effect in the shipped model, whose heads are 16 wide; the wider a head, the more each pixel attends to a single one.",
            "https://github.com/Project-MONAI/GenerativeModels/issues/146",
        ),
        Bug(
            _scaled(lambda d, heads: (d * heads) ** -0.5),
            "scores divided by the root of all channels.",
            "the scale: d is the width of one head.",
            "there is no visible effect in the shipped model: attention is a little too even.",
            "https://github.com/lucidrains/vit-pytorch/issues/65",
        ),
        Bug(
            lambda q, k, v, heads: attention(q, k, v, 1),
            "a single head: all channels are compared at once.",
            "where `heads` is used.",
            "there is little effect in the shipped model: each pixel attends in one way, not in four.",
            "https://github.com/kornia/kornia/issues/2186",
        ),
        Bug(
            _along(-2),
            "a softmax over the queries: the weights should add up to 1 over the keys.",
            "the axis of the softmax: the last one, of the keys.",
            "in the shipped model, clean digits, but wrong ones: it is attention that reads the prompt.",
            "https://github.com/labmlai/annotated_deep_learning_paper_implementations/issues/282",
        ),
        Bug(
            _along(1),
            "a softmax over the heads.",
            "the axis of the softmax: the last one, of the keys.",
            "in the shipped model, a few faint lines: what a pixel gets grows with the number of keys.",
            "https://github.com/CAMMA-public/rendezvous-in-time/issues/3",
        ),
        Bug(
            _no_softmax,
            "no softmax: the scores themselves are the weights.",
            "what v is multiplied by: positive weights that add up to 1.",
            "in the shipped model, white blots: the output of a pixel has no bounds.",
        ),
        Bug(
            lambda q, k, v, heads: attention(q, v, k, heads),
            "k and v swapped.",
            "what is compared with q, the keys, and what is averaged, the values.",
            "there is no visible effect in a network trained this way; in the shipped model, clean but wrong digits: attention reads the prompt.",
            "https://github.com/jsbaan/transformer-from-scratch/issues/1",
        ),
        Bug(
            _plain_reshape,
            "a reshape alone: it cuts the tokens and not the channels into heads.",
            "how (B, N, C) becomes (B, heads, N, d): split the last axis, then move heads to the front.",
            "in the shipped model, clean digits, half of them wrong. All shapes are right, so there is no error.",
            "https://github.com/reczoo/FuxiCTR/issues/30",
        ),
        Bug(
            _joined_untransposed,
            "heads joined by a reshape alone: tokens and heads get mixed.",
            "how you undo (B, heads, N, d): heads must stand beside d again before the two are joined.",
            "in the shipped model, clean digits, half of them wrong. All shapes are right, so there is no error.",
            "https://github.com/jsbaan/transformer-from-scratch/pull/6",
        ),
        Bug(
            _every_other,
            "heads made of every other channel: the channels of a head lie side by side.",
            "the split of the last axis: (heads, d), in this order.",
            "there is no visible effect in a network trained this way, and hardly any in the shipped model.",
        ),
    ),
    returns="a tensor (B, N, C)",
    points=2,
    forbids=("scaled_dot_product_attention", "multi_head_attention_forward"),
)


# A test of it -------------------------------------------------------------------------------


def as_pytorch_has_it(attention: Callable) -> bool:
    q, k, v = 2 * torch.randn(2, 3, 8), 2 * torch.randn(2, 5, 8), torch.randn(2, 5, 8)
    heads = (z.unflatten(2, (2, 4)).transpose(1, 2) for z in (q, k, v))
    expected = F.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2)
    return torch.allclose(attention(q, k, v, 2), expected, atol=1e-3)


catch("l05_catch", "l05_attention", as_pytorch_has_it, points=2)
