"""What the VAE for emoji keeps of an image, and what tiles change: python benchmarks/vae.py

Prints PSNR on held-out emoji, the standard deviation of the posterior, and how far a large image that is decoded in
tiles lies from the same image decoded whole.
"""

import math
from dataclasses import dataclass

import torch
import tyro
from einops import rearrange
from torch import Tensor

from minidiff import data
from minidiff.device import pick_device
from minidiff.evaluation.report import machine
from minidiff.files import asset
from minidiff.formats.vae import load_vae
from minidiff.training.recipes.vae import psnr

SPLITS = ("train", "validation", "new_combinations", "new_things")


@dataclass
class Options:
    vae: str = str(asset("weights/emoji/vae"))
    """A folder as `minidiff train vae` writes it."""
    n: int | None = None
    """Pictures of each split. None: all of them."""
    device: str | None = None


def decibels(one: Tensor, other: Tensor) -> float:
    return 10 * math.log10(4 / float(((one - other) ** 2).mean()))


@torch.no_grad()
def main(options: Options) -> None:
    device = pick_device(options.device)
    vae = load_vae(options.vae, device)
    print(f"{'PSNR in dB':18}{'pictures':>9}{'mean':>8}{'lowest':>8}" + "".join(f"{s:>10}" for s in data.STYLES))
    for split in SPLITS:
        pictures = data.emoji(split)
        rows = range(min(len(pictures), options.n or len(pictures)))
        value, styles = psnr(vae, pictures.floats(rows)), [pictures.styles[row] for row in rows]
        each = [value[torch.tensor([s == style for s in styles])].mean() for style in data.STYLES]
        cells = "".join(f"{mean:10.2f}" for mean in each)
        print(f"{split:18}{len(value):>9}{value.mean():8.2f}{value.min():8.2f}{cells}")

    pictures = data.emoji("new_combinations").floats(range(64)).to(device)
    posterior = vae.posterior(pictures)
    noisy = float((posterior.std**2).mean().sqrt()) * vae.config.scaling
    back = vae.decode(vae.encode(pictures)).clamp(-1, 1)
    noise = torch.randn(posterior.mean.shape, generator=torch.Generator().manual_seed(0)).to(device)
    drawn = vae.decode(vae.encode(pictures, noise)).clamp(-1, 1)
    print(f"the posterior's standard deviation, over that of all latents: {noisy:.2f}")
    print(
        f"64 of new_combinations: decoded means {decibels(back, pictures):.2f} dB, samples {decibels(drawn, pictures):.2f}"
    )

    large = rearrange(pictures, "(r c) k h w -> 1 k (r h) (c w)", r=8)  # 512x512
    latents = vae.encode(large)
    whole = vae.decode(latents).clamp(-1, 1)
    for tile in (256, 128):
        tiled = vae.decode(latents, tile=tile).clamp(-1, 1)
        off = (tiled - whole).abs().flatten().sort().values
        print(
            f"the same 64 as one picture of 512x512, in tiles of {tile}: {decibels(tiled, whole):.1f} dB from the whole "
            f"(of 2: mean {off.mean():.4f}, 99.9 % below {off[int(0.999 * len(off))]:.2f}, largest {off[-1]:.2f}); "
            f"from the truth {decibels(tiled, large):.2f} dB, the whole {decibels(whole, large):.2f}"
        )
    print(f"machine: {machine(device)}")


if __name__ == "__main__":
    main(tyro.cli(Options))
