"""Training CLIP: of many captions, which belongs to the picture, and of many pictures, which to the caption?"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minidiff.formats.clip import save_clip
from minidiff.networks import CLIP, CLIPConfig
from minidiff.tokenizer import END, Tokenizer
from minidiff.training.checkpoint import restore, save
from minidiff.training.loop import EMA, TrainConfig, warm_up_and_decay

SHARPEST = 100  # the highest 1 / temperature, as in Radford et al. 2021, section 2.5

# Pictures (B, 3, H, W) in [-1, 1], their captions, and `also_true` of them, (B, B) bool: does caption j, which belongs
# to another picture, fit picture i too? To count it as wrong would teach the network to guess. Without end
Matched = Iterator[tuple[Tensor, list[str], Tensor]]


@dataclass(frozen=True)
class Recipe:
    """A CLIP, what it reads and sees, and how it is trained."""

    model: CLIPConfig  # `train_clip` fills in the tokenizer's pieces
    texts: Callable[[], list[str]]  # what the tokenizer learns its pieces from
    merges: int  # at most so many pieces are learned
    matched: Callable[[int, int], Matched]  # (pairs a batch, seed)
    batch: int = 128
    train: TrainConfig = TrainConfig(steps=5000, lr=3e-3, warmup=200, weight_decay=0.05)


def contrastive_loss(logits: Tensor) -> Tensor:
    """How far each picture is from finding its caption, and each caption its picture: a scalar.

    logits: (B, B), a row for each picture, a column for each caption; what belongs together is on the diagonal.
    Radford et al. 2021, figure 3.
    """
    own = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2


def train_clip(folder: Path, device: torch.device, recipe: Recipe) -> Iterator[tuple[int, int, float]]:
    """Train a small CLIP and write it to `folder`; yields steps done, steps in all, loss.

    A run that was stopped is gone on with.
    """
    config, model = recipe.train, recipe.model
    tokenizer = Tokenizer.train(recipe.texts(), recipe.merges, length=model.text.length)
    text = replace(model.text, vocab=len(tokenizer.vocab), end=tokenizer.vocab[END])
    torch.manual_seed(config.seed)
    clip = CLIP(replace(model, text=text)).to(device)
    ema = EMA(clip, config.ema)
    optimizer = torch.optim.AdamW(clip.parameters(), lr=config.lr, weight_decay=config.weight_decay, betas=(0.9, 0.98))
    done = restore(folder, clip, ema.net, optimizer)
    try:
        for images, captions, also_true in islice(recipe.matched(recipe.batch, config.seed), done, config.steps):
            for group in optimizer.param_groups:
                group["lr"] = config.lr * warm_up_and_decay(done, config)
            logits = clip(tokenizer(captions).to(device), images.to(device))
            value = contrastive_loss(logits.masked_fill(also_true.to(device), -torch.inf))
            optimizer.zero_grad()
            value.backward()
            nn.utils.clip_grad_norm_(clip.parameters(), config.clip)
            optimizer.step()
            clip.logit_scale.data.clamp_(max=math.log(SHARPEST))
            ema.update(clip, done)
            done += 1
            if done % config.save_every == 0:
                save(folder, clip, ema.net, optimizer, done, config.steps)
            yield done, config.steps, value.item()
    except GeneratorExit:  # the caller stopped early, between two steps: nothing is lost
        pass
    save(folder, clip, ema.net, optimizer, done, config.steps)
    save_clip(ema.net, tokenizer, folder)
