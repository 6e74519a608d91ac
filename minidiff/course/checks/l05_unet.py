"""Exercises of lesson 05, the UNet: the whole of it, with its skips."""

from collections.abc import Callable

import torch
from torch import Tensor

from minidiff.course.checks.cases import Draw, noise
from minidiff.course.checks.exercise import Bug, exercise


def unet(x, levels, down, middle, up, shrink, grow) -> Tensor:
    return _unet(x, levels, down, middle, up, shrink, grow)


def _concatenated(x: Tensor, skip: Tensor) -> Tensor:
    return torch.cat([x, skip], dim=1)


def _unet(x, levels, down, middle, up, shrink, grow, join=_concatenated, keep="made", taken=None, order=None) -> Tensor:
    """keep: which of a level's tensors is its skip. taken: the levels of the skips on the way up. order: of the blocks."""
    skips = []
    for level in range(levels):
        before, made = x, down(x, level)
        x = shrink(made)
        skips.append({"before": before, "made": made, "after": x}[keep])
    x = middle(x)
    back = list(reversed(range(levels)))
    for skip, level in zip(taken or back, order or back, strict=True):
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


def _unet_given(d: Draw):
    b, h, w = d.sizes("B H W")
    return d.normal(b, 2, h, w), d.whole("levels", 1, 3), _block(10), _block(11), _block(12), _shrink, _grow


exercise(
    "l05_unet",
    unet,
    _unet_given,
    (
        Bug(
            lambda x, levels, *layers: _unet(x, levels, *layers, taken=list(range(levels))),
            "skips in the order in which they were left: the first one comes first.",
            "which skip the upsampling path takes: the most recent one. `pop()` takes it, `pop(0)` the oldest.",
            "smears where sizes happen to fit; where they do not, PyTorch raises an error.",
        ),
        Bug(
            lambda x, levels, *layers: _unet(x, levels, *layers, order=list(range(levels))),
            "the blocks of the upsampling path in the wrong order.",
            "the level that you pass to `up`: upsampling counts down to 0.",
            "noise where widths happen to fit; where they do not, PyTorch raises an error.",
        ),
        Bug(
            lambda x, levels, *layers: _unet(x, levels, *layers, taken=list(range(levels)), order=list(range(levels))),
            "an upsampling path that starts at level 0: the middle lies below the last level.",
            "the upsampling loop: it goes through the levels in reverse.",
            "you get an error before any picture: the first sizes do not match.",
        ),
        Bug(
            lambda x, levels, *layers: _unet(x, levels, *layers, taken=[levels - 1] * levels),
            "the same skip at every level: it is looked at and never taken away.",
            "how you take a skip: `skips[-1]` leaves it where it is, `skips.pop()` takes it.",
            "smears where sizes happen to fit; where they do not, PyTorch raises an error.",
            "https://github.com/microsoft/aurora/issues/194",
        ),
        Bug(
            lambda x, *layers: _unet(x, *layers, join=torch.add),
            "skips added to x.",
            "how the two are joined: side by side along the channels, with torch.cat.",
            "there is little effect in a network trained this way, and such networks exist; elsewhere PyTorch raises an error.",
            "https://github.com/tryonlabs/opentryon/issues/24",
        ),
        Bug(
            lambda x, *layers: _unet(x, *layers, join=lambda x, skip: torch.cat([skip, x], dim=1)),
            "the skip in front of x.",
            "the order in torch.cat: x first.",
            "there is no visible effect in a network trained this way; with weights from elsewhere each channel meets the wrong weights.",
            "https://github.com/junyanz/pytorch-CycleGAN-and-pix2pix/pull/110",
        ),
        Bug(
            lambda x, *layers: _unet(x, *layers, keep="after"),
            "skips that are taken after the shrinking: their detail is lost already.",
            "the moment at which a skip is kept: after the block, before shrink.",
            "blurred edges; or an error, since the sizes differ.",
            "https://github.com/lyakaap/Kaggle-Carvana-3rd-Place-Solution/pull/3",
        ),
        Bug(
            lambda x, *layers: _unet(x, *layers, keep="before"),
            "skips that are taken before the block has worked on them.",
            "the moment at which a skip is kept: after the block, before shrink.",
            "there is little effect at the first level; at the others the upsampling path misses what a whole block has computed.",
            "https://github.com/HuCaoFighting/Swin-Unet/issues/29",
        ),
        Bug(
            lambda x, *layers: _unet(x, *layers, join=lambda x, skip: torch.cat([x, torch.zeros_like(skip)], dim=1)),
            "an upsampling path without the skips.",
            "what is joined to x in the upsampling path.",
            "blur: edges have to pass through the smallest feature map.",
        ),
        Bug(
            lambda x, levels, down, middle, up, shrink, grow: _unet(x, levels, down, lambda x: x, up, shrink, grow),
            "a network without its middle.",
            "what happens between downsampling and upsampling.",
            "there is little effect in a network trained this way: the middle is one block of many.",
        ),
        Bug(
            _grow_last,
            "an upsampling path that grows after each block.",
            "the order of upsampling: grow, join, block. The skip was kept at the larger size.",
            "you get an error before any picture: x is still too small for its skip.",
        ),
        Bug(
            lambda x, levels, down, middle, up, shrink, grow: _unet(x, levels, down, middle, up, lambda x: x, grow),
            "a downsampling path that never shrinks.",
            "the order of downsampling: block, keep, shrink.",
            "you get an error before any picture: x has grown past its skip.",
        ),
    ),
    returns="a tensor (B, C, H, W)",
    points=3,
)
