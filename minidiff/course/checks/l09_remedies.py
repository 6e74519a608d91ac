"""Exercises of lesson 09, text to image: a negative prompt, an interval, and rescaling."""

from collections.abc import Callable

import torch
from torch import Tensor

from minidiff.course.checks.cases import Draw
from minidiff.course.checks.exercise import Bug, exercise

# A negative prompt, within an interval ------------------------------------------------------


def away(nothing: Tensor, text: Tensor, negative: Tensor, t: Tensor, w: float, low: float, high: float) -> Tensor:
    return _away(nothing, text, negative, t, w, low, high)


def _away(
    nothing, text, negative, t, w, low, high, *,
    inside: Callable = lambda t, low, high: (low <= t) & (t <= high), otherwise: float = 1.0,
) -> Tensor:  # fmt: skip
    amplify = torch.where(inside(t, low, high), w, otherwise)[:, None, None, None]
    return negative + amplify * (text - negative)


def _changed(**parts) -> Callable:
    """The right answer with another test of the time, or another scale elsewhere."""
    return lambda *arguments: _away(*arguments, **parts)


def _combined(how: Callable[[Tensor, Tensor, Tensor, Tensor | float], Tensor]) -> Callable:
    """The right scale at each time, and the three answers combined by how(nothing, text, negative, scale)."""

    def wrong(nothing, text, negative, t, w, low, high):
        scale = torch.where((low <= t) & (t <= high), w, 1.0)[:, None, None, None]
        return how(nothing, text, negative, scale)

    return wrong


def _away_given(d: Draw):
    nothing, text, negative = d.images(3)
    low, high = sorted((d.number_in("one end", 0, 1), d.number_in("the other", 0, 1)))
    t = d.uniform(0, 1, len(text))
    edge = d.choose("t", {"": None, "a t at the lower end": low, "a t at the upper end": high})
    t[-1] = t[-1] if edge is None else edge
    return nothing, text, negative, t, d.choose("w", [4.0, 2.5, 0.0, 1.0]), low, high


# fmt: skip


exercise(
    "l09_away",
    away,
    _away_given,
    (
        Bug(
            _combined(lambda nothing, text, negative, scale: nothing + scale * (text - nothing) - (negative - nothing)),
            "a third term: guidance as usual, and the negative prompt's difference taken away besides.",
            "how many of the three answers are needed: the negative one takes the place of `nothing`.",
            "what the negative prompt names is weakened by the same amount at every scale.",
        ),
        Bug(
            _combined(lambda nothing, text, negative, scale: nothing + scale * (text - nothing)),
            "plain guidance: the negative prompt has no say.",
            "which two of the three predictions you need.",
            "the same picture as without the negative prompt.",
            "https://github.com/ThereforeGames/unprompted/pull/22",
        ),
        Bug(
            _combined(lambda nothing, text, negative, scale: nothing + scale * (text - nothing) + scale * (negative - nothing)),
            "a negative prompt that is added: sampling goes toward it.",
            "the role of the negative prediction: guidance starts from it and leads away from it.",
            "what was not wanted, drawn into what was.",
            "https://github.com/lllyasviel/stable-diffusion-webui-forge/issues/2216",
        ),
        Bug(
            _combined(lambda nothing, text, negative, scale: nothing + scale * (text - negative)),
            "guidance that starts from the unconditional prediction, goes toward the text, and as far away from the negative prompt.",
            "what the difference is added to: the prediction that was subtracted. The negative prompt replaces the empty one.",
            "at scale 1 not what the prompt draws, as the two no longer cancel.",
        ),
        Bug(
            _combined(lambda nothing, text, negative, scale: text + scale * (negative - text)),
            "text and negative prompt swapped.",
            "the direction: from the negative prediction toward the text.",
            "exactly what was not wanted, at large scales in glaring colours.",
        ),
        Bug(
            _combined(lambda nothing, text, negative, scale: (nothing + negative) / 2 + scale * (text - (nothing + negative) / 2)),
            "the mean of the unconditional and the negative prediction as the starting point.",
            "what replaces the unconditional prediction: the negative one, all of it.",
            "what was not wanted is avoided only by half.",
        ),
        Bug(
            _changed(inside=lambda t, low, high: (t < low) | (t > high)),
            "the interval inside out: it amplifies outside and rests within.",
            "the two comparisons: guidance is on where low <= t and t <= high.",
            "garish colours from the first steps on, and less of the prompt where shapes are made.",
        ),
        Bug(
            _changed(inside=lambda t, low, high: t <= high),
            "one end of the interval forgotten: below `low` it goes on amplifying.",
            "the test of t: it has two ends.",
            "there is hardly any effect; the last steps are not spared.",
        ),
        Bug(
            _changed(inside=lambda t, low, high: low <= t),
            "one end of the interval forgotten: above `high` it amplifies already.",
            "the test of t: it has two ends.",
            "as if there were no interval: the first steps, where most variety is lost, are not spared.",
        ),
        Bug(
            _changed(otherwise=0.0),
            "scale 0 outside of the interval: there the prompt is not followed any more.",
            "what outside means: not amplified, which is scale 1.",
            "outside of the interval sampling goes toward what was not wanted.",
        ),
        Bug(
            _changed(inside=lambda t, low, high: (1 - high <= t) & (t <= 1 - low)),
            "the clock the other way round: an interval measured from the noise.",
            "what t = 0 is: the picture. An interval from 0.2 to 0.7 of one clock is 0.3 to 0.8 of the other.",
            "guidance at the wrong end of sampling.",
        ),
        Bug(
            _combined(lambda nothing, text, negative, scale: (1 + scale) * text - scale * negative),
            "the paper's convention, in which w = 0 is already conditional; here w = 1 is.",
            "the formula: it starts from the negative prediction.",
            "every picture one scale too strong.",
            "https://github.com/threestudio-project/threestudio/issues/127",
        ),
    ),
    returns="a tensor of the shape of `text`, (B, C, H, W)",
    points=2,
)  # fmt: skip


