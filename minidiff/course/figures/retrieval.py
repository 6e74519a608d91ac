"""A figure of CLIP: which caption fits which image."""

from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor

from minidiff.course.examples import scenes
from minidiff.course.figures.page import BLUE, FIGURES, GRAY, WIDTH, Page, signed
from minidiff.course.figures.text import two_lines
from minidiff.networks import CLIP
from minidiff.registry import UserError, register
from minidiff.tokenizer import Tokenizer

PICTURES, CAPTIONS = 7, 12  # the most that fit on the page


@register(FIGURES)
def clip(
    model: CLIP, tokenizer: Tokenizer,
    pictures: Tensor | None = None, captions: Sequence[str] | None = None, own: str | None = None,
) -> Image.Image:  # fmt: skip
    """How well captions fit images: the cosine similarity of every caption's embedding with every image's.

    pictures: (N, 3, H, W) in [-1, 1], one to seven, of the model's input size; else seven of `scenes`.
    captions: one to twelve, else those of `scenes`. own: one more, set apart below. Raises UserError for other numbers.
    """
    pictures = scenes().images if pictures is None else pictures
    captions = scenes().captions if captions is None else captions
    texts = [*captions, *([] if own is None else [own])]
    if not 1 <= len(pictures) <= PICTURES:
        raise UserError(f"one to {PICTURES} pictures fit on the page, got {len(pictures)}")
    if not 1 <= len(captions) <= CAPTIONS:
        raise UserError(f"one to {CAPTIONS} captions fit on the page, got {len(captions)}")
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
            words, y = two_lines(text, left - 24), top + tall / 2
            canvas.text(left - 10, y, words, va="center", ha="right", fontsize=9, color=colour)
            for column, value in enumerate(cosines[row].tolist()):
                _cell(canvas, left + wide * column, top, wide, tall, value, reach, framed=best[column] == row)
        words = "Values: cosine similarities. Framed: the caption that fits an image best."
        page.text(left, tops[-1] + tall + 10, words, color=GRAY, fontsize=9)
        return page.image()


@torch.no_grad()
def similarities(model: CLIP, tokenizer: Tokenizer, pictures: Tensor, texts: Sequence[str]) -> Tensor:
    """The cosine similarity of every image's embedding with every text's, (pictures, texts)."""
    device = model.logit_scale.device
    of_images, of_texts = model.embed_images(pictures.to(device)), model.embed_text(tokenizer(list(texts)).to(device))
    return (of_images @ of_texts.T).float().cpu()


def _cell(canvas, left: float, top: float, wide: float, tall: float, value: float, reach: float, framed: bool) -> None:
    from matplotlib.patches import Rectangle

    face = signed(torch.tensor([[value / reach]])).flatten().tolist()
    edge = {"edgecolor": "black", "lw": 2, "zorder": 3} if framed else {"edgecolor": "white", "lw": 1}
    canvas.add_patch(Rectangle((left + 1, top + 1), wide - 2, tall - 2, facecolor=face, **edge))
    style = {"color": "white" if value < -0.6 * reach else "black", "weight": "bold" if framed else "normal"}
    x, y = left + wide / 2, top + tall / 2
    canvas.text(x, y, f"{value:.2f}", ha="center", va="center", fontsize=9, zorder=4, **style)
