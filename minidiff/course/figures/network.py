"""Two figures of the UNet: its blocks and what passes between them, and the feature maps of one block."""

from itertools import pairwise

import torch
from PIL import Image
from torch import Tensor, nn

from minidiff.course.figures.estimates import estimate, noised
from minidiff.course.figures.page import BLUE, FIGURES, GRAY, GREEN, ORANGE, PURPLE, RED, WIDTH, Page, readable, signed
from minidiff.networks import Block, UNet, blocks, count, skips
from minidiff.pipeline.text_to_image import TextToImage
from minidiff.registry import choose, register

LINE, GAP, TALL = 36, 44, 26  # pixels: from one skip to the next, more where the size changes, height of a box
LEFT, RIGHT, WIDE = 124, 486, 150  # where the boxes of the down and of the up blocks begin, and their width
MIDDLE = WIDTH // 2
COLOURS = {"conv": GRAY, "down": BLUE, "mid_": PURPLE, "up_b": GREEN}  # of blocks, by how their names begin
BANDS = ("white", "#eeeeee")  # behind the levels, in turns
MARKS = {"t": ORANGE, "c": RED}  # of what gets the time embedding, and of what attends to the context
MARKED = {"ResBlock": "t", "SpatialTransformer": "c"}  # the kinds of modules that get them
CALLED = {"Conv2d": "convolution", "GroupNorm": "norm", "SpatialTransformer": "attention"}  # in a box, else by its kind


@register(FIGURES)
def unet_diagram(net: UNet, x: Tensor, time: Tensor, context: Tensor) -> Image.Image:
    """The blocks of a UNet for this input: down on the left, up on the right, one band a level, skips across.

    x: (B, C, H, W), time: (B,), context: (B, L, D). All is read from the real modules, which may be on the meta device.
    """
    across = skips(net, x, time, context)
    levels = [sum("downsamplers" in skip.source for skip in across[: k + 1]) for k in range(len(across))]
    tops = [112 + LINE * k + GAP * level for k, level in enumerate(levels)]  # of the boxes that a skip joins
    low = tops[-1] + LINE + 18  # of the middle block
    steps = {"conv_out": [(tops[0] - GAP, [net.conv_norm_out, net.conv_out])]}  # block: its boxes, and what is in them
    for top, skip in zip(tops, across, strict=True):
        for name in (skip.source, skip.target):
            block = ".".join(name.split(".")[:2])  # "down_blocks.0.resnets.1" is in "down_blocks.0"
            names = {name.replace("attentions", "resnets"), name.replace("resnets", "attentions")}  # those in one box
            steps.setdefault(block, []).append((top, [part for name, part in net.named_modules() if name in names]))
    for k, block in enumerate(net.up_blocks):
        if block.upsamplers:  # above its last ResBlock
            own = steps[f"up_blocks.{k}"]
            own.insert(0, (own[0][0] - LINE, list(block.upsamplers)))
    (before, after), (between,) = net.mid_block.resnets, net.mid_block.attentions
    steps["mid_block"] = [(low, [before, between, after])]
    with Page(WIDTH, low + 42) as page:
        canvas = page.canvas()
        _words(canvas, 14, 16, f"{sum(count(net).values()):,} parameters", ha="left", weight="bold", fontsize=10)
        _words(canvas, 232, 16, "beside each block: the shape of its output", ha="left", color=GRAY)
        _mark(canvas, 20, 40, "t")
        _words(canvas, 30, 40, f"time embedding, {net.time_embedding.linear_2.out_features} values", ha="left")
        _mark(canvas, 260, 40, "c")
        _words(canvas, 270, 40, f"cross-attention to the context, {_times(context.shape[1:])}", ha="left")
        _arrow(canvas, (560, 40), (586, 40), color=GRAY)
        _words(canvas, 592, 40, "skip connection", ha="left")
        firsts = [levels.index(level) for level in range(levels[-1] + 1)]  # of the skips of each level
        for level, (start, end) in enumerate(pairwise([*(tops[k] - GAP - 2 for k in firsts), low + 36])):
            _box(canvas, 8, start, WIDTH - 16, end - start, color=BANDS[level % 2], zorder=0)
            words = f"level {level}: {_times(across[firsts[level]].shape[1:])}"
            _words(canvas, MIDDLE, start + 2 + TALL / 2, words, color=GRAY)
        for block in blocks(net, x, time, context):
            _draw_block(canvas, block, steps[block.name])
        for top, level, skip in zip(tops, levels, across, strict=True):
            _arrow(canvas, (LEFT + WIDE + 8, top + TALL / 2), (RIGHT - 8, top + TALL / 2), color=GRAY)
            _words(canvas, MIDDLE, top + TALL / 2, _times(skip.shape), fontsize=8, backgroundcolor=BANDS[level % 2])
        down, up, turn = LEFT + WIDE / 2, RIGHT + WIDE / 2, low + TALL / 2
        _words(canvas, down, tops[0] - GAP + TALL / 2, f"x: {_times(x.shape[1:])}")
        _arrow(canvas, (down, tops[0] - GAP - 4 + TALL), (down, turn), (MIDDLE - 170, turn))
        _arrow(canvas, (MIDDLE + 170, turn), (up, turn), (up, tops[0] - GAP + TALL))
        return page.image()


