"""The UNet: looks at a noisy picture, the time and the context, and says what it sees.

Parameter names are those of diffusers' UNet2DConditionModel, and the defaults those of Stable
Diffusion 1.x, so that its weights load here line by line. A model of digits is the same
class with small channels. Ronneberger et al. 2015; Ho et al. 2020; Rombach et al. 2022.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minidiff.networks.attention import SpatialTransformer, Summary


@dataclass(frozen=True)
class UNetConfig:
    """The defaults are Stable Diffusion 1.x: 859,520,964 parameters."""

    in_channels: int = 4  # channels of the noisy picture
    out_channels: int = 4  # channels of the prediction
    channels: tuple[int, ...] = (320, 640, 1280, 1280)  # one entry a level, each half the size of the last
    attention: tuple[bool, ...] = (True, True, True, False)  # which levels look at the context
    layers: int = 2  # ResBlocks a level on the way down; one more on the way up
    heads: int | tuple[int, ...] = 8  # attention heads, for all levels or one entry a level
    context_dim: int = 768  # width of a context token
    groups: int = 32  # GroupNorm groups
    pooled: bool = False  # add a summary of the context to the time embedding: it reaches every block at every place
    linear_projection: bool = False  # Stable Diffusion 2.x projects with Linear, 1.x with a 1x1 convolution

    def __post_init__(self):
        if not len(self.channels) == len(self.attention) == len(self.heads_per_level):
            raise ValueError("channels, attention and heads must have one entry a level")
        for c, h in zip(self.channels, self.heads_per_level, strict=True):
            if c % self.groups or c % h:
                raise ValueError(f"{c} channels cannot be split into {self.groups} groups and {h} heads")

    @property
    def heads_per_level(self) -> tuple[int, ...]:
        return (self.heads,) * len(self.channels) if isinstance(self.heads, int) else tuple(self.heads)


class UNet(nn.Module):
    """net(x, time, context): x (B, C, H, W) of any size, time (B,), context (B, L, D)."""

    def __init__(self, config: UNetConfig = UNetConfig()):
        super().__init__()
        self.config = config
        channels, heads = config.channels, config.heads_per_level
        time_dim = 4 * channels[0]
        self.conv_in = nn.Conv2d(config.in_channels, channels[0], 3, padding=1)
        self.time_embedding = TimeEmbedding(channels[0], time_dim)
        if config.pooled:
            self.add_embedding = Summary(config.context_dim, time_dim, heads[-1])

        self.down_blocks = nn.ModuleList()
        skips = [channels[0]]  # channels of what the way down leaves for the way up
        for level, width in enumerate(channels):
            before, last = skips[-1], level == len(channels) - 1
            self.down_blocks.append(DownBlock(config, before, width, heads[level], config.attention[level], last))
            skips += [width] * (config.layers + (not last))

        self.mid_block = MidBlock(config, channels[-1], heads[-1])

        self.up_blocks = nn.ModuleList()
        before = channels[-1]
        for level, width in reversed(list(enumerate(channels))):
            taken = [skips.pop() for _ in range(config.layers + 1)]
            self.up_blocks.append(
                UpBlock(config, before, taken, width, heads[level], config.attention[level], level == 0)
            )
            before = width

        self.conv_norm_out = nn.GroupNorm(config.groups, channels[0], eps=1e-5)
        self.conv_out = nn.Conv2d(channels[0], config.out_channels, 3, padding=1)

    def forward(self, x: Tensor, time: Tensor, context: Tensor) -> Tensor:
        if context is None:
            raise ValueError("this UNet looks at a context: give it tokens (B, L, D)")
        dtype = self.conv_in.weight.dtype  # half-precision weights want half-precision inputs
        context = context.to(dtype)
        emb = self.time_embedding(time, dtype)  # (B, 4 c)
        if self.config.pooled:
            emb = emb + self.add_embedding(context)
        x = self.conv_in(x.to(dtype))  # (B, c, H, W)
        skips = [x]
        for block in self.down_blocks:
            x = block(x, emb, context, skips)  # appends to skips
        x = self.mid_block(x, emb, context)
        for block in self.up_blocks:
            x = block(x, emb, context, skips)  # takes from skips
        return self.conv_out(F.silu(self.conv_norm_out(x)))  # (B, C, H, W)


# Time --------------------------------------------------------------------------------------


def sinusoidal(time: Tensor, dim: int) -> Tensor:
    """Time as waves of many lengths, (B,) -> (B, dim). Vaswani et al. 2017; cosines first."""
    half = dim // 2
    rates = torch.exp(-math.log(10_000) / half * torch.arange(half, dtype=torch.float32, device=time.device))
    angles = time[:, None].float() * rates
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


class TimeEmbedding(nn.Module):
    def __init__(self, waves: int, dim: int):
        super().__init__()
        self.waves = waves
        self.linear_1 = nn.Linear(waves, dim)
        self.linear_2 = nn.Linear(dim, dim)

    def forward(self, time: Tensor, dtype: torch.dtype) -> Tensor:
        return self.linear_2(F.silu(self.linear_1(sinusoidal(time, self.waves).to(dtype))))


# The levels --------------------------------------------------------------------------------


def _attend(width: int, heads: int, config: UNetConfig) -> SpatialTransformer:
    return SpatialTransformer(width, heads, config.context_dim, config.groups, config.linear_projection)


class DownBlock(nn.Module):
    """ResBlocks, each followed by attention to the context; then half the size, but for the last level."""

    def __init__(self, config: UNetConfig, before: int, width: int, heads: int, attention: bool, last: bool):
        super().__init__()
        widths = [before] + [width] * (config.layers - 1)
        self.resnets = nn.ModuleList(ResBlock(w, width, config) for w in widths)
        if attention:
            self.attentions = nn.ModuleList(_attend(width, heads, config) for _ in widths)
        if not last:
            self.downsamplers = nn.ModuleList([Downsample(width)])
        self.attends, self.shrinks = attention, not last

    def forward(self, x: Tensor, emb: Tensor, context: Tensor, skips: list[Tensor]) -> Tensor:
        for i, resnet in enumerate(self.resnets):
            x = resnet(x, emb)
            if self.attends:
                x = self.attentions[i](x, context)
            skips.append(x)
        if self.shrinks:
            x = self.downsamplers[0](x)
            skips.append(x)
        return x


class MidBlock(nn.Module):
    def __init__(self, config: UNetConfig, width: int, heads: int):
        super().__init__()
        self.resnets = nn.ModuleList(ResBlock(width, width, config) for _ in range(2))
        self.attentions = nn.ModuleList([_attend(width, heads, config)])

    def forward(self, x: Tensor, emb: Tensor, context: Tensor) -> Tensor:
        x = self.resnets[0](x, emb)
        x = self.attentions[0](x, context)
        return self.resnets[1](x, emb)


class UpBlock(nn.Module):
    """The way down in reverse: each ResBlock also gets what the way down left at its size."""

    def __init__(
        self, config: UNetConfig, before: int, skips: list[int], width: int, heads: int, attention: bool, last: bool
    ):
        super().__init__()
        widths = [before] + [width] * (len(skips) - 1)
        self.resnets = nn.ModuleList(ResBlock(w + s, width, config) for w, s in zip(widths, skips, strict=True))
        if attention:
            self.attentions = nn.ModuleList(_attend(width, heads, config) for _ in widths)
        if not last:
            self.upsamplers = nn.ModuleList([Upsample(width)])
        self.attends, self.grows = attention, not last

    def forward(self, x: Tensor, emb: Tensor, context: Tensor, skips: list[Tensor]) -> Tensor:
        for i, resnet in enumerate(self.resnets):
            x = resnet(torch.cat([x, skips.pop()], dim=1), emb)
            if self.attends:
                x = self.attentions[i](x, context)
        if self.grows:
            x = self.upsamplers[0](x, size=skips[-1].shape[-2:])
        return x


class ResBlock(nn.Module):
    """Two convolutions beside a shortcut; the time is added between them, the same at every pixel."""

    def __init__(self, before: int, width: int, config: UNetConfig):
        super().__init__()
        self.norm1 = nn.GroupNorm(config.groups, before, eps=1e-5)
        self.conv1 = nn.Conv2d(before, width, 3, padding=1)
        self.time_emb_proj = nn.Linear(4 * config.channels[0], width)
        self.norm2 = nn.GroupNorm(config.groups, width, eps=1e-5)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        self.conv_shortcut = nn.Conv2d(before, width, 1) if before != width else None

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        h = h + self.time_emb_proj(F.silu(emb))[:, :, None, None]
        h = self.conv2(F.silu(self.norm2(h)))
        return h + (x if self.conv_shortcut is None else self.conv_shortcut(x))


class Downsample(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class Upsample(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        return self.conv(F.interpolate(x, size=size, mode="nearest"))
