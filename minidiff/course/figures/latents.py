"""Figures of a model in latents: sampling trajectories, results beside the truth, what the VAE keeps, image to image."""

from collections.abc import Callable, Sequence

import torch
from PIL import Image
from torch import Tensor

from minidiff.course.figures.estimates import noise_of
from minidiff.course.figures.page import BLUE, FIGURES, GRAY, WIDTH, Page, fitted, two_lines
from minidiff.data import Emoji
from minidiff.diffusion import DEFAULT_SAMPLER
from minidiff.pipeline.image_to_image import remaining
from minidiff.pipeline.text_to_image import TextToImage
from minidiff.registry import check_between, choose, register

STRIP = 6  # small pictures of a trajectory
ROW = 5  # pictures side by side in `reconstructions`
EVERYTHING = "everything"
SMOOTH = {"interpolation": "bilinear"}  # of pictures not enlarged by a whole factor: no ragged edges
HOLE = torch.full((3, 1, 1), 0.85)  # light gray
# What of an image can be generated anew: where its rows begin and end, and its columns, in quarters
PARTS = {EVERYTHING: (0, 4, 0, 4), "lower half": (2, 4, 0, 4), "right half": (0, 4, 2, 4), "middle": (1, 3, 1, 3)}


def trajectory(pipe: TextToImage, prompt: str, scale: float, seed: int, steps: int) -> tuple[list[float], Tensor]:
    """The times of a prompt's forward passes, falling from 1, and their denoised estimates, (steps, C, H, W) in [0, 1].

    The last estimate is the default sampler's result. Raises UserError for what cannot be sampled.
    """
    taken = list(pipe.stream([prompt], steps=steps, scale=scale, seed=seed))
    times = pipe.times(steps, DEFAULT_SAMPLER)[:steps].tolist()
    return times, pipe.decode(torch.cat([step.x0_hat for step in taken])).cpu()


@register(FIGURES)
def prompt_box(
    pipe: TextToImage, prompt: str, scale: float | None = None, seed: int = 0, steps: int = 20,
    step: int | None = None, sample: Callable[..., tuple[list[float], Tensor]] = trajectory,
) -> Image.Image:  # fmt: skip
    """A prompt's image, large, and six of the denoised estimates that led to it.

    step: from 1; its estimate is the large one, and the last one up to it is framed in the strip. None for the result.
    sample: such as a `trajectory` that remembers. Raises UserError for what cannot be sampled, and for another step.
    """
    scale = pipe.config.scale if scale is None else float(scale)
    times, estimates = sample(pipe, prompt, scale, seed, steps)
    check_between("step", step := steps if step is None else step, 1, steps)
    chosen = torch.linspace(1, steps, min(steps, STRIP)).round().long().tolist()
    with Page(WIDTH, 460, palette=False) as page:
        words = rf"$\hat{{x}}_0$ at t = {times[step - 1]:.2f}" + ": the result" * (step == steps)
        page.picture(estimates[step - 1], 16, 30, 256, title=words)
        page.text(296, 32, "prompt: " + two_lines(prompt, 400), fontsize=9)
        page.text(296, 76, f"step {step} of {steps}\nguidance scale {scale:g}\nseed {seed}", fontsize=9)
        words = "the denoised estimate at time t, decoded;\nsampling starts from pure noise at t = 1"
        page.text(296, 146, words, fontsize=9, color=GRAY)
        reached = max(k for k in chosen if k <= step)
        for column, k in enumerate(chosen):
            look = f"t = {times[k - 1]:.2f}", f"step {k}", BLUE if k == reached else None
            page.picture(estimates[k - 1], 16 + 124 * column, 324, 108, *look, **SMOOTH)
        return page.image()


