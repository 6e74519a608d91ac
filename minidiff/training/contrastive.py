"""Training CLIP: of many captions, which belongs to the picture, and of many pictures, which to the caption?"""

import math
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minidiff.data.color_digits import Captioned, color_digit_batches
from minidiff.networks import CLIP, CLIPConfig, CLIPTextConfig, CLIPVisionConfig
from minidiff.tokenizer import END, Tokenizer
from minidiff.training.checkpoint import restore, save
from minidiff.training.loop import EMA, TrainConfig, warm_up_and_decay
from minidiff.weights import save_clip

CONFIG = CLIPConfig(  # half a million parameters; ViT-L/14 has 428 million
    text=CLIPTextConfig(length=24, width=64, layers=2, heads=4, activation="gelu"),
    vision=CLIPVisionConfig(
        size=32, patch=8, width=80, layers=4, heads=4, activation="gelu", mean=(0.5,) * 3, std=(0.5,) * 3
    ),
    dim=64,
)
TRAIN = TrainConfig(steps=5000, lr=3e-3, warmup=200, weight_decay=0.05)
LOT, RUN = 4, 32  # batches drawn at once; pictures of neighbouring colours in a batch
# Larger lots make the colours of a run more alike, and with 16 the colours themselves were learned far too late.
SHARPEST = 100  # the highest 1 / temperature, as in Radford et al. 2021, section 2.5


def contrastive_loss(logits: Tensor) -> Tensor:
    """How far each picture is from finding its caption, and each caption its picture: a scalar.

    logits: (B, B), a row for each picture, a column for each caption; what belongs together is on the diagonal.
    Radford et al. 2021, figure 3.
    """
    own = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2


def also_true(batch: Captioned) -> Tensor:
    """(B, B) bool: is caption j, which belongs to another picture, true of picture i too?

    It is where both show the same scene; and where the caption leaves the background open ("a red seven"), where
    they show the same digit in the same colour. To count these as wrong would teach the network to guess.
    """
    scenes = _numbered(batch.scenes)
    pairs = _numbered([(scene.digit, scene.color) for scene in batch.scenes])
    leaves_open = torch.tensor(
        [scene.background not in text for scene, text in zip(batch.scenes, batch.captions, strict=True)]
    )
    true = (scenes[:, None] == scenes) | leaves_open & (pairs[:, None] == pairs)
    return true.fill_diagonal_(False)


def batches(batch: int, seed: int) -> Iterator[Captioned]:
    """Training pictures in batches of a few colours and many digits, without end.

    Colours are learned in the first minute. Among pictures of all colours they nearly always give the caption away,
    and the digit need not be looked at. So a lot is drawn, sorted by colours, and dealt out in runs of the same ones.
    """
    for lot in color_digit_batches(LOT * batch, seed=seed):
        order = sorted(range(len(lot)), key=lambda k: (lot.scenes[k].color, lot.scenes[k].background))
        runs = [order[k : k + RUN] for k in range(0, len(order), RUN)]
        for k in range(LOT):
            rows = [row for run in runs[k::LOT] for row in run]
            yield Captioned(lot.images[rows], [lot.captions[row] for row in rows], [lot.scenes[row] for row in rows])


def train_clip(
    folder: Path, device: torch.device, config: TrainConfig = TRAIN, batch: int = 128, model: CLIPConfig = CONFIG
) -> Iterator[tuple[int, int, float]]:
    """Train a small CLIP on color_digits and write it to `folder`; yields steps done, steps in all, loss.

    A run that was stopped is gone on with. The never-seen pairs are in none of its pictures or captions.
    """
    tokenizer = Tokenizer.train(next(color_digit_batches(4096)).captions, merges=10_000, length=model.text.length)
    text = replace(model.text, vocab=len(tokenizer.vocab), end=tokenizer.vocab[END])
    torch.manual_seed(config.seed)
    clip = CLIP(replace(model, text=text)).to(device)
    ema = EMA(clip, config.ema)
    optimizer = torch.optim.AdamW(clip.parameters(), lr=config.lr, weight_decay=config.weight_decay, betas=(0.9, 0.98))
    done = restore(folder, clip, ema.net, optimizer)
    try:
        for pictures in islice(batches(batch, config.seed), done, config.steps):
            for group in optimizer.param_groups:
                group["lr"] = config.lr * warm_up_and_decay(done, config)
            logits = clip(tokenizer(pictures.captions).to(device), pictures.images.to(device))
            value = contrastive_loss(logits.masked_fill(also_true(pictures).to(device), -torch.inf))
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


def _numbered(things: list) -> Tensor:
    """Equal things have equal numbers, (N,)."""
    number: dict = {}
    return torch.tensor([number.setdefault(thing, len(number)) for thing in things])
