"""Exercises of lesson 09, text to image: drop the text, and predict with and without it. The others: l09_*.py."""

from collections.abc import Callable

import torch
from torch import Tensor

from minidiff.course.checks.cases import Draw, once
from minidiff.course.checks.catch import catch
from minidiff.course.checks.exercise import Bug, exercise

# Condition dropout --------------------------------------------------------------------------


def drop(context: Tensor, null: Tensor, u: Tensor, p: float) -> Tensor:
    return torch.where((u < p)[:, None, None], null, context)


def _drop_given(d: Draw):
    b, length, size = d.sizes("B L D")
    p, u = d.number_in("p", 0, 1), d.uniform(0, 0.99, b)
    if d.choose("u", {"": False, "a u that is p": p < 1}):
        u[-1] = p
    return d.normal(b, length, size), d.normal(length, size), u, p


exercise(
    "l09_drop",
    drop,
    _drop_given,
    (
        Bug(
            lambda context, null, u, p: torch.where((u < p)[:, None, None], context, null),
            "the mask the other way round: the few keep their text, the many lose it.",
            "the order of what you choose between: null where u is below p.",
            "the prompt is followed late and badly: most of the training was without words.",
            "https://github.com/FutureXiang/Diffusion/issues/2",
        ),
        Bug(
            lambda context, null, u, p: torch.where(u[:1, None, None] < p, null, context),
            "one coin for the whole batch: all of its pictures lose their text, or none.",
            "how many of the numbers in u you look at: one decision a picture.",
            "there is no visible effect at first; training is rougher, as some steps train only the conditional or only the unconditional prediction.",
            "https://github.com/runwayml/stable-diffusion/issues/8",
        ),
        Bug(
            lambda context, null, u, p: context * (u >= p)[:, None, None],
            "zeros in place of the null context.",
            "what replaces the text: `null`. Sampling uses it for the unconditional prediction.",
            "an unconditional prediction that was never trained, so the difference points in no particular direction.",
            "https://github.com/lucidrains/denoising-diffusion-pytorch/issues/184",
        ),
        Bug(
            lambda context, null, u, p: torch.where((u < p)[:, None], null, context),
            "a mask along the tokens: every picture loses the same tokens of its text.",
            "the shape of the mask: (B, 1, 1) meets (B, L, D) at the pictures.",
            "words that are never learned in their positions, and no unconditional prediction.",
            "https://github.com/lucidrains/DALLE2-pytorch/issues/47",
        ),
        Bug(
            lambda context, null, u, p: torch.where(u < p, null, context),
            "a mask along the channels: every token of every picture loses the same channels.",
            "the shape of the mask: (B, 1, 1) meets (B, L, D) at the pictures.",
            "an unconditional prediction that is never learned, since no text is ever left out as a whole.",
        ),
        Bug(
            lambda context, null, u, p: drop(context, null, u, p) / (1 - p),
            "the dropout of neurons, which scales up what is kept.",
            "what happens to the texts that stay: they are left unchanged.",
            "a context that is stronger in training than in sampling.",
        ),
        Bug(
            lambda context, null, u, p: (1 - p) * context + p * null,
            "a mixture of text and null in every picture: the mean of what is meant.",
            "how the two are combined: a picture has either the one or the other.",
            "a network that learns neither prediction, but the same compromise at every scale.",
        ),
        Bug(
            lambda context, null, u, p: torch.where((torch.arange(len(u)) < p * len(u))[:, None, None], null, context),
            "the first pictures of the batch dropped, always the same positions.",
            "what decides: the picture's own u.",
            "there is no visible effect while the batches are shuffled; if they come in an order, some captions are never learned.",
        ),
    ),
    returns="a tensor (B, L, D)",
)


# Guidance -----------------------------------------------------------------------------------


def guided(net: Callable, x: Tensor, t: Tensor, text: Tensor, null: Tensor, w: float) -> Tensor:
    out_null, out_text = _ask(net, x, t, text, null)
    return out_null + w * (out_text - out_null)


def _ask(net: Callable, x: Tensor, t: Tensor, text: Tensor, null: Tensor) -> tuple[Tensor, Tensor]:
    """Both questions in one batch: the answers without and with the text."""
    return net(torch.cat([x, x]), torch.cat([t, t]), torch.cat([null, text])).chunk(2)


def _combined(how: Callable[[Tensor, Tensor, float], Tensor]) -> Callable:
    """Both predictions as they should be, (null, text) combined in another way."""
    return lambda net, x, t, text, null, w: how(*_ask(net, x, t, text, null), w)


def _in_turns(net, x, t, text, null, w):
    both = torch.stack([null, text], dim=1).flatten(0, 1)  # null, text, null, text ...
    out_null, out_text = net(torch.cat([x, x]), torch.cat([t, t]), both).chunk(2)
    return out_null + w * (out_text - out_null)


def _net(x, t, context):
    """Stands for a network: what it answers to a picture depends on that picture, its time and its tokens alone."""
    said = context.mean(1)  # (B, D)
    shape = (-1,) + (1,) * (x.ndim - 1)
    return x * (1 + said[:, 0].reshape(shape)) + (t + said[:, 1] * context[:, 0, 0]).reshape(shape) + 0.3 * x**2


