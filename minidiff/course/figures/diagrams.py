"""Diagrams in one style: a ResBlock, attention, both loops with real images in them, and activations on their way."""

import re

import torch
from PIL import Image
from torch import Tensor

from minidiff.course.figures.estimates import noised
from minidiff.course.figures.network import COLOURS, _arrow, _box, _mark, _times, _words
from minidiff.course.figures.page import BLUE, FIGURES, GRAY, GREEN, ORANGE, RED, WIDTH, Page, signed
from minidiff.diffusion import DEFAULT_SAMPLER, predict, target, to_x0
from minidiff.networks import Block, blocks, skips
from minidiff.pipeline.text_to_image import TextToImage
from minidiff.registry import register

SIDE = 84  # pixels of a digit in a loop: three times its own
TARGETS = {
    "eps": r"target $\varepsilon$",
    "x0": "target $x_0$",
    "v": "target $v$",
    "flow": r"target $\varepsilon - x_0$",
}
TILE, TILES = 38, 8  # pixels of a feature map, and how many of a block are shown
BOX, TALL, ROW = 168, 104, 120  # pixels: a block's width and height, from one row of blocks to the next


@register(FIGURES)
def res_block_diagram() -> Image.Image:
    """A ResBlock: two convolutions beside a shortcut, with the time embedding added between them."""
    with Page(WIDTH, 190) as page:
        canvas = page.canvas()
        before = 46
        _words(canvas, 34, 96, "$x$", fontsize=12)
        lefts, parts = (78, 150, 222, 318, 378, 450, 522, 618), 2 * ("norm", "SiLU", "conv 3 × 3", "+")
        for left, words in zip(lefts, parts, strict=True):
            wide = {"+": 28, "conv 3 × 3": 80}.get(words, 56)
            _part(canvas, left, 82, wide, 28, words, GRAY if words in ("SiLU", "+") else BLUE)
            _arrow(canvas, (before, 96), (left - 1, 96))
            before = left + wide
        _arrow(canvas, (before, 96), (690, 96))
        _words(canvas, 718, 96, "output")
        _arrow(canvas, (58, 96), (58, 34), (632, 34), (632, 81), color=GREEN)
        words = "shortcut: $x$ itself, or a 1 × 1 convolution where the number of channels changes"
        _words(canvas, 345, 34, words, color=GREEN, backgroundcolor="white")
        _mark(canvas, 124, 160, "t")
        _words(canvas, 114, 160, "time embedding", ha="right")
        _part(canvas, 150, 146, 56, 28, "SiLU", GRAY)
        _part(canvas, 222, 146, 80, 28, "linear", BLUE)
        _arrow(canvas, (132, 160), (149, 160))
        _arrow(canvas, (206, 160), (221, 160))
        _arrow(canvas, (302, 160), (332, 160), (332, 111), color=ORANGE)
        _words(canvas, 344, 160, "one value for each channel, the same at every position", ha="left", color=GRAY)
        return page.image()


@register(FIGURES)
def attention_diagram(row: int = 2, seed: int = 3) -> Image.Image:
    """Attention as matrices, of six queries and four keys; `row` is the query to follow."""
    generator = torch.Generator().manual_seed(seed)
    q, k, v = (1.4 * torch.randn(n, 3, generator=generator) for n in (6, 4, 4))
    weights = (q @ k.T / 3**0.5).softmax(dim=1)
    with Page(WIDTH, 290) as page:
        from matplotlib.patches import Rectangle

        canvas = page.canvas()
        _words(canvas, 54, 98, "the $N$ positions\nof the image")
        _words(canvas, 54, 226, "self-attention:\nthe same again\ncross-attention:\n$L$ tokens")
        for name, source, y, way in (
            ("q", 98, 98, [(179, 98)]),
            ("k", 226, 206, [(269, 206)]),
            ("v", 226, 262, [(500, 262), (500, 241)]),
        ):
            _part(canvas, 126, y - 14, 34, 28, f"$W_{name}$", BLUE)
            _arrow(canvas, (106, source), (114, source), (114, y), (125, y))
            _arrow(canvas, (160, y), *way)
        _part(canvas, 252, 78, 104, 40, "softmax of\n$q\\,k^⊤ / \\sqrt{d}$", GRAY)
        _part(canvas, 476, 78, 48, 40, "times\n$v$", GRAY)
        for start, end in ((228, 251), (356, 379), (444, 475), (524, 557)):
            _arrow(canvas, (start, 98), (end, 98))
        _arrow(canvas, (304, 181), (304, 119))
        _arrow(canvas, (500, 173), (500, 119))
        for matrix, left, top, title in (
            (q, 180, 50, "queries $q$"), (k.T, 272, 182, ""), (weights, 380, 50, "weights"), (v, 476, 174, ""),
            (weights @ v, 558, 50, "output"),
        ):  # fmt: skip
            columns = matrix.shape[1]
            shades = signed(matrix if matrix is weights else matrix / 2)
            axes = page.picture(shades, left, top, 16 * columns, title, frame="#bbbbbb")
            if title:  # the frame lies over that of the matrix
                look = {"fill": False, "ec": RED, "lw": 2.5, "clip_on": False, "zorder": 3}
                axes.add_patch(Rectangle((-0.5, row - 0.5), columns, 1, **look))
        _words(canvas, 342, 206, "keys $k^⊤$", ha="left")
        _words(canvas, 530, 206, "values $v$", ha="left")
        words = "Follow the frame:\none query,\nits weights (they\nadd up to 1),\nand its output"
        _words(canvas, 620, 98, words, ha="left", color=RED)
        return page.image()


