"""Do generated scenes show what was asked for, also in combinations that were never in training?

Every measure is applied to three sets of images: what the model generates, real renderings of the same scenes, and these
through the VAE and back. The last two show what the measures can see. The judge, a detector of things, was trained on all
combinations; the model was not.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from minidiff.data.scenes import BACKDROPS, STYLES, WAYS, Scene, backdrops_on, caption, draw, scenes, things, true_of
from minidiff.diffusion import DEFAULT_SAMPLER
from minidiff.evaluation.clip import Ranked, Ranking
from minidiff.evaluation.report import EVALUATIONS, Evaluation, Report, drawn, fraction, machine
from minidiff.formats.clip import load_clip
from minidiff.formats.model_folder import load_classifier
from minidiff.networks import CLIP, SceneJudge
from minidiff.pipeline.text_to_image import TextToImage
from minidiff.registry import UserError, choose
from minidiff.tokenizer import Tokenizer

CAPTIONS = 100  # among which an image's own is to be found
POOL = 5000  # training scenes among which the nearest one is sought
AGAIN = 25  # scenes that are drawn twice, to see how different the two are
SOURCES = ("drawn", "real", "real, through the VAE")
GROUPS = {  # split: what each group is called, and the scenes in it
    "test": {"trained kinds": "train", "new pairs": "new_pairs", "new backdrops": "new_backdrops", "new styles": "new_styles"},
    "validation": {"trained kinds": "train", "new kinds": "validation"},
}  # fmt: skip


@dataclass(frozen=True)
class Read:
    """What was read in N images."""

    things: Tensor  # (N, T) the highest probability that a thing's centre is in a square
    places: Tensor  # (N, T, 2) where it would be, as row and column in squares
    style: Tensor  # (N,) the style of what is there
    backdrop: Tensor  # (N,)


@torch.no_grad()
def read(judge: SceneJudge, images: Tensor) -> Read:
    """Things, places and style by the judge, backdrops by rule. images: (N, 3, 64, 64) in [-1, 1]."""
    parts = []
    for part in images.split(100):
        found = judge(part.to(next(judge.parameters()).device)).softmax(1)[:, 1:].cpu()
        found = found.unflatten(1, (len(things()), len(STYLES)))  # (N, T, S, 8, 8)
        maps, line = found.sum(2), torch.arange(found.shape[-1]).float()
        mass = maps.sum((2, 3))
        places = [(maps.sum(axis) * line).sum(2) / mass for axis in (3, 2)]
        parts.append((maps.amax((2, 3)), torch.stack(places, 2), found.sum((1, 3, 4)).argmax(1), backdrops(part)))
    return Read(*map(torch.cat, zip(*parts, strict=True)))


def backdrops(images: Tensor) -> Tensor:
    """Of each image (N, 3, 64, 64), which of BACKDROPS is nearest, (N,): by the median over its pixels.

    A thing covers less than half of them, so it does not count.
    """
    known, starts = backdrops_on(torch.device("cpu"))
    known = known.permute(0, 3, 1, 2) / 127.5 - 1  # every picture of every backdrop
    apart = torch.stack([(images - each).abs().mean(1).flatten(1).median(1).values for each in known])
    return torch.stack([apart[a:b].amin(0) for a, b in pairwise(starts)]).argmin(0)


def shows(found: Read, asked: Sequence[Scene]) -> dict[str, Tensor]:
    """Is each image right? (N,) bool: in its things, their relation (of a thing alone it is), backdrop, style, in all.

    asked: scenes with nothing left open. Things: the most probable ones are those asked for.
    """
    number, hits = {name: k for k, name in enumerate(things())}, []
    for k, scene in enumerate(asked):
        names = [number[name] for name in (scene.thing, scene.other) if name]
        right = set(found.things[k].topk(len(names)).indices.tolist()) == set(names)
        (down, along), related = (found.places[k, names[-1]] - found.places[k, names[0]]).tolist(), True
        if scene.relation:
            sides = {"left of": along, "right of": -along, "above": down, "below": -down}
            related = max(sides, key=sides.__getitem__) == scene.relation
        back, style = BACKDROPS[found.backdrop[k]] == scene.backdrop, STYLES[found.style[k]] == scene.style
        hits.append((right, related, back, style, right and related and back and style))
    return dict(zip(("things", "relation", "backdrop", "style", "all"), torch.tensor(hits).T, strict=True))


@cache
def _others(seed: int) -> list[Scene]:
    """Scenes among whose captions an image's own is to be found."""
    return scenes(8 * CAPTIONS, "all", seed).shown


@torch.no_grad()
def matched(clip: CLIP, tokenizer: Tokenizer, images: Tensor, asked: Sequence[Scene], seed: int) -> Tensor:
    """Does CLIP rank each image's own caption first, of CAPTIONS that are not true of it? (N,) bool. A tie is not first."""
    device, right = next(clip.parameters()).device, []
    others = _others(seed)
    texts = clip.embed_text(tokenizer([caption(scene) for scene in others]).to(device))
    own = clip.embed_text(tokenizer([caption(scene) for scene in asked]).to(device))
    pictures = torch.cat([clip.embed_images(part.to(device)) for part in images.split(100)])
    for k, scene in enumerate(asked):
        false = [row for row, other in enumerate(others) if not true_of(other, scene)]
        first = k % (len(false) - CAPTIONS)
        right.append(bool(own[k] @ pictures[k] > (texts[false[first : first + CAPTIONS - 1]] @ pictures[k]).max()))
    return torch.tensor(right)


