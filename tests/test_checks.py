"""Every check takes what is right in whatever form, and tells every known mistake from all others."""

import importlib
import time

import pytest
import torch

from minidiff.course import checks
from minidiff.course.checks import trial

EXERCISES = {name: getattr(checks, name) for name in checks.__all__ if name.startswith("l")}
FORMS = {
    name: forms
    for lesson in range(1, 13)
    for name, forms in importlib.import_module(f"forms_l{lesson:02}").FORMS.items()
}
BUGS = [(name, bug) for name, exercise in EXERCISES.items() for bug in exercise.bugs]


def names_of(value):
    return value if isinstance(value, str) else None


def test_there_are_many_bugs_and_every_exercise_has_other_forms():
    assert len(BUGS) >= 25 and set(FORMS) == set(EXERCISES)
    assert all(len(forms) >= 2 for forms in FORMS.values())


@pytest.mark.parametrize("name", EXERCISES)
def test_right_is_right_in_every_form(name, capsys):
    for form in [EXERCISES[name].right, *FORMS[name]]:
        EXERCISES[name](form)
    assert capsys.readouterr().out.count("Right:") == 1 + len(FORMS[name])


@pytest.mark.parametrize("name, bug", BUGS, ids=names_of)
def test_a_bug_gets_its_own_diagnosis_and_no_other(name, bug):
    exercise = EXERCISES[name]
    assert exercise.matching(exercise.answers(bug.wrong)) == [bug]
    with pytest.raises(checks.NotYet) as refusal:
        EXERCISES[name](bug.wrong)
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
