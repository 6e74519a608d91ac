"""Right answers to the exercises of lesson 05, each written in another way: all of them must pass."""

import math

import torch
import torch.nn.functional as F
from einops import rearrange, reduce


def time_embedding_wave_by_wave(t, dim):
    columns = [torch.cos(1000 * t / 10_000 ** (i / (dim // 2))) for i in range(dim // 2)]
    columns += [torch.sin(1000 * t / 10_000 ** (i / (dim // 2))) for i in range(dim // 2)]
    return torch.stack(columns, dim=1)


def time_embedding_by_library(t, dim):
    from minidiff.networks.unet import sinusoidal

    return sinusoidal(1000 * t, dim)  # float32


def time_embedding_by_complex_numbers(t, dim):
    half = dim // 2
    rates = torch.logspace(0, -4 * (half - 1) / half, half, dtype=torch.float64)
    turned = torch.polar(torch.ones(len(t), half, dtype=torch.float64), torch.outer(1000 * t, rates))
    return torch.cat([turned.real, turned.imag], dim=1)


def group_norm_by_pytorch(x, groups, weight, bias, eps):
    return F.group_norm(x, groups, weight, bias, eps)


def group_norm_by_einops(x, groups, weight, bias, eps):
    parts = rearrange(x, "b (g c) h w -> b g (c h w)", g=groups)
    parts = parts - reduce(parts, "b g n -> b g 1", "mean")
    parts = parts * (reduce(parts**2, "b g n -> b g 1", "mean") + eps) ** -0.5
    out = rearrange(parts, "b g (c h w) -> b (g c) h w", h=x.shape[2], w=x.shape[3])
    return out * rearrange(weight, "c -> c 1 1") + rearrange(bias, "c -> c 1 1")


def group_norm_in_loops(x, groups, weight, bias, eps):
    out, size = torch.empty_like(x), x.shape[1] // groups
    for b in range(len(x)):
        for first in range(0, x.shape[1], size):
            part = x[b, first : first + size]
            spread = math.sqrt(float((part - part.mean()).pow(2).mean()) + eps)
            for c in range(first, first + size):
                out[b, c] = (x[b, c] - part.mean()) / spread * weight[c] + bias[c]
    return out


def res_block_in_steps(x, emb, norm1, conv1, project, norm2, conv2, shortcut):
    h = norm1(x)
    h = h * torch.sigmoid(h)
    h = conv1(h)
    told = rearrange(project(emb * torch.sigmoid(emb)), "b c -> b c 1 1")
    h = norm2(h + told)
    return conv2(h * torch.sigmoid(h)) + shortcut(x)


def res_block_in_float32(x, emb, norm1, conv1, project, norm2, conv2, shortcut):
    silu = torch.nn.SiLU()
    x, emb = x.float(), emb.float()
    told = project(silu(emb)).reshape(len(x), -1, 1, 1)
    return conv2(silu(norm2(told.expand(-1, -1, *x.shape[2:]) + conv1(silu(norm1(x)))))) + shortcut(x)


def attention_head_by_head(q, k, v, heads):
    parts, d = [], q.shape[-1] // heads
    for a, b, c in zip(q.split(d, dim=-1), k.split(d, dim=-1), v.split(d, dim=-1), strict=True):
        scores = torch.bmm(a, b.mT).div(d**0.5).exp()
        parts.append(torch.bmm(scores / scores.sum(-1, keepdim=True), c))
    return torch.cat(parts, dim=-1)


def attention_by_einsum(q, k, v, heads):
    q, k, v = (z.float().reshape(z.shape[0], z.shape[1], heads, -1) for z in (q, k, v))
    weights = torch.einsum("bnhd,blhd->bhnl", q * q.shape[-1] ** -0.5, k).softmax(dim=3)
    return torch.einsum("bhnl,blhd->bnhd", weights, v).flatten(2)


def unet_with_a_stack(x, levels, down, middle, up, shrink, grow):
    stack = []
    for level in range(levels):
        stack.append(down(x, level))
        x = shrink(stack[-1])
    x = middle(x)
    while stack:
        x = torch.cat((grow(x), stack.pop()), 1)
        x = up(x, len(stack))
    return x


def unet_by_recursion(x, levels, down, middle, up, shrink, grow):
    def inside(x, level):
        if level == levels:
            return middle(x)
        skip = down(x, level)
        return up(torch.cat([grow(inside(shrink(skip), level + 1)), skip], dim=1), level)

    return inside(x.float(), 0)


FORMS = {
    "l05_time_embedding": [
        time_embedding_wave_by_wave,
        time_embedding_by_library,
        time_embedding_by_complex_numbers,
    ],
    "l05_group_norm": [group_norm_by_pytorch, group_norm_by_einops, group_norm_in_loops],
    "l05_res_block": [res_block_in_steps, res_block_in_float32],
    "l05_attention": [attention_head_by_head, attention_by_einsum],
    "l05_unet": [unet_with_a_stack, unet_by_recursion],
}
