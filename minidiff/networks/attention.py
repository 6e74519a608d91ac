"""Attention: pixels attend to each other and to the context. Vaswani et al. 2017; Rombach et al. 2022, section 3.3."""
# fmt: off

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn


def attend(q: Tensor, k: Tensor, v: Tensor, heads: int, causal: bool = False) -> Tensor:
    """Attention with several heads: queries (B, N, C), keys and values (B, L, C) -> (B, N, C).

    causal: query n sees keys 0 to n only. Vaswani et al. 2017, section 3.2.
    """
    q, k, v = (rearrange(z, "b n (h d) -> b h n d", h=heads) for z in (q, k, v))            # (B, heads, N or L, d)
    # equation 1: softmax(q k^T / sqrt(d)) v, in each head
    out = F.scaled_dot_product_attention(q, k, v, is_causal=causal)                         # (B, heads, N, d)
    return rearrange(out, "b h n d -> b n (h d)")                                           # (B, N, C)


class SpatialTransformer(nn.Module):
    """The pixels as a sequence of tokens, through one transformer block."""

    def __init__(self, width: int, heads: int, context_dim: int, groups: int, linear: bool):
        super().__init__()
        self.linear = linear  # Stable Diffusion 2.x projects with Linear, 1.x with a 1x1 convolution
        self.norm = nn.GroupNorm(groups, width, eps=1e-6)
        self.proj_in = nn.Linear(width, width) if linear else nn.Conv2d(width, width, 1)
        self.transformer_blocks = nn.ModuleList([TransformerBlock(width, heads, context_dim)])
        self.proj_out = nn.Linear(width, width) if linear else nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        h = self.norm(x)                                                                    # (B, C, H, W)
        h = self.proj_in(_tokens(h)) if self.linear else _tokens(self.proj_in(h))           # (B, HW, C)
        h = self.transformer_blocks[0](h, context)
        h = _image(self.proj_out(h), x) if self.linear else self.proj_out(_image(h, x))     # (B, C, H, W)
        return x + h


def _tokens(x: Tensor) -> Tensor:
    return rearrange(x, "b c h w -> b (h w) c")


def _image(tokens: Tensor, like: Tensor) -> Tensor:
    return rearrange(tokens, "b (h w) c -> b c h w", h=like.shape[2])


class TransformerBlock(nn.Module):
    """Self-attention, cross-attention and an MLP, each added to what came in: (B, N, C), (B, L, D) -> (B, N, C)."""

    def __init__(self, width: int, heads: int, context_dim: int):
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn1 = Attention(width, width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.attn2 = Attention(width, context_dim, heads)
        self.norm3 = nn.LayerNorm(width)
        self.ff = FeedForward(width)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        h = self.norm1(x)
        x = x + self.attn1(h, h)  # self-attention: pixels attend to pixels
        x = x + self.attn2(self.norm2(x), context)  # cross-attention: pixels attend to the context
        return x + self.ff(self.norm3(x))


class Attention(nn.Module):
    """Each token of x is a query; each token of y offers a key and a value: (B, N, C), (B, L, D) -> (B, N, C)."""

    def __init__(self, width: int, context_dim: int, heads: int):
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_k = nn.Linear(context_dim, width, bias=False)
        self.to_v = nn.Linear(context_dim, width, bias=False)
        self.to_out = nn.ModuleList([nn.Linear(width, width)])

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.to_out[0](attend(self.to_q(x), self.to_k(y), self.to_v(y), self.heads))


class FeedForward(nn.Module):
    """An MLP on each token by itself: (B, N, C) -> (B, N, C)."""

    def __init__(self, width: int):
        super().__init__()
        self.net = nn.ModuleList([GEGLU(width, 4 * width), nn.Identity(), nn.Linear(4 * width, width)])

    def forward(self, x: Tensor) -> Tensor:
        return self.net[2](self.net[0](x))


class GEGLU(nn.Module):
    """Half of the hidden layer gates the other half. Shazeer 2020, section 2."""

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.proj = nn.Linear(width, 2 * hidden)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.proj(x).chunk(2, dim=-1)                                         # (B, N, hidden) each
        return value * F.gelu(gate)


class Summary(nn.Module):
    """The context as one vector, (B, L, D) -> (B, width). DeepFloyd IF; diffusers' `addition_embed_type="text"`."""

    def __init__(self, dim: int, width: int, heads: int):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.pool = Pool(dim, heads)
        self.proj = nn.Linear(dim, width)
        self.norm2 = nn.LayerNorm(width)

    def forward(self, context: Tensor) -> Tensor:
        return self.norm2(self.proj(self.pool(self.norm1(context))))


class Pool(nn.Module):
    """Attention pooling: the tokens' mean is the only query, (B, L, D) -> (B, D). Radford et al. 2021, section 2.4."""

    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.heads = heads
        self.positional_embedding = nn.Parameter(dim**-0.5 * torch.randn(1, dim))  # of the mean
        self.q_proj = nn.Linear(dim, dim)
        self.k_proj = nn.Linear(dim, dim)
        self.v_proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(dim=1, keepdim=True) + self.positional_embedding                      # (B, 1, D)
        x = torch.cat([mean, x], dim=1)                                                     # (B, 1 + L, D)
        return attend(self.q_proj(mean), self.k_proj(x), self.v_proj(x), self.heads)[:, 0]  # (B, D)
