"""What `minidiff train NAME` trains."""

import copy
import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

from minidiff import data
from minidiff.diffusion import PREDICTIONS, SCHEDULES
from minidiff.files import asset
from minidiff.formats.clip import load_clip
from minidiff.formats.model_config import ModelConfig
from minidiff.formats.vae import load_vae
from minidiff.networks import Conditional, Fold, Ready, UNetConfig
from minidiff.pipeline.text_to_image import TextToImage
from minidiff.tokenizer import Tokenizer
from minidiff.training.checkpoint import planned_steps
from minidiff.training.distributed import first_goes_ahead, is_first, my_rows, of_first
from minidiff.training.loop import Progress, TrainConfig, train
from minidiff.training.recipes.latent_cache import keep_emoji, latent_batches
from minidiff.training.throughput import seconds_a_step

MNIST = ModelConfig(
    name="mnist",
    unet=UNetConfig(
        in_channels=4,  # a 28x28 digit folded to 4 x 14 x 14
        out_channels=4,
        channels=(32, 64),
        attention=(False, True),  # the digit is looked up at 7x7, where a pixel sees half of it
        layers=1,
        heads=4,
        context_dim=64,
        groups=8,
    ),
)

# `train_preset` adds the text tower of the CLIP that reads the captions.
COLOR_DIGITS = ModelConfig(
    name="color_digits",
    unet=UNetConfig(
        in_channels=12,  # 3 x 32 x 32 folded to 12 x 16 x 16
        out_channels=12,
        channels=(32, 64, 64),
        attention=(False, True, True),  # at 8x8, and at 4x4, where a place sees most of the digit
        layers=1,
        heads=4,
        context_dim=64,  # the width of that text tower
        groups=8,
        pooled=True,
    ),
    picture=(3, 32, 32),
    scale=2.0,
)

# 32.5 million parameters, after Ho et al. 2020, appendix B (35.7 million). A level less, since our attention has a
# feed-forward network behind it; no dropout. Never trained in full yet.
# A picture of the batch takes about 0.11 GiB in float32 (on a CPU): a small GPU wants a smaller batch.
CIFAR10 = ModelConfig(
    name="cifar10",
    unet=UNetConfig(
        in_channels=3,
        out_channels=3,
        channels=(128, 256, 256),  # at 32x32, 16x16, 8x8
        attention=(False, True, False),  # and in the middle, at 8x8
        layers=2,
        heads=4,
        context_dim=128,
    ),
    picture=(3, 32, 32),
    fold=1,  # every pixel is seen: colour edges are fine
    labels="cifar10",
)


# What the VAE makes of 3 x 64 x 64 is 4 x 16 x 16, and the UNet sees it as it is.
EMOJI = ModelConfig(
    name="emoji",
    unet=UNetConfig(
        in_channels=4,
        out_channels=4,
        channels=(32, 64, 72),  # at 16x16, 8x8, 4x4; with all that belongs to it the model has 7 MB at most
        attention=(False, True, True),
        layers=1,
        heads=4,
        context_dim=64,  # the width of the text tower
        groups=8,
        pooled=True,
    ),
    picture=(3, 64, 64),
    fold=1,
    scale=3.0,
)

# Pictures (B, C, H, W), or latents, and what each shows: labels (B,), captions, or text states (B, L, D); without end
Batches = Iterator[tuple[Tensor, Tensor | list[str]]]


@dataclass(frozen=True)
class Preset:
    """A model, its pictures, and how it is trained on them."""

    config: ModelConfig
    batches: Callable[[int, int, Path | None], Batches]  # (pictures a step, seed, folder of the data or None)
    prompt: str  # something to draw when it is done, as it is typed
    batch: int = 64
    train: TrainConfig = TrainConfig()
    reader: str | None = None  # a CLIP, trained before, whose text tower reads the captions; see weights.load_clip
    vae: str | None = None  # a VAE, trained before: an asset. Its latents and the text states are computed once
    flip: bool = False  # show half of the pictures mirrored
    fast: bool = False  # what pays on a GPU, see `what_pays`


PRESETS = {
    "mnist": Preset(MNIST, lambda batch, seed, _: data.batches(data.mnist("train"), batch, seed), prompt="7"),
    "color_digits": Preset(
        COLOR_DIGITS,
        lambda batch, seed, tars: (
            streamed(tars, 32, batch, seed)
            if tars
            else ((b.images, b.captions) for b in data.color_digit_batches(batch, seed=seed))
        ),
        prompt='"a red seven on a blue background"',
        batch=32,
        train=TrainConfig(steps=20_000, times="noisier"),
        reader="clip",
    ),
    "emoji": Preset(
        EMOJI,
        lambda batch, seed, kept: latent_batches(kept, batch, seed, my_rows(batch)),
        prompt='"a twemoji emoji of a red apple"',
        batch=32,
        train=TrainConfig(steps=38_000, times="noisier"),
        reader="clip_emoji",
        vae="weights/emoji/vae",
        fast=True,
    ),
    "cifar10": Preset(
        CIFAR10,
        lambda batch, seed, folder: data.batches(data.cifar10("train", folder), batch, seed),
        prompt='"a photo of a cat"',
        batch=128,
        # Ho et al. took 800,000 steps without decay; here the rate falls to 0, so that a shorter run is brought to an end too
        train=TrainConfig(steps=200_000, lr=2e-4, warmup=500, weight_decay=0.0, ema=0.9999, save_every=2000),
        flip=True,
        fast=True,
    ),
}


