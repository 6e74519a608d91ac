"""The VAE: images to latents, small enough to diffuse, and back.

Parameter names are those of diffusers' AutoencoderKL and the defaults those of Stable Diffusion 1.x. Kingma and
Welling 2014; Rombach et al. 2022, section 3.1.
"""

from collections import OrderedDict
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from minidiff.networks.attention import attend
from minidiff.networks.tiling import in_tiles
from minidiff.networks.unet import Upsample


@dataclass(frozen=True)
class VAEConfig:
    """The defaults are Stable Diffusion 1.x: 83,653,863 parameters."""

    in_channels: int = 3  # channels of an image, in and out
    channels: tuple[int, ...] = (128, 256, 512, 512)  # one entry a level; each level has half the height and width
    layers: int = 2  # ResBlocks a level in the encoder; one more in the decoder
    latent_channels: int = 4  # channels of a latent
    groups: int = 32  # GroupNorm groups
    scaling: float = 0.18215  # latents are multiplied by it: 1 / their standard deviation. Where a file names none

    def __post_init__(self):
        if wrong := [c for c in self.channels if c % self.groups]:
            raise ValueError(f"{wrong[0]} channels cannot be split into {self.groups} groups")
        if not self.scaling > 0:
            raise ValueError(f"scaling must be above 0, got {self.scaling}")

    @property
    def factor(self) -> int:
        """Pixels along each side of one latent position."""
        return 2 ** (len(self.channels) - 1)


class Posterior(NamedTuple):
    """q(z | x), the encoder's output: a normal distribution for each value of the latent, (B, C, h, w)."""

    mean: Tensor
    log_variance: Tensor

    @property
    def std(self) -> Tensor:
        return (self.log_variance / 2).exp()

    def sample(self, noise: Tensor) -> Tensor:
        """noise: standard normal, of the mean's shape. Kingma and Welling 2014, section 2.4."""
        return self.mean + self.std * noise


class VAE(nn.Module):
    """Images x (B, C, H, W) in [-1, 1] <-> latents z (B, c, H/f, W/f) with standard deviation 1, as SpaceToDepth."""

    def __init__(self, config: VAEConfig = VAEConfig()):
        super().__init__()
        self.config, self.factor = config, config.factor
        self.encoder = _encoder(config)
        self.decoder = _decoder(config)
        self.quant_conv = nn.Conv2d(2 * config.latent_channels, 2 * config.latent_channels, 1)
        self.post_quant_conv = nn.Conv2d(config.latent_channels, config.latent_channels, 1)

    def posterior(self, x: Tensor, tile: int | None = None) -> Posterior:
        """The distribution of the latents before scaling. Raises ValueError for sides that factor does not divide."""
        height, width, f = *x.shape[-2:], self.factor
        if height % f or width % f:
            less = f"{max(height // f, 1) * f}x{max(width // f, 1) * f}"
            more = f"{-(-height // f) * f}x{-(-width // f) * f}"
            would = less if less == more else f"{less} or {more}"
            raise ValueError(f"sides must be multiples of {f}, got {height}x{width}: {would} would do")
        moments = in_tiles(self._moments, x, tile, f, enter=f, leave=1) if tile else self._moments(x)
        mean, log_variance = moments.chunk(2, dim=1)
        return Posterior(mean, log_variance.clamp(-30, 20))

    def encode(self, x: Tensor, noise: Tensor | None = None, *,
               tile: int | None = None, sliced: bool = False) -> Tensor:  # fmt: skip
        """Scaled latents: the posterior's sample with this noise, or its mean.

        tile: pixels of a side; a large image is encoded in squares that overlap by a quarter and are blended.
        sliced: one image at a time. Both need less memory; tiles change the result slightly, slices do not.
        """
        if sliced and len(x) > 1:
            noises = [None] * len(x) if noise is None else noise.split(1)
            return torch.cat([self.encode(p, n, tile=tile) for p, n in zip(x.split(1), noises, strict=True)])
        posterior = self.posterior(x, tile)
        return self.config.scaling * (posterior.mean if noise is None else posterior.sample(noise))

    def decode(self, z: Tensor, *, tile: int | None = None, sliced: bool = False) -> Tensor:
        """Images of scaled latents. tile, sliced: as in `encode`."""
        if sliced and len(z) > 1:
            return torch.cat([self.decode(one, tile=tile) for one in z.split(1)])
        z = z / self.config.scaling
        return in_tiles(self._image, z, tile, self.factor, enter=1, leave=self.factor) if tile else self._image(z)

    def _moments(self, x: Tensor) -> Tensor:
        return self.quant_conv(self.encoder(x.to(self.quant_conv.weight.dtype)))  # (B, 2 c, h, w)

    def _image(self, z: Tensor) -> Tensor:
        return self.decoder(self.post_quant_conv(z.to(self.post_quant_conv.weight.dtype)))  # (B, C, H, W)