@register(FIGURES)
def emoji_grid(pairs: Sequence[tuple[Emoji, str]], generated: Tensor, truth: Tensor) -> Image.Image:
    """N generated emoji beside the true ones, both (N, 3, H, W) in [0, 1]; ValueError for another number of pairs."""
    if not len(pairs) == len(generated) == len(truth):
        counts = f"{len(pairs)} names, {len(generated)} generated and {len(truth)} true images"
        raise ValueError(f"{counts}: give each pair both")
    columns, wide, tall, size = 4, 225, 150, 98
    with Page(columns * wide, 24 + tall * -(-len(pairs) // columns), palette=False) as page:
        for k, ((item, style), mine, right) in enumerate(zip(pairs, generated, truth, strict=True)):
            left, top = 12 + wide * (k % columns), 24 + tall * (k // columns)
            page.picture(mine, left, top, size, "generated" * (k < columns), **SMOOTH)
            page.picture(right, left + size + 4, top, size, "truth" * (k < columns), **SMOOTH)
            page.text(left, top + size + 4, fitted(item.name, 2 * size), fontsize=9)
            page.text(left, top + size + 20, style, fontsize=9, color=GRAY)
        return page.image()


@register(FIGURES)
def reconstructions(pictures: Tensor, decoded: Tensor) -> Image.Image:
    """Images, what a VAE makes of them, both (N, C, H, W) in [0, 1], or ValueError; and their PSNR, in decibels."""
    if pictures.shape != decoded.shape:
        raise ValueError(f"pictures {tuple(pictures.shape)} and decoded {tuple(decoded.shape)} must have one shape")
    psnr = -10 * (pictures - decoded).square().mean((1, 2, 3)).clamp(min=1e-10).log10()  # the peak is 1
    with Page(WIDTH, 12 + 296 * -(-len(pictures) // ROW), palette=False) as page:
        for k, (above, under) in enumerate(zip(pictures, decoded, strict=True)):
            left, top = 36 + 144 * (k % ROW), 8 + 296 * (k // ROW)
            page.picture(above, left, top, 128).set_ylabel("truth" * (k % ROW == 0))
            lower = page.picture(under, left, top + 134, 128, below=f"{psnr[k]:.1f} dB")
            lower.set_ylabel("decoded" * (k % ROW == 0))
        return page.image()


def part_mask(part: str, height: int, width: int) -> Tensor:
    """1 inside a part of an image, else 0, (1, 1, height, width). Raises UserError for a part that is not in PARTS."""
    top, bottom, first, last = choose(part, PARTS, "part")
    mask = torch.zeros(1, 1, height, width)
    mask[..., height * top // 4 : height * bottom // 4, width * first // 4 : width * last // 4] = 1
    return mask


@register(FIGURES)
def edit(
    pipe: TextToImage, picture: Tensor, prompt: str,
    strength: float = 0.8, part: str = EVERYTHING, seed: int = 0, steps: int = 20,
) -> Image.Image:  # fmt: skip
    """An image, what is kept of it, where sampling starts, and where it ends.

    picture: (3, H, W) in [-1, 1], of a size that the model can generate. part: one of PARTS. Raises UserError otherwise.
    """
    init = pipe.to_latents(picture[None])
    mask = None if part == EVERYTHING else part_mask(part, *init.shape[2:])
    times, noise = remaining(pipe.times(steps, DEFAULT_SAMPLER), strength), noise_of(init, seed)
    result = pipe.latents([prompt], init=init, mask=mask, latents=noise, strength=strength, steps=steps)
    start, end = pipe.decode(torch.cat([pipe.schedule.add_noise(init, noise, times[0]), result]))
    pictures = {
        "initial image": ((picture + 1) / 2, ""),
        "what is kept": (torch.lerp((picture + 1) / 2, HOLE, part_mask(part, *picture.shape[1:])[0]), f"new: {part}"),
        "start of sampling": (start, f"decoded, t = {times[0]:.2f}"),
        "result": (end, f"{len(times) - 1} of {steps} steps"),
    }
    with Page(WIDTH, 284, palette=False) as page:
        page.text(16, 10, "prompt: " + two_lines(prompt, 440), fontsize=9)
        page.text(560, 10, f"strength {strength:g}, seed {seed}", fontsize=9, color=GRAY)
        for column, (title, (pixels, below)) in enumerate(pictures.items()):
            page.picture(pixels, 16 + 184 * column, 76, 176, title, below, **SMOOTH)
        return page.image()