def train_preset(
    preset: Preset,
    folder: Path,
    config: TrainConfig,
    batch: int,
    device: torch.device,
    minutes: float | None = None,
    pictures: Path | None = None,
) -> Iterator[tuple[int, int, float]]:
    """Train a preset's model and write it to `folder`; yields steps done, steps in all, loss.

    minutes: instead of config.steps, as many steps as fit into them at the speed of the first few; a run
    that is gone on with keeps the number it had. pictures: the folder of the data set, see the preset. A preset with a
    VAE keeps its latents in `folder`.
    """
    if preset.fast:
        config = dataclasses.replace(config, **what_pays(device))
    clip, tokenizer = load_clip(preset.reader, device) if preset.reader else (None, None)
    model = dataclasses.replace(preset.config, text=clip and clip.config.text)
    vae = load_vae(asset(preset.vae), device) if preset.vae else None
    net = untrained(model, config.seed, device)
    if clip:
        net.text_encoder.load_state_dict(clip.text_model.state_dict())
    if vae:
        pictures = folder / "latents"
        with first_goes_ahead():
            keep_emoji(pictures, vae, clip.text_model, tokenizer)
        net.text_encoder = Ready(null=clip.text_model(tokenizer("").to(device))[0].cpu())

    def run(net, config, folder=None) -> Iterator[Progress]:
        with first_goes_ahead():
            batches = preset.batches(batch, config.seed, pictures)
        return fit(net, model, batches, config, None if vae else tokenizer, flip=preset.flip, folder=folder)

    if minutes is not None:
        steps = of_first(planned_steps(folder) or 0)
        steps = steps or of_first(round(60 * minutes / seconds_a_step(run(copy.deepcopy(net), config))))
        config = dataclasses.replace(config, steps=max(1, steps))
    progress = None
    try:
        for progress in run(net, config, folder):
            yield progress.step, config.steps, float(progress.loss)
    finally:  # also when it is stopped early: one can draw with what there is
        if progress and is_first():
            trained = Conditional(progress.net.unet, clip.text_model) if vae else progress.net
            TextToImage(model, trained, device, tokenizer, vae).save(folder)


def streamed(where: str | Path, size: int, batch: int, seed: int) -> Batches:
    """Pictures and captions from the tars of a folder, see `pair_batches`; every process reads its own."""
    from minidiff.data.webdataset import find_shards, pair_batches

    return pair_batches(find_shards(where), size, batch, seed, mine=my_rows(batch))


def untrained(model: ModelConfig, seed: int, device: torch.device | str = "cpu") -> Conditional:
    """The model's network as training begins with it; the seed decides its random weights."""
    torch.manual_seed(seed)
    # channels_last: 1.1 to 1.6 times as many pictures a second on a CPU
    return model.build().to(device, memory_format=torch.channels_last)


def fit(
    net: Conditional,
    model: ModelConfig,
    batches: Batches,
    config: TrainConfig,
    tokenizer: Tokenizer | None = None,
    flip: bool = False,
    folder: Path | None = None,
) -> Iterator[Progress]:
    """Train the model's network on pictures, folded as the model wants them; see `train`."""
    fold = Fold(model.fold)

    def folded() -> Iterator[tuple[Tensor, Tensor]]:
        for step, (images, shown) in enumerate(batches):
            images = mirrored(images, config.seed, step) if flip else images
            yield fold.encode(images), tokenizer(shown) if tokenizer else shown

    schedule, pred = SCHEDULES[model.schedule](), PREDICTIONS[model.prediction]
    null = tokenizer("")[0] if tokenizer else net.text_encoder.null  # the empty caption, as Stable Diffusion has it
    return train(net, schedule, pred, folded(), config, null=null, folder=folder)


def what_pays(device: torch.device) -> dict[str, bool]:
    """On an NVIDIA GPU: bfloat16 where it has circuits for it, torch.compile where Triton is and supports it, fused AdamW.

    All have been tried on a CPU, in small; on a GPU they have not been run: benchmarks/gpu_ladder.py would measure them.
    """
    if device.type != "cuda":
        return {}
    return {
        "bf16": torch.cuda.is_bf16_supported(including_emulation=False),
        "compile": torch.cuda.get_device_capability(device) >= (7, 0) and find_spec("triton") is not None,
        "fused": True,
    }


def mirrored(images: Tensor, seed: int, step: int) -> Tensor:
    """The pictures (B, C, H, W), about half of them left for right; which ones, seed and step decide."""
    key = (1_000_003 * seed + step) ^ 0x5EED_F11B  # not the loop's own key, or a picture's side would tell its t
    turned = torch.rand(len(images), generator=torch.Generator().manual_seed(key)) < 0.5
    return torch.where(turned[:, None, None, None], images.flip(-1), images)
