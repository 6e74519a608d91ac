"""Training CLIP: which of many captions belongs to an image, and which of many images to a caption?"""

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from minidiff.formats.clip import save_clip
from minidiff.networks import CLIP, CLIPConfig, CLIPTextConfig, CLIPVisionConfig
from minidiff.tokenizer import END, Tokenizer
from minidiff.training.optimise import OptimConfig, optimise
from minidiff.training.recipe import Recipe, Run, reported

MAX_SCALE = 100  # the highest 1 / temperature, as in Radford et al. 2021, section 2.5


@dataclass(frozen=True, kw_only=True)
class ClipRecipe(Recipe):
    """A CLIP, its captions and images, and how it is trained on them."""

    texts: Callable[[], list[str]]  # what the tokenizer is trained on
    merges: int  # its merges, at most
    # (pairs a batch, seed): `images` (B, 3, H, W) in [-1, 1] and their `captions`, without end
    batches: Callable[[int, int], Iterator[Any]]
    # of a batch, (B, B) bool: is caption j, which belongs to another image, true of image i too? To count it as wrong
    # would train the network to guess
    also_true: Callable[[Any], Tensor]
    model: CLIPConfig  # `run` fills in the size of the vocabulary
    after: str = "how well it matches: minidiff evaluate {folder}"
    batch: int = 128
    train: OptimConfig = OptimConfig(steps=5000, lr=3e-3, warmup=200, weight_decay=0.05, betas=(0.9, 0.98))

    def run(self, folder: Path, device: torch.device, config: OptimConfig, batch: int) -> Run:
        tokenizer = Tokenizer.train(self.texts(), self.merges, length=self.model.text.length)
        text = replace(self.model.text, vocab=len(tokenizer.vocab), end=tokenizer.vocab[END])
        torch.manual_seed(config.seed)
        clip = CLIP(replace(self.model, text=text)).to(device)

        def examples(batch: Any, generator: Generator) -> tuple[Tensor, ...]:
            return tokenizer(batch.captions), batch.images, self.also_true(batch)

        def loss(net: nn.Module, ids: Tensor, images: Tensor, also_true: Tensor) -> Tensor:
            logits = net(ids.to(device), images.to(device))
            return contrastive_loss(logits.masked_fill(also_true.to(device), -torch.inf))

        def limit() -> None:
            clip.logit_scale.data.clamp_(max=math.log(MAX_SCALE))

        about, batches = {"recipe": self.name, "model": asdict(clip.config)}, self.batches(batch, config.seed)
        steps = optimise(clip, batches, examples, loss, config, folder=folder, about=about, after=limit)
        return reported(steps, config, folder, clip, lambda net, folder: save_clip(net, tokenizer, folder))


def contrastive_loss(logits: Tensor) -> Tensor:
    """The cross-entropy of finding each image's caption and each caption's image, averaged: a scalar.

    logits: (B, B), a row for each image, a column for each caption; pairs are on the diagonal. Radford et al. 2021,
    figure 3.
    """
    own = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2


def small_clip(length: int, size: int) -> CLIPConfig:
    """Half a million parameters; ViT-L/14 has 428 million. length: tokens of a caption. size: of an image's side."""
    text = CLIPTextConfig(length=length, width=64, layers=2, heads=4, activation="gelu")
    half = (0.5,) * 3  # pixels from -1 to 1, as they come
    vision = CLIPVisionConfig(size, patch=8, width=80, layers=4, heads=4, activation="gelu", mean=half, std=half)
    return CLIPConfig(text, vision, dim=64)
