"""Looking into a UNet without changing it: what comes out of each room, and what a room costs.

All of it is read from the real modules with forward hooks, which are taken off again. On the meta device there
are shapes but no numbers, so rooms, skips, count and flops work for Stable Diffusion's size on any machine.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from minidiff.networks.unet import UNet

ASIDE = ("time_embedding", "conv_norm_out")  # parts that are no rooms: time alone, and no change of shape


class Room(NamedTuple):
    """A part of the UNet that the picture passes through, and what came out of it."""

    name: str  # as in the state dict, such as "down_blocks.0"
    shape: tuple[int, ...]  # of the output, without the batch: (C, h, w)
    output: Tensor  # (B, C, h, w)


class Skip(NamedTuple):
    """What the way down left for the way up."""

    source: str  # the module whose output it is, such as "down_blocks.0.attentions.1"
    target: str  # the ResBlock that takes it, such as "up_blocks.3.resnets.0"
    shape: tuple[int, ...]  # (C, h, w)


def room_names(net: UNet) -> list[str]:
    """The names of the rooms, in the order in which the picture passes through them."""
    return [name for name in _parts(net) if name not in ASIDE]


def rooms(net: UNet, x: Tensor, time: Tensor, context: Tensor) -> list[Room]:
    """Every room in the order in which the picture passes through it, with its output.

    x: (B, C, H, W), time: (B,), context: (B, L, D), as the UNet takes them. The rooms are conv_in, down_blocks.0 ...,
    mid_block, up_blocks.0 ..., conv_out. A down block ends with half the size, an up block with twice the size.
    """
    seen: list[Room] = []

    def look(name: str, module: nn.Module, arguments: tuple, output: Tensor) -> None:
        seen.append(Room(name, tuple(output.shape[1:]), output.detach()))

    with _watched({name: net.get_submodule(name) for name in room_names(net)}, look), torch.no_grad():
        net(x, time, context)
    return seen


def skips(net: UNet, x: Tensor, time: Tensor, context: Tensor) -> list[Skip]:
    """What the way down leaves for the way up, in the order in which it is left; the last left is the first taken."""
    left: list[tuple[str, Tensor]] = []
    takers: list[str] = []

    def look(name: str, module: nn.Module, arguments: tuple, output: Tensor) -> None:
        if name.startswith("up_blocks"):
            takers.append(name)
        else:  # of a ResBlock and the attention after it, only the attention's output is left
            left.append((name, output))

    def keep(name: str, module: nn.Module, arguments: tuple, output: Tensor) -> None:
        kept.extend(arguments[3][len(kept) :])

    kept: list[Tensor] = []
    makers = {n: m for n, m in net.named_modules() if _is_step(n)}
    blocks = {name: part for name, part in _parts(net).items() if name.startswith("down_blocks")}
    with _watched(makers, look), _watched(blocks, keep), torch.no_grad():
        net(x, time, context)
    sources = [next(name for name, output in reversed(left) if output is tensor) for tensor in kept]
    return [
        Skip(source, target, tuple(tensor.shape[1:]))
        for source, target, tensor in zip(sources, reversed(takers), kept, strict=True)
    ]


def count(net: UNet) -> dict[str, int]:
    """Parameters of every part: the rooms, time_embedding and conv_norm_out. Together they are the whole network's."""
    return {name: sum(p.numel() for p in part.parameters()) for name, part in _parts(net).items()}


def flops(net: UNet, x: Tensor, time: Tensor, context: Tensor) -> dict[str, int]:
    """Floating point operations of every part for this input, a multiplication and an addition counted as two.

    Counted are convolutions and matrix products; the rest (norms, activations, softmax) is small and left out. The
    keys are those of `count`.
    """
    counter = FlopCounterMode(display=False)
    # attention as two plain matrix products: not every fused kernel has a count
    with sdpa_kernel(SDPBackend.MATH), counter, torch.no_grad():
        net(x, time, context)
    counted, whole = counter.get_flop_counts(), type(net).__name__
    return {name: sum(counted.get(f"{whole}.{name}", {}).values()) for name in _parts(net)}


def receptive_field(net: Callable[..., Tensor], x: Tensor, time: Tensor, context: Tensor) -> Tensor:
    """How much each pixel of x moves the middle pixel of the output: |d out[middle] / d x|, (H, W), by autograd.

    Summed over the channels of both, averaged over the batch. The middle is (H // 2, W // 2). Where it is exactly 0
    the middle pixel cannot see. GroupNorm and attention look at the whole picture, if faintly.
    """
    x = x.detach().clone().requires_grad_()
    with torch.enable_grad():
        out = net(x, time, context)
        middle = out[:, :, out.shape[2] // 2, out.shape[3] // 2].sum(0)  # (C,): pictures of a batch do not mix
        # one gradient a channel: those of different channels could cancel
        fields = [torch.autograd.grad(channel, x, retain_graph=True)[0].abs().sum(1) for channel in middle]
    return torch.stack(fields).sum(0).mean(0)


def _parts(net: UNet) -> dict[str, nn.Module]:
    """The network's parts by name, in the order in which they are used."""
    return {
        "time_embedding": net.time_embedding,
        "conv_in": net.conv_in,
        **{f"down_blocks.{k}": block for k, block in enumerate(net.down_blocks)},
        "mid_block": net.mid_block,
        **{f"up_blocks.{k}": block for k, block in enumerate(net.up_blocks)},
        "conv_norm_out": net.conv_norm_out,
        "conv_out": net.conv_out,
    }


def _is_step(name: str) -> bool:
    """Is this one of the modules that can leave a skip, or a ResBlock that takes one?"""
    block, _, rest = name.partition(".")
    inside = rest.split(".")[1:]
    if block == "up_blocks":
        return len(inside) == 2 and inside[0] == "resnets"
    return name == "conv_in" or (block == "down_blocks" and len(inside) == 2)


@contextmanager
def _watched(modules: dict[str, nn.Module], look: Callable[[str, nn.Module, tuple, Tensor], None]) -> Iterator[None]:
    """Inside, look(name, module, arguments, output) is called after every call of one of the modules."""

    def hook(name: str) -> Callable[..., None]:
        return lambda module, arguments, output: look(name, module, arguments, output)

    handles = [module.register_forward_hook(hook(name)) for name, module in modules.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
