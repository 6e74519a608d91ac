"""Looking inside a UNet without changing it: what each block outputs, and what it costs.

All of it is read from the real modules with forward hooks, which are removed again. On the meta device there are
shapes but no values, so blocks, skips, count and flops work at Stable Diffusion's size on any machine.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from minidiff.networks.unet import DownBlock, UNet


class Block(NamedTuple):
    """A part of the UNet on the image's path, and its output."""

    name: str  # as in the state dict, such as "down_blocks.0"
    shape: tuple[int, ...]  # of the output, without the batch: (C, h, w)
    output: Tensor  # (B, C, h, w)


class Skip(NamedTuple):
    """A skip connection, from the encoder to the decoder."""

    source: str  # the module whose output it is, such as "down_blocks.0.attentions.1"
    target: str  # the ResBlock that takes it, such as "up_blocks.3.resnets.0"
    shape: tuple[int, ...]  # (C, h, w)


def block_names(net: UNet) -> list[str]:
    """The names of the blocks, in the order of the forward pass."""
    return [name for name in _parts(net) if "embedding" not in name and "norm" not in name]


def blocks(net: UNet, x: Tensor, time: Tensor, context: Tensor) -> list[Block]:
    """Every block in the order of the forward pass, with its output.

    x: (B, C, H, W), time: (B,), context: (B, L, D), as for the UNet. The blocks are conv_in, down_blocks.0 ...,
    mid_block, up_blocks.0 ..., conv_out. A down block ends at half the size, an up block at twice the size.
    """
    seen: list[Block] = []

    def look(name: str, module: nn.Module, arguments: tuple, output: Tensor) -> None:
        seen.append(Block(name, tuple(output.shape[1:]), output.detach()))

    with watched({name: net.get_submodule(name) for name in block_names(net)}, look), torch.no_grad():
        net(x, time, context)
    return seen


def skips(net: UNet, x: Tensor, time: Tensor, context: Tensor) -> list[Skip]:
    """The skip connections, in the order in which the encoder makes them; the decoder takes the last one first."""
    outputs: dict[str, Tensor] = {}  # in the order of the forward pass
    made: list[Tensor] = []

    def look(name: str, module: nn.Module, arguments: tuple, output: Tensor) -> None:
        outputs[name] = output
        if isinstance(module, DownBlock):
            made[:] = arguments[3]

    with watched(dict(net.named_modules()), look), torch.no_grad():
        net(x, time, context)
    makers = [name for name in outputs if re.fullmatch(r"conv_in|down_blocks\.\d+\.\w+\.\d+", name)]
    takers = [name for name in outputs if re.fullmatch(r"up_blocks\.\d+\.resnets\.\d+", name)]
    sources = [[name for name in makers if outputs[name] is tensor][-1] for tensor in made]
    joined = zip(sources, reversed(takers), made, strict=True)
    return [Skip(source, target, tuple(tensor.shape[1:])) for source, target, tensor in joined]


def count(net: UNet) -> dict[str, int]:
    """Parameters of every part: the blocks, the embeddings and conv_norm_out. Their sum is the whole network's."""
    return {name: sum(p.numel() for p in part.parameters()) for name, part in _parts(net).items()}


def flops(net: UNet, x: Tensor, time: Tensor, context: Tensor) -> dict[str, int]:
    """Floating point operations of every part for this input; a multiplication and an addition are two.

    Convolutions and matrix products only; the rest (norms, activations, softmax) is small. Keys as in `count`.
    """
    counter = FlopCounterMode(display=False)
    # attention as two plain matrix products: not every fused kernel has a count
    with sdpa_kernel(SDPBackend.MATH), counter, torch.no_grad():
        net(x, time, context)
    counted, whole = counter.get_flop_counts(), type(net).__name__
    return {name: sum(counted.get(f"{whole}.{name}", {}).values()) for name in _parts(net)}


def receptive_field(net: Callable[..., Tensor], x: Tensor, time: Tensor, context: Tensor) -> Tensor:
    """How much the middle pixel of the output depends on each pixel of x: |d out[middle] / d x|, (H, W), by autograd.

    Summed over the channels of both, averaged over the batch. The middle is (H // 2, W // 2). Where it is exactly 0,
    the middle does not depend on that pixel. Through GroupNorm and attention it depends, faintly, on all of them.
    """
    x = x.detach().clone().requires_grad_()
    with torch.enable_grad():
        out = net(x, time, context)
        middle = out[:, :, out.shape[2] // 2, out.shape[3] // 2].sum(0)  # (C,): images of a batch do not mix
        # one gradient a channel: those of different channels could cancel
        fields = [torch.autograd.grad(channel, x, retain_graph=True)[0].abs().sum(1) for channel in middle]
    return torch.stack(fields).sum(0).mean(0)


def _parts(net: UNet) -> dict[str, nn.Module]:
    """The network's parts by name, in the order of the forward pass: its children, and of down_blocks and up_blocks theirs."""
    own = re.compile(r"(down|up)_blocks\.\d+|\w+(?<!_blocks)")
    return {name: module for name, module in net.named_modules() if own.fullmatch(name)}


@contextmanager
def watched(modules: dict[str, nn.Module], look: Callable[[str, nn.Module, tuple, Tensor], None]) -> Iterator[None]:
    """Inside, look(name, module, arguments, output) is called after every call of one of the modules."""
    with ExitStack() as hooks:
        for name, module in modules.items():
            hooks.enter_context(module.register_forward_hook(partial(look, name)))
        yield
