"""Which pixel attends to which token: the weights of cross-attention, read from the real modules during sampling."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

from einops import rearrange
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from minidiff.networks.attention import SpatialTransformer, TransformerBlock
from minidiff.networks.unet import UNet


class AttentionMap(NamedTuple):
    """The cross-attention of one SpatialTransformer in one forward pass."""

    name: str  # of the SpatialTransformer, such as "down_blocks.1.attentions.0"
    size: tuple[int, int]  # (h, w) of the feature map: its pixels, row by row, are the queries
    weights: Tensor  # (B, heads, h * w, L): the weight of each token for each pixel; they sum to 1 over L


@contextmanager
def attention_maps(net: nn.Module) -> Iterator[list[list[AttentionMap]]]:
    """Inside, the list grows by one entry a forward pass: the maps of all cross-attentions, in the order of use.

    with attention_maps(pipe.net) as passes:
        images = pipe(["a red seven"])
    passes[0][0].weights  # (B, heads, pixels, L)

    net: a UNet, or a module that holds one. The weights are softmax(q k^T / sqrt(d)) (Vaswani et al. 2017, equation 1)
    of the very q and k of the pass. `cfg` puts two copies into one batch; the second half, weights.chunk(2)[1], is the
    conditional one, so weights[-1] is the last image attending to its text, with `cfg` or without. A pass that failed
    is not in the list. Raises ValueError where there is no UNet.
    """
    unet = next((module for module in net.modules() if isinstance(module, UNet)), None)
    if unet is None:
        raise ValueError("there is no UNet in it, and so no cross-attention to look at")
    passes: list[list[AttentionMap]] = []
    seen: list[AttentionMap] = []  # in the current pass
    with ExitStack() as hooks:
        hooks.enter_context(unet.register_forward_pre_hook(lambda *_: seen.clear()))
        hooks.enter_context(unet.register_forward_hook(lambda *_: passes.append(list(seen))))
        for name, module in unet.named_modules():
            for handle in _watch(name, module, seen) if isinstance(module, SpatialTransformer) else ():
                hooks.enter_context(handle)
        yield passes


def _watch(name: str, transformer: SpatialTransformer, seen: list[AttentionMap]) -> list[RemovableHandle]:
    """From now on, every call of the transformer adds its map to `seen`."""
    (block,) = transformer.transformer_blocks
    assert isinstance(block, TransformerBlock)
    cross = block.attn2
    last: dict[nn.Module, Tensor] = {}  # outputs of to_q and to_k in the current call

    def keep(module: nn.Module, arguments: tuple, output: Tensor) -> None:
        last[module] = output.detach().float()

    def look(module: nn.Module, arguments: tuple, output: Tensor) -> None:
        q, k = (rearrange(last.pop(m), "b n (h d) -> b h n d", h=cross.heads) for m in (cross.to_q, cross.to_k))
        weights = (q @ k.mT / q.shape[-1] ** 0.5).softmax(dim=-1)  # (B, heads, h * w, L)
        height, width = output.shape[2:]
        seen.append(AttentionMap(name, (height, width), weights))

    handles = [part.register_forward_hook(keep) for part in (cross.to_q, cross.to_k)]
    return [*handles, transformer.register_forward_hook(look)]
