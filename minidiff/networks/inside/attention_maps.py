"""Which word looks where: the weights of cross-attention, read from the real modules while they draw."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from einops import rearrange
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from minidiff.networks.attention import SpatialTransformer
from minidiff.networks.unet import UNet


class AttentionMap(NamedTuple):
    """Where the pixels of one room looked, in one forward pass."""

    name: str  # the SpatialTransformer, such as "down_blocks.1.attentions.0"
    size: tuple[int, int]  # (h, w) of the picture in there: the pixels are its rows, one after the other
    weights: Tensor  # (B, heads, h * w, L): how much of each token a pixel takes; each row sums to one


@contextmanager
def attention_maps(net: nn.Module) -> Iterator[list[list[AttentionMap]]]:
    """Inside, the list grows by one entry a forward pass: the maps of all rooms, in the order of use.

    with attention_maps(pipe.net) as passes:
        images = pipe(["a red seven"])
    passes[0][0].weights  # (B, heads, pixels, L)

    net: a UNet, or what holds one. The weights are softmax(q k / sqrt(d)) (Vaswani et al. 2017, equation 1), of the
    q and k that drew the picture. `cfg` puts two copies into one batch; the second half, weights.chunk(2)[1], is
    the text's, so weights[-1] is the last picture looking at its text, with `cfg` or without. A pass that failed is
    not in the list. Raises ValueError where there is no UNet.
    """
    unet = next((module for module in net.modules() if isinstance(module, UNet)), None)
    if unet is None:
        raise ValueError("there is no UNet in it, and so no cross-attention to look at")
    passes: list[list[AttentionMap]] = []
    seen: list[AttentionMap] = []  # in the pass under way
    handles = [
        unet.register_forward_pre_hook(lambda *_: seen.clear()),
        unet.register_forward_hook(lambda *_: passes.append(list(seen))),
    ]
    for name, room in unet.named_modules():
        if isinstance(room, SpatialTransformer):
            handles += _watch(name, room, seen)
    try:
        yield passes
    finally:
        for handle in handles:
            handle.remove()


def _watch(name: str, room: SpatialTransformer, seen: list[AttentionMap]) -> list[RemovableHandle]:
    """From now on, every call of the room adds its map to `seen`."""
    cross = room.transformer_blocks[0].attn2
    last: dict[nn.Module, Tensor] = {}  # what to_q and to_k said in the call under way

    def keep(module: nn.Module, arguments: tuple, output: Tensor) -> None:
        last[module] = output.detach().float()

    def look(module: nn.Module, arguments: tuple, output: Tensor) -> None:
        q, k = (rearrange(last.pop(m), "b n (h d) -> b h n d", h=cross.heads) for m in (cross.to_q, cross.to_k))
        weights = (q @ k.mT / q.shape[-1] ** 0.5).softmax(dim=-1)  # (B, heads, h * w, L)
        seen.append(AttentionMap(name, tuple(output.shape[2:]), weights))

    return [part.register_forward_hook(keep) for part in (cross.to_q, cross.to_k)] + [room.register_forward_hook(look)]
