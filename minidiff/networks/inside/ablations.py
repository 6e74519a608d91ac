"""Ablations of the UNet: what does a part contribute? Train without it, and compare."""

import re
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from minidiff.networks.unet import UNet


class Part(NamedTuple):
    modules: str  # a pattern: the modules' names, as in the state dict
    hook: Callable[[nn.Module, tuple, Tensor], Tensor | None]  # replaces their output
    about: str  # what the UNet is like without it


# The hooks use nothing but their own arguments, so a deep copy (such as the averaged weights) is ablated too.
def _zeros(module: nn.Module, inputs: tuple, output: Tensor) -> Tensor:
    return torch.zeros_like(output)


def _identity(module: nn.Module, inputs: tuple, output: Tensor) -> Tensor:
    return inputs[0]


def _empty_skips(module: nn.Module, inputs: tuple, output: Tensor) -> None:
    inputs[-1][:] = [torch.zeros_like(skip) for skip in inputs[-1]]


PARTS = {
    "skips": Part(r"down_blocks\.\d+", _empty_skips, "the decoder gets zeros in place of the skip connections"),
    "self-attention": Part(r".*\.attn1", _zeros, "pixels do not attend to each other"),
    "cross-attention": Part(r".*\.attn2", _zeros, "pixels do not attend to the context"),
    "attention": Part(r".*\.attentions\.\d+", _identity, "neither of the two, nor the layers around them"),
    "time": Part("time_embedding", _zeros, "the time embedding is zero"),
    "middle": Part("mid_block", _identity, "the decoder begins where the encoder ends"),
    "normalisation": Part(r".*norm(\d|_out)?", _identity, "no GroupNorm, no LayerNorm"),
}


def without(net: UNet, part: str) -> UNet:
    """The same net, from now on without one of PARTS; its weights stay, unused. ValueError for an unknown part."""
    if part not in PARTS:
        raise ValueError(f"unknown part {part!r}; there is {', '.join(PARTS)}")
    for name, module in net.named_modules():
        if re.fullmatch(PARTS[part].modules, name):
            module.register_forward_hook(PARTS[part].hook)
    return net
