"""`minidiff sample`: from prompts to a file of images."""

import sys
import warnings
from collections import deque
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from minidiff.registry import UserError, one_line, say


@dataclass
class Sample:
    """Draw images from prompts and write them into one file."""

    prompts: Positional[tuple[str, ...]]
    """What to draw, in quotes: "a handwritten seven"."""
    model: str = "mnist"
    """A shipped model (see `minidiff list`), a folder with one, or an id on huggingface.co with Stable Diffusion 1.x or 2.x."""
    out: Path = Path("out.png")
    """Where to: .png, .jpg or .webp for a sheet of images, .gif or .apng for the denoising as an animation."""
    n: Annotated[int, arg(aliases=["-n"])] = 1
    """Images of each prompt."""
    steps: int = 20
    """Sampling steps: more is better, and slower."""
    sampler: str | None = None
    """Which sampler; `minidiff list` names them. None: DPM-Solver++(2M)."""
    grid: str | None = None
    """Which times the steps visit; `minidiff list` names the grids. None: the model's own."""
    scale: float | None = None
    """Guidance scale: 0 ignores the prompt, 1 follows it, more amplifies it. None: the model's own."""
    guidance: str | None = None
    """Which guidance; `minidiff list` names them. None: classifier-free guidance."""
    weak: str | None = None
    """For autoguidance: a worse model of the same images (shipped, or a folder), to guide away from."""
    rescale: float = 0.0
    """0 to 1: how much of the contrast that guidance adds is taken back."""
    interval: tuple[float, float] = (0.0, 1.0)
    """The times, 0 to 1, between which guidance holds; elsewhere the scale is 1."""
    negative: str | None = None
    """A prompt for what it should not be."""
    init: Path | None = None
    """An image to start from, instead of noise. It is resized to the model's own size, by its shorter side."""
    strength: float = 0.8
    """0 to 1: the fraction of the steps taken from that image on; 1 keeps next to nothing of it."""
    mask: Path | None = None
    """An image of the same size, white where to draw anew; the rest of the image to start from stays."""
    size: int | None = None
    """Pixels of a side; of the shorter one, where there is an image to start from. None: the model's own."""
    seed: int = 0
    """The first image's seed; the next ones count on from it."""
    device: str | None = None
    """cpu, cuda or mps. None: the best there is."""
    dtype: Literal["float32", "float16", "bfloat16"] | None = None
    """Of the weights of a latent model. None: float16 on an NVIDIA GPU, float32 elsewhere."""
    tile: int | None = None
    """Decode in squares of so many pixels, one image after the other: less memory for large images."""
    preview: bool = False
    """In an animation, show the steps of a latent model by a cheap linear map to colours instead of decoding each."""

    def run(self) -> None:
        from minidiff import image_files
        from minidiff.files import check_writable, write

        suffix = self.out.suffix.lower()
        moving = suffix in image_files.MOVING
        check_writable(self.out, image_files.STILL + image_files.MOVING)
        for name in ("n", "tile"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise UserError(f"{name} must be at least 1, got {value}")
        if unknown := [prompt for prompt in self.prompts if prompt.startswith("--")]:
            raise UserError(f"unknown option {unknown[0]}")
        init, mask = (path and image_files.read_image(path, str(path)) for path in (self.init, self.mask))
        import torch
        from tqdm import tqdm

        from minidiff.pipeline import Options, TextToImage
        from minidiff.pipeline.image_to_image import fitted
        from minidiff.pipeline.text_to_image import finite

        pipe = TextToImage.load(self.model, self.device, self.dtype)
        for name, does_nothing in (
            ("tile", not pipe.vae),
            ("dtype", not pipe.vae),
            ("preview", not (pipe.vae and moving)),
        ):
            if getattr(self, name) and does_nothing:
                raise UserError(f"--{name} does nothing for {suffix} files of {self.model}: leave it out")
        given = {field.name: getattr(self, field.name, None) for field in fields(Options)}
        how = {name: value for name, value in given.items() if value is not None}  # None: the default of Options
        if self.weak:
            how["weak"] = TextToImage.load(self.weak, self.device)
        size = [pipe.factor * side for side in pipe.latent_shape(self.size)[1:]]
        if init:
            how["init"], mask = fitted(init, mask, size[0], pipe.factor)
            how.pop("size", None)
            size = how["init"].size[::-1]
        if mask:
            how["mask"] = mask
        count = self.n * len(self.prompts)
        zoom = max(1, min(4, 256 // size[1]))  # small images are enlarged, so that they can be seen
        columns = full_rows(self.n if self.n > 1 else count)
        image_files.check_sheet(count, columns, size, zoom, suffix, self.steps if moving else 1)
        with warnings.catch_warnings(action="ignore"):  # what is left out of a prompt is said below
            stream = pipe.stream([prompt for prompt in self.prompts for _ in range(self.n)], **how)
        for prompt in filter(None, dict.fromkeys((*self.prompts, self.negative))):
            if remark := pipe.unread(prompt):
                print(f"minidiff: {one_line(remark)}", file=sys.stderr)
        shown = tqdm(stream, total=self.steps, desc="denoising", leave=False, delay=1)
        steps = list(deque(shown, None if moving else 1))  # the last alone, where the others are not shown
        decode = {"tile": self.tile, "sliced": bool(self.tile)} if pipe.vae else {}
        shown = [pipe.decode(steps[-1].x, **decode)]
        if moving and self.preview:
            enlarge = torch.nn.Upsample(shown[0].shape[2:])
            shown = [enlarge(pipe.preview(step.x0_hat)) for step in steps[:-1]] + shown
        elif moving:
            shown = [pipe.decode(step.x, **decode) for step in steps[:-1]] + shown
        sheets = [image_files.sheet(finite(images), columns, zoom) for images in shown]
        write(self.out, image_files.encode(sheets if moving else sheets[0], suffix))
        say(f"{self.out}: {count} image{'s' if count > 1 else ''}")


def full_rows(count: int) -> int:
    """Images a row: 5 to 10, so that all rows are full if possible."""
    return next((width for width in range(10, 4, -1) if count % width == 0), min(count, 10))
