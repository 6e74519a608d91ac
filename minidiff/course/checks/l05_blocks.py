"""Exercises of lesson 05, the UNet: the block that everything is made of."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from minidiff.course.checks.cases import Draw
from minidiff.course.checks.exercise import Bug, exercise

# The residual block -------------------------------------------------------------------------


def res_block(x, emb, norm1, conv1, project, norm2, conv2, shortcut) -> Tensor:
    return shortcut(x) + _branch(x, emb, norm1, conv1, project, norm2, conv2)


def _branch(x, emb, norm1, conv1, project, norm2, conv2) -> Tensor:
    h = conv1(F.silu(norm1(x)))
    h = h + project(F.silu(emb))[:, :, None, None]
    return conv2(F.silu(norm2(h)))


def _mix(weight: Tensor) -> Callable[[Tensor], Tensor]:
    """A 1x1 convolution, or a layer on a row of numbers: weight is (out, in)."""
    return lambda x: torch.einsum("oc,bc...->bo...", weight.to(x.dtype), x)


def _norm(shift: float) -> Callable[[Tensor], Tensor]:
    return lambda x: F.group_norm(x, 1) + shift


def _res_block_given(d: Draw):
    b, c, h, w, size, out = d.sizes("B C H W D E", E=(2, 3))
    first, project, second, shortcut = (_mix(d.normal(out, n)) for n in (c, size, out, c))
    return d.normal(b, c, h, w), 2 * d.normal(b, size), _norm(0.3), first, project, _norm(-0.4), second, shortcut


exercise(
    "l05_res_block",
    res_block,
    _res_block_given,
    (
        Bug(
            lambda x, emb, n1, c1, p, n2, c2, s: _branch(x, emb, n1, c1, p, n2, c2),
            "a block without its shortcut.",
            "the last line: shortcut(x) is added to what the convolutions make.",
            "in the shipped model, torn outlines in black and white grain.",
            "https://github.com/znxlwm/UGATIT-pytorch/issues/32",
        ),
        Bug(
            lambda x, emb, n1, c1, p, n2, c2, s: x + _branch(x, emb, n1, c1, p, n2, c2),
            "x itself added, and not shortcut(x).",
            "the last line: where the number of channels changes, x has to be changed too.",
            "you get an error before any picture: where the number of channels changes, the shapes do not match.",
            "https://github.com/lethienhoa/DenseNet-NLP/issues/4",
        ),
        Bug(
            lambda x, emb, n1, c1, p, n2, c2, s: s(n1(x)) + _branch(x, emb, n1, c1, p, n2, c2),
            "a shortcut that starts after the first norm.",
            "what is handed to shortcut: x as it came.",
            "in the shipped model, digits too gray and partly filled in: how strong x was is forgotten.",
            "https://github.com/Howuhh/faster-trajectory-transformer/issues/3",
        ),
        Bug(
            lambda x, emb, n1, c1, p, n2, c2, s: s(x) + c2(F.silu(n2(c1(F.silu(n1(x)))))),
            "a block that is not given the time.",
            "emb: it is to be added between the two convolutions.",
            "in the shipped model, a maze of strokes.",
        ),
        Bug(
            lambda x, emb, n1, c1, p, n2, c2, s: (
                s(x) + c2(F.silu(n2(c1(F.silu(n1(x)))) + p(F.silu(emb))[:, :, None, None]))
            ),
            "the time added after the second norm.",
            "where you add: between conv1 and norm2.",
            "in the shipped model, ragged strokes.",
        ),
        Bug(
            lambda x, emb, n1, c1, p, n2, c2, s: (
                s(x) + c2(F.silu(n2(c1(F.silu(n1(x) + p(F.silu(emb))[:, :, None, None])))))
            ),
            "the time added after the first norm: one convolution too early.",
            "where you add: between conv1 and norm2.",
            "you get an error before any picture: where the number of channels changes, the shapes do not match.",
        ),
        Bug(
            lambda x, emb, n1, c1, p, n2, c2, s: s(x) + c2(F.silu(n2(c1(F.silu(n1(x))) + p(F.silu(emb))))),
            "the time added without two new axes: its numbers land on rows and columns.",
            "the shape of project(...): (B, C) has to become (B, C, 1, 1). Torch adds (2, 2) to (2, 2, 2, 2) without a word.",
            "a pattern that does not move, if the sizes happen to fit; if they do not, PyTorch raises an error.",
        ),
        Bug(
            lambda x, emb, n1, c1, p, n2, c2, s: (
                s(x) + c2(F.silu(n2(c1(F.silu(n1(x))) * p(F.silu(emb))[:, :, None, None])))
            ),
            "the time multiplied in, where it should be added.",
            "the operation that brings project(...) in.",
            "in the shipped model, noise.",
        ),
        Bug(
            lambda x, emb, n1, c1, p, n2, c2, s: s(x) + c2(F.silu(n2(c1(F.silu(n1(x))) + p(emb)[:, :, None, None]))),
            "emb without its silu.",
            "what is handed to project: silu(emb).",
            "in the shipped model, strokes a little ragged, and specks around them.",
            "https://github.com/labmlai/annotated_deep_learning_paper_implementations/issues/165",
        ),
        Bug(
            lambda x, emb, n1, c1, p, n2, c2, s: (
                s(x) + F.silu(n2(c2(F.silu(n1(c1(x))) + p(F.silu(emb))[:, :, None, None])))
            ),
            "each convolution before its norm: the older order, conv, norm, silu.",
            "the order within each half: norm, silu, conv.",
            "there is little effect in a network trained this way; other weights cannot be loaded, since the norms have the wrong width.",
        ),
        Bug(
            lambda x, emb, n1, c1, p, n2, c2, s: s(x) + c2(n2(c1(n1(x)) + p(F.silu(emb))[:, :, None, None])),
            "no silu before the convolutions.",
            "what each convolution is handed: silu(norm(...)).",
            "in the shipped model, a few bright smudges.",
            "https://github.com/ialhashim/DenseDepth/issues/6",
        ),
    ),
    returns="a tensor (B, C', H, W)",
    points=2,
)
