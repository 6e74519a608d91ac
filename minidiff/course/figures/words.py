"""Figures of words: what guidance adds, which word attends where, which caption fits which image."""

from collections.abc import Sequence
from itertools import islice

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from minidiff.course.examples import scenes
from minidiff.course.figures.estimates import estimate, noise_of
from minidiff.course.figures.page import BLUE, FIGURES, GRAY, WIDTH, Page, fitted, readable, signed, two_lines
from minidiff.data import DATASETS
from minidiff.diffusion import DEFAULT_SAMPLER
from minidiff.networks import CLIP, AttentionMap, attention_maps
from minidiff.pipeline.text_to_image import TextToImage
from minidiff.registry import UserError, check_between, choose, register
from minidiff.tokenizer import Tokenizer

COLUMNS = 5  # steps that `guidance` shows
TILES = 24  # the most words that `attention` shows
ASIDE = ("(start)", "(end)", "(padding)")  # titles of the tokens that are no words
PICTURES, CAPTIONS = 7, 12  # the most that `clip` shows


@register(FIGURES)
def guidance(
    pipe: TextToImage, prompt: str, negative: str | None = None,
    scale: float | None = None, seed: int = 0, steps: int = 20,
) -> Image.Image:  # fmt: skip
    """Classifier-free guidance: both predictions of x_t at five sampling steps, their difference, and the result.

    negative: in place of the unconditional prediction; None or "" for none. Raises UserError for what cannot be generated.
    """
    scale, negative = pipe.config.scale if scale is None else float(scale), negative or None
    taken = list(pipe.stream([prompt], negative=negative, steps=steps, scale=scale, seed=seed))
    times = pipe.times(steps, DEFAULT_SAMPLER)
    empty = torch.zeros_like(taken[0].x)
    start = pipe.schedule.add_noise(empty, noise_of(empty, seed), times[0])
    chosen = torch.linspace(0, steps - 1, min(steps, COLUMNS)).round().long().tolist()
    x = torch.cat([taken[k - 1].x if k else start for k in chosen])  # the inputs of those steps
    pair = (estimate(pipe, x, times[chosen].tolist(), each) for each in (negative, prompt))
    without, with_text = (pipe.decode(each).cpu() for each in pair)
    guided = pipe.decode(torch.cat([taken[k].x0_hat for k in chosen]))
    gap = with_text - without  # (columns, C, H, W) in [-1, 1]
    reach = float(gap.abs().quantile(0.995)) or 1.0  # a few pixels may lie outside
    gray = gap.shape[1] == 1
    shown = torch.stack([signed(each[0] / reach) for each in gap]) if gray else (gap / reach + 1) / 2
    meaning = "orange: lighter with the prompt, blue: darker" if gray else "gray: none; colours: what the prompt adds"
    rows = [
        ("negative prompt: " + readable(negative, 380) if negative else "unconditional", without),
        ("prompt: " + readable(prompt, 430), with_text),
        (f"difference ({meaning})", shown),
        (f"guided: first row + {scale:g} × difference", guided),
    ]
    with Page(WIDTH, 502) as page:
        for column, k in enumerate(chosen):
            page.text(16 + 98 * column, 6, f"t = {float(times[k]):.2f}", color=GRAY, fontsize=9)
        for row, (words, pictures) in enumerate(rows):
            page.text(16, 28 + 118 * row, words, fontsize=9)
            for column, picture in enumerate(pictures):
                page.picture(picture, 16 + 98 * column, 48 + 118 * row, 90)
        page.picture(pipe.decode(taken[-1].x)[0], 532, 48, 212, title=f"result: scale {scale:g}, {steps} steps")
        words = f"Full colour in the third row:\na difference of {reach:.2f},\nwhere black to white is 1."
        page.text(532, 284, words, color=GRAY, fontsize=9)
        return page.image()