@register(FIGURES)
def training_loop(
    pipe: TextToImage, picture: Tensor, t: float = 0.6, prompt: str | None = None, seed: int = 0
) -> Image.Image:
    """One training step with its real images. picture: (C, H, W) in [-1, 1]; for models without a VAE."""
    x0, x = noised(pipe, picture, [t], seed)
    alpha, sigma = pipe.schedule.at(t, x)
    eps = (x - alpha * x0) / sigma
    out, _ = _forward(pipe, x, t, prompt)
    wanted = target(pipe.prediction, x0, eps, alpha, sigma)
    with Page(WIDTH, 306) as page:
        canvas = page.canvas()
        low = 160
        page.picture(pipe.decode(x0)[0], 16, 34, SIDE, title="image $x_0$")
        page.picture(pipe.decode(eps)[0], 16, low, SIDE, title=r"noise $\varepsilon$")
        page.picture(pipe.decode(x)[0], 164, 34, SIDE, title=f"$x_t$ at t = {t:g}")
        _network(canvas, 300, 44)
        for top, values, title in ((34, out, "prediction"), (low, wanted, TARGETS[pipe.prediction.name])):
            page.picture(signed(pipe.fold.decode(values)[0, 0] / 3), 462, top, SIDE, title=title, frame="#cccccc")
        _part(canvas, 606, 106, 132, 56, "loss: the mean\nsquared difference", GRAY)
        _arrow(canvas, (104, 76), (160, 76))
        _arrow(canvas, (104, 202), (132, 202), (132, 76), (160, 76))
        _arrow(canvas, (252, 76), (299, 76))
        _arrow(canvas, (410, 76), (458, 76))
        _arrow(canvas, (550, 76), (672, 76), (672, 105))
        _arrow(canvas, (550, 202), (672, 202), (672, 163))
        _arrow(canvas, (704, 162), (704, 280), (355, 280), (355, 110), color=RED)
        _words(canvas, 530, 280, "backpropagation: change the weights a little", color=RED, backgroundcolor="white")
        _words(canvas, 16, 280, "again with other images, noise and times", ha="left", color=GRAY)
        return page.image()


@register(FIGURES)
def sampling_loop(pipe: TextToImage, prompt: str, steps: int = 20, shown: int = 8, seed: int = 0) -> Image.Image:
    """Step `shown` of sampling with its real images, and both ends. For models without a VAE."""
    times = pipe.times(steps, DEFAULT_SAMPLER)
    taken = list(pipe.stream([prompt], steps=steps, seed=seed, scale=1.0))
    start, step = taken[shown - 1].x, taken[shown]
    first = torch.randn(start.shape[1:], generator=torch.Generator().manual_seed(seed))[None]
    with Page(WIDTH, 186) as page:
        canvas = page.canvas()
        shows = (first, 16, "noise, t = 1"), (start, 136, f"$x_t$ at t = {times[shown]:.2f}")
        shows += (step.x0_hat, 406, r"estimate $\hat{x}_0$"), (taken[-1].x, 660, "t = 0: done")
        for values, left, title in shows:
            page.picture(pipe.decode(values)[0], left, 34, SIDE, title=title)
        _network(canvas, 258, 44)
        _part(canvas, 528, 48, 92, 56, f"sampler step\nto t = {times[shown + 1]:.2f}", GRAY)
        for begin, end in ((100, 132), (220, 257), (368, 402), (490, 527), (620, 656)):
            _arrow(canvas, (begin, 76), (end, 76))
        _arrow(canvas, (574, 104), (574, 164), (178, 164), (178, 122), color=RED)
        _words(canvas, 376, 164, f"the result is the new $x_t$: {steps} times", color=RED, backgroundcolor="white")
        return page.image()