# Rescaling ----------------------------------------------------------------------------------


def rescale(out: Tensor, text: Tensor, amount: float) -> Tensor:
    return _rescale(out, text, amount)


def _rescale(out: Tensor, text: Tensor, amount: float, dims: tuple[int, ...] = (1, 2, 3), power: float = 1.0) -> Tensor:
    spread, wanted = (o.std(dims, keepdim=True) for o in (out, text))
    return _between(out, out * (wanted / spread) ** power, amount)


def _between(out: Tensor, louder: Tensor, amount: float) -> Tensor:
    return amount * louder + (1 - amount) * out


def _about_the_mean(out, text, amount):
    mean = out.mean((1, 2, 3), keepdim=True)
    return _between(out, mean + _rescale(out - mean, text, 1.0), amount)


def _mean_too(out, text, amount):
    mean, target = (o.mean((1, 2, 3), keepdim=True) for o in (out, text))
    return _between(out, target + _rescale(out - mean, text, 1.0), amount)


def _by_length(out, text, amount):
    length, wanted = (o.square().mean((1, 2, 3), keepdim=True).sqrt() for o in (out, text))
    return _between(out, out * wanted / length, amount)


def _rescale_given(d: Draw):
    """Another standard deviation for each image and channel, and a mean that is not 0."""
    out, text = d.images(2)
    factors = d.uniform(0.5, 4, *out.shape[:2], 1, 1)
    size = d.choose("size", {"": 1.0, "faint images": 0.01})
    return size * (out * factors + d.normal(1)), size * (text + 0.3), d.number_in("amount", 0, 1)


exercise(
    "l09_rescale",
    rescale,
    _rescale_given,
    (
        Bug(
            lambda out, text, amount: _rescale(out, text, amount, dims=(0, 1, 2, 3)),
            "one standard deviation for the whole batch.",
            "the axes of `std`: all but the first, with keepdim=True.",
            "a picture that changes with the company it is drawn in.",
            "https://github.com/deepinv/deepinv/issues/908",
        ),
        Bug(
            lambda out, text, amount: _rescale(out, text, amount, dims=(2, 3)),
            "a standard deviation for each channel.",
            "the axes of `std`: the channels belong to the picture.",
            "there is no visible effect in the digit model; where channels are colours, they shift against each other.",
        ),
        Bug(
            lambda out, text, amount: _rescale(out, text, amount, dims=(1,)),
            "a standard deviation for each pixel, over its channels.",
            "the axes of `std`: channels, rows and columns together.",
            "there is no visible effect in the digit model; every pixel is turned down by itself, as chance has it.",
        ),
        Bug(
            lambda out, text, amount: _rescale(out, text, amount, power=-1.0),
            "the ratio upside down: what is too large becomes larger.",
            "which standard deviation is divided by which: the wanted one by the one there is.",
            "more numbers outside the range of pixels than without it.",
        ),
        Bug(
            lambda out, text, amount: _rescale(out, text, 1 - amount),
            "amount the other way round: 0 rescales all the way, 1 not at all.",
            "which of the two is multiplied by amount: the rescaled one.",
            "there is no visible effect in the digit model; at the usual 0.7, too little of it.",
        ),
        Bug(
            lambda out, text, amount: _rescale(out, text, 1.0),
            "all of it, whatever amount says.",
            "the last line: a mixture of the rescaled prediction and the one that came in.",
            "there is no visible effect in the digit model; at the usual 0.7, too much of it.",
        ),
        Bug(
            lambda out, text, amount: _rescale(out, text, amount, power=2.0),
            "variances where standard deviations are meant.",
            "the root: `std`, not `var`.",
            "too much of it: what was twice as large as it should be becomes half as large.",
        ),
        Bug(
            _about_the_mean,
            "a standard deviation scaled around the mean, which stays as it was.",
            "what is multiplied: all of the prediction, its mean too. Equation 15 of the paper subtracts no mean.",
            "there is little effect; the overall brightness that guidance has shifted stays shifted.",
        ),
        Bug(
            _mean_too,
            "mean and standard deviation both copied from the conditional prediction; only the standard deviation should be.",
            "what is multiplied: the prediction as it is, without subtracting its mean.",
            "there is little effect on average; the overall brightness of guidance is lost.",
        ),
        Bug(
            _by_length,
            "the root of the mean square, which counts the mean in.",
            "what is compared: standard deviations.",
            "there is little effect; bright backgrounds are dimmed too much.",
        ),
        Bug(
            lambda out, text, amount: out,
            "a standard deviation compared with itself: the ratio is 1, and nothing happens.",
            "whose standard deviation you divide: that of the conditional prediction, before guidance.",
            "the picture is the same whatever amount says.",
            "https://github.com/Pur1zumu/RIFT-SVC/issues/8",
        ),
        Bug(
            lambda out, text, amount: text,
            "the conditional prediction alone: all guidance is undone.",
            "what is scaled: `out`; only the standard deviation comes from `text`.",
            "the picture of scale 1 at every scale.",
        ),
    ),
    returns="a tensor of the shape of `out`, (B, C, H, W)",
    points=2,
)
