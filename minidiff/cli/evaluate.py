"""`minidiff evaluate`: how good are the images that a model draws?"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg


@dataclass
class Evaluate:
    """Draw pictures and measure them against real ones that training never saw; or ask a CLIP which caption fits."""

    model: Positional[str] = "mnist"
    """A shipped model, "clip" among them, or a folder with one."""
    n: Annotated[int | None, arg(aliases=["-n"])] = None
    """Pictures to draw; numbers are only comparable at equal n. None: 1000; for color_digits 200 a row, for
    emoji 100 a group."""
    split: Literal["test", "validation"] = "test"
    """Real pictures to compare with. For choosing between settings, take validation."""
    steps: int = 20
    """Steps from noise to picture."""
    scale: float | None = None
    """Guidance scale. None: the model's own; for color_digits 0, 1, 2, 4 and 8."""
    sampler: str = "dpmpp_2m"
    """How to walk: ddpm, ddim, euler, heun or dpmpp_2m."""
    seed: int = 0
    """Of the pictures and of the choice of real digits."""
    json: bool = False
    """Print the numbers as JSON, one object."""
    inception: Path | None = None
    """Measure in Inception's features, which this .safetensors file has, instead of the judge's (see the README)."""
    device: str | None = None
    """cpu, cuda or mps. None: the best there is."""

    def run(self) -> None:
        report = self.measured()
        print(report.json() if self.json else report)

    def measured(self):
        from tqdm import tqdm

        from minidiff.data.emoji import EMOJI_SIDE
        from minidiff.device import pick_device
        from minidiff.evaluation.clip import retrieval
        from minidiff.evaluation.color_digits import evaluate_color
        from minidiff.evaluation.digits import evaluate, inception
        from minidiff.evaluation.emoji import evaluate_emoji, naming
        from minidiff.formats.clip import SHIPPED, load_clip
        from minidiff.pipeline.text_to_image import TextToImage

        if self.model in SHIPPED or (Path(self.model) / "clip.json").exists():
            clip, tokenizer = load_clip(self.model, pick_device(self.device))
            emoji = clip.config.vision.size == EMOJI_SIDE
            return (naming if emoji else retrieval)(clip, tokenizer, self.split, seed=self.seed)
        pipe = TextToImage.load(self.model, self.device)
        how = {"split": self.split, "sampler": self.sampler, "steps": self.steps, "seed": self.seed}
        how["progress"] = partial(tqdm, leave=False, delay=1)
        if pipe.vae:
            return evaluate_emoji(pipe, 100 if self.n is None else self.n, scale=self.scale, **how)
        if pipe.tokenizer:
            scales = (0, 1, 2, 4, 8) if self.scale is None else (self.scale,)
            return evaluate_color(pipe, 200 if self.n is None else self.n, scales, **how)
        features = inception(self.inception, pipe.device) if self.inception else None
        return evaluate(pipe, 1000 if self.n is None else self.n, scale=self.scale, features=features, **how)
