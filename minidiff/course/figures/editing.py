"""A figure of image to image and inpainting: an initial image, where sampling starts, where it ends."""

import torch
from PIL import Image
from torch import Tensor

from minidiff.course.figures.estimates import noise_of
from minidiff.course.figures.latents import smooth
from minidiff.course.figures.page import FIGURES, GRAY, WIDTH, Page
from minidiff.course.figures.text import two_lines
from minidiff.diffusion import DEFAULT_SAMPLER
from minidiff.pipeline.image_to_image import remaining
from minidiff.pipeline.text_to_image import TextToImage
from minidiff.registry import choose, register

EVERYTHING = "everything"
HOLE = torch.full((3, 1, 1), 0.85)  # light gray
PARTS = {  # what of an image can be generated anew: where its rows begin and end, and its columns, in quarters
    EVERYTHING: (0, 4, 0, 4),
    "lower half": (2, 4, 0, 4),
    "right half": (0, 4, 2, 4),
    "middle": (1, 3, 1, 3),
}


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

    picture: (3, H, W) in [-1, 1], of a size that the model can generate. part: one of PARTS. Raises UserError for what
    cannot be generated.
    """
    init = pipe.to_latents(picture[None])
    mask = part_mask(part, *init.shape[2:])
    times = remaining(pipe.times(steps, DEFAULT_SAMPLER), strength)
    noise = noise_of(init, seed)
    how = {"init": init, "latents": noise, "strength": strength, "steps": steps, "sampler": DEFAULT_SAMPLER}
    result = pipe.latents([prompt], **how, mask=None if part == EVERYTHING else mask)
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
            smooth(page.picture(pixels, 16 + 184 * column, 76, 176, title, below))
        return page.image()
