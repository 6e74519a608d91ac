"""Two figures of prompts: what guidance adds, and which word looks where."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Generator, Tensor

from minidiff.course.figures.page import FIGURES, GRAY, WIDTH, Page, signed
from minidiff.course.figures.text import readable
from minidiff.data import LABELS
from minidiff.diffusion import denoiser
from minidiff.networks import AttentionMap, attention_maps
from minidiff.pipeline.text_to_image import TextToImage
from minidiff.registry import choose, register

COLUMNS = 5  # steps of the walk that `guidance` shows
TILES = 24  # the most words that `attention` shows


@register(FIGURES)
def guidance(
    pipe: TextToImage,
    prompt: str,
    negative: str | None = None,
    scale: float | None = None,
    seed: int = 0,
    steps: int = 20,
) -> Image.Image:
    """A walk with classifier-free guidance: the two beliefs at five of its steps, their difference, and the result.

    negative: takes the place of "nothing"; None or "" for nothing. scale: None for the model's own. Both beliefs are
    of the same x_t, that of the guided walk. Raises ValueError for what the model cannot draw.
    """
    scale = pipe.config.scale if scale is None else float(scale)
    walk = list(pipe.stream([prompt], negative=negative or None, steps=steps, scale=scale, seed=seed))
    told, untold = pipe.encode([prompt]), pipe.encode_negative(negative or None, 1)
    times = pipe.times(steps, "dpmpp_2m")
    empty = torch.zeros_like(walk[0].x)
    noise = torch.randn(empty.shape, generator=Generator().manual_seed(seed)).to(empty)
    before = [pipe.schedule.add_noise(empty, noise, times[0]), *(step.x for step in walk)]  # what each step begins with
    chosen = torch.linspace(0, steps - 1, min(steps, COLUMNS)).round().long().tolist()
    x = torch.cat([before[k] for k in chosen])

    @torch.no_grad()
    def believed(context: Tensor) -> Tensor:
        parts = (pipe.net.unet, pipe.schedule, pipe.prediction, context.expand(len(x), -1, -1))
        return pipe.decode(denoiser(*parts)(x, times[chosen])).cpu()

    without, with_text = believed(untold), believed(told)
    guided = pipe.decode(torch.cat([walk[k].x0_hat for k in chosen]))
    gap = with_text - without  # (columns, C, H, W) in [-1, 1]
    reach = float(gap.abs().quantile(0.995)) or 1.0  # a few pixels may lie outside
    gray = gap.shape[1] == 1
    shown = torch.stack([signed(each[0] / reach) for each in gap]) if gray else (gap / reach + 1) / 2
    meaning = "orange: lighter with the prompt, blue: darker" if gray else "gray: none; colours: what the prompt adds"
    rows = [
        ("told " + (readable(negative, 450) if negative else "nothing"), without),
        ("told " + readable(prompt, 450), with_text),
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
        page.picture(pipe.decode(walk[-1].x)[0], 532, 48, 212, title=f"result: scale {scale:g}, {steps} steps")
        words = f"Full colour in the third row:\na difference of {reach:.2f},\nwhere black to white is 1."
        page.text(532, 284, words, color=GRAY, fontsize=9)
        return page.image()


@register(FIGURES)
def attention(
    pipe: TextToImage,
    prompt: str,
    step: int = 1,
    seed: int = 0,
    steps: int = 20,
    scale: float | None = None,
    size: int | None = None,
) -> Image.Image:
    """Which word looks where: for each word, how much of it every pixel takes, laid over what is believed at a step.

    step: 1 to steps. scale: None for the model's own; not 0, where the prompt is not read. size: the height of the
    rooms to look into, None for the largest. The mean over the heads and rooms of that size, in the very forward
    pass of the step. Full orange: twice as much of the word as the average pixel takes; full blue: half as much. The
    number below is the word's share of all attention. Raises ValueError for what cannot be shown.
    """
    scale = pipe.config.scale if scale is None else float(scale)
    if not 1 <= step <= steps:
        raise ValueError(f"step must lie between 1 and the number of steps, {steps}; got {step}")
    if scale == 0:
        raise ValueError("at scale 0 the model is not told the prompt")
    with attention_maps(pipe.net) as passes:
        for _, now in zip(range(step), pipe.stream([prompt], steps=steps, scale=scale, seed=seed), strict=False):
            pass
    sizes = {str(height): maps for (height, _), maps in heat(passes[-1]).items()}
    maps = next(iter(sizes.values())) if size is None else choose(str(size), sizes, "size")  # (L, h, w)
    height, width = maps.shape[1:]
    tiles = [(title, maps[places].sum(0)) for title, places in _words(pipe, prompt)]
    if len(tiles) > TILES:
        rest = torch.stack([tile for _, tile in tiles[TILES - 1 :]]).sum(0)
        tiles = [*tiles[: TILES - 1], ("(the rest)", rest)]
    belief = pipe.decode(now.x0_hat)[0].cpu()
    aside = sum(float(tile.mean()) for title, tile in tiles if title in ASIDE)
    with Page(WIDTH, max(324, 48 + 122 * -(-len(tiles) // 6))) as page:
        t = float(pipe.times(steps, "dpmpp_2m")[step - 1])
        page.picture(belief, 16, 44, 164, title=rf"$\hat{{x}}_0$ at t = {t:.2f}")
        facts = f"step {step} of {steps}, scale {scale:g}\nrooms of {height} × {width} pixels"
        page.text(16, 214, facts, fontsize=9, color=GRAY)
        page.text(16, 250, "orange: more than average,\nblue: less", fontsize=9, color=GRAY)
        page.text(16, 286, f"tokens that are no words\ntake {aside:.0%} of all attention", fontsize=9)
        page.text(204, 6, "told " + readable(prompt, 500), fontsize=9)
        for k, (title, tile) in enumerate(tiles):
            place = (204 + 92 * (k % 6), 44 + 122 * (k // 6))
            page.picture(_laid_over(tile, belief), *place, 84, title=title, below=f"{float(tile.mean()):.0%}")
        return page.image()


def heat(maps: Sequence[AttentionMap]) -> dict[tuple[int, int], Tensor]:
    """The maps of one pass by the size of their rooms, the largest first: (L, h, w), the mean over heads and rooms.

    Of the batch, the last picture is read: with `cfg` or without, one that looks at its text. At every pixel the
    tokens sum to one.
    """
    by_size: dict[tuple[int, int], list[Tensor]] = {}
    for each in sorted(maps, key=lambda each: -each.size[0] * each.size[1]):
        by_size.setdefault(each.size, []).append(each.weights[-1].mean(0).cpu())  # (h * w, L)
    return {size: torch.stack(found).mean(0).T.unflatten(1, size) for size, found in by_size.items()}


def heights(pipe: TextToImage) -> list[int]:
    """Of the rooms in which the model looks at words, the largest first: what `attention` takes as a size."""
    with attention_maps(pipe.net) as passes, torch.no_grad():
        x = pipe.fold.encode(torch.zeros(1, *pipe.config.picture, device=pipe.device))
        pipe.net.unet(x, pipe.schedule.net_time(torch.ones(1)).to(x), pipe.encode_negative(None, 1))
    return [height for height, _ in heat(passes[0])]


# The pieces ---------------------------------------------------------------------------------

ASIDE = ("(start)", "(end)", "(padding)")  # titles of the tokens that are no words


def _words(pipe: TextToImage, prompt: str) -> list[tuple[str, list[int]]]:
    """The words of a prompt as the network reads them, each with the places of its tokens."""
    if pipe.tokenizer is None:
        classes, read = LABELS[pipe.config.labels]
        return [("(start)", [0]), (classes[read(prompt)], [1])]
    length, pieces = pipe.tokenizer.length, pipe.tokenizer.pieces(prompt)[: pipe.tokenizer.length - 2]
    words, places = [("(start)", [0])], []
    for k, piece in enumerate(pieces):
        places.append(k + 1)
        if piece.endswith("</w>") or piece in pipe.tokenizer.special or k + 1 == len(pieces):
            text = pipe.tokenizer.decode(pipe.tokenizer.vocab[pieces[p - 1]] for p in places)
            words.append((readable(text or piece, 80)[1:-1], places))
            places = []
    end = len(pieces) + 1
    padding = [("(padding)", list(range(end + 1, length)))] * (end + 1 < length)
    return [*words, ("(end)", [end]), *padding]


def _laid_over(heat: Tensor, picture: Tensor) -> Tensor:
    """A heat map (h, w) over a pale gray picture (C, H, W): orange where it is above its mean, blue below."""
    over = (heat / heat.mean().clamp(min=1e-12)).clamp(min=1e-12).log2().clamp(-1, 1)  # twice is 1, half is -1
    colours = signed(over.sign())  # (3, h, w)
    colours, strength = (F.interpolate(each[None], picture.shape[1:])[0] for each in (colours, over.abs()[None]))
    return torch.lerp(0.4 + 0.5 * picture.mean(0, keepdim=True).expand(3, -1, -1), colours, 0.85 * strength)
