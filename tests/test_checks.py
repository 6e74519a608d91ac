"""Every check takes what is right in whatever form, and tells every known mistake from all others."""

import importlib
import time
from pathlib import Path

import pytest
import torch

from minidiff.course import checks
from minidiff.course.checks import CHECKS, l01, trial

FORMS = {
    name: forms
    for file in sorted(Path(__file__).parent.glob("forms_l*.py"))
    for name, forms in importlib.import_module(file.stem).FORMS.items()
}
BUGS = [(name, bug) for name, exercise in CHECKS.items() for bug in exercise.bugs]


def names_of(value):
    return value if isinstance(value, str) else None


def test_every_check_is_an_attribute():
    """Also l03_walk, which a module is called as well."""
    assert [name for name, exercise in CHECKS.items() if getattr(checks, name) is not exercise] == []


def test_an_exercise_is_found_where_it_is_defined():
    assert CHECKS["l01_one_step"] is checks.l01_one_step is l01.l01_one_step
    assert [name for name, exercise in CHECKS.items() if not exercise.bugs] == []
    with pytest.raises(AttributeError, match="no check 'l01_nothing'; there is l01_add_noise"):
        checks.__getattr__("l01_nothing")


def test_a_new_file_is_enough_and_a_name_without_its_lesson_is_refused(tmp_path, monkeypatch):
    file = tmp_path / "l03_new.py"
    file.write_text(
        "from minidiff.course.checks.l01 import l01_one_step\nl03_new = replace(l01_one_step, name='new')\n"
    )
    file.write_text("from dataclasses import replace\n" + file.read_text())
    monkeypatch.setattr(checks, "__path__", [*checks.__path__, str(tmp_path)])
    assert set(checks.discovered()) == {*CHECKS, "l03_new"}
    file.with_name("other.py").write_text("from minidiff.course.checks.l01 import l01_one_step as mine\n")
    with pytest.raises(NameError, match="mine in other.py should begin with its lesson"):
        checks.discovered()


def test_forms_are_of_exercises():
    assert set(FORMS) <= set(CHECKS)


@pytest.mark.parametrize("name", CHECKS)
def test_right_is_right_in_every_form(name, capsys):
    forms = [CHECKS[name].right, *FORMS.get(name, [])]
    for form in forms:
        CHECKS[name](form)
    assert capsys.readouterr().out.count("Right:") == len(forms)
    if name not in FORMS:
        pytest.skip(f"{name} was tried with no other right answer: add some to tests/forms_{name[:3]}.py")


@pytest.mark.parametrize("name, bug", BUGS, ids=names_of)
def test_a_bug_gets_its_own_diagnosis_and_no_other(name, bug):
    exercise = CHECKS[name]
    assert exercise.matching(exercise.answers(bug.wrong)) == [bug]
    with pytest.raises(checks.NotYet) as refusal:
        CHECKS[name](bug.wrong)
    text = str(refusal.value)
    assert text.startswith(f"This looks like {bug.looks_like}\nLook at {bug.look_at}") and bug.in_pictures in text
    assert "expected" in text and "got" in text.splitlines()[-1]
    assert len(text.splitlines()) == 3


def test_texts_are_sentences():
    for name, bug in BUGS:
        assert all(text.endswith(".") for text in (bug.looks_like, bug.look_at, bug.in_pictures)), (name, bug)
        assert not bug.met or bug.met.startswith("https://github.com/"), bug.met


def for_ever(x, eps, beta):
    while True:
        x = x + 0


def fails(x, eps, beta):
    return x @ "noise"


def changes(x, eps, beta):
    x *= (1 - beta) ** 0.5
    return x + beta**0.5 * eps


def untouched(x, eps, beta):
    raise NotImplementedError


@pytest.mark.parametrize(
    "fn, says",
    [
        (for_ever, "does not come to an end"),
        (fails, 'fails at beta = 0.25, in the line `return x @ "noise"`.\nTypeError'),
        (changes, "changes `x`"),
        (untouched, "Nothing here yet"),
        (lambda x, eps, beta: None, "returns None"),
        (lambda x, eps, beta: "seven", "returns a str"),
        (lambda x, eps, beta: x * float("nan"), "got nan"),
        (lambda x, eps, beta: x[0], r"expected the shape \(1, 1, 3, 3\), got \(1, 3, 3\)"),
        (lambda x, eps, beta: torch.randn_like(x), "random numbers of its own"),
        (lambda x, eps, beta: 17 * x, "None of the mistakes known here"),
        (lambda x, eps: x, r"fails at beta = 0.25, called with \(x, eps, beta\).\nTypeError"),
        (torch.zeros(3), "Hand over the function itself"),
    ],
)
def test_whatever_a_function_does_a_sentence_says_so(fn, says, monkeypatch):
    assert trial.SECONDS < 5
    monkeypatch.setattr(trial, "SECONDS", 0.4)
    before = torch.random.get_rng_state()
    with pytest.raises(checks.NotYet, match=says):
        checks.l01_one_step(fn)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_function_without_end_is_stopped(monkeypatch):
    monkeypatch.setattr(trial, "SECONDS", 0.2)
    turns = 0

    def counts(x, eps, beta):
        nonlocal turns
        while True:
            turns += 1

    with pytest.raises(checks.NotYet, match="come to an end"):
        checks.l01_one_step(counts)
    time.sleep(0.2)  # the thread has had time to end
    seen = turns
    time.sleep(0.1)
    assert turns == seen


def test_in_a_notebook_the_diagnosis_stands_alone():
    lines = checks.NotYet("This looks like a mistake.\nLook there.")._render_traceback_()
    assert lines == ["Not yet.", "This looks like a mistake.", "Look there."]
