"""A figure of CLIP: which caption fits which picture."""

from collections.abc import Sequence
from functools import cache

import torch
from PIL import Image
from torch import Tensor

from minidiff.course.figures.page import BLUE, FIGURES, GRAY, WIDTH, Page, signed
from minidiff.course.figures.text import two_lines
from minidiff.data import Captioned, Scene, caption, mnist
from minidiff.data.color_digits import draw
from minidiff.networks import CLIP
from minidiff.registry import register
from minidiff.tokenizer import Tokenizer

PICTURES, CAPTIONS = 7, 12  # the most that fit on the page


@register(FIGURES)
def clip(
    model: CLIP,
    tokenizer: Tokenizer,
    pictures: Tensor | None = None,
    captions: Sequence[str] | None = None,
    own: str | None = None,
) -> Image.Image:
    """How well captions fit pictures: the cosine of every caption's embedding with every picture's.

    pictures: (N, 3, H, W) in [-1, 1], one to seven, of the size that the model sees; else seven of `scenes`.
    captions: one to twelve, else those of `scenes`. own: one more, set apart below.
    """
    pictures = scenes().images if pictures is None else pictures
    captions = scenes().captions if captions is None else captions
    texts = [*captions, *([] if own is None else [own])]
    if not 1 <= len(pictures) <= PICTURES:
        raise ValueError(f"one to {PICTURES} pictures fit on the page, got {len(pictures)}")
    if not 1 <= len(captions) <= CAPTIONS:
        raise ValueError(f"one to {CAPTIONS} captions fit on the page, got {len(captions)}")
    cosines = similarities(model, tokenizer, pictures, texts).T  # (texts, N)
    best = cosines.argmax(0).tolist()
    reach = float(cosines.abs().max()) or 1.0
    left, wide, tall, first = 284, 66, 36, 78
    tops = [first + tall * k + 10 * (k == len(captions)) for k in range(len(texts))]
    with Page(WIDTH, tops[-1] + tall + 34) as page:
        canvas = page.canvas()
        for column, picture in enumerate(pictures):
            page.picture((picture + 1) / 2, left + wide * column + 5, 12, 56, frame=GRAY)
        for row, (text, top) in enumerate(zip(texts, tops, strict=True)):
            colour = BLUE if row == len(captions) else "black"
            look = {"va": "center", "ha": "right", "fontsize": 9, "color": colour}
            canvas.text(left - 10, top + tall / 2, two_lines(text, left - 24), **look)
            for column, value in enumerate(cosines[row].tolist()):
                _cell(canvas, left + wide * column, top, wide, tall, value, reach, framed=best[column] == row)
        words = "Numbers: cosines. Framed: the caption that fits a picture best."
        page.text(left, tops[-1] + tall + 10, words, color=GRAY, fontsize=9)
        return page.image()


@cache
def scenes() -> Captioned:
    """Seven pictures of color_digits that differ in one thing or in several, drawn from validation digits."""
    chosen = [
        Scene(7, "red", "blue"),
        Scene(7, "blue", "red"),
        Scene(4, "red", "blue"),
        Scene(3, "green", "white"),
        Scene(5, "orange", "black", "top left", "small"),
        Scene(5, "orange", "black", "bottom right", "small"),
        Scene(8, "white", "purple"),
    ]
    known = mnist("validation")
    digits = torch.stack([known.images[known.labels == scene.digit][0] for scene in chosen])
    return Captioned(draw(chosen, digits), [caption(scene) for scene in chosen], chosen)


@torch.no_grad()
def similarities(model: CLIP, tokenizer: Tokenizer, pictures: Tensor, texts: Sequence[str]) -> Tensor:
    """The cosine of every picture's embedding with every text's, (pictures, texts)."""
    device = model.logit_scale.device
    embedded = model.embed_pictures(pictures.to(device)), model.embed_text(tokenizer(list(texts)).to(device))
    return (embedded[0] @ embedded[1].T).float().cpu()


def _cell(canvas, left: float, top: float, wide: float, tall: float, value: float, reach: float, framed: bool) -> None:
    from matplotlib.patches import Rectangle

    face = signed(torch.tensor([[value / reach]])).flatten().tolist()
    look = {"edgecolor": "black", "lw": 2, "zorder": 3} if framed else {"edgecolor": "white", "lw": 1}
    canvas.add_patch(Rectangle((left + 1, top + 1), wide - 2, tall - 2, facecolor=face, **look))
    look = {"weight": "bold"} if framed else {}
    dark = value < -0.6 * reach
    where = {"ha": "center", "va": "center", "fontsize": 9, "zorder": 4}
    canvas.text(left + wide / 2, top + tall / 2, f"{value:.2f}", color="white" if dark else "black", **where, **look)
