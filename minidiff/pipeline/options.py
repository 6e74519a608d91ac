"""What can be asked of `TextToImage.stream` beside the prompts; what cannot be drawn is refused here, before any work."""

import inspect
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from minidiff.diffusion import DEFAULT_SAMPLER, GRIDS, GUIDANCES, SAMPLERS, denoiser, to_x0
from minidiff.pipeline.image_to_image import Picture, remaining
from minidiff.registry import UserError, choose, of_the_user
from minidiff.tokenizer import shorten

if TYPE_CHECKING:
    from minidiff.pipeline.text_to_image import TextToImage

MOST_STEPS, LARGEST_SCALE = 10_000, 10_000
KINDS = {  # what Python must give for an option, and what that is called; None too, where it is the default
    **dict.fromkeys(("steps", "seed"), (Integral, "a whole number")),
    **dict.fromkeys(("scale", "rescale", "strength", "log_p_scale"), (Real, "a number")),
    **dict.fromkeys(("sampler", "guidance", "grid"), (str, "a name")),
    "latents": (Tensor, "a tensor of floats"),
}
LAST_GUIDED = 0.99  # `guide` divides by alpha: it starts here instead of at t = 1, where alpha may be 0


def pair(name: str, value: Any, kind: type) -> tuple:
    """The two numbers of an option. Raises UserError for anything else."""
    if not isinstance(value, tuple | list) or len(value) != 2 or not all(isinstance(number, kind) for number in value):
        raise UserError(f"{name} must be two numbers, got {shorten(repr(value), 60)}")
    return tuple(value)


def texts(name: str, value: Any) -> list[str]:
    """One text or several. Raises UserError for anything else."""
    found = [value] if isinstance(value, str) or not isinstance(value, Iterable) else list(value)
    if wrong := [one for one in found if not isinstance(one, str)]:
        raise UserError(f"{name} must be texts, got {shorten(repr(wrong[0]), 60)}")
    return found


@dataclass(frozen=True)
class Options:
    """How images are drawn. Raises UserError for a value out of range or a name that is not registered."""

    negative: str | list[str] | None = None  # what they should not be; takes the place of the null context
    steps: int = 20
    sampler: str = DEFAULT_SAMPLER  # a name in SAMPLERS
    grid: str | None = None  # a name in GRIDS; None: the model's own times
    scale: float | None = None  # the guidance scale; None: the model's own
    guidance: str = "cfg"  # a name in GUIDANCES
    rescale: float = 0.0  # see `cfg`
    interval: tuple[float, float] = (0.0, 1.0)  # see `cfg`
    weak: "TextToImage | None" = None  # a worse model of the same images, see `autoguidance`
    log_p: Callable[[Tensor, Tensor, Tensor], Tensor] | None = None  # a gradient to follow as well, see `guide`
    log_p_scale: float = 1.0
    seed: int = 0  # image k has seed + k
    latents: Tensor | None = None  # the start noise (B, C, h, w) instead
    size: int | tuple[int, int] | None = None  # pixels of a side, or (height, width); None: the model's own
    init: Picture | Tensor | None = None  # an image to start from, or latents (1 or B, C, h, w)
    strength: float = 0.8  # 0 to 1: the fraction of the steps that is taken from there
    mask: Picture | Tensor | None = None  # white where to draw anew, of init's size; or 1 there, (1, 1, h, w)

    def __post_init__(self):
        for name, (kind, called) in KINDS.items():
            if (value := getattr(self, name)) is None and getattr(Options, name) is None:
                continue
            fits = isinstance(value, kind) and not isinstance(value, bool)
            if not fits or isinstance(value, Tensor) and not value.is_floating_point():
                raise UserError(f"{name} must be {called}, got {shorten(repr(value), 60)}")
        low, high = pair("interval", self.interval, Real)
        if not isinstance(self.size, int | None):
            pair("size", self.size, Integral)
        needs = [
            ("steps", self.steps >= 1, "be at least 1"),
            ("steps", self.steps <= MOST_STEPS, f"be at most {MOST_STEPS}"),
            ("scale", self.scale is None or math.isfinite(self.scale), "be a finite number"),
            ("scale", abs(self.scale or 0) <= LARGEST_SCALE, f"lie between -{LARGEST_SCALE} and {LARGEST_SCALE}"),
            ("rescale", 0 <= self.rescale <= 1, "lie between 0 and 1"),
            ("interval", 0 <= low <= high <= 1, "be two times, 0 <= low <= high <= 1"),
            ("seed", 0 <= self.seed < 2**32, f"lie between 0 and {2**32 - 1}"),
        ]
        for name, holds, need in needs:
            if not holds:
                raise UserError(f"{name} must {need}, got {getattr(self, name)}")
        for kind, known in (("sampler", SAMPLERS), ("guidance", GUIDANCES), ("grid", GRIDS)):
            if (name := getattr(self, kind)) is not None:
                choose(name, known, kind)
        if self.init is None and self.mask is not None:
            raise UserError("a mask says what to keep of an image to start from: give one, init")
        if self.init is None and self.strength != Options.strength:
            raise UserError("strength says how much an image to start from is changed: give one, init")
        if self.init is not None and self.size is not None:
            raise UserError("size is that of the image to start from: give one of them")

    def times(self, pipe: "TextToImage") -> Tensor:
        """The times to visit (n + 1,), those of `init` left out. Raises UserError where they cannot be sampled."""
        with of_the_user():
            if self.grid is None:
                times = pipe.times(self.steps, self.sampler)
            else:
                times = GRIDS[self.grid](self.steps, pipe.schedule)
            if self.log_p:
                times = times.clamp(max=LAST_GUIDED).unique().flip(0)  # each once: of many steps two may lie there
            nothing = torch.zeros(())
            to_x0(pipe.prediction, nothing, nothing, *pipe.schedule.at(times[0], nothing))  # no image without signal
        return times if self.init is None else remaining(times, self.strength)

    def guided(self, pipe: "TextToImage", prompts: list[str] | Tensor, context: Tensor, null: Tensor):
        """The Denoiser of this guidance. Raises UserError for an option that it does not take, or lacks."""
        given = {"rescale": self.rescale, "interval": tuple(self.interval), "weak": self.weak}
        unset = {"rescale": 0.0, "interval": (0.0, 1.0), "weak": None}
        options = {name: value for name, value in given.items() if value != unset[name]}
        takes = inspect.signature(GUIDANCES[self.guidance]).parameters
        if wrong := next((name for name in options if name not in takes), None):
            raise UserError(f"the guidance {self.guidance} takes no {wrong}")
        if "weak" in takes and self.weak is None:
            raise UserError(f"the guidance {self.guidance} needs a worse model to compare with: give one, weak")
        if self.weak is not None:
            kinds = [(model.latent_shape(), model.config.schedule) for model in (self.weak, pipe)]
            if kinds[0] != kinds[1]:
                raise UserError(f"{self.weak.config.name} does not draw images of the same kind as {pipe.config.name}")
            asked = prompts if isinstance(prompts, Tensor) else self.weak.encode(prompts)
            options["weak"] = denoiser(self.weak.net.unet, pipe.schedule, self.weak.prediction, asked)
        scale = pipe.config.scale if self.scale is None else float(self.scale)
        network = pipe.net.unet, pipe.schedule, pipe.prediction
        return GUIDANCES[self.guidance](*network, context, null, scale, **options)
