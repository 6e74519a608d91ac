"""Whatever is registered is documented, fits its interface, and is listed."""

import dataclasses
import inspect

import pytest

from minidiff.cli.list import List
from minidiff.cli.train import Train
from minidiff.course.figures import FIGURES
from minidiff.course.widgets import WIDGETS
from minidiff.data import DATASETS
from minidiff.diffusion import DEFAULT_SAMPLER, GRIDS, GUIDANCES, PREDICTIONS, SAMPLERS, SCHEDULES
from minidiff.evaluation import evaluations
from minidiff.training.recipes import recipes

BY_NAME = {"dataset": DATASETS, "recipe": recipes(), "evaluation": evaluations()}
FUNCTIONS = {
    "sampler": SAMPLERS, "schedule": SCHEDULES, "grid": GRIDS, "guidance": GUIDANCES, "figure": FIGURES,
    "widget": WIDGETS,
}  # fmt: skip
BEGINS = {  # the parameters that a caller relies on
    "sampler": ["denoise", "x", "times", "schedule", "noise", "after"],
    "grid": ["n", "schedule"],
    "guidance": ["net", "schedule", "pred", "context", "null", "scale"],
}


def entries(*kinds: dict):
    every = [(kind, name, thing) for known in kinds for kind, things in known.items() for name, thing in things.items()]
    return pytest.mark.parametrize("kind, name, thing", every, ids=[f"{kind}-{name}" for kind, name, _ in every])


@entries(FUNCTIONS)
def test_a_function_is_documented_and_fits(kind, name, thing):
    assert inspect.getdoc(thing), f"{name} has no docstring"
    begins = BEGINS.get(kind, [])
    assert list(inspect.signature(thing).parameters)[: len(begins)] == begins


@entries(BY_NAME)
def test_an_entry_is_described_in_one_line(kind, name, thing):
    about = thing.about() if callable(thing.about) else thing.about
    assert about and "\n" not in about


@pytest.mark.parametrize("name", DATASETS)
def test_a_prompt_names_a_class(name):
    dataset = DATASETS[name]
    assert len(dataset.picture) == 3
    if dataset.classes:
        assert [dataset.read(label) for label in dataset.classes] == list(range(len(dataset.classes)))


@pytest.mark.parametrize("name", recipes())
def test_a_recipe_takes_options_of_the_command(name):
    assert set(recipes()[name].takes) <= {field.name for field in dataclasses.fields(Train)}


@pytest.mark.parametrize("name", evaluations())
def test_an_evaluation_compares_with_a_data_set(name):
    assert evaluations()[name].dataset in DATASETS


def test_all_of_it_is_listed(capsys):
    List().run()
    words = capsys.readouterr().out.replace(",", " ").split()
    for known in (SAMPLERS, SCHEDULES, PREDICTIONS, GRIDS, GUIDANCES, *BY_NAME.values()):
        assert known and set(known) <= set(words)
    assert DEFAULT_SAMPLER in SAMPLERS
