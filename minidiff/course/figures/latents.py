"""Figures of a model in latents: a prompt's sampling trajectory, results beside the truth, and what the VAE keeps."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from minidiff.course.figures.estimates import check_step
from minidiff.course.figures.page import BLUE, FIGURES, GRAY, WIDTH, Page
from minidiff.course.figures.text import fitted, two_lines
from minidiff.data import Emoji
from minidiff.diffusion import DEFAULT_SAMPLER
from minidiff.pipeline.text_to_image import TextToImage
from minidiff.registry import register

STRIP = 6  # small pictures of a trajectory
ROW = 5  # pictures side by side in `reconstructions`


@dataclass(frozen=True)
class Trajectory:
    """A prompt's way from noise to an image."""

    prompt: str
    scale: float  # of guidance
    seed: int
    times: list[float]  # of the forward passes, falling from 1
    estimates: Tensor  # (steps, C, H, W) in [0, 1]: the denoised estimates, decoded; the last one is the result


def trajectory(
    pipe: TextToImage, prompt: str, scale: float | None = None, seed: int = 0, steps: int = 20
) -> Trajectory:
    """Sample once, and keep every step. Raises UserError for what cannot be sampled."""
    scale = pipe.config.scale if scale is None else float(scale)
    # the default sampler's result is its last denoised estimate
    taken = list(pipe.stream([prompt], steps=steps, scale=scale, seed=seed, sampler=DEFAULT_SAMPLER))
    estimates = pipe.decode(torch.cat([step.x0_hat for step in taken])).cpu()
    return Trajectory(prompt, scale, seed, pipe.times(steps, DEFAULT_SAMPLER)[:steps].tolist(), estimates)


def at_step(taken: Trajectory, step: int | None = None) -> Image.Image:
    """A trajectory on one page: the denoised estimate at one step large, those at six of the steps in a strip below.

    step: 1 to the number of steps, None for the last: the result. In the strip the last estimate up to it is framed.
    Raises UserError for another step.
    """
    steps = len(taken.times)
    step = steps if step is None else step
    check_step(step, steps)
    chosen = torch.linspace(1, steps, min(steps, STRIP)).round().long().tolist()
    with Page(WIDTH, 460, palette=False) as page:
        ends = ": the result" if step == steps else ""
        words = rf"$\hat{{x}}_0$ at t = {taken.times[step - 1]:.2f}{ends}"
        page.picture(taken.estimates[step - 1], 16, 30, 256, title=words)
        page.text(296, 32, "prompt: " + two_lines(taken.prompt, 400), fontsize=9)
        page.text(296, 76, f"step {step} of {steps}\nguidance scale {taken.scale:g}\nseed {taken.seed}", fontsize=9)
        words = "the denoised estimate at time t, decoded;\nsampling starts from pure noise at t = 1"
        page.text(296, 146, words, fontsize=9, color=GRAY)
        reached = max(k for k in chosen if k <= step)
        for column, k in enumerate(chosen):
            words = f"t = {taken.times[k - 1]:.2f}", f"step {k}"
            frame = BLUE if k == reached else None
            smooth(page.picture(taken.estimates[k - 1], 16 + 124 * column, 324, 108, *words, frame))
        return page.image()


@register(FIGURES)
def prompt_box(
    pipe: TextToImage, prompt: str, scale: float | None = None, seed: int = 0, steps: int = 20, step: int | None = None
) -> Image.Image:
    """A prompt's image, large, and six of the denoised estimates that led to it, decoded. See `trajectory`, `at_step`."""
    return at_step(trajectory(pipe, prompt, scale, seed, steps), step)


@register(FIGURES)
def emoji_grid(pairs: Sequence[tuple[Emoji, str]], generated: Tensor, truth: Tensor) -> Image.Image:
    """Generated emoji beside the true ones, each with its name and style.

    pairs: N of (emoji, style). generated, truth: (N, 3, H, W) in [0, 1]. Raises ValueError if the numbers differ.
    """
    if not len(pairs) == len(generated) == len(truth):
        raise ValueError(
            f"{len(pairs)} names, {len(generated)} generated and {len(truth)} true images: give each pair both"
        )
    columns, wide, tall, size = 4, 225, 150, 98
    with Page(columns * wide, 24 + tall * -(-len(pairs) // columns), palette=False) as page:
        for k, ((item, style), mine, right) in enumerate(zip(pairs, generated, truth, strict=True)):
            left, top = 12 + wide * (k % columns), 24 + tall * (k // columns)
            smooth(page.picture(mine, left, top, size, "generated" * (k < columns)))
            smooth(page.picture(right, left + size + 4, top, size, "truth" * (k < columns)))
            page.text(left, top + size + 4, fitted(item.name, 2 * size), fontsize=9)
            page.text(left, top + size + 20, style, fontsize=9, color=GRAY)
        return page.image()


@register(FIGURES)
def reconstructions(pictures: Tensor, decoded: Tensor) -> Image.Image:
    """Images, below them what a VAE makes of them, and how close that is: the PSNR, in decibels.

    pictures, decoded: (N, C, H, W) in [0, 1]; five to a row. Raises ValueError if their shapes differ.
    """
    if pictures.shape != decoded.shape:
        raise ValueError(f"pictures {tuple(pictures.shape)} and decoded {tuple(decoded.shape)} must have one shape")
    psnr = -10 * (pictures - decoded).square().mean((1, 2, 3)).clamp(min=1e-10).log10()  # the peak is 1
    with Page(WIDTH, 12 + 296 * -(-len(pictures) // ROW), palette=False) as page:
        for k, (above, under) in enumerate(zip(pictures, decoded, strict=True)):
            left, top = 36 + 144 * (k % ROW), 8 + 296 * (k // ROW)
            first = page.picture(above, left, top, 128)
            second = page.picture(under, left, top + 134, 128, below=f"{psnr[k]:.1f} dB")
            if k % ROW == 0:
                first.set_ylabel("truth")
                second.set_ylabel("decoded")
        return page.image()


def smooth(axes) -> None:
    """For a picture that is not enlarged by a whole factor: no ragged edges."""
    axes.images[0].set_interpolation("bilinear")
