"""Training a model that generates images: what the recipes of all such models share."""

import copy
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from minidiff.data.shards import INDEX
from minidiff.diffusion import PREDICTIONS, SCHEDULES, to_x0
from minidiff.files import asset
from minidiff.formats.clip import load_clip
from minidiff.formats.model_config import ModelConfig
from minidiff.formats.scheduler_config import scheduler_config
from minidiff.formats.vae import load_vae
from minidiff.networks import Conditional, Precomputed, SpaceToDepth
from minidiff.pipeline.text_to_image import TextToImage
from minidiff.registry import UserError, choose
from minidiff.tokenizer import Tokenizer
from minidiff.training.checkpoint import planned_steps, whole
from minidiff.training.distributed import any_of, first_goes_ahead, my_rows, of_first
from minidiff.training.loop import TrainConfig, train
from minidiff.training.optimise import Progress
from minidiff.training.recipe import Recipe, Run, reported

# Images (B, C, H, W), or latents, and what each shows: labels (B,), captions, or text states (B, L, D); without end.
# A function that makes them is called when their step is trained: the batches before a checkpoint are passed over.
Batches = Iterator[tuple[Tensor, Any] | Callable[[], tuple[Tensor, Any]]]
Steps = Generator[Progress[Conditional]]


@dataclass(frozen=True, kw_only=True)
class DenoiserRecipe(Recipe):
    """A diffusion model, its images, and how it is trained on them."""

    config: ModelConfig
    batches: Callable[[int, int, Any], Batches]  # (images a step, seed, folder of the data or None)
    takes: tuple[str, ...] = ("minutes", "steps", "batch", "accumulate", "prediction", "schedule")
    batch: int = 64
    train: TrainConfig = TrainConfig()
    reader: str | None = None  # a trained CLIP whose text tower reads the captions; see `load_clip`
    vae: str | None = None  # a trained VAE, an asset
    encode: Callable[..., None] = lambda *_: None  # (folder, VAE, text tower, tokenizer): the data, computed once
    flip: bool = False  # mirror half of the images
    fast: bool = False  # use what pays off on a GPU, see `what_pays`

    def run(
        self, folder: Path, device: torch.device, config: TrainConfig, batch: int, *,
        minutes: float | None = None, data: Path | None = None, **chosen: str,
    ) -> Run:  # fmt: skip
        """Train the model and write it to `folder`, and the latents of a VAE too.

        minutes: instead of config.steps, as many steps as fit into them at the speed of the first few; a resumed run
        keeps its number. data: the folder of the data set. chosen: prediction and schedule, instead of the model's own.
        """
        my_rows(batch)  # can all processes have equally many?
        chosen = {"prediction": self.config.prediction, "schedule": self.config.schedule} | chosen
        check_pair(**chosen)
        if self.vae:  # its folder is in diffusers' layout: is there a word for the pair?
            scheduler_config(**chosen)
        if self.fast:
            config = replace(config, **what_pays(device))
        clip, tokenizer = load_clip(self.reader, device) if self.reader else (None, None)
        model = replace(self.config, text=clip and clip.config.text, **chosen)
        vae = load_vae(asset(self.vae), device) if self.vae else None
        net = untrained(model, config.seed, device)
        if clip:
            net.text_encoder.load_state_dict(clip.text_model.state_dict())
        if vae:
            data = folder / "latents"
            assert clip and tokenizer  # a recipe with a VAE has a reader
            with first_goes_ahead():
                if not (data / INDEX).exists():
                    with whole(folder) as part:
                        self.encode(part / data.name, vae, clip.text_model, tokenizer)
            net.text_encoder = Precomputed(null=clip.text_model(tokenizer("").to(device))[0].cpu())

        def steps(net: Conditional, config: TrainConfig, folder: Path | None = None) -> Steps:
            with first_goes_ahead():
                batches = self.batches(batch, config.seed, data)
            about = chosen | {"recipe": self.name, "model": asdict(model)}
            return fit(net, model, batches, config, None if vae else tokenizer, self.flip, folder, about)

        def keep(net: Conditional, folder: Path) -> None:
            trained = Conditional(net.unet, clip.text_model) if vae and clip else net
            TextToImage(model, trained, device, tokenizer, vae).save(folder)

        if minutes is not None:
            planned = of_first(planned_steps(folder) or 0)
            planned = planned or of_first(round(60 * minutes / seconds_a_step(steps(copy.deepcopy(net), config))))
            config = replace(config, steps=max(1, planned))
        return reported(steps(net, config, folder), config, folder, net, keep)


