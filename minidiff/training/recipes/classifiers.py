"""Classifiers: those that evaluation uses, and the one that classifier guidance follows."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from minidiff import data
from minidiff.data.emoji import STYLES, emoji_batches
from minidiff.data.scenes import STYLES as SCENE_STYLES, scene_batches, things
from minidiff.diffusion import flow
from minidiff.files import write_tensors
from minidiff.formats.model_folder import load_classifier
from minidiff.networks import CLASSIFIERS, SpaceToDepth
from minidiff.training.optimise import OptimConfig, optimise
from minidiff.training.recipe import RECIPES, Recipe, Run, reported
from minidiff.training.recipes.clip_emoji import varied

Labelled = tuple[Tensor, Tensor]  # images (B, C, H, W), labels (B,)


@dataclass(frozen=True, kw_only=True)
class ClassifierRecipe(Recipe):
    network: str  # a name in CLASSIFIERS
    batches: Callable[[int, int], Iterator[Labelled]]  # (images a step, seed)
    inputs: Callable[[Tensor, Generator], tuple[Tensor, ...]]  # images -> what the network is called with
    smoothing: float = 0.05  # fraction of each label that is spread evenly over all classes
    batch: int = 128
    test: Callable[[], data.Pictures] | None = None  # what its accuracy is measured on at the end

    def run(self, folder: Path, device: torch.device, config: OptimConfig, batch: int) -> Run:
        torch.manual_seed(config.seed)
        net = CLASSIFIERS[self.network]().to(device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]  # not in torch's stubs

        def examples(labelled: Labelled, generator: Generator) -> tuple[Tensor, ...]:
            torch.manual_seed(generator.initial_seed())  # dropout and torchvision use the global generator
            return labelled[1], *self.inputs(labelled[0], generator)

        def loss(net: nn.Module, labels: Tensor, *inputs: Tensor) -> Tensor:
            logits = net(*(each.to(device) for each in inputs))
            return F.cross_entropy(logits, labels.to(device), label_smoothing=self.smoothing)

        def keep(net: nn.Module, folder: Path) -> None:
            weights = {k: v.half() if v.is_floating_point() else v for k, v in net.state_dict().items()}
            write_tensors(folder / "model.safetensors", weights)

        about, batches = {"recipe": self.name, "model": {"name": self.network}}, self.batches(batch, config.seed)
        steps = optimise(net, batches, examples, loss, config, folder=folder, about=about)
        return reported(steps, config, folder, net, keep)

    def finished(self, folder: Path, device: torch.device) -> str:
        if not self.test:
            return super().finished(folder, device)
        net, pictures = load_classifier(self.network, device, folder), self.test()
        answers = torch.cat([net(part.to(device)).argmax(1).cpu() for part in pictures.images.split(500)])
        accuracy = (answers == pictures.labels).double().mean()
        return f"it classifies {accuracy:.2%} of {len(answers):,} test images correctly"


def digits(batch: int, seed: int) -> Iterator[Labelled]:
    return data.batches(data.mnist("train"), batch, seed)


def varied_digits(images: Tensor, generator: Generator) -> tuple[Tensor]:
    """Handwriting leans, grows and shifts: the classifier should be invariant to it."""
    from torchvision.transforms.v2 import RandomAffine  # costs a second

    return (RandomAffine(degrees=(-10, 10), translate=(0.07, 0.07), scale=(0.9, 1.1), fill=-1)(images),)


def noisy_digits(images: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
    """Digits x_t (B, 4, 14, 14), each at a time of its own on the digit model's schedule, and the network time (B,)."""
    schedule, x0 = flow(), SpaceToDepth().encode(images)
    t = torch.rand(len(x0), dtype=torch.float64, generator=generator)
    x = schedule.add_noise(x0, torch.randn(x0.shape, generator=generator), t)
    return x, schedule.net_time(t).to(x)


def styled_emoji(batch: int, seed: int) -> Iterator[Labelled]:
    for pictures in emoji_batches(batch, seed=seed):
        yield pictures.images, torch.tensor([STYLES.index(style) for style in pictures.styles])


def placed_things(batch: int, seed: int) -> Iterator[Labelled]:
    """Scenes of all kinds, and what has its centre in each square of 8x8 pixels, (B, 8, 8): see SceneJudge."""
    known = {name: k for k, name in enumerate(things())}
    for scenes in scene_batches(batch, "all", seed):
        labels = torch.zeros(batch, 8, 8, dtype=torch.int64)
        for row, (scene, centres) in enumerate(zip(scenes.shown, scenes.centres.tolist(), strict=True)):
            for name, (y, x) in zip((scene.thing, scene.other), centres, strict=True):
                if name and scene.style:
                    labels[row, int(y / 8), int(x / 8)] = (
                        1 + known[name] * len(SCENE_STYLES) + SCENE_STYLES.index(scene.style)
                    )
        yield scenes.images, labels


def blurred(images: Tensor, generator: Generator) -> tuple[Tensor]:
    """Half of them with half the detail: generated ones are not sharp either."""
    soft = F.interpolate(F.avg_pool2d(images, 2), scale_factor=2, mode="bilinear")
    return (torch.where(torch.rand(len(images), 1, 1, 1, generator=generator) < 0.5, soft, images),)


RECIPES["judge"] = ClassifierRecipe(
    about="the classifier of digits that evaluation uses",
    network="judge",
    batches=digits,
    inputs=varied_digits,
    train=OptimConfig(steps=4290, lr=3e-3),  # 10 epochs
    test=lambda: data.mnist("test"),
)
RECIPES["style_judge"] = ClassifierRecipe(
    about="the classifier of emoji styles that evaluation uses",
    network="style_judge",
    batches=styled_emoji,
    inputs=lambda images, generator: (varied(images, generator),),
    batch=64,
    train=OptimConfig(steps=4000, lr=3e-3),
)
RECIPES["scene_judge"] = ClassifierRecipe(
    about="the detector of things in scenes that evaluation uses",
    network="scene_judge",
    batches=placed_things,
    inputs=blurred,
    smoothing=0.0,
    batch=64,
    train=OptimConfig(steps=3000, lr=3e-3),
)
RECIPES["noisy_classifier"] = ClassifierRecipe(
    about="the classifier of noisy digits that classifier guidance follows",
    network="noisy_classifier",
    batches=digits,
    inputs=noisy_digits,
    smoothing=0.0,  # its log p should be calibrated
    train=OptimConfig(steps=2145, lr=3e-3),  # 5 epochs
)
