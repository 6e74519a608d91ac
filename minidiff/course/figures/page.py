"""One look for every figure: colours, style, and the few pieces that figures are built from."""

from collections.abc import Callable, Iterable

import torch
from PIL import Image
from torch import Tensor

WIDTH = 760  # pixels, of every figure of a widget
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


class Page:
    """A figure without pyplot, whose parts are placed in pixels from the upper left.

    Fixed positions: between two drawings of a widget nothing moves but what has changed. Used as
    `with Page(width, height) as page:`, inside which the course's style holds; `page.image()` ends it.
    palette: 256 colours, a third of the bytes, since notebooks carry many figures; not where colours are compared.
    """

    def __init__(self, width: int, height: int, palette: bool = True):
        self.width, self.height, self.palette = width, height, palette

    def __enter__(self) -> "Page":
        import matplotlib  # costs half a second
        from matplotlib.figure import Figure

        self._style = matplotlib.rc_context(STYLE | {"figure.constrained_layout.use": False})
        self._style.__enter__()
        self.figure = Figure(figsize=(self.width / STYLE["figure.dpi"], self.height / STYLE["figure.dpi"]))
        return self

    def __exit__(self, *error) -> None:
        self._style.__exit__(*error)

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

    def picture(self, pixels: Tensor, left: int, top: int, size: int, title="", below="", frame=None):
        """One picture (C, H, W), floats in [0, 1], gray or RGB, `size` pixels wide; words above and below it.

        frame: a colour around it.
        """
        axes = self.axes(left, top, size, round(size * pixels.shape[1] / pixels.shape[2]), xticks=[], yticks=[])
        axes.imshow(pixels.clamp(0, 1).permute(1, 2, 0).squeeze(2).cpu().numpy(), vmin=0, vmax=1)
        axes.spines[:].set_visible(frame is not None)
        axes.spines[:].set(color=frame, lw=2)
        axes.set_title(title, pad=4)
        axes.set_xlabel(below, labelpad=4)
        return axes

    def text(self, left: int, top: int, words: str, **style) -> None:
        """Words whose upper left corner is there. style: color, fontsize, ..."""
        self.figure.text(left / self.width, 1 - top / self.height, words, va="top", **style)

    def image(self) -> Image.Image:
        """What has been drawn."""
        import numpy as np
        from matplotlib.backends.backend_agg import FigureCanvasAgg

        canvas = FigureCanvasAgg(self.figure)
        canvas.draw()
        drawn = Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy())
        return drawn.quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE) if self.palette else drawn
