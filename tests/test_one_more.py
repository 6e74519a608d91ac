"""The one-place rule: what is registered, also at run time, is found, shown and offered everywhere."""

import sys
from dataclasses import replace

import pytest
import torch
from ipywidgets import IntSlider
from matplotlib.text import Text
from PIL import Image

from minidiff import TextToImage
from minidiff.course import attributes, figures, widgets
from minidiff.course.figures import FIGURES
from minidiff.course.figures.page import Page
from minidiff.course.widgets import WIDGETS, view
from minidiff.data import CLOUDS, DATASETS
from minidiff.diffusion import DEFAULT_SAMPLER, SAMPLERS, SCHEDULES, Schedule

NAME = "one_more"
LONG = "another_one_with_quite_a_long_name"


def square_root() -> Schedule:
    return Schedule(lambda t: (1 - t).sqrt(), lambda t: t.sqrt(), lambda t: 1000 * t)


@pytest.fixture
def written(monkeypatch):
    """All words on the page drawn last."""
    found, image = [], Page.image

    def read(page):
        found[:] = [text.get_text() for text in page.figure.findobj(Text)]
        return image(page)

    monkeypatch.setattr(Page, "image", read)
    return found


def offered(box, control: str) -> tuple:
    """The values that a control of a widget can take."""
    (found,) = (child for child in box.children if getattr(child, "description", "") == control)
    return tuple(option[-1] if isinstance(option, tuple) else option for option in found.options)


def named(written, name: str) -> bool:
    return any(name in words for words in written)


# Schedules and samplers ---------------------------------------------------------------------


def test_a_schedule_is_drawn_and_offered(monkeypatch, digit, written, unclipped):
    monkeypatch.setitem(SCHEDULES, NAME, square_root)
    for t in (0.0, 0.5, 1.0):
        figures.corruption(digit, NAME, t)
        assert named(written, NAME)
        figures.schedules(list(SCHEDULES), t, digit)
        assert written.count(NAME) == 2  # in the legend and below its picture
    assert offered(widgets.corruption(), "schedule") == offered(widgets.schedules(), "schedules") == tuple(SCHEDULES)
    assert unclipped == []


def test_any_number_of_schedules_has_room(monkeypatch, digit, written, unclipped):
    few = figures.schedules(list(SCHEDULES), 0.5, digit)
    for k in range(8):
        monkeypatch.setitem(SCHEDULES, f"{LONG}_{k}", square_root)
    many = figures.schedules(list(SCHEDULES), 0.5, digit)
    assert many.width == few.width and many.height > few.height
    assert sum(words.startswith("ln SNR") for words in written) == len(SCHEDULES)
    figures.corruption(digit, f"{LONG}_7", 0.5)
    assert unclipped == []


def test_every_schedule_has_a_look_of_its_own():
    looks = [str(figures.look(f"{k}", map(str, range(30)))) for k in range(30)]
    assert len(set(looks)) == 30


@pytest.mark.parametrize("name", [NAME, LONG])
def test_a_sampler_is_drawn_and_offered(monkeypatch, pipe, written, unclipped, name):
    monkeypatch.setitem(SAMPLERS, name, SAMPLERS[DEFAULT_SAMPLER])
    figures.sampler(pipe, "7", name, 20, 0, 1.5)
    assert named(written, name[:9])
    figures.playground(next(iter(CLOUDS)), 0.5, name, 40)
    assert named(written, name[:9])
    assert offered(widgets.sampler(pipe), "sampler") == offered(widgets.playground(), "sampler") == tuple(SAMPLERS)
    assert unclipped == []


# Data ---------------------------------------------------------------------------------------


def test_a_cloud_is_drawn_and_offered(monkeypatch, written, unclipped):
    monkeypatch.setitem(CLOUDS, NAME, lambda n, generator: torch.rand(n, 2, generator=generator) - 0.5)
    figures.playground(NAME, 0.5, DEFAULT_SAMPLER, 5)
    assert named(written, NAME) and unclipped == []
    assert offered(widgets.playground(), "cloud") == tuple(CLOUDS)


def test_the_classes_of_a_data_set_are_offered(monkeypatch, pipe):
    classes = ("ant", "bee", "cat", "dog", "eel", "fox", "gnu", "hen", "ibis", "jay")
    monkeypatch.setitem(DATASETS, NAME, replace(DATASETS["mnist"], classes=classes, read=classes.index))
    of_animals = TextToImage(replace(pipe.config, labels=NAME), pipe.net, "cpu")
    assert offered(widgets.sampler(of_animals), "prompt") == classes
    for box in (widgets.one_step(of_animals), widgets.unet(of_animals)):
        assert offered(box, "prompt") == ("", *classes)


# Figures and widgets ------------------------------------------------------------------------


def blank(side: int = 8) -> Image.Image:
    return Image.new("RGB", (side, side))


@pytest.mark.parametrize("package, known", [(figures, FIGURES), (widgets, WIDGETS)])
def test_one_registered_at_run_time_is_found(monkeypatch, package, known):
    with pytest.raises(AttributeError, match=f"{NAME}.*there is {next(iter(known))}"):
        getattr(package, NAME)
    monkeypatch.setitem(known, NAME, blank)
    assert getattr(package, NAME) is blank


@pytest.mark.parametrize("package, known", [(figures, FIGURES), (widgets, WIDGETS)])
def test_one_in_a_file_of_its_own_is_found(monkeypatch, tmp_path, package, known):
    """Even if the file is called as it is."""
    registry = {figures: "figures.page import FIGURES", widgets: "widgets import WIDGETS"}[package]
    (tmp_path / f"{NAME}.py").write_text(
        f"from minidiff.course.{registry} as known\nfrom minidiff.registry import register\n\n\n"
        f"@register(known)\ndef {NAME}():\n    return 'drawn'\n"
    )
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path)])
    monkeypatch.setitem(known, NAME, None)  # so that it is taken out again
    try:
        attributes(package.__name__, known, "figure")
        assert getattr(package, NAME)() == "drawn"
    finally:
        sys.modules.pop(f"{package.__name__}.{NAME}", None)


def test_a_widget_of_a_new_figure(monkeypatch):
    monkeypatch.setitem(FIGURES, NAME, blank)
    monkeypatch.setitem(
        WIDGETS, NAME, lambda: view(figures.one_more, "A square.", side=IntSlider(value=8, min=1, max=9))
    )
    side, picture, _ = widgets.one_more().children
    before = picture.value
    side.value = 5
    assert picture.value != before and picture.layout.width == "5px"
