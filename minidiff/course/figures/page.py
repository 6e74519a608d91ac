"""What figures share: one look, the few pieces that they are built from, and words of any script and length."""

from collections.abc import Callable, Iterable
from contextlib import ExitStack

import torch
from PIL import Image
from torch import Tensor

from minidiff.tokenizer import shorten

WIDTH = 760  # pixels, of every figure of a widget
SIZE = 9  # of letters, in points: the small size of the figures
FIGURES: dict[str, Callable[..., Image.Image]] = {}  # name -> a pure function that draws it

# Okabe and Ito's colours, which the colour-blind tell apart too
BLUE, ORANGE, GREEN, RED = "#0072B2", "#E69F00", "#009E73", "#D55E00"
PURPLE, SKY, GRAY = "#CC79A7", "#56B4E9", "#777777"
COLOURS = BLUE, ORANGE, GREEN, RED, PURPLE, SKY, GRAY  # of lines and bars, in turn
DASHES = "-", "--", "-.", ":", (0, (6, 1, 1, 1, 1, 1))  # of lines, in turn too: for printing in gray
STYLE = {  # one look for every figure of the course
    "figure.dpi": 100,
    "figure.constrained_layout.use": True,
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "image.cmap": "gray",
    "image.interpolation": "nearest",
    "legend.frameon": False,
}


def look(name: str, known: Iterable[str]) -> dict:
    """The colour and dashes of a name, by its position in a registry; they repeat, so that any number has some."""
    k = list(known).index(name)
    return {"color": COLOURS[k % len(COLOURS)], "ls": DASHES[k % len(DASHES)]}


def signed(values: Tensor) -> Tensor:
    """Numbers in [-1, 1] (H, W) as colours (3, H, W): blue is negative, white is 0, orange positive."""
    blue, orange = (torch.tensor([int(c[i : i + 2], 16) for i in (1, 3, 5)])[:, None, None] for c in (BLUE, ORANGE))
    return 1 - values.neg().clamp(0, 1) * (1 - blue / 255) - values.clamp(0, 1) * (1 - orange / 255)


class Page(ExitStack):
    """A figure without pyplot, whose parts are placed in pixels from the upper left.

    Fixed positions: between two drawings of a widget nothing moves but what has changed. Used as
    `with Page(width, height) as page:`, inside which the course's style holds; `page.image()` ends it.
    palette: 256 colours, a third of the bytes, since notebooks carry many figures; not where colours are compared.
    """

    def __init__(self, width: int, height: int, palette: bool = True):
        import matplotlib  # costs half a second
        from matplotlib.figure import Figure

        super().__init__()
        self.width, self.height, self.palette = width, height, palette
        self.enter_context(matplotlib.rc_context(STYLE | {"figure.constrained_layout.use": False}))
        self.figure = Figure(figsize=(width / STYLE["figure.dpi"], height / STYLE["figure.dpi"]))

    def axes(self, left: int, top: int, width: int, height: int, **labels):
        """Matplotlib axes. labels: what `axes.set` takes, such as title, xlabel, xlim."""
        box = (left / self.width, 1 - (top + height) / self.height, width / self.width, height / self.height)
        axes = self.figure.add_axes(box)
        axes.set(**labels)
        return axes

    def canvas(self):
        """Axes over the whole page in its pixels, from the upper left: for boxes and arrows."""
        axes = self.axes(0, 0, self.width, self.height, xlim=(0, self.width), ylim=(self.height, 0))
        axes.set_axis_off()
        return axes

    def picture(self, pixels: Tensor, left: int, top: int, size: int, title="", below="", frame=None, **style):
        """A picture (C, H, W) in [0, 1], gray or RGB, `size` pixels wide; words above, below, a frame's colour, a style."""
        axes = self.axes(left, top, size, round(size * pixels.shape[1] / pixels.shape[2]), xticks=[], yticks=[])
        axes.imshow(pixels.clamp(0, 1).permute(1, 2, 0).squeeze(2).cpu().numpy(), vmin=0, vmax=1, **style)
        axes.spines[:].set_visible(frame is not None)
        axes.spines[:].set(color=frame, lw=2)
        axes.set_title(title, pad=4)
        axes.set_xlabel(below, labelpad=4)
        return axes

    def text(self, left: int, top: int, words: str, **style) -> None:
        """Words whose upper left corner is there. style: color, fontsize, ..."""
        self.figure.text(left / self.width, 1 - top / self.height, words, va="top", **style)

    def image(self) -> Image.Image:
        from matplotlib.backends.backend_agg import FigureCanvasAgg

        canvas = FigureCanvasAgg(self.figure)
        canvas.draw()
        size = canvas.get_width_height()
        drawn = Image.frombuffer("RGBA", size, canvas.buffer_rgba(), "raw", "RGBA", 0, 1).convert("RGB")
        return drawn.quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE) if self.palette else drawn


def few(number: float) -> str:
    """Three digits, and never an exponent: 0.0123, 9.31, 3,381."""
    return f"{number:,.0f}" if abs(number) >= 100 else f"{number:.3g}"


def readable(text: str, width: float) -> str:
    """A text in quotes as a figure can show it: one line of so many pixels, a box for what the font lacks."""
    return _quoted(text, width).replace("$", r"\$")  # a dollar would begin a formula


def fitted(text: str, width: float) -> str:
    """The same without quotes."""
    return readable(text, width)[1:-1]


def two_lines(text: str, width: float) -> str:
    """Quoted, and broken where it is too long for one line of so many pixels."""
    line = _quoted(text, 1.8 * width)
    if wide(line) > width:
        fits = [k for k in range(1, len(line)) if wide(line[:k]) <= width]
        cut = max((k for k in fits if line[k] == " "), default=fits[-1])
        line = line[:cut] + "\n" + line[cut:].strip()
    return line.replace("$", r"\$")


def wide(text: str) -> float:
    """How many pixels a text takes, in letters of SIZE."""
    from matplotlib.backends.backend_agg import get_hinting_flag

    font = _font()
    font.set_size(SIZE, STYLE["figure.dpi"])
    font.set_text(text, 0.0, flags=get_hinting_flag())  # as it will be drawn
    return font.get_width_height()[0] / 64


def _quoted(text: str, width: float) -> str:
    shown = "".join(c if c.isprintable() and _font().get_char_index(ord(c)) else "□" for c in shorten(text, 200))
    while wide(f'"{shown}"') > width and len(shown) > 1:
        shown = shown[:-2] + "…"
    return f'"{shown}"'


def _font():
    from matplotlib import font_manager

    return font_manager.get_font(font_manager.findfont(font_manager.FontProperties()))
