"""Figures of a model in latents: a prompt's way from noise to a picture, drawn beside true, and what the VAE keeps."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from minidiff.course.figures.page import BLUE, FIGURES, GRAY, WIDTH, Page
from minidiff.course.figures.text import readable, two_lines
from minidiff.data import Emoji
from minidiff.pipeline.text_to_image import TextToImage
from minidiff.registry import register

STRIP = 6  # small pictures of a walk
GRID = 900, 4  # pixels, and pairs side by side, of `emoji_grid`
ROW = 5  # pictures side by side in `reconstructions`


@dataclass(frozen=True)
class Walk:
    """A prompt's way from noise to a picture."""

    told: tuple[str, float, int]  # prompt, guidance scale, seed
    times: list[float]  # at which the network was asked, from 1 on down
    pictures: Tensor  # (steps, C, H, W) in [0, 1]: what it believed, decoded; the last one is the result


def walk(pipe: TextToImage, prompt: str, scale: float | None = None, seed: int = 0, steps: int = 20) -> Walk:
    """Draw once, and keep all that there is to see on the way. Raises ValueError for what cannot be drawn."""
    scale = pipe.config.scale if scale is None else float(scale)
    # dpmpp_2m ends with what it believed last
    taken = list(pipe.stream([prompt], steps=steps, scale=scale, seed=seed, sampler="dpmpp_2m"))
    pictures = pipe.decode(torch.cat([step.x0_hat for step in taken])).cpu()
    return Walk((prompt, scale, seed), pipe.times(steps, "dpmpp_2m")[:steps].tolist(), pictures)


def walked(walk: Walk, step: int | None = None) -> Image.Image:
    """A walk on one page: what was believed at a step large, and at six of the steps in a strip below.

    step: 1 to the number of steps, None for the last: the result. The strip's last picture up to there is framed.
    Raises ValueError for another step.
    """
    steps = len(walk.times)
    step = steps if step is None else step
    if not 1 <= step <= steps:
        raise ValueError(f"step must lie between 1 and the number of steps, {steps}; got {step}")
    prompt, scale, seed = walk.told
    chosen = torch.linspace(1, steps, min(steps, STRIP)).round().long().tolist()
    with Page(WIDTH, 460, palette=False) as page:
        ends = ": the picture" if step == steps else ""
        words = rf"$\hat{{x}}_0$ at t = {walk.times[step - 1]:.2f}{ends}"
        page.picture(walk.pictures[step - 1], 16, 30, 256, title=words)
        page.text(296, 32, "told " + two_lines(prompt, 400), fontsize=9)
        page.text(296, 76, f"step {step} of {steps}\nguidance scale {scale:g}\nseed {seed}", fontsize=9)
        words = "decoded: what the network believed at time t\nto be behind the noise, from noise alone (t = 1) on"
        page.text(296, 146, words, fontsize=9, color=GRAY)
        reached = max(k for k in chosen if k <= step)
        for column, k in enumerate(chosen):
            words = f"t = {walk.times[k - 1]:.2f}", f"step {k}"
            frame = BLUE if k == reached else None
            smooth(page.picture(walk.pictures[k - 1], 16 + 124 * column, 324, 108, *words, frame))
        return page.image()


@register(FIGURES)
def prompt_box(
    pipe: TextToImage,
    prompt: str,
    scale: float | None = None,
    seed: int = 0,
    steps: int = 20,
    step: int | None = None,
) -> Image.Image:
    """A prompt's picture, large, and six of the beliefs that led to it, decoded. scale: None for the model's own.

    step: the large one shows what was believed there, None for the last. Raises ValueError for what cannot be drawn.
    """
    return walked(walk(pipe, prompt, scale, seed, steps), step)


@register(FIGURES)
def emoji_grid(pairs: Sequence[tuple[Emoji, str]], drawn: Tensor, truth: Tensor) -> Image.Image:
    """What was drawn beside what is true, each with its name and style.

    pairs: N of (emoji, style). drawn, truth: (N, 3, H, W) in [0, 1]. Raises ValueError if the numbers differ.
    """
    if not len(pairs) == len(drawn) == len(truth):
        raise ValueError(f"{len(pairs)} names, {len(drawn)} drawn and {len(truth)} true pictures: give each pair both")
    width, columns = GRID
    wide, tall, size = width // columns, 150, 98
    with Page(width, 24 + tall * -(-len(pairs) // columns), palette=False) as page:
        for k, ((item, style), mine, right) in enumerate(zip(pairs, drawn, truth, strict=True)):
            left, top = 12 + wide * (k % columns), 24 + tall * (k // columns)
            for place, picture, title in ((left, mine, "drawn"), (left + size + 4, right, "truth")):
                smooth(page.picture(picture, place, top, size, title * (k < columns)))
            page.text(left, top + size + 4, readable(item.name, 2 * size)[1:-1], fontsize=9)
            page.text(left, top + size + 20, style, fontsize=9, color=GRAY)
        return page.image()


@register(FIGURES)
def reconstructions(pictures: Tensor, decoded: Tensor) -> Image.Image:
    """Pictures, under them what a VAE makes of them, and how near that is: the PSNR, in decibels.

    pictures, decoded: (N, C, H, W) in [0, 1]; five to a row. Raises ValueError if their shapes differ.
    """
    if pictures.shape != decoded.shape:
        raise ValueError(f"pictures {tuple(pictures.shape)} and decoded {tuple(decoded.shape)} must have one shape")
    near = -10 * (pictures - decoded).square().mean((1, 2, 3)).clamp(min=1e-10).log10()  # the peak is 1
    with Page(WIDTH, 12 + 296 * -(-len(pictures) // ROW), palette=False) as page:
        for k, (above, under) in enumerate(zip(pictures, decoded, strict=True)):
            left, top = 36 + 144 * (k % ROW), 8 + 296 * (k // ROW)
            first = page.picture(above, left, top, 128)
            second = page.picture(under, left, top + 134, 128, below=f"{near[k]:.1f} dB")
            if k % ROW == 0:
                first.set_ylabel("truth")
                second.set_ylabel("decoded")
        return page.image()


def smooth(axes) -> None:
    """For a picture that is not a whole number of times as large as its pixels: no ragged edges."""
    axes.images[0].set_interpolation("bilinear")
