"""The exercise of lesson 11 about inpainting."""

import torch
from torch import Tensor

from minidiff.course.checks.cases import Draw
from minidiff.course.checks.exercise import Bug, exercise


def keep(x: Tensor, known: Tensor, mask: Tensor, noises: Tensor, t: Tensor, k: int) -> Tensor:
    return mask * x + (1 - mask) * ((1 - t) * known + t * noises[0])


def _given(d: Draw):
    b, c, h, w, n = d.sizes("B C H W n", n=(1, 4))
    soft = d.choose("mask", {"a mask of 0 and 1": 0, "a soft mask": 2})
    mask = d.uniform(0, 1, 1, 1, h, w, digits=soft)
    t = torch.tensor(d.number_in("t", 0, 1), dtype=torch.float64)
    x, known = d.normal(b, c, h, w), 2 * d.normal(b, c, h, w)
    return x, known, mask, d.normal(n + 1, b, c, h, w), t, d.whole("k", 1, n)


def _put_back(what):
    """keep with something else in the place of the known part: (x, known, noises, t, k) -> what is put back."""
    return lambda x, known, mask, noises, t, k: mask * x + (1 - mask) * what(x, known, noises, t, k)


exercise(
    "l11_keep",
    keep,
    _given,
    (
        Bug(
            lambda x, known, mask, noises, t, k: (1 - mask) * x + mask * ((1 - t) * known + t * noises[0]),
            "a mask that was turned inside out: 1 is where something new is drawn.",
            "which part is multiplied with the mask.",
            "the hole stays, and everything around it is new.",
            "https://github.com/huggingface/diffusers/issues/3514",
        ),
        Bug(
            _put_back(lambda x, known, noises, t, k: (1 - t) * known + t * noises[k]),
            "fresh noise for the known part after each step. A trajectory keeps the noise that it started from.",
            "which of the noises you take: the first, at every step.",
            "lines that meet a little less well along the edge: the surroundings flicker from step to step.",
        ),
        Bug(
            _put_back(lambda x, known, noises, t, k: (1 - t) * known + t * noises[-1]),
            "the last of the noises. x never held that one.",
            "which of the noises you take: the first, with which x began.",
            "a known part that disagrees with the rest from the first step on.",
        ),
        Bug(
            _put_back(lambda x, known, noises, t, k: known),
            "a known part that is clean while the rest is still noisy.",
            "what you put back: it has to be as noisy at t as x is.",
            "a new part that is paler and has fewer lines: half of the network's input has no noise, although the time says it should.",
        ),
        Bug(
            _put_back(lambda x, known, noises, t, k: known + t * noises[0]),
            "noise that was added without the picture being dimmed: alpha is missing.",
            "what the known part is multiplied with.",
            "a hole that is paler than what is around it.",
        ),
        Bug(
            _put_back(lambda x, known, noises, t, k: t * known + (1 - t) * noises[0]),
            "picture and noise exchanged: alpha is 1 - t.",
            "which of the two is multiplied with t.",
            "noise in place of the picture at the end.",
        ),
        Bug(
            _put_back(lambda x, known, noises, t, k: (1 - t) * known + t**0.5 * noises[0]),
            "the root of sigma.",
            "what the noise is multiplied with: sigma is the factor itself.",
            "too much grain around the hole at intermediate steps.",
        ),
        Bug(
            lambda x, known, mask, noises, t, k: x,
            "nothing put back at all: sampling is then free to change everything.",
            "whether `known` and `mask` are used.",
            "a picture that has changed everywhere.",
        ),
        Bug(
            lambda x, known, mask, noises, t, k: keep(x, known, mask, noises, t, k) if t > 0 else x,
            "the last step left out: at t = 0 the known part has to be put back as well, and is clean then.",
            "what happens at t = 0.",
            "a known part that comes back a little blurred.",
        ),
        Bug(
            lambda x, known, mask, noises, t, k: mask * x + (1 - t) * known + t * noises[0],
            "a known part that was added everywhere: it is for the outside of the mask.",
            "the bracket around the known part, and what it is multiplied with.",
            "a double exposure inside the hole.",
        ),
        Bug(
            lambda x, known, mask, noises, t, k: x + (1 - mask) * ((1 - t) * known + t * noises[0]),
            "x that was kept everywhere: outside the mask both are added.",
            "what x is multiplied with.",
            "glaring colours around the hole.",
        ),
        Bug(
            lambda x, known, mask, noises, t, k: keep(x, known, (mask > 0).to(x), noises, t, k),
            "a mask that became 0 or 1: at a soft edge the two are mixed.",
            "whether you compare where you could multiply.",
            "a hard edge.",
        ),
        Bug(
            lambda x, known, mask, noises, t, k: keep(x, known, mask, noises[:, :1], t, k),
            "the same noise for all pictures of the batch.",
            "an index at the noises that is not needed.",
            "there is hardly any effect with one picture; with several, seams in all but the first.",
        ),
    ),
    returns="a tensor (B, c, h, w)",
    points=2,
)
