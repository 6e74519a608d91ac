"""CLIP for scenes."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from minidiff.data.scenes import Scene, Scenes, caption, draw, scene_batches, true_of
from minidiff.training.optimise import OptimConfig
from minidiff.training.recipe import RECIPES
from minidiff.training.recipes.contrastive import ClipRecipe, small_clip

CLIP_SCENES = small_clip(length=32, size=64)
CLIP_SCENES = replace(
    CLIP_SCENES, vision=replace(CLIP_SCENES.vision, patch=16)
)  # with patches of 8: three times as slow
LOT, RUN = 4, 16  # half batches drawn at once; scenes of neighbouring things in a batch
OTHER = {
    "left of": "right of",
    "right of": "left of",
    "above": "below",
    "below": "above",
    "large": "small",
    "small": "large",
}


def also_true(batch: Scenes) -> Tensor:
    """(B, B) bool: is caption j, which belongs to another image, true of image i too?"""
    true = torch.tensor([[true_of(said, shown) for said in batch.said] for shown in batch.shown])
    return true.fill_diagonal_(False)


def twin(scene: Scene) -> Scene:
    """The same with its things the other way round, or in the other size: only words of relation and size tell them apart."""
    if scene.relation is None:
        return replace(scene, size=OTHER[scene.size])
    return replace(scene, relation=OTHER.get(scene.relation, scene.relation))


def batches(batch: int, seed: int) -> Iterator[Scenes]:
    """Training scenes in batches of a few things, half of them twins of the others, without end.

    Things are learned in the first minutes. Among scenes of all things they nearly always identify the caption, and
    style, backdrop and relation are not needed. So a lot is drawn, sorted by things, and dealt out in runs of the same ones.
    """
    half = batch // 2
    for step, lot in enumerate(scene_batches(LOT * half, seed=seed)):
        rng = np.random.default_rng((seed, step))
        order = sorted(range(len(lot)), key=lambda k: lot.shown[k].thing)
        runs = [order[k : k + RUN] for k in range(0, len(order), RUN)]
        for k in range(LOT):
            rows = [row for run in runs[k::LOT] for row in run]
            said, shown = ([scenes[row] for row in rows] for scenes in (lot.said, lot.shown))
            twins_said, twins_shown = ([twin(scene) for scene in scenes] for scenes in (said, shown))
            captions = [lot.captions[row] for row in rows] + [caption(scene) for scene in twins_said]
            drawn, places = draw(twins_shown, rng)
            images, centres = torch.cat([lot.images[rows], drawn]), torch.cat([lot.centres[rows], places])
            yield Scenes(images, captions, said + twins_said, shown + twins_shown, centres)


RECIPES["clip_scenes"] = ClipRecipe(
    about="words and images of scenes in one space",
    texts=lambda: next(scene_batches(8192)).captions,
    merges=10_000,  # every word in one token
    batches=batches,
    also_true=also_true,
    model=CLIP_SCENES,
    train=OptimConfig(steps=2500, lr=2e-3, warmup=200, weight_decay=0.05, betas=(0.9, 0.98), save_every=100),
)