def coarse(images: Tensor) -> Tensor:
    """Images (N, 3, 64, 64) as points whose distances are measured, (N, 768): a shift of a pixel costs little."""
    return F.avg_pool2d(images, 4).flatten(1)


@dataclass(frozen=True)
class Row:
    """What was found in n images. All but the last two are fractions: of them, and `relation` of those with two things."""

    group: str  # one of GROUPS
    source: str  # one of SOURCES
    n: int
    things: float
    relation: float
    backdrop: float
    style: float
    all: float  # right in everything
    clip: float  # CLIP finds its own caption
    nearness: float  # mean distance to the nearest training scene, over that of the real renderings
    diversity: float  # mean distance of two images of one scene, over that of the real renderings


@dataclass(frozen=True)
class SceneReport(Report):
    """What was measured in scenes of each kind."""

    scale: float
    sampler: str
    steps: int
    rows: list[Row]

    def notes(self) -> list[str]:
        return [
            "things, style: by a judge; backdrop: by rule; relation: of the scenes with two things; all: right in everything;",
            f"clip: finds its own caption, of {CAPTIONS}; nearness: distance to the nearest of {POOL:,} training scenes;",
            "diversity: distance between two images of one scene; both divided by that of real renderings",
        ]


def evaluate_scenes(
    pipe: TextToImage, n: int = 200, *, split: str = "test", scale: float | None = None,
    sampler: str = DEFAULT_SAMPLER, steps: int = 20, seed: int = 0, progress=lambda iterable, **_: iterable,
) -> SceneReport:  # fmt: skip
    """Generate n scenes of each group, and measure what they show. Prompts name everything, in every wording.

    split: "test", or "validation", to choose by. scale: None for the model's own. progress: wraps the loop over the
    groups, such as tqdm. Raises UserError for another split or n.
    """
    if n < 2:
        raise UserError(f"n must be at least 2, got {n}")
    scale = pipe.config.scale if scale is None else float(scale)
    (clip, tokenizer), judge = load_clip("clip_scenes", pipe.device), load_classifier("scene_judge", pipe.device)
    assert isinstance(judge, SceneJudge)
    pool, rows = coarse(scenes(POOL, "train", seed).images), []
    how = {"steps": steps, "scale": scale, "sampler": sampler}
    for k, (group, of) in enumerate(progress(list(choose(split, GROUPS, "split").items()), unit="group")):
        asked = scenes(n, of, seed + 1_000_000)  # none of the training run
        words = [caption(scene, way % WAYS) for way, scene in enumerate(asked.shown)]
        first = seed + 10_000 * k  # every image has a seed of its own, the same for any n
        again, rng = min(n, AGAIN), np.random.default_rng((seed, k))
        made = drawn(pipe, words, first, **how), drawn(pipe, words[:again], first + 5000, **how)
        real = asked.images, draw(asked.shown[:again], rng)[0]
        through = [torch.cat([pipe.decode(pipe.to_latents(x)).cpu() * 2 - 1 for x in each.split(100)]) for each in real]
        two = torch.tensor([scene.other is not None for scene in asked.shown])
        usual = torch.cdist(coarse(real[0]), pool).amin(1).mean(), _apart(*real)
        for source, (images, others) in zip(SOURCES, (made, real, through), strict=True):
            right = shows(read(judge, images), asked.shown)
            right["relation"] = right["relation"][two]
            near = torch.cdist(coarse(images), pool).amin(1).mean() / usual[0]
            own = fraction(matched(clip, tokenizer, images, asked.shown, seed))
            found = [fraction(each) if len(each) else 1.0 for each in right.values()]
            rows.append(Row(group, source, n, *found, own, float(near), float(_apart(images, others) / usual[1])))
    return SceneReport(
        model=pipe.config.name, split=split, seed=seed, machine=machine(pipe.device),
        scale=scale, sampler=sampler, steps=steps, rows=rows,
    )  # fmt: skip


def _apart(images: Tensor, others: Tensor) -> Tensor:
    return (coarse(images[: len(others)]) - coarse(others)).norm(dim=1).mean()


def matching(
    clip: CLIP, tokenizer: Tokenizer, n: int = 500, split: str = "test", seed: int = 0, model: str = "clip_scenes"
) -> Ranking:
    """Ask a CLIP for the captions of n real renderings of each group that `evaluate_scenes` has. Raises as that does."""
    rows = []
    for group, of in choose(split, GROUPS, "split").items():
        asked = scenes(n, of, seed)
        right = matched(clip, tokenizer, asked.images, asked.shown, seed)
        rows.append(Ranked(f"its own, {group}", n, fraction(right)))
    where, among = machine(next(clip.parameters()).device), f"{CAPTIONS} captions"
    return Ranking(model=model, split=split, seed=seed, machine=where, among=among, rows=rows)


EVALUATIONS["scenes"] = Evaluation(
    "things, relation, backdrop and style as asked, seen and never seen", evaluate_scenes, "scenes"
)
EVALUATIONS["clip_scenes"] = Evaluation(
    "matching: how often a scene's own caption comes first", matching, "scenes", CLIP
)
