"""What a model is: all that is needed to build it, and to draw with it."""

from dataclasses import dataclass

from minidiff.data import labelled
from minidiff.diffusion import GRIDS, PREDICTIONS, SCHEDULES
from minidiff.formats.scheduler_config import Timing
from minidiff.networks import CLIPText, CLIPTextConfig, Conditional, LabelEncoder, UNet, UNetConfig
from minidiff.registry import choose


@dataclass(frozen=True)
class ModelConfig:
    """All that is needed to build a model and draw with it; `model.json` beside its weights."""

    name: str  # what it draws
    unet: UNetConfig
    picture: tuple[int, int, int] = (1, 28, 28)  # channels, height, width of a picture
    fold: int = 2  # the UNet sees squares of fold x fold pixels as one; 1 where it sees a VAE's latents
    schedule: str = "flow"  # a name in SCHEDULES
    prediction: str = "flow"  # a name in PREDICTIONS
    grid: str = "uniform"  # a name in GRIDS
    scale: float = 1.5  # the guidance scale it draws best with
    labels: str = "mnist"  # a data set with classes: what a prompt can ask for, where no text tower reads it
    text: CLIPTextConfig | None = None  # the text tower that reads the prompt

    def __post_init__(self):
        unet = self.unet
        if unet.in_channels != unet.out_channels:
            raise ValueError(f"the UNet sees {unet.in_channels} channels, and predicts {unet.out_channels}")
        if self.text and self.text.width != unet.context_dim:
            raise ValueError(
                f"the text tower writes tokens of {self.text.width} numbers; the UNet reads {unet.context_dim}"
            )

    def build(self) -> Conditional:
        """The network, with random weights. A text tower is not trained with it: it can read already."""
        if self.text:
            return Conditional(UNet(self.unet), CLIPText(self.text).requires_grad_(False))
        classes = choose(self.labels, labelled(), "labels").classes
        return Conditional(UNet(self.unet), LabelEncoder(len(classes), self.unet.context_dim))


def named_timing(config: ModelConfig) -> Timing:
    """The schedule, prediction and times that a config names; the same times for every sampler."""
    schedule = choose(config.schedule, SCHEDULES, "schedule")()
    grid, prediction = choose(config.grid, GRIDS, "grid"), choose(config.prediction, PREDICTIONS, "prediction")
    return Timing(schedule, prediction, lambda steps, sampler: grid(steps, schedule))
