"""The UNet: from a noisy image, a time and a context to a prediction of the image's size.

Parameter names are those of diffusers' UNet2DConditionModel and defaults those of Stable Diffusion 1.x, so its weights
load without renaming. A digit model is the same class with fewer channels. Ronneberger et al. 2015, figure 1: encoder,
decoder, skip connections. Ho et al. 2020, appendix B: the time. Rombach et al. 2022, section 3.3: the context.
"""
# The shapes on the right stand in one column, which the formatter would undo.
# fmt: off

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minidiff.networks.attention import SpatialTransformer, Summary


@dataclass(frozen=True)
class UNetConfig:
    """The defaults are Stable Diffusion 1.x: 859,520,964 parameters."""

    in_channels: int = 4  # channels of the noisy image
    out_channels: int = 4  # channels of the prediction
    channels: tuple[int, ...] = (320, 640, 1280, 1280)  # one entry a level; each level has half the height and width
    attention: tuple[bool, ...] = (True, True, True, False)  # which levels attend to the context
    layers: int = 2  # ResBlocks a level in the encoder; one more in the decoder
    heads: int | tuple[int, ...] = 8  # attention heads, for all levels or one entry a level
    context_dim: int = 768  # width of a context token
    groups: int = 32  # GroupNorm groups
    pooled: bool = False  # add a summary of the context to the time embedding: it reaches every block and pixel
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
    """net(x, time, context): x (B, C, H, W) of any size, time (B,), context (B, L, D); without one a ValueError."""

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
        skips = [channels[0]]  # channels of each skip connection, from the encoder to the decoder
        for level, width in enumerate(channels):
            before, last = skips[-1], level == len(channels) - 1
            self.down_blocks.append(DownBlock(config, before, width, heads[level], config.attention[level], last))
            skips += [width] * (config.layers + (not last))

        self.mid_block = MidBlock(config, channels[-1], heads[-1])

        self.up_blocks = nn.ModuleList()
        before = channels[-1]
        for level, width in reversed(list(enumerate(channels))):
            taken, last = [skips.pop() for _ in range(config.layers + 1)], level == 0
            self.up_blocks.append(UpBlock(config, before, taken, width, heads[level], config.attention[level], last))
            before = width

        self.conv_norm_out = nn.GroupNorm(config.groups, channels[0], eps=1e-5)
        self.conv_out = nn.Conv2d(channels[0], config.out_channels, 3, padding=1)

    def forward(self, x: Tensor, time: Tensor, context: Tensor) -> Tensor:
        if context is None:
            raise ValueError("this UNet attends to a context: give it tokens (B, L, D)")
        dtype = self.conv_in.weight.dtype  # half-precision weights need half-precision inputs
        context = context.to(dtype)                                                         # (B, L, D)
        emb = self.time_embedding(time, dtype)                                              # (B, 4 c)
        if self.config.pooled:
            emb = emb + self.add_embedding(context)
        x = self.conv_in(x.to(dtype))                                                       # (B, c, H, W)
        skips = [x]
        for block in self.down_blocks:
            x = block(x, emb, context, skips)  # appends to skips                           # (B, c_k, H / 2^k, W / 2^k)
        x = self.mid_block(x, emb, context)                                                 # (B, c_last, h, w)
        for block in self.up_blocks:
            x = block(x, emb, context, skips)  # pops from skips                            # finally (B, c, H, W)
        return self.conv_out(F.silu(self.conv_norm_out(x)))                                 # (B, C, H, W)


# Time --------------------------------------------------------------------------------------


def sinusoidal(time: Tensor, dim: int) -> Tensor:
    """The time as cosines and sines of many frequencies, (B,) -> (B, dim). Vaswani et al. 2017, section 3.5."""
    half = dim // 2
    rates = torch.exp(-math.log(10_000) / half * torch.arange(half, dtype=torch.float32, device=time.device))
    angles = time[:, None].float() * rates                                                  # (B, dim / 2)
    return torch.cat([angles.cos(), angles.sin()], dim=-1)                                  # (B, dim)


class TimeEmbedding(nn.Module):
    """Sinusoids through a small MLP: (B,) -> (B, dim)."""

    def __init__(self, waves: int, dim: int):
        super().__init__()
        self.waves = waves
        self.linear_1 = nn.Linear(waves, dim)
        self.linear_2 = nn.Linear(dim, dim)

    def forward(self, time: Tensor, dtype: torch.dtype) -> Tensor:
        waves = sinusoidal(time, self.waves).to(dtype)                                      # (B, waves)
        return self.linear_2(F.silu(self.linear_1(waves)))                                  # (B, dim)


