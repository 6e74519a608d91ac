"""What a reader wrote, as a figure can show it: any script, any length, dollar signs included."""

from minidiff.course.figures.page import STYLE
from minidiff.tokenizer import shorten

SIZE = 9  # of letters, in points: the small size of the figures


def readable(text: str, width: float) -> str:
    """A text in quotes as a figure can show it: one line of so many pixels, a box for what the font lacks."""
    return _plain(_quoted(text, width))


def fitted(text: str, width: float) -> str:
    """The same without quotes."""
    return readable(text, width)[1:-1]


def two_lines(text: str, width: float) -> str:
    """Quoted, and broken where it is too long for one line of so many pixels."""
    line = _quoted(text, 1.8 * width)
    if wide(line) <= width:
        return _plain(line)
    fits = [k for k in range(1, len(line)) if wide(line[:k]) <= width]
    cut = max((k for k in fits if line[k] == " "), default=fits[-1])
    return _plain(line[:cut] + "\n" + line[cut:].strip())


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


def _plain(text: str) -> str:
    return text.replace("$", r"\$")  # a dollar would begin a formula


def _font():
    from matplotlib import font_manager

    return font_manager.get_font(font_manager.findfont(font_manager.FontProperties()))