def _guided_given(d: Draw):
    (x,), (length, size) = d.images(1), d.sizes("L D")
    text, null = d.normal(len(x), length, size), d.normal(len(x), length, size)
    w = d.choose("w", {"w = 3": 3.0, "w = 0.5": 0.5, "w = 0": 0.0, "w = 1": 1.0, "w = -1": -1.0})
    return once("net", _net), x, d.uniform(0, 1, len(x)), text, null, w


# fmt: skip


exercise(
    "l09_guided",
    guided,
    _guided_given,
    (
        Bug(
            _combined(lambda null, text, w: (1 + w) * text - w * null),
            "the paper's convention, in which w = 0 is already conditional; here w = 1 is.",
            "the formula: it starts from the unconditional prediction.",
            "there is no visible effect at large scales; at w = 0 the prompt is followed, where it should be ignored.",
            "https://github.com/huggingface/diffusers/issues/5882",
        ),
        Bug(
            _combined(lambda null, text, w: text + w * (null - text)),
            "the halves taken for each other: the unconditional prediction is taken for the conditional one.",
            "the order of the two after `chunk`: the same as in your `cat`.",
            "in the digit model at w = 3, clean digits, all of them wrong ones; at w = 0 exactly what the prompt says.",
            "https://github.com/huggingface/diffusers/pull/667",
        ),
        Bug(
            _combined(lambda null, text, w: null + w * (null - text)),
            "the difference the wrong way round: it points away from the text.",
            "the sign: toward the text is the conditional prediction minus the unconditional one.",
            "in the digit model at w = 3, clean digits, all of them wrong ones.",
        ),
        Bug(
            _combined(lambda null, text, w: w * (text - null)),
            "the difference alone, without the prediction it starts from.",
            "what the difference is added to: the unconditional prediction.",
            "in the digit model, only noise to the end.",
        ),
        Bug(
            _combined(lambda null, text, w: null + w * text),
            "all of the conditional prediction added; only what the text changes is to be amplified.",
            "what w is multiplied with: the difference of the two predictions.",
            "in the digit model, thin and hard strokes: most numbers end far outside the range of pixels.",
        ),
        Bug(
            _combined(lambda null, text, w: null + w * w * (text - null)),
            "guidance applied twice: the difference has been multiplied by w two times.",
            "whether the prediction that you amplify is amplified already.",
            "scale 3 that looks like scale 9, with bolder strokes; and below 1, less of the prompt than asked for.",
        ),
        Bug(
            _combined(lambda null, text, w: text),
            "the conditional prediction alone: w is not used.",
            "where w comes in.",
            "the same picture at every scale.",
            "https://github.com/ZitengWangNYU/Scale-RAE/issues/7",
        ),
        Bug(
            _combined(lambda null, text, w: null.clamp(-1, 1) + w * (text.clamp(-1, 1) - null.clamp(-1, 1))),
            "both predictions clipped before they are compared, which cuts their difference.",
            "the clamp: a network's output may leave [-1, 1], and the difference is that of the outputs as they are.",
            "in the digit model, which predicts a velocity, grain that never goes away.",
        ),
        Bug(
            _combined(lambda null, text, w: (null + w * (text - null)).clamp(-1, 1)),
            "the result clipped to the range of pictures; the network's output need not be a picture.",
            "the clamp at the end: leave it out.",
            "in the digit model, which predicts a velocity, grain that never goes away.",
        ),
        Bug(
            _in_turns,
            "tokens in turns, null, text, null, text, beside pictures that come one batch after the other.",
            "the order of the three batches: what stands in row k of one must belong to row k of the others.",
            "in the digit model, clean digits, nearly all of them wrong ones; with a single picture there is no effect.",
            "https://github.com/threestudio-project/threestudio/pull/161",
        ),
        Bug(
            lambda net, x, t, text, null, w: guided(net, x, t, text, null[:1].expand_as(null), w),
            "one null context for all: that of the first picture.",
            "which null goes with which picture: row k with row k. In this exercise they differ.",
            "there is no visible effect with a single null context; with a negative prompt for each picture, all get the first one's.",
        ),
    ),
    returns="a tensor of the shape of `x`, (B, C, H, W)",
    points=2,
)


# A test of it -------------------------------------------------------------------------------


def at_three_scales(guided: Callable) -> bool:
    x, t, text, null = (
        torch.randn(3, 1, 2, 2),
        torch.tensor([0.2, 0.5, 0.9]),
        torch.randn(3, 2, 4),
        torch.randn(3, 2, 4),
    )

    def net(x, t, context):
        return 3 * x + (t + 4 * context.mean((1, 2))).reshape(-1, 1, 1, 1)

    without, with_words = net(x, t, null), net(x, t, text)
    for w in (0.0, 1.0, 4.0):
        if not torch.allclose(guided(net, x, t, text, null, w), without + w * (with_words - without), atol=1e-3):
            return False
    return True


catch("l09_catch", "l09_guided", at_three_scales, points=2)