@register(FIGURES)
def attention(
    pipe: TextToImage, prompt: str, step: int = 1, seed: int = 0, steps: int = 20,
    scale: float | None = None, size: int | None = None,
) -> Image.Image:  # fmt: skip
    """Cross-attention: for each word, the weight it gets from every pixel, laid over the denoised estimate at a step.

    step: from 1. size: the height of the feature maps, None for the highest resolution; the mean over its heads and
    blocks. Full orange: twice the word's average over the pixels; full blue: half of it. Below: the word's fraction of
    all attention. Raises UserError for what cannot be shown.
    """
    scale = pipe.config.scale if scale is None else float(scale)
    check_between("step", step, 1, steps)
    if scale == 0:
        raise UserError("at scale 0 the model does not read the prompt")
    with attention_maps(pipe.net) as passes:
        now = next(islice(pipe.stream([prompt], steps=steps, scale=scale, seed=seed), step - 1, None))
    sizes = {str(height): maps for (height, _), maps in heat(passes[-1]).items()}
    maps = next(iter(sizes.values())) if size is None else choose(str(size), sizes, "size")  # (L, h, w)
    height, width = maps.shape[1:]
    tiles = [(title, maps[positions].sum(0)) for title, positions in _words(pipe, prompt)]
    if len(tiles) > TILES:
        tiles[TILES - 1 :] = [("(the rest)", torch.stack([tile for _, tile in tiles[TILES - 1 :]]).sum(0))]
    x0_hat = pipe.decode(now.x0_hat)[0].cpu()
    aside = sum(float(tile.mean()) for title, tile in tiles if title in ASIDE)
    with Page(WIDTH, max(324, 48 + 122 * -(-len(tiles) // 6))) as page:
        t = float(pipe.times(steps, DEFAULT_SAMPLER)[step - 1])
        page.picture(x0_hat, 16, 44, 164, title=rf"$\hat{{x}}_0$ at t = {t:.2f}")
        facts = f"step {step} of {steps}, scale {scale:g}\nfeature maps of {height} × {width}"
        page.text(16, 214, facts, fontsize=9, color=GRAY)
        page.text(16, 250, "orange: more than average,\nblue: less", fontsize=9, color=GRAY)
        page.text(16, 286, f"special tokens take\n{aside:.0%} of all attention", fontsize=9)
        page.text(204, 6, "prompt: " + readable(prompt, 480), fontsize=9)
        for k, (title, tile) in enumerate(tiles):
            left, top = 204 + 92 * (k % 6), 44 + 122 * (k // 6)
            page.picture(_laid_over(tile, x0_hat), left, top, 84, title, f"{float(tile.mean()):.0%}")
        return page.image()


def heat(maps: Sequence[AttentionMap]) -> dict[tuple[int, int], Tensor]:
    """The maps of one forward pass by resolution, the highest first: (L, h, w), the mean over heads and blocks."""
    by_size: dict[tuple[int, int], list[Tensor]] = {}
    for each in sorted(maps, key=lambda each: -each.size[0] * each.size[1]):
        by_size.setdefault(each.size, []).append(each.weights[-1].mean(0).cpu())  # (h * w, L) of the conditional row
    return {size: torch.stack(found).mean(0).T.unflatten(1, size) for size, found in by_size.items()}


def resolutions(pipe: TextToImage) -> list[int]:
    """The heights of the feature maps with cross-attention, the largest first: what `attention` takes as a size."""
    with attention_maps(pipe.net) as passes, torch.no_grad():
        x = pipe.fold.encode(torch.zeros(1, *pipe.config.picture, device=pipe.device))
        pipe.net.unet(x, pipe.schedule.net_time(torch.ones(1)).to(x), pipe.encode_negative(None, 1))
    return [height for height, _ in heat(passes[0])]


def _words(pipe: TextToImage, prompt: str) -> list[tuple[str, list[int]]]:
    """The words of a prompt as the network reads them, each with the positions of its tokens."""
    if pipe.tokenizer is None:
        dataset = DATASETS[pipe.config.labels]
        return [("(start)", [0]), (dataset.classes[dataset.read(prompt)], [1])]
    tokenizer = pipe.tokenizer
    pieces = tokenizer.pieces(prompt)[: tokenizer.length - 2]
    words, positions = [("(start)", [0])], []
    for k, piece in enumerate(pieces, 1):
        positions.append(k)
        if piece.endswith("</w>") or piece in tokenizer.special or k == len(pieces):
            text = tokenizer.decode(tokenizer.vocab[pieces[p - 1]] for p in positions)
            words.append((fitted(text or piece, 80), positions))
            positions = []
    end, *padding = range(len(pieces) + 1, tokenizer.length)
    return [*words, ("(end)", [end]), *([("(padding)", padding)] if padding else [])]


def _laid_over(heat: Tensor, picture: Tensor) -> Tensor:
    """A heat map (h, w) over a pale gray picture (C, H, W): orange where it is above its mean, blue below."""
    over = (heat / heat.mean().clamp(min=1e-12)).clamp(min=1e-12).log2().clamp(-1, 1)  # twice is 1, half is -1
    colours = signed(over.sign())  # (3, h, w)
    colours, strength = (F.interpolate(each[None], picture.shape[1:])[0] for each in (colours, over.abs()[None]))
    return torch.lerp(0.4 + 0.5 * picture.mean(0, keepdim=True).expand(3, -1, -1), colours, 0.85 * strength)


@register(FIGURES)
def clip(
    model: CLIP, tokenizer: Tokenizer,
    pictures: Tensor | None = None, captions: Sequence[str] | None = None, own: str | None = None,
) -> Image.Image:  # fmt: skip
    """How well captions fit images: the cosine similarity of every caption's embedding with every image's.

    pictures: (N, 3, H, W) in [-1, 1], one to seven, of the model's input size. captions: one to twelve. Else those of
    `scenes`. own: one more, set apart below. Raises UserError for other numbers.
    """
    from matplotlib.patches import Rectangle

    pictures = scenes().images if pictures is None else pictures
    captions = scenes().captions if captions is None else captions
    texts = [*captions, *([] if own is None else [own])]
    check_between("the number of pictures", len(pictures), 1, PICTURES)
    check_between("the number of captions", len(captions), 1, CAPTIONS)
    device = model.logit_scale.device
    with torch.no_grad():
        cosines = model(tokenizer(texts).to(device), pictures.to(device)) / model.logit_scale.exp()
    cosines = cosines.float().cpu().T  # (texts, N)
    best = cosines.argmax(0).tolist()
    reach = float(cosines.abs().max()) or 1.0
    left, wide, tall, first = 284, 66, 36, 78
    style = {"ha": "center", "va": "center", "fontsize": 9, "zorder": 4}  # of the numbers
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
                x, framed = left + wide * column, best[column] == row
                edge = {"ec": "black", "lw": 2, "zorder": 3} if framed else {"ec": "white", "lw": 1}
                face = signed(torch.tensor([[value / reach]])).flatten().tolist()
                canvas.add_patch(Rectangle((x + 1, top + 1), wide - 2, tall - 2, fc=face, **edge))
                style["color"] = "white" if value < -0.6 * reach else "black"
                style["weight"] = "bold" if framed else "normal"
                canvas.text(x + wide / 2, y, f"{value:.2f}", **style)
        words = "Values: cosine similarities. Framed: the caption that fits an image best."
        page.text(left, tops[-1] + tall + 10, words, color=GRAY, fontsize=9)
        return page.image()