# The levels --------------------------------------------------------------------------------


def _attention(width: int, heads: int, config: UNetConfig) -> SpatialTransformer:
    return SpatialTransformer(width, heads, config.context_dim, config.groups, config.linear_projection)


class DownBlock(nn.Module):
    """A level of the encoder: ResBlocks, each followed by attention; then half the size, except at the last level."""

    def __init__(self, config: UNetConfig, before: int, width: int, heads: int, attention: bool, last: bool):
        super().__init__()
        widths = [before] + [width] * (config.layers - 1)
        self.resnets = nn.ModuleList(ResBlock(w, width, config) for w in widths)
        self.attentions = nn.ModuleList(_attention(width, heads, config) for _ in widths if attention)
        self.downsamplers = nn.ModuleList([] if last else [Downsample(width)])

    def forward(self, x: Tensor, emb: Tensor, context: Tensor, skips: list[Tensor]) -> Tensor:
        for k, resnet in enumerate(self.resnets):
            x = resnet(x, emb)                                                              # (B, width, h, w)
            if self.attentions:
                x = self.attentions[k](x, context)
            skips.append(x)
        for downsample in self.downsamplers:  # one, or none
            x = downsample(x)                                                               # (B, width, h / 2, w / 2)
            skips.append(x)
        return x


class MidBlock(nn.Module):
    """The lowest resolution: ResBlock, attention, ResBlock."""

    def __init__(self, config: UNetConfig, width: int, heads: int):
        super().__init__()
        self.resnets = nn.ModuleList(ResBlock(width, width, config) for _ in range(2))
        self.attentions = nn.ModuleList([_attention(width, heads, config)])

    def forward(self, x: Tensor, emb: Tensor, context: Tensor) -> Tensor:
        x = self.resnets[0](x, emb)                                                         # (B, width, h, w)
        x = self.attentions[0](x, context)
        return self.resnets[1](x, emb)


class UpBlock(nn.Module):
    """A level of the decoder, the encoder's in reverse: each ResBlock also takes a skip connection of its size."""

    def __init__(
        self, config: UNetConfig, before: int, skips: list[int], width: int, heads: int, attention: bool, last: bool
    ):
        super().__init__()
        widths = [before] + [width] * (len(skips) - 1)
        self.resnets = nn.ModuleList(ResBlock(w + s, width, config) for w, s in zip(widths, skips, strict=True))
        self.attentions = nn.ModuleList(_attention(width, heads, config) for _ in widths if attention)
        self.upsamplers = nn.ModuleList([] if last else [Upsample(width)])

    def forward(self, x: Tensor, emb: Tensor, context: Tensor, skips: list[Tensor]) -> Tensor:
        for k, resnet in enumerate(self.resnets):
            # Ronneberger et al. 2015, section 2: concatenated, not added
            x = resnet(torch.cat([x, skips.pop()], dim=1), emb)                             # (B, width, h, w)
            if self.attentions:
                x = self.attentions[k](x, context)
        for upsample in self.upsamplers:  # one, or none
            x = upsample(x, size=skips[-1].shape[-2:])                                      # (B, width, 2 h, 2 w)
        return x


class ResBlock(nn.Module):
    """Two convolutions beside a shortcut (He et al. 2016); between them the time is added, the same at every pixel."""

    def __init__(self, before: int, width: int, config: UNetConfig):
        super().__init__()
        self.norm1 = nn.GroupNorm(config.groups, before, eps=1e-5)
        self.conv1 = nn.Conv2d(before, width, 3, padding=1)
        self.time_emb_proj = nn.Linear(4 * config.channels[0], width)
        self.norm2 = nn.GroupNorm(config.groups, width, eps=1e-5)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        self.conv_shortcut = nn.Conv2d(before, width, 1) if before != width else None

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))                                               # (B, width, h, w)
        h = h + self.time_emb_proj(F.silu(emb))[:, :, None, None]                           # + (B, width, 1, 1)
        h = self.conv2(F.silu(self.norm2(h)))
        return h + (x if self.conv_shortcut is None else self.conv_shortcut(x))


class Downsample(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)                                                                 # (B, C, h / 2, w / 2)


class Upsample(nn.Module):
    """Repeat pixels, then convolve: a transposed convolution leaves checkerboards (Odena et al. 2016)."""

    def __init__(self, width: int):
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        return self.conv(F.interpolate(x, size=size, mode="nearest"))                       # (B, C, *size)
