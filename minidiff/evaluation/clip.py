"""How well does a CLIP match pictures with captions?"""

import dataclasses
import json
from dataclasses import dataclass

import torch

from minidiff.data.color_digits import COLORS, HELD_OUT, Scene, caption, draw
from minidiff.data.mnist import mnist
from minidiff.networks import CLIP
from minidiff.tokenizer import Tokenizer

KINDS = 10  # (colour, background) pairs in a round; with ten digits these are 100 captions


@dataclass(frozen=True)
class Retrieval:
    """How often the caption that a CLIP finds most like a picture is the picture's own, of 100."""

    split: str  # whose handwriting the pictures show
    wording: str  # of the captions, by an example
    seed: int
    n_seen: int  # pictures of (digit, colour) pairs that training had
    n_unseen: int  # pictures of the ten that it never had
    seen: float  # share of them that found their caption
    unseen: float
    wrong_digit: float  # share of all pictures whose choice names another digit, colour, background
    wrong_color: float
    wrong_background: float

    def json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=2)

    def __str__(self) -> str:
        rows = [
            ("pairs it was trained on", self.seen, f"{self.n_seen:,} pictures"),
            ("pairs nobody has seen", self.unseen, f"{self.n_unseen:,} pictures"),
            ("another digit", self.wrong_digit, "of all pictures"),
            ("another colour", self.wrong_color, ""),
            ("another background", self.wrong_background, ""),
        ]
        lines = [f"{name:<27}{share:>7.1%}   {note}".rstrip() for name, share, note in rows]
        return "\n".join([f'its own caption first, of 100 such as "{self.wording}"', *lines])


@torch.no_grad()
def retrieval(
    clip: CLIP, tokenizer: Tokenizer, split: str = "test", rounds: int = 50, wording: int = 0, seed: int = 0
) -> Retrieval:
    """Show a CLIP pictures drawn from unseen handwriting, and 100 captions each to choose from.

    A round has ten (colour, background) pairs, each with all ten digits: 100 captions, and a picture of each. Every
    caption has nine others that differ in the digit alone; the never-seen pairs are among pictures and captions.
    """
    digits = mnist(split)
    rng = torch.Generator().manual_seed(seed)
    rows_of = [(digits.labels == digit).nonzero().flatten() for digit in range(10)]
    colors = [(a, b) for a in COLORS for b in COLORS if a != b]
    device = next(clip.parameters()).device
    found = []
    for _ in range(rounds):
        kinds = [colors[k] for k in torch.randperm(len(colors), generator=rng)[:KINDS]]
        scenes = [Scene(digit, *kind) for kind in kinds for digit in range(10)]
        rows = [_pick(rows_of[scene.digit], rng) for scene in scenes]
        texts = clip.embed_text(tokenizer([caption(scene, wording) for scene in scenes]).to(device))
        pictures = clip.embed_pictures(draw(scenes, digits.images[rows]).to(device))
        chosen = (pictures @ texts.T).argmax(1).tolist()
        found += [(scene, scenes[k]) for scene, k in zip(scenes, chosen, strict=True)]
    right = torch.tensor([a == b for a, b in found], dtype=torch.double)
    held_out = torch.tensor([HELD_OUT[scene.digit] == scene.color for scene, _ in found])

    def differ(field: str) -> float:
        return sum(getattr(a, field) != getattr(b, field) for a, b in found) / len(found)

    return Retrieval(
        split=split,
        wording=caption(Scene(7, "red", "blue"), wording),
        seed=seed,
        n_seen=int((~held_out).sum()),
        n_unseen=int(held_out.sum()),
        seen=float(right[~held_out].mean()),
        unseen=float(right[held_out].mean()),
        wrong_digit=differ("digit"),
        wrong_color=differ("color"),
        wrong_background=differ("background"),
    )


def _pick(rows: torch.Tensor, rng: torch.Generator) -> int:
    return int(rows[torch.randint(len(rows), (), generator=rng)])
