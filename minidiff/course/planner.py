"""What a training would take: operations and memory are counted on tensors without content; hours and money follow.

The counts hold on any machine. The utilisation and the price are yours to assume.
"""

from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from minidiff.networks import UNet, UNetConfig, flops


class GPU(NamedTuple):
    """From the maker's data sheet."""

    tflops: float  # peak, 10^12 operations a second: bfloat16 matrix products, without sparsity (float16: T4 and V100)
    memory: float  # 10^9 bytes


GPUS = {
    "T4": GPU(65, 16),
    "V100": GPU(125, 32),
    "RTX 4090": GPU(165, 24),
    "A100 40 GB": GPU(312, 40),
    "A100 80 GB": GPU(312, 80),
    "H100": GPU(989, 80),
    "H200": GPU(989, 141),
}


class Work(NamedTuple):
    """What a network asks of a machine."""

    parameters: int
    flops: int  # to ask it once about one picture, a multiplication and an addition counted as two
    kept: int  # bytes that the way back needs, for each picture of the batch
    copies: int  # bytes of the weights once more, in bfloat16: autocast makes them, whatever the batch


@cache
def work(config: UNetConfig, side: int, tokens: int = 77, bf16: bool = True) -> Work:
    """Count a UNet at pictures (or latents) of side x side, with a context of `tokens` tokens. Needs no memory."""
    with FakeTensorMode():
        net = UNet(config)
        one, two = (bytes_kept(net, *_inputs(config, batch, side, tokens), bf16=bf16) for batch in (1, 2))
    size = sum(p.numel() for p in net.parameters())
    return Work(size, _operations(config, side, tokens), two - one, 2 * one - two)


@cache
def _operations(config: UNetConfig, side: int, tokens: int) -> int:
    with torch.device("meta"):
        return sum(flops(UNet(config), *_inputs(config, 1, side, tokens)).values())


def _inputs(config: UNetConfig, batch: int, side: int, tokens: int) -> tuple[Tensor, Tensor, Tensor]:
    x = torch.zeros(batch, config.in_channels, side, side)
    return x, torch.zeros(batch), torch.zeros(batch, tokens, config.context_dim)


def bytes_kept(net: nn.Module, *args: Tensor, bf16: bool = False) -> int:
    """Bytes that autograd keeps between the way there and the way back; the network's parameters are not among them.

    bf16: under autocast as on a GPU, where norms are computed in float32. (On a CPU they would be in bfloat16.)
    """
    own = {p.untyped_storage()._cdata for p in net.parameters()}
    seen = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            seen[storage._cdata] = storage  # held, so that no other storage gets its number
        return tensor

    norms = [part for part in net.modules() if bf16 and isinstance(part, nn.GroupNorm | nn.LayerNorm)]
    handles = [norm.register_forward_pre_hook(lambda norm, given: (given[0].float(),)) for norm in norms]
    with (
        torch.enable_grad(),
        torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=bf16),
    ):
        net(*args)
    for handle in handles:
        handle.remove()
    return sum(storage.nbytes() for storage in seen.values())


def memory(asked: Work, batch: int, ema: bool = True) -> dict[str, int]:
    """Bytes on one GPU that trains with AdamW on `batch` pictures at a time; weights in float32.

    Left out: what the library reserves for itself, and what lives only for a moment.
    """
    weights = 4 * asked.parameters
    return {
        "weights": weights,
        "gradients": weights,
        "AdamW's two moments": 2 * weights,
        "moving average": weights * ema,
        "weights in bfloat16": asked.copies,
        "kept for the way back": batch * asked.kept,
    }


def hours(operations: float, gpu: GPU, mfu: float, gpus: int = 1) -> float:
    """How long that many operations take. mfu: the share of the peak that is put to use, within (0, 1]."""
    if not 0 < mfu <= 1:
        raise ValueError(f"mfu must be above 0 and at most 1, got {mfu}")
    return operations / (gpu.tflops * 1e12 * mfu * gpus) / 3600


@dataclass(frozen=True)
class Plan:
    """A run. The defaults are about the size of Stable Diffusion 1.x on one eighth of its pictures."""

    width: int = 320  # channels of the first level; the others have 2, 4 and 4 times as many
    pixels: int = 512  # side of a picture; the UNet sees latents of an eighth of it
    millions: float = 250  # pictures seen in all, in millions
    batch: int = 256  # over all GPUs
    gpu: str = "A100 80 GB"
    gpus: int = 8
    mfu: float = 0.3
    price: float = 2.0  # dollars an hour for one GPU

    @property
    def work(self) -> Work:
        wide = self.width
        return work(UNetConfig(channels=(wide, 2 * wide, 4 * wide, 4 * wide)), self.pixels // 8)

    @property
    def operations(self) -> float:
        return 3 * self.work.flops * self.millions * 1e6  # there once, and back, which is twice the work

    @property
    def parts(self) -> int:
        """In how many parts a GPU must compute its pictures, one part after the other, to have room; 0 for never."""
        mine, room = -(-self.batch // self.gpus), GPUS[self.gpu].memory * 1e9
        fits = [n for n in range(1, mine + 1) if sum(memory(self.work, -(-mine // n)).values()) <= room]
        return fits[0] if fits else 0

    @property
    def hours(self) -> float:
        return hours(self.operations, GPUS[self.gpu], self.mfu, self.gpus)

    @property
    def money(self) -> float:
        return self.hours * self.gpus * self.price
