"""Exercise of lesson 09, text to image: which word looks where."""

from collections.abc import Callable

from torch import Tensor

from minidiff.course.checks.cases import Draw
from minidiff.course.checks.exercise import Bug, exercise


def maps(q: Tensor, k: Tensor, height: int) -> Tensor:
    return _maps(q, k, height)


def _maps(q: Tensor, k: Tensor, height: int, *, axis: int = -1, power: Callable = lambda heads, d: d**-0.5) -> Tensor:
    """(heads, N, d), (heads, L, d) -> (L, height, width)."""
    return _pictures((_scores(q, k, power)).softmax(axis).mean(0), height)


def _scores(q: Tensor, k: Tensor, power: Callable = lambda heads, d: d**-0.5) -> Tensor:
    return q @ k.mT * power(len(q), q.shape[-1])  # (heads, N, L)


def _pictures(shares: Tensor, height: int) -> Tensor:
    return shares.T.unflatten(1, (height, -1))  # (N, L) -> (L, height, width)


def _changed(**parts) -> Callable:
    return lambda q, k, height: _maps(q, k, height, **parts)


def _normalised(q, k, height):
    out = maps(q, k, height)
    return out / out.sum((1, 2), keepdim=True)


def _maps_given(d: Draw):
    heads, h, w, words, size = d.sizes("heads H W L d", heads=(1, 3), d=(1, 3))
    return 1.5 * d.normal(heads, h * w, size), 1.5 * d.normal(heads, words, size), h


exercise(
    "l09_maps",
    maps,
    _maps_given,
    (
        Bug(
            _changed(axis=1),
            "a softmax over the pixels: the weights of each word add up to 1.",
            "the axis of the softmax: the weights of each pixel add up to 1 over the words, so the last one.",
            "every word seems to count the same, however little it is listened to.",
            "https://github.com/HLTCHKUST/VG-GPLMs/issues/7",
        ),
        Bug(
            _changed(axis=0),
            "a softmax over the heads.",
            "the axis of the softmax: the last one, of the words.",
            "the same gray in every map: the mean over heads of weights that add up to 1 over heads.",
        ),
        Bug(
            _changed(power=lambda heads, d: 1.0),
            "scores that are not divided by the root of d.",
            "the scale: 1 / sqrt(d), as when the picture was drawn.",
            "maps in hard black and white: not the attention that drew the picture.",
        ),
        Bug(
            _changed(power=lambda heads, d: 1 / d),
            "scores divided by d where its root belongs.",
            "the scale: 1 / sqrt(d).",
            "maps that are too pale: not the attention that drew the picture.",
        ),
        Bug(
            _changed(power=lambda heads, d: (heads * d) ** -0.5),
            "scores divided by the root of all channels.",
            "the scale: d is the width of one head, the last axis of q.",
            "maps that are too pale: not the attention that drew the picture.",
            "https://github.com/garibida/cross-image-attention/issues/12",
        ),
        Bug(
            lambda q, k, height: _pictures(_scores(q, k).mean(0).softmax(-1), height),
            "a mean over the heads before the softmax.",
            "the order: each head has weights of its own; then take their mean.",
            "maps that are too pale: a head that stares is talked down by one that does not care.",
        ),
        Bug(
            lambda q, k, height: _pictures(_scores(q, k).softmax(-1).sum(0), height),
            "the sum over the heads.",
            "how the heads are put together: the mean, so that a pixel's weights still add up to 1.",
            "there is no visible effect if the gray scale adapts to the values.",
        ),
        Bug(
            lambda q, k, height: _pictures(_scores(q, k).softmax(-1).amax(0), height),
            "the largest of the heads.",
            "how the heads are put together: the mean, so that a pixel's weights still add up to 1.",
            "maps in which every word seems to matter.",
        ),
        Bug(
            lambda q, k, height: _scores(q, k).softmax(-1).mean(0).reshape(k.shape[1], height, -1),
            "a reshape of (pixels, words) to (words, height, width): rows of the table are cut up as if they were maps.",
            "the order of the axes before the reshape: the words have to come first.",
            "stripes. All shapes are right, so there is no error.",
        ),
        Bug(
            lambda q, k, height: maps(q, k, q.shape[1] // height).mT,
            "columns for rows: the pixels are numbered along the rows, from left to right.",
            "which of height and width varies faster.",
            "on a square picture, maps that lie on their side.",
            "https://github.com/zjysteven/VLM-Visualizer/issues/1",
        ),
        Bug(
            lambda q, k, height: _pictures(_scores(q, k).mean(0), height),
            "no softmax: scores, not weights.",
            "what is shown: for each pixel positive weights that add up to 1 over the words.",
            "maps without a common scale, some of them negative.",
            "https://github.com/flexflow/flexflow-train/issues/467",
        ),
        Bug(
            _normalised,
            "maps that were brought to sum 1 afterwards, each by itself.",
            "what adds up to 1: the weights of a pixel, over the words. Leave them as they are.",
            "a word that gets hardly any attention, drawn as strongly as one that gets all of it.",
        ),
    ),
    returns="a tensor (L, H, W)",
    points=3,
)
