"""Fixtures of the tests of figures."""

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

from minidiff import TextToImage, data
from minidiff.course.figures.page import Page

SLOW = {  # left out of `make check`: they train, generate many images, or need a browser; it checks types itself
    "ablations", "benchmarks", "browser", "checks", "checks_mutants", "checks_odd", "checks_thin", "cli", "clip",
    "color_digits", "distributed", "edit_figure", "edits", "evaluate", "evaluate_color", "evaluate_emoji",
    "evaluate_scenes", "figures_metric", "figures_unet", "figures_words", "grading", "kills", "latents",
    "noisy_classifier", "notebooks", "pipeline_text", "prompt_box", "stable_diffusion", "survival", "training", "types",
    "vae", "viz", "webdataset", "widgets",
}  # fmt: skip
AIR = 3  # pixels of a line's height in which there is nothing


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.parent.name in ("parity", "hostile") or item.path.stem.removeprefix("test_") in SLOW:
            item.add_marker("slow")


@pytest.fixture(scope="module")
def pipe():
    return TextToImage.load("mnist", device="cpu")


@pytest.fixture(scope="module")
def digit():
    return data.mnist("validation").images[3]


@pytest.fixture
def words(monkeypatch):
    """All that is written on a page, and above and below its pictures."""
    written = []

    def text(page, left, top, words, **look):
        written.append(words)

    def picture(page, pixels, left, top, size, title="", below="", frame=None, **style):
        written.extend([title, below])

    monkeypatch.setattr(Page, "text", text)
    monkeypatch.setattr(Page, "picture", picture)
    return written


@pytest.fixture
def unclipped(monkeypatch):
    """What is written over the edge of a page or over other words, on every page that is drawn."""
    complaints = []
    image = Page.image

    def checked(page):
        canvas = FigureCanvasAgg(page.figure)
        canvas.draw()
        gone = {id(label) for axes in page.figure.axes for axis in (axes.xaxis, axes.yaxis) for label in hidden(axis)}
        drawn = [t for t in page.figure.findobj(Text) if t.get_text() and t.get_visible() and id(t) not in gone]
        boxes = [text.get_window_extent(canvas.get_renderer()) for text in drawn]
        for text, box in zip(drawn, boxes, strict=True):
            if box.x0 < 0 or box.y0 < -AIR or box.x1 > page.width or box.y1 > page.height:
                complaints.append(f"{text.get_text()!r} is clipped")
        for k, (text, box) in enumerate(zip(drawn, boxes, strict=True)):
            for other, its in zip(drawn[:k], boxes[:k], strict=True):
                wide, tall = min(box.x1, its.x1) - max(box.x0, its.x0), min(box.y1, its.y1) - max(box.y0, its.y0)
                if wide > 1 and tall > AIR:
                    complaints.append(f"{text.get_text()!r} is written over {other.get_text()!r}")
        return image(page)

    def hidden(axis):  # the numbers of an axis that is not drawn, and those beyond its ends
        first, last = sorted(axis.get_view_interval())
        for tick in axis.get_major_ticks() + axis.get_minor_ticks():
            if not (axis.get_visible() and axis.axes.axison and first <= tick.get_loc() <= last):
                yield from (tick.label1, tick.label2)

    monkeypatch.setattr(Page, "image", checked)
    return complaints
