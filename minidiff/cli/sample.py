"""`minidiff sample`: from prompts to a file of pictures."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg


@dataclass
class Sample:
    """Draw pictures from prompts and write them into one file."""

    prompts: Positional[tuple[str, ...]]
    """What to draw, in quotes: "a handwritten seven"."""
    model: str = "mnist"
    """A shipped model (see `minidiff list`), a folder with one, or an id on huggingface.co with Stable Diffusion 1.x or 2.x."""
    out: Path = Path("out.png")
    """Where to: .png, .jpg or .webp for a sheet of pictures, .gif or .apng for the denoising as an animation."""
    n: Annotated[int, arg(aliases=["-n"])] = 1
    """Pictures of each prompt."""
    steps: int = 20
    """Steps from noise to picture: more is better, and slower."""
    scale: float | None = None
    """Guidance scale: 0 ignores the prompt, 1 follows it, more amplifies it. None: the model's own."""
    sampler: str = "dpmpp_2m"
    """How to walk: ddpm, ddim, euler, heun or dpmpp_2m."""
    negative: str | None = None
    """A prompt for what it should not be."""
    init: Path | None = None
    """A picture to begin from, instead of noise. It is made as large as the model's own, its shorter side counts."""
    strength: float = 0.8
    """0 to 1: how much of the walk is left to the picture to begin from; 1 keeps next to nothing of it."""
    mask: Path | None = None
    """A picture of the same size, white where to draw anew; the rest of the picture to begin from stays."""
    size: int | None = None
    """Pixels of a side; of the shorter one, where there is a picture to begin from. None: the model's own."""
    rescale: float = 0.0
    """0 to 1: how much of the contrast that guidance adds is taken back."""
    interval: tuple[float, float] = (0.0, 1.0)
    """The times, 0 to 1, between which guidance holds; elsewhere the scale is 1."""
    seed: int = 0
    """The first picture's seed; the next ones count on from it."""
    device: str | None = None
    """cpu, cuda or mps. None: the best there is."""
    dtype: Literal["float32", "float16", "bfloat16"] | None = None
    """Of the weights of a model in latents. None: float16 on an NVIDIA GPU, float32 elsewhere."""
    tile: int | None = None
    """Decode in squares of so many pixels, one picture after the other: less memory for large pictures."""
    preview: bool = False
    """In an animation, show the steps of a model in latents by a cheap map to colours instead of decoding each."""

    def run(self) -> None:
        from minidiff import image_files
        from minidiff.files import check_writable, write

        moving = self.out.suffix.lower() in image_files.MOVING
        check_writable(self.out, image_files.STILL + image_files.MOVING)
        if self.n < 1:
            raise ValueError(f"n must be at least 1, got {self.n}")
        if self.tile is not None and self.tile < 1:
            raise ValueError(f"tile must be at least 1, got {self.tile}")
        how = {name: getattr(self, name) for name in ("steps", "scale", "rescale", "interval", "sampler", "seed")}
        how |= {"negative": self.negative, "strength": self.strength}
        init, mask = (path and picture(path) for path in (self.init, self.mask))
        import torch
        from tqdm import tqdm

        from minidiff.pipeline.image_to_image import fitted
        from minidiff.pipeline.text_to_image import TextToImage

        pipe = TextToImage.load(self.model, self.device, self.dtype and getattr(torch, self.dtype))
        prompts = [prompt for prompt in self.prompts for _ in range(self.n)]
        if init:
            own = pipe.config.picture[-1]
            init, mask = fitted(init, mask, own if self.size is None else self.size, pipe.factor)
        else:
            how["size"] = self.size
        stream = pipe.stream(prompts, init=init, mask=mask, **how)
        for prompt in filter(None, dict.fromkeys((*self.prompts, self.negative))):
            if remark := pipe.unread(prompt):
                print(f"minidiff: {remark}", file=sys.stderr)
        walk = list(tqdm(stream, total=self.steps, desc="denoising", leave=False, delay=1))
        count = self.n if self.n > 1 else len(prompts)
        columns = next(
            (width for width in range(10, 4, -1) if count % width == 0), min(count, 10)
        )  # full rows if possible
        decode = {"tile": self.tile, "sliced": bool(self.tile)} if pipe.vae else {}
        shown = [pipe.decode(walk[-1].x, **decode)]
        if moving and self.preview and pipe.vae:
            enlarge = torch.nn.Upsample(shown[0].shape[2:])
            shown = [enlarge(pipe.preview(step.x0_hat)) for step in walk[:-1]] + shown
        elif moving:
            shown = [pipe.decode(step.x, **decode) for step in walk[:-1]] + shown
        zoom = max(1, min(4, 256 // shown[-1].shape[-1]))  # small pictures are enlarged, so that they can be seen
        sheets = [image_files.sheet(pictures, columns, zoom) for pictures in shown]
        write(self.out, image_files.encode(sheets if moving else sheets[0], self.out.suffix.lower()))
        print(f"{self.out}: {len(prompts)} picture{'s' if len(prompts) > 1 else ''}")


def picture(path: Path):
    """A picture file. Raises ValueError for one that is not there or cannot be read."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as opened:
            return opened.convert("RGB")
    except (OSError, UnidentifiedImageError) as error:
        raise ValueError(f"{path} is no picture that can be read ({type(error).__name__})") from None
