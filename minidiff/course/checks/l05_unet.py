"""Exercises of lesson 05, the UNet: the whole of it, with its skips."""

from collections.abc import Callable

import torch
from torch import Tensor

from minidiff.course.checks.exercise import Bug, Exercise, noise


def unet(x, levels, down, middle, up, shrink, grow) -> Tensor:
    return _walk(x, levels, down, middle, up, shrink, grow)


def _concatenated(x: Tensor, skip: Tensor) -> Tensor:
    return torch.cat([x, skip], dim=1)


def _walk(
    x, levels, down, middle, up, shrink, grow, join=_concatenated, keep="made", taken=None, walked=None
) -> Tensor:
    """keep: which of a level's tensors is its skip. taken: the levels of the skips on the way up. walked: of the blocks."""
    skips = []
    for level in range(levels):
        before, made = x, down(x, level)
        x = shrink(made)
        skips.append({"before": before, "made": made, "after": x}[keep])
    x = middle(x)
    back = list(reversed(range(levels)))
    for skip, level in zip(taken or back, walked or back, strict=True):
        x = up(join(grow(x), skips[skip]), level)
    return x


def _grow_last(x, levels, down, middle, up, shrink, grow):
    skips = []
    for level in range(levels):
        skips.append(down(x, level))
        x = shrink(skips[-1])
    x = middle(x)
    for level in reversed(range(levels)):
        x = grow(up(_concatenated(x, skips[level]), level))
    return x


def _block(seed: int) -> Callable[..., Tensor]:
    """Any number of channels to two, each pixel for itself; a block of its own at every level."""
    weight = 0.6 * noise(3, 2, 4, seed=seed)

    def run(x: Tensor, level: int = 0) -> Tensor:
        return torch.tanh(torch.einsum("oc,bchw->bohw", weight[level, :, : x.shape[1]].to(x.dtype), x))

    return run


def _shrink(x: Tensor) -> Tensor:  # a blur of the same size: what meets in the wrong order still fits together
    return (x + x.roll(1, dims=3)) / 2


def _grow(x: Tensor) -> Tensor:
    return 1.5 * x - 0.5 * x.roll(1, dims=2)


def _cases():
    rooms = (_block(10), _block(11), _block(12), _shrink, _grow)
    return [
        ("two levels", (noise(1, 2, 2, 3), 2, *rooms)),
        ("three levels", (noise(2, 2, 2, 2, seed=1), 3, *rooms)),
    ]


l05_unet = Exercise(
    "unet",
    unet,
    _cases,
    (
        Bug(
            lambda x, levels, *rooms: _walk(x, levels, *rooms, taken=list(range(levels))),
            "skips in the order in which they were left: the first one comes first.",
            "which skip the way up takes: the last that was left. `pop()` takes it, `pop(0)` the first.",
            "smears where sizes happen to fit; where they do not, torch refuses.",
        ),
        Bug(
            lambda x, levels, *rooms: _walk(x, levels, *rooms, walked=list(range(levels))),
            "the blocks of the way up in the wrong order.",
            "the level that `up` is told: on the way up it counts down to 0.",
            "noise where widths happen to fit; where they do not, torch refuses.",
        ),
        Bug(
            lambda x, levels, *rooms: _walk(x, levels, *rooms, taken=list(range(levels)), walked=list(range(levels))),
            "a way up that starts at level 0: the middle lies below the last level.",
            "the loop of the way up: it goes through the levels in reverse.",
            "nothing: the first sizes do not fit, and torch refuses.",
        ),
        Bug(
            lambda x, levels, *rooms: _walk(x, levels, *rooms, taken=[levels - 1] * levels),
            "the same skip at every level: it is looked at and never taken away.",
            "how you take a skip: `skips[-1]` leaves it where it is, `skips.pop()` takes it.",
            "smears where sizes happen to fit; where they do not, torch refuses.",
            "https://github.com/microsoft/aurora/issues/194",
        ),
        Bug(
            lambda x, *rooms: _walk(x, *rooms, join=torch.add),
            "skips added to x.",
            "how the two are joined: side by side along the channels, with torch.cat.",
            "little in a network that was trained so, and there are such networks; elsewhere torch refuses.",
            "https://github.com/tryonlabs/opentryon/issues/24",
        ),
        Bug(
            lambda x, *rooms: _walk(x, *rooms, join=lambda x, skip: torch.cat([skip, x], dim=1)),
            "the skip in front of x.",
            "the order in torch.cat: x first.",
            "nothing in a network that was trained so; with weights of others each channel meets the weights of another.",
            "https://github.com/junyanz/pytorch-CycleGAN-and-pix2pix/pull/110",
        ),
        Bug(
            lambda x, *rooms: _walk(x, *rooms, keep="after"),
            "skips that are taken after the shrinking: their detail is lost already.",
            "the moment at which a skip is kept: after the block, before shrink.",
            "blurred edges; or torch refuses, as the sizes differ.",
            "https://github.com/lyakaap/Kaggle-Carvana-3rd-Place-Solution/pull/3",
        ),
        Bug(
            lambda x, *rooms: _walk(x, *rooms, keep="before"),
            "skips that are taken before the block has worked on them.",
            "the moment at which a skip is kept: after the block, before shrink.",
            "little at the first level; at the others the way up misses what a whole block has found.",
            "https://github.com/HuCaoFighting/Swin-Unet/issues/29",
        ),
        Bug(
            lambda x, *rooms: _walk(x, *rooms, join=lambda x, skip: torch.cat([x, torch.zeros_like(skip)], dim=1)),
            "a way up that does not see the skips.",
            "what is joined to x on the way up.",
            "blur: edges have to come through the smallest room.",
        ),
        Bug(
            lambda x, levels, down, middle, up, shrink, grow: _walk(x, levels, down, lambda x: x, up, shrink, grow),
            "a network without its middle.",
            "what happens between the way down and the way up.",
            "little in a network that was trained so: the middle is one room of many.",
        ),
        Bug(
            _grow_last,
            "a way up that grows after each block.",
            "the order on the way up: grow, join, block. The skip was left at the larger size.",
            "nothing: torch refuses, as x is still too small for its skip.",
        ),
        Bug(
            lambda x, levels, down, middle, up, shrink, grow: _walk(x, levels, down, middle, up, lambda x: x, grow),
            "a way down that never shrinks.",
            "the way down: block, keep, shrink.",
            "nothing: torch refuses, as x has grown past its skip.",
        ),
    ),
)
