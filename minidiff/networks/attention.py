"""Attention: how pixels look at each other, and at the context. Vaswani et al. 2017; Rombach et al. 2022."""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn


class SpatialTransformer(nn.Module):
    """Pixels as a sequence of tokens that look at each other, then at the context."""

    def __init__(self, width: int, heads: int, context_dim: int, groups: int, linear: bool):
        super().__init__()
        self.linear = linear  # Stable Diffusion 2.x projects with Linear, 1.x with a 1x1 convolution
        self.norm = nn.GroupNorm(groups, width, eps=1e-6)
        project = nn.Linear if self.linear else lambda a, b: nn.Conv2d(a, b, 1)
        self.proj_in = project(width, width)
        self.transformer_blocks = nn.ModuleList([TransformerBlock(width, heads, context_dim)])
        self.proj_out = project(width, width)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        height = x.shape[2]
        h = self.norm(x)  # (B, C, H, W)
        if not self.linear:
            h = self.proj_in(h)
        h = rearrange(h, "b c h w -> b (h w) c")  # (B, HW, C)
        if self.linear:
            h = self.proj_in(h)
        h = self.transformer_blocks[0](h, context)
        if self.linear:
            h = self.proj_out(h)
        h = rearrange(h, "b (h w) c -> b c h w", h=height)  # (B, C, H, W)
        if not self.linear:
            h = self.proj_out(h)
        return x + h


class TransformerBlock(nn.Module):
    def __init__(self, width: int, heads: int, context_dim: int):
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn1 = Attention(width, width, heads)  # pixels look at pixels
        self.norm2 = nn.LayerNorm(width)
        self.attn2 = Attention(width, context_dim, heads)  # pixels look at the context
        self.norm3 = nn.LayerNorm(width)
        self.ff = FeedForward(width)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        h = self.norm1(x)
        x = x + self.attn1(h, h)
        x = x + self.attn2(self.norm2(x), context)
        return x + self.ff(self.norm3(x))


class Attention(nn.Module):
    """Each token of x asks (q), each token of y answers (k) and brings something (v)."""

    def __init__(self, width: int, context_dim: int, heads: int):
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_k = nn.Linear(context_dim, width, bias=False)
        self.to_v = nn.Linear(context_dim, width, bias=False)
        self.to_out = nn.ModuleList([nn.Linear(width, width)])

    def forward(self, x: Tensor, y: Tensor) -> Tensor:  # (B, N, C), (B, L, D)
        q, k, v = (
            rearrange(z, "b n (h d) -> b h n d", h=self.heads) for z in (self.to_q(x), self.to_k(y), self.to_v(y))
        )
        out = F.scaled_dot_product_attention(q, k, v)  # softmax(q k / sqrt(d)) v
        return self.to_out[0](rearrange(out, "b h n d -> b n (h d)"))  # (B, N, C)


class FeedForward(nn.Module):
    """GEGLU (Shazeer 2020): half of the hidden layer gates the other."""

    def __init__(self, width: int):
        super().__init__()
        self.net = nn.ModuleList([GEGLU(width, 4 * width), nn.Identity(), nn.Linear(4 * width, width)])

    def forward(self, x: Tensor) -> Tensor:
        return self.net[2](self.net[0](x))


class GEGLU(nn.Module):
    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.proj = nn.Linear(width, 2 * hidden)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.proj(x).chunk(2, dim=-1)
        return value * F.gelu(gate)


class Summary(nn.Module):
    """The context as one vector, (B, L, D) -> (B, width): the tokens' mean asks, the tokens and the mean answer.

    Diffusers' `addition_embed_type="text"`, which DeepFloyd IF uses.
    """

    def __init__(self, dim: int, width: int, heads: int):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.pool = Pool(dim, heads)
        self.proj = nn.Linear(dim, width)
        self.norm2 = nn.LayerNorm(width)

    def forward(self, context: Tensor) -> Tensor:
        return self.norm2(self.proj(self.pool(self.norm1(context))))


class Pool(nn.Module):
    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.heads = heads
        self.positional_embedding = nn.Parameter(dim**-0.5 * torch.randn(1, dim))  # of the mean
        self.q_proj = nn.Linear(dim, dim)
        self.k_proj = nn.Linear(dim, dim)
        self.v_proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:  # (B, L, D)
        mean = x.mean(dim=1, keepdim=True) + self.positional_embedding  # (B, 1, D)
        x = torch.cat([mean, x], dim=1)
        q, k, v = (
            rearrange(z, "b n (h d) -> b h n d", h=self.heads)
            for z in (self.q_proj(mean), self.k_proj(x), self.v_proj(x))
        )
        return rearrange(F.scaled_dot_product_attention(q, k, v), "b h 1 d -> b (h d)")  # (B, D)