@register(FIGURES)
def activations(
    pipe: TextToImage, picture: Tensor, t: float, done: int, prompt: str | None = None, seed: int = 0
) -> Image.Image:
    """The first `done` blocks of the UNet with their feature maps, on the way from x_t to the denoised estimate.

    picture: (C, H, W) in [-1, 1]. Of each block the TILES channels with the highest variance, on a scale of its own.
    """
    _, x = noised(pipe, picture, [t], seed)
    out, seen = _forward(pipe, x, t, prompt)
    depth, names = len(seen) // 2, [block.name for block in seen]
    with Page(WIDTH, ROW * depth + TALL + 12) as page:
        canvas = page.canvas()
        sides = [(k > depth) - (k < depth) for k in range(len(seen))]  # -1 for the encoder, 1 for the decoder
        lefts = [WIDTH // 2 + 137 * side - BOX // 2 for side in sides]
        tops = [6 + ROW * min(k, 2 * depth - k) for k in range(len(seen))]
        time = pipe.schedule.net_time(torch.tensor([t]))
        for skip in skips(pipe.net.unet, x, time, pipe.encode_negative(None, 1)):
            start, end = (names.index(re.match(r"\w+(\.\d+)?", name)[0]) for name in skip[:2])
            points = (lefts[start] + BOX + 4, tops[start] + 52), (lefts[end] - 4, tops[end] + 52)
            _arrow(canvas, *points, color=GREEN if end < done else "#d0d0d0")
        for k, (block, left, top) in enumerate(zip(seen, lefts, tops, strict=True)):
            _feature_maps(page, canvas, block, left, top, k < done, k == done - 1)
            middle, y = left + BOX / 2, tops[depth] + TALL / 2
            if k < depth - 1:
                _arrow(canvas, (middle, top + TALL + 1), (middle, top + ROW - 1))
            elif k == depth - 1:
                _arrow(canvas, (middle, top + TALL + 1), (middle, y), (lefts[depth] - 2, y))
            elif k == depth + 1:
                _arrow(canvas, (lefts[depth] + BOX, y), (middle, y), (middle, top + TALL + 2))
            elif k > depth:
                _arrow(canvas, (middle, top + ROW), (middle, top + TALL + 2))
        _arrow(canvas, (126, 58), (lefts[0] - 2, 58))
        page.picture(pipe.decode(x)[0], 10, 30, 112, title=f"$x_t$ at t = {t:g}")
        if done == len(seen):
            _arrow(canvas, (lefts[-1] + BOX, 58), (634, 58))
            x0_hat = to_x0(pipe.prediction, out, x, *pipe.schedule.at(t, x))
            page.picture(pipe.decode(x0_hat)[0], 638, 30, 112, title=r"estimate $\hat{x}_0$")
        return page.image()


def _forward(pipe: TextToImage, x: Tensor, t: float, prompt: str | None) -> tuple[Tensor, list[Block]]:
    """One forward pass of x (1, C, h, w): the prediction, and what each block of the UNet put out."""
    seen: list[Block] = []
    context = pipe.encode_negative(None, 1) if prompt is None else pipe.encode([prompt])

    def net(x: Tensor, time: Tensor, context: Tensor) -> Tensor:
        seen.extend(blocks(pipe.net.unet, x, time, context))
        return seen[-1].output

    return predict(net, pipe.schedule, x, t, context), seen


def _part(canvas, left: float, top: float, width: float, height: float, words: str, colour: str) -> None:
    """A labelled box: blue has weights that are learned, gray has none."""
    _box(canvas, left, top, width, height, fc="white", ec=colour, lw=1.5)
    _words(canvas, left + width / 2, top + height / 2, words)


def _network(canvas, left: float, top: float) -> None:
    """A UNet as a box that narrows in the middle, with its two other inputs."""
    for k, inset in enumerate((0, 10, 20, 10, 0)):
        _box(canvas, left + 3 + 21 * k, top + inset, 18, 64 - 2 * inset, fc="white", ec=BLUE, lw=1.5)
    _words(canvas, left + 55, top - 10, "UNet", color=BLUE, weight="bold")
    _words(canvas, left + 24, top + 82, "time", ha="right")
    _words(canvas, left + 86, top + 82, "prompt", ha="left")
    for mark, x in (("t", left + 40), ("c", left + 70)):
        _mark(canvas, x, top + 82, mark)
        _arrow(canvas, (x, top + 75), (x, top + 56))


def _feature_maps(page: Page, canvas, block: Block, left: int, top: int, filled: bool, here: bool) -> None:
    colour = COLOURS[block.name[:4]]
    look = {"fc": "white", "ec": colour if filled else "#d0d0d0", "lw": 3 if here else 1.5}
    _box(canvas, left, top, BOX, TALL, **look)
    words = f"{block.name}  {_times(block.shape)}"
    _words(canvas, left + BOX / 2, top + 11, words, fontsize=8, color=colour if filled else GRAY)
    if filled:
        maps = block.output[0].float()
        chosen = maps.var((1, 2), unbiased=False).argsort(descending=True)[:TILES].sort().values
        reach = float(maps[chosen].abs().quantile(0.995)) or 1.0
        across = TILES // 2
        start = left + (BOX - 40 * min(across, len(chosen))) // 2
        for k, channel in enumerate(chosen.tolist()):
            page.picture(
                signed(maps[channel] / reach), start + 1 + 40 * (k % across), top + 22 + 40 * (k // across), TILE
            )
