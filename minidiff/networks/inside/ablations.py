"""Taking the UNet apart: what does a part contribute? Train without it, and compare.

The hooks below take nothing but their own arguments, so that a deep copy of the network (the averaged weights
are one) is taken apart in the same way.
"""

import torch
from torch import nn

from minidiff.networks.attention import SpatialTransformer, TransformerBlock
from minidiff.networks.unet import UNet, UpBlock


def _nothing(module: nn.Module, inputs: tuple, output):
    return torch.zeros_like(output)


def _untouched(module: nn.Module, inputs: tuple, output):
    return inputs[0]


def _empty_skips(module: UpBlock, inputs: tuple) -> None:
    skips = inputs[-1]
    skips[:] = [torch.zeros_like(skip) for skip in skips]


def _attention(net: UNet, name: str) -> list[nn.Module]:
    return [getattr(module, name) for module in net.modules() if isinstance(module, TransformerBlock)]


def _of(net: UNet, *kinds: type) -> list[nn.Module]:
    return [module for module in net.modules() if isinstance(module, kinds)]


# part: the modules, and what becomes of their output
_AFTER = {
    "self-attention": (lambda net: _attention(net, "attn1"), _nothing),
    "cross-attention": (lambda net: _attention(net, "attn2"), _nothing),
    "attention": (lambda net: _of(net, SpatialTransformer), _untouched),
    "time": (lambda net: [net.time_embedding], _nothing),
    "middle": (lambda net: [net.mid_block], _untouched),
    "normalisation": (lambda net: _of(net, nn.GroupNorm, nn.LayerNorm), _untouched),
}
PARTS = {
    "skips": "the way up gets zeros in place of what the way down left",
    "self-attention": "pixels do not look at each other",
    "cross-attention": "pixels do not look at the context",
    "attention": "neither of the two, nor the layers around them",
    "time": "the time is not told",
    "middle": "the way up begins where the way down ends",
    "normalisation": "no GroupNorm, no LayerNorm",
}


def without(net: UNet, part: str) -> UNet:
    """The same net, from now on with one of PARTS taken out; its weights stay, unused.

    Raises ValueError for a part that is not there.
    """
    if part not in PARTS:
        raise ValueError(f"unknown part {part!r}; there is {', '.join(PARTS)}")
    if part == "skips":
        for block in _of(net, UpBlock):
            block.register_forward_pre_hook(_empty_skips)
    else:
        modules, hook = _AFTER[part]
        for module in modules(net):
            module.register_forward_hook(hook)
    return net
