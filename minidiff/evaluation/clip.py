"""How well does a CLIP match pictures of coloured digits with captions?"""

from dataclasses import dataclass

import torch

from minidiff.data.color_digits import COLORS, HELD_OUT, OTHERS, Scene, caption, draw
from minidiff.data.mnist import mnist
from minidiff.evaluation.report import EVALUATIONS, Evaluation, Report, machine
from minidiff.networks import CLIP
from minidiff.tokenizer import Tokenizer

KINDS = 10  # (colour, background) pairs in a round; with ten digits these are 100 captions


@dataclass(frozen=True)
class Ranked:
    """How often it comes first."""

    first: str  # which caption
    images: int
    fraction: float  # of these images


@dataclass(frozen=True)
class Ranking(Report):
    """Which caption a CLIP finds most like an image."""

    among: str  # the captions it has to choose from
    rows: list[Ranked]

    def notes(self) -> list[str]:
        return [f"among {self.among}"]


@torch.no_grad()
def retrieval(
    clip: CLIP, tokenizer: Tokenizer, split: str = "test", rounds: int = 50, wording: int = 0, seed: int = 0,
    model: str = "clip",
) -> Ranking:  # fmt: skip
    """Rank 100 captions for each of 100 * rounds images, whose handwriting is that of `split`.

    A round has ten (colour, background) pairs, each with all ten digits: 100 captions, and an image of each. Every
    caption has nine others that differ in the digit alone; the held-out pairs are among images and captions.
    model: what the report calls the CLIP.
    """
    digits, rng = mnist(split), torch.Generator().manual_seed(seed)
    rows_of = [(digits.labels == digit).nonzero().flatten() for digit in range(10)]
    colors = [(color, other) for color in COLORS for other in OTHERS[color]]
    device = next(clip.parameters()).device
    found = []
    for _ in range(rounds):
        kinds = [colors[k] for k in torch.randperm(len(colors), generator=rng)[:KINDS]]
        scenes = [Scene(digit, *kind) for kind in kinds for digit in range(10)]
        rows = [int(rows[torch.randint(len(rows), (), generator=rng)]) for rows in (rows_of[s.digit] for s in scenes)]
        texts = clip.embed_text(tokenizer([caption(scene, wording) for scene in scenes]).to(device))
        images = clip.embed_images(draw(scenes, digits.images[rows]).to(device))
        found += [(scene, scenes[k]) for scene, k in zip(scenes, (images @ texts.T).argmax(1).tolist(), strict=True)]

    hits = {
        f"its own, {pairs} pair": [a == b for a, b in found if (HELD_OUT[a.digit] == a.color) == unseen]
        for pairs, unseen in (("seen", False), ("never-seen", True))
    }
    for field in ("digit", "color", "background"):
        hits[f"another {field}"] = [getattr(a, field) != getattr(b, field) for a, b in found]
    among = f'{10 * KINDS} captions such as "{caption(Scene(7, "red", "blue"), wording)}"'
    ranked = [Ranked(first, len(each), sum(each) / max(1, len(each))) for first, each in hits.items()]
    return Ranking(model=model, split=split, seed=seed, machine=machine(device), among=among, rows=ranked)


EVALUATIONS["clip"] = Evaluation(
    "retrieval: how often an image's own caption comes first", retrieval, "color_digits", CLIP
)
