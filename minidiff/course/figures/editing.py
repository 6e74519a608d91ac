"""A figure of image to image and inpainting: a picture to begin from, where the walk starts, where it ends."""

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Generator, Tensor

from minidiff import data
from minidiff.course.figures.latents import smooth
from minidiff.course.figures.page import FIGURES, GRAY, WIDTH, Page
from minidiff.course.figures.text import two_lines
from minidiff.pipeline.image_to_image import left
from minidiff.pipeline.text_to_image import TextToImage
from minidiff.registry import register

EVERYTHING = "everything"
HOLE = torch.full((3, 1, 1), 0.85)  # light gray
PARTS = EVERYTHING, "lower half", "right half", "middle"  # what of a picture can be drawn anew


def part_mask(part: str, height: int, width: int) -> Tensor:
    """1 where a part of a picture lies, else 0, (1, 1, height, width). Raises ValueError for a part that is not in PARTS."""
    if part not in PARTS:
        raise ValueError(f"no part {part!r}; there is {', '.join(PARTS)}")
    rows, columns = {
        EVERYTHING: (slice(None), slice(None)),
        "lower half": (slice(height // 2, None), slice(None)),
        "right half": (slice(None), slice(width // 2, None)),
        "middle": (slice(height // 4, height - height // 4), slice(width // 4, width - width // 4)),
    }[part]
    mask = torch.zeros(1, 1, height, width)
    mask[..., rows, columns] = 1
    return mask


def some_emoji(side: int) -> dict[str, Tensor]:
    """Emoji in Twemoji's style, by name, (3, side, side) in [-1, 1]; the first is in no training in this style."""
    names = ["smiling face with tear", "red apple", "cat face", "snowman", "automobile"]
    named = {item.name: item for item in data.all_emoji()}
    pixels = data.emoji_images([(named[name], "twemoji") for name in names]).float() / 127.5 - 1
    return dict(zip(names, F.interpolate(pixels, size=side), strict=True))


@register(FIGURES)
def edit(
    pipe: TextToImage,
    picture: Tensor,
    prompt: str,
    strength: float = 0.8,
    part: str = EVERYTHING,
    seed: int = 0,
    steps: int = 20,
) -> Image.Image:
    """A picture, what is kept of it, what the walk begins with, and what comes of it.

    picture: (3, H, W) in [-1, 1], of a size that the model can draw. part: one of PARTS. Raises ValueError for what
    cannot be drawn.
    """
    init = pipe.to_latents(picture[None])
    mask = part_mask(part, *init.shape[2:])
    times = left(pipe.times(steps, "dpmpp_2m"), strength)
    noise = torch.randn(init.shape, generator=Generator().manual_seed(seed)).to(init)
    how = {"init": init, "latents": noise, "strength": strength, "steps": steps, "sampler": "dpmpp_2m"}
    drawn = pipe.latents([prompt], **how, mask=None if part == EVERYTHING else mask)
    begins = pipe.schedule.add_noise(init, noise, times[0])
    begins, ends = pipe.decode(torch.cat([begins, drawn]))
    pictures = {
        "to begin from": ((picture + 1) / 2, ""),
        "what is kept": (torch.lerp((picture + 1) / 2, HOLE, part_mask(part, *picture.shape[1:])[0]), f"new: {part}"),
        "the walk begins with": (begins, f"decoded, t = {times[0]:.2f}"),
        "and ends with": (ends, f"{len(times) - 1} of {steps} steps"),
    }
    with Page(WIDTH, 284, palette=False) as page:
        page.text(16, 10, "told " + two_lines(prompt, 440), fontsize=9)
        page.text(560, 10, f"strength {strength:g}, seed {seed}", fontsize=9, color=GRAY)
        for column, (title, (pixels, below)) in enumerate(pictures.items()):
            smooth(page.picture(pixels, 16 + 184 * column, 76, 176, title, below))
        return page.image()