@register(FIGURES)
def unet(
    pipe: TextToImage, picture: Tensor, block: str, t: float, prompt: str | None = None, seed: int = 0
) -> Image.Image:
    """The output of one block of the UNet for a noisy image: its feature maps, below x_t and the denoised estimate.

    picture: (C, H, W) in [-1, 1]. block: a name such as "down_blocks.0". prompt: None for the unconditional estimate.
    """
    _, x = noised(pipe, picture, [t], seed)
    seen: list[Block] = []

    def net(x: Tensor, time: Tensor, context: Tensor) -> Tensor:
        seen.extend(blocks(pipe.net.unet, x, time, context))
        return seen[-1].output

    x0_hat = estimate(pipe, x, [t], prompt, net)
    shown = choose(block, {each.name: each for each in seen}, "block")
    maps = shown.output[0].float().cpu()  # (C, h, w)
    chosen = maps.var((1, 2), unbiased=False).argsort(descending=True)[:16].sort().values
    reach = float(maps[chosen].abs().quantile(0.995)) or 1.0  # a few values may lie outside
    with Page(WIDTH, 460) as page:
        _draw_small(page.canvas(), seen, block)
        page.picture(pipe.decode(x)[0], 16, 34, 160, title=f"noisy, $x_t$ at t = {t:.2f}")
        page.picture(pipe.decode(x0_hat)[0], 584, 34, 160, title=r"denoised estimate, $\hat{x}_0$")
        page.text(16, 204, "unconditional" if prompt is None else "prompt: " + readable(prompt, 500), color=GRAY)
        which = f"all {len(maps)}" if len(maps) <= 16 else f"the 16 of {len(maps)} with the highest variance"
        page.text(16, 238, f"{block}, {_times(shown.shape)}", weight="bold")
        page.text(244, 238, f"channels: {which}")
        for k, channel in enumerate(chosen.tolist()):
            left, top = 16 + 84 * (k % 8), 284 + 94 * (k // 8)
            page.picture(signed(maps[channel] / reach), left, top, 70, title=str(channel))
        bar = page.axes(692, 284, 12, 164, xticks=[])
        bar.set_yticks([0, 0.5, 1], [f"{-reach:.2g}", "0", f"{reach:.2g}"])
        shades = signed(torch.linspace(1, -1, 164)[:, None]).permute(1, 2, 0).numpy()
        bar.imshow(shades, extent=(0, 1, 0, 1), aspect="auto")
        bar.yaxis.tick_right()
        bar.grid(False)
        return page.image()


def _times(shape: tuple[int, ...]) -> str:
    return " × ".join(str(side) for side in shape)


def _box(canvas, left: float, top: float, width: float, height: float, **look) -> None:
    from matplotlib.patches import FancyBboxPatch

    canvas.add_patch(FancyBboxPatch((left, top), width, height, boxstyle="round,pad=0,rounding_size=4", **look))


def _words(canvas, x: float, y: float, words: str, **look) -> None:
    canvas.text(x, y, words, **({"fontsize": 9, "ha": "center", "va": "center"} | look))


def _arrow(canvas, *points: tuple[float, float], color: str = "black") -> None:
    from matplotlib.patches import FancyArrowPatch
    from matplotlib.path import Path

    way = FancyArrowPatch(path=Path(points), arrowstyle="-|>", mutation_scale=10, color=color, lw=1, zorder=0.5)
    canvas.add_patch(way)  # below boxes, above what frames them


def _mark(canvas, x: float, y: float, mark: str) -> None:
    canvas.plot([x], [y], "o", color=MARKS[mark], ms=8)
    _words(canvas, x, y, mark, color="white", fontsize=7, weight="bold")


def _draw_block(canvas, block: Block, steps: list[tuple[int, list[nn.Module]]]) -> None:
    """A block with its boxes, `steps`, each with its upper edge; its name and shape on the outer side."""
    colour, start, end = COLOURS[block.name[:4]], steps[0][0] - 3, steps[-1][0] + TALL + 3
    right = block.name.startswith(("up", "conv_out"))
    left, width, outer = (RIGHT, WIDE, RIGHT + WIDE + 58) if right else (LEFT, WIDE, LEFT - 58)
    if block.name == "mid_block":
        left, width, outer = MIDDLE - 56, 220, MIDDLE - 114
    first, middle = min(left, outer - 52) - 6, (start + end) / 2
    _box(canvas, first, start, width + 122, end - start, fc="white", ec=colour, lw=1.5, zorder=0)
    _words(canvas, outer, middle - 6.5, block.name, weight="bold", fontsize=8.5, color=colour)
    _words(canvas, outer, middle + 6.5, _times(block.shape), fontsize=8)
    for top, modules in steps:
        _box(canvas, left, top, width, TALL, fc="white", ec=GRAY)
        kinds = [type(module).__name__ for module in modules]
        words = ", ".join(CALLED.get(kind, kind) for kind in kinds)
        _words(canvas, left + 6, top + TALL / 2, words, ha="left", fontsize=8)
        marks = [MARKED[kind] for kind in kinds if kind in MARKED]
        for k, mark in enumerate(marks):
            _mark(canvas, left + width + 5 - 14 * (len(marks) - k), top + TALL / 2, mark)


def _draw_small(canvas, seen: list[Block], chosen: str) -> None:
    """The blocks as a V between two pictures, one of them marked."""
    depth = (len(seen) - 1) // 2  # blocks above the middle one
    pitch = 184 / (depth + 1)
    for k, block in enumerate(seen):
        side = (k > depth) - (k < depth)  # -1 for down blocks, 1 for up blocks
        top, colour, here = 24 + pitch * min(k, 2 * depth - k), COLOURS[block.name[:4]], block.name == chosen
        look = {"fc": colour if here else "white", "ec": colour, "lw": 1.5}
        _box(canvas, MIDDLE + 98 * side - 94, top, 188, pitch - 14, **look)
        look = {"color": "white" if here else colour, "fontsize": 8}
        _words(canvas, MIDDLE + 98 * side, top + pitch / 2 - 7, f"{block.name}  {_times(block.shape)}", **look)
        if side:
            gap = [(MIDDLE + 60 * side, top + pitch - 14), (MIDDLE + 60 * side, top + pitch)]
            _arrow(canvas, *gap[::-side], color=GRAY)