def _encoder(config: VAEConfig) -> nn.Sequential:
    """(B, C, H, W) -> (B, 2 c, h, w), the posterior's moments."""
    channels, last = config.channels, config.channels[-1]
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        conv_in=nn.Conv2d(config.in_channels, channels[0], 3, padding=1),
        down_blocks=_levels(channels, config.layers, config, downsamplers=Downsample),
        mid_block=MidBlock(last, config),
        conv_norm_out=_norm(last, config),
        act=nn.SiLU(),
        conv_out=nn.Conv2d(last, 2 * config.latent_channels, 3, padding=1),
    )
    return nn.Sequential(layers)


def _decoder(config: VAEConfig) -> nn.Sequential:
    """(B, c, h, w) -> (B, C, H, W)."""
    channels = config.channels[::-1]
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        conv_in=nn.Conv2d(config.latent_channels, channels[0], 3, padding=1),
        mid_block=MidBlock(channels[0], config),
        up_blocks=_levels(channels, config.layers + 1, config, upsamplers=Double),
        conv_norm_out=_norm(channels[-1], config),
        act=nn.SiLU(),
        conv_out=nn.Conv2d(channels[-1], config.in_channels, 3, padding=1),
    )
    return nn.Sequential(layers)


def _levels(channels: tuple[int, ...], layers: int, config: VAEConfig, **resample: type[nn.Module]) -> nn.Sequential:
    """Levels of ResBlocks, each but the last with what changes its size, under that one's name."""
    levels, before = nn.Sequential(), channels[0]
    ((name, sampler),) = resample.items()
    for level, width in enumerate(channels):
        resnets = [ResBlock(w, width, config) for w in [before] + [width] * (layers - 1)]
        samplers = [sampler(width)] if level < len(channels) - 1 else []
        levels.append(nn.Sequential(OrderedDict({"resnets": nn.Sequential(*resnets), name: nn.Sequential(*samplers)})))
        before = width
    return levels


class MidBlock(nn.Module):
    def __init__(self, width: int, config: VAEConfig):
        super().__init__()
        self.resnets = nn.ModuleList(ResBlock(width, width, config) for _ in range(2))
        self.attentions = nn.ModuleList([Attention(width, config)])

    def forward(self, x: Tensor) -> Tensor:
        return self.resnets[1](self.attentions[0](self.resnets[0](x)))


class ResBlock(nn.Module):
    """The UNet's, without the time."""

    def __init__(self, before: int, width: int, config: VAEConfig):
        super().__init__()
        self.norm1 = _norm(before, config)
        self.conv1 = nn.Conv2d(before, width, 3, padding=1)
        self.norm2 = _norm(width, config)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        self.conv_shortcut = nn.Conv2d(before, width, 1) if before != width else None

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(self.norm2(h)))
        return h + (x if self.conv_shortcut is None else self.conv_shortcut(x))


class Attention(nn.Module):
    """Self-attention over all positions, with one head."""

    def __init__(self, width: int, config: VAEConfig):
        super().__init__()
        self.group_norm = _norm(width, config)
        self.to_q = nn.Linear(width, width)
        self.to_k = nn.Linear(width, width)
        self.to_v = nn.Linear(width, width)
        self.to_out = nn.ModuleList([nn.Linear(width, width)])

    def forward(self, x: Tensor) -> Tensor:
        h = rearrange(self.group_norm(x), "b c h w -> b (h w) c")
        h = self.to_out[0](attend(self.to_q(h), self.to_k(h), self.to_v(h), heads=1))  # (B, HW, C)
        return x + rearrange(h, "b (h w) c -> b c h w", h=x.shape[2])


class Downsample(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (0, 1, 0, 1)))  # on the right and below only, as Stable Diffusion was trained


class Double(Upsample):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x, size=(2 * x.shape[2], 2 * x.shape[3]))


def _norm(width: int, config: VAEConfig) -> nn.GroupNorm:
    return nn.GroupNorm(config.groups, width, eps=1e-6)