def check_pair(prediction: str, schedule: str) -> None:
    """Raise UserError where x0 cannot be computed from the prediction at t = 1 on this schedule."""
    choose(prediction, PREDICTIONS, "prediction")
    choose(schedule, SCHEDULES, "schedule")
    if not determines_x0(prediction, schedule):
        predictions = [name for name in PREDICTIONS if determines_x0(name, schedule)]
        schedules = [name for name in SCHEDULES if determines_x0(prediction, name)]
        raise UserError(
            f"{prediction}-prediction does not determine x0 at t = 1 on the {schedule} schedule, where alpha is 0: take "
            f"--prediction {' or '.join(predictions)}, or --schedule {' or '.join(schedules)}"
        )


def determines_x0(prediction: str, schedule: str) -> bool:
    x = torch.zeros(1, 1, 1, 1)
    try:
        to_x0(PREDICTIONS[prediction], x, x, *SCHEDULES[schedule]().at(1.0, x))
    except ValueError:
        return False
    return True


def untrained(model: ModelConfig, seed: int, device: torch.device | str = "cpu") -> Conditional:
    """The model's network with random weights; channels_last: 1.1 to 1.6 times as many images a second on a CPU."""
    torch.manual_seed(seed)
    return model.build().to(device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]  # not in torch's stubs


def fit(
    net: Conditional, model: ModelConfig, batches: Batches, config: TrainConfig, tokenizer: Tokenizer | None = None,
    flip: bool = False, folder: Path | None = None, about: dict | None = None,
) -> Steps:  # fmt: skip
    """Train the model's network on images, folded as the model wants them; see `train`."""
    fold = SpaceToDepth(model.fold)

    def folded(step: int, batch: tuple[Tensor, Any] | Callable[[], tuple[Tensor, Any]]) -> tuple[Tensor, Tensor]:
        images, shown = batch() if callable(batch) else batch
        images = mirrored(images, config.seed, step) if flip else images
        return fold.encode(images), tokenizer(shown) if tokenizer else shown

    schedule, pred = SCHEDULES[model.schedule](), PREDICTIONS[model.prediction]
    null: Any = tokenizer("")[0] if tokenizer else net.text_encoder.null  # the empty caption, as in Stable Diffusion
    ready = (partial(folded, step, batch) for step, batch in enumerate(batches))
    return train(net, schedule, pred, ready, config, null=null, folder=folder, about=about)


def seconds_a_step(trial: Iterator[Progress], count: int = 20, patience: float = 20.0) -> float:
    """Measured over `count` steps after ten that find memory; over fewer where `patience` seconds are up."""
    seconds, done = 0.0, 1
    for steps in (10, count):
        start = time.perf_counter()
        for done in range(1, steps + 1):
            next(trial)
            seconds = time.perf_counter() - start
            if any_of(seconds > patience):
                break
    return seconds / done


def what_pays(device: torch.device) -> dict[str, bool]:
    """On an NVIDIA GPU: bfloat16 where it is in hardware, torch.compile where Triton supports the GPU, fused AdamW.

    Tested on a CPU, on small networks; benchmarks/gpu_ladder.py measures what each is worth on a GPU.
    """
    if device.type != "cuda":
        return {}
    return {
        "bf16": torch.cuda.is_bf16_supported(including_emulation=False),
        "compile": torch.cuda.get_device_capability(device) >= (7, 0) and find_spec("triton") is not None,
        "fused": True,
    }


def mirrored(images: Tensor, seed: int, step: int) -> Tensor:
    """The images (B, C, H, W), about half of them flipped left to right; seed and step decide which."""
    key = (1_000_003 * seed + step) ^ 0x5EED_F11B  # not the loop's own key, or the flip would reveal t
    turned = torch.rand(len(images), generator=torch.Generator().manual_seed(key)) < 0.5
    return torch.where(turned[:, None, None, None], images.flip(-1), images)
