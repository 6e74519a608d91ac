"""What a training run would take: operations and memory, counted on tensors without content; hours and cost follow."""

from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from minidiff.networks import UNet, UNetConfig, flops
from minidiff.registry import UserError


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
FREE = 0.1  # of a GPU's memory: for what lives for a moment, and for what the libraries set aside


class Work(NamedTuple):
    """What a network needs of a machine."""

    parameters: int
    flops: int  # of one forward pass of one image, a multiplication and an addition counted as two
    kept: int  # bytes of activations kept for the backward pass, for each image of the batch
    copies: int  # bytes of the weights once more, in bfloat16: autocast makes them, whatever the batch


@cache
def work(config: UNetConfig, side: int, tokens: int = 77, bf16: bool = True) -> Work:
    """Count a UNet for images (or latents) of side x side and a context of `tokens` tokens, without allocating it."""
    shapes = (config.in_channels, side, side), (), (tokens, config.context_dim)
    with FakeTensorMode():
        net = UNet(config)
        one, two = (bytes_kept(net, *(torch.zeros(n, *shape) for shape in shapes), bf16=bf16) for n in (1, 2))
    with torch.device("meta"):
        operations = sum(flops(UNet(config), *(torch.zeros(1, *shape) for shape in shapes)).values())
    return Work(sum(p.numel() for p in net.parameters()), operations, two - one, 2 * one - two)


def bytes_kept(net: nn.Module, *args: Tensor, bf16: bool = False) -> int:
    """Bytes of activations that autograd keeps from the forward for the backward pass; parameters are not counted.

    bf16: under autocast as on a GPU, where norms are computed in float32. (On a CPU they would be in bfloat16.)
    """
    seen = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        seen[storage._cdata] = storage  # held, so that no other storage gets its number
        return tensor

    norms = [part for part in net.modules() if bf16 and isinstance(part, nn.GroupNorm | nn.LayerNorm)]
    handles = [norm.register_forward_pre_hook(lambda norm, given: (given[0].float(),)) for norm in norms]
    hooks = torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor)
    with torch.enable_grad(), hooks, torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        net(*args)
    for handle in handles:
        handle.remove()
    own = {p.untyped_storage()._cdata for p in net.parameters()}
    return sum(storage.nbytes() for number, storage in seen.items() if number not in own)


def memory(need: Work, batch: int, ema: bool = True) -> dict[str, int]:
    """Bytes on one GPU that trains with AdamW in float32, `batch` images at a time; short-lived tensors are left out."""
    weights = 4 * need.parameters
    return {
        "weights": weights,
        "gradients": weights,
        "AdamW's two moments": 2 * weights,
        "moving average": weights * ema,
        "weights in bfloat16": need.copies,
        "activations": batch * need.kept,
    }


def hours(operations: float, gpu: GPU, mfu: float, gpus: int = 1) -> float:
    """How long that many operations take. mfu: the fraction of the peak that is used, within (0, 1]."""
    if not 0 < mfu <= 1:
        raise UserError(f"mfu must be above 0 and at most 1, got {mfu}")
    return operations / (gpu.tflops * 1e12 * mfu * gpus) / 3600


@dataclass(frozen=True)
class Plan:
    """A run. The defaults are about the size of Stable Diffusion 1.x on one eighth of its images."""

    width: int = 320  # channels of the first level; the others have 2, 4 and 4 times as many
    pixels: int = 512  # side of an image; the UNet sees latents of an eighth of it
    millions: float = 250  # images in all, counted at every use, in millions
    batch: int = 256  # over all GPUs
    gpu: str = "A100 80 GB"
    gpus: int = 8
    mfu: float = 0.3
    price: float = 2.0  # dollars an hour for one GPU

    @property
    def work(self) -> Work:
        return work(UNetConfig(channels=tuple(k * self.width for k in (1, 2, 4, 4))), self.pixels // 8)

    @property
    def operations(self) -> float:
        return 3 * self.work.flops * self.millions * 1e6  # forward, and backward at twice the cost

    @property
    def per_gpu(self) -> int:
        """Images of a step on each GPU."""
        return -(-self.batch // self.gpus)

    @property
    def parts(self) -> int:
        """In how many parts a GPU must compute its images, one after the other, to leave FREE of its memory; 0 if none do."""
        mine, capacity = self.per_gpu, (1 - FREE) * GPUS[self.gpu].memory * 1e9
        return next((n for n in range(1, mine + 1) if sum(memory(self.work, -(-mine // n)).values()) <= capacity), 0)

    @property
    def at_once(self) -> int:
        """Images that a GPU computes at a time; 1 where not even one fits."""
        return -(-self.per_gpu // (self.parts or self.per_gpu))

    @property
    def hours(self) -> float:
        return hours(self.operations, GPUS[self.gpu], self.mfu, self.gpus)

    @property
    def money(self) -> float:
        return self.hours * self.gpus * self.price
