"""Which pixel attends to which token: the weights of cross-attention, read from the real modules during sampling."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from einops import rearrange
from torch import Tensor, nn

from minidiff.networks.attention import SpatialTransformer, TransformerBlock
from minidiff.networks.inside.blocks import watched
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

    net: a UNet, or a module that holds one, else ValueError. The weights are softmax(q k^T / sqrt(d)) (Vaswani et al.
    2017, equation 1) of the very q and k of the pass. `cfg` puts two copies into one batch, of which the second is the
    conditional one: weights[-1] is the last image attending to its text, with `cfg` or without.
    """
    unet = next((module for module in net.modules() if isinstance(module, UNet)), None)
    if unet is None:
        raise ValueError("there is no UNet in it, and so no cross-attention to look at")
    passes: list[list[AttentionMap]] = []
    maps: dict[str, AttentionMap] = {}  # the last of each SpatialTransformer
    made: dict[str, Tensor] = {}  # q and k, until their SpatialTransformer is done

    def look(name: str, module: nn.Module, arguments: tuple, output: Tensor) -> None:
        if name.endswith(("attn2.to_q", "attn2.to_k")):
            made[name[-1]] = output.detach().float()
        elif isinstance(module, SpatialTransformer):
            (block,) = module.transformer_blocks
            assert isinstance(block, TransformerBlock)
            q, k = (rearrange(made[part], "b n (h d) -> b h n d", h=block.attn2.heads) for part in "qk")
            weights = (q @ k.mT / q.shape[-1] ** 0.5).softmax(dim=-1)  # (B, heads, h * w, L)
            maps[name] = AttentionMap(name, (output.shape[2], output.shape[3]), weights)
        elif module is unet:  # a pass that failed does not get here
            passes.append(list(maps.values()))

    with watched(dict(unet.named_modules()), look):
        yield passes
