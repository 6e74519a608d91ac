"""Every check takes what is right in whatever form, tells every known mistake from all others, and says where it cannot."""

import importlib
import re
import sys
from pathlib import Path

import cloudpickle
import pytest

import minidiff.course
from minidiff.course import checks
from minidiff.course.checks import CHECKS, Exercise, l01, trial
from minidiff.course.checks.cases import Draw
from minidiff.course.checks.catch import Catch
from minidiff.course.checks.evidence import Evidence
from minidiff.course.checks.exercise import CASES, FRESH, exercise

FILES = [importlib.import_module(file.stem) for file in sorted(Path(__file__).parent.glob("forms_l*.py"))]
FORMS = {name: forms for file in FILES for name, forms in file.FORMS.items()}
BUGS = [(name, bug) for name, check in CHECKS.items() for bug in check.bugs]
CATCHES = [name for name, check in CHECKS.items() if isinstance(check, Catch)]
for file in [*FILES, sys.modules[__name__]]:
    cloudpickle.register_pickle_by_value(file)  # as a notebook's functions are: no file of theirs can be imported


def names_of(value):
    return value if isinstance(value, str) else None


# Where they are -----------------------------------------------------------------------------


def test_every_check_is_an_attribute():
    """Also l03_walk, which a module is called as well."""
    assert [name for name, exercise in CHECKS.items() if getattr(checks, name) is not exercise] == []
    assert set(CHECKS) <= set(dir(checks))


def test_an_exercise_is_found_where_it_is_defined():
    assert CHECKS["l01_one_step"] is checks.l01_one_step and CHECKS["l01_one_step"].right is l01.one_step
    assert [name for name, exercise in CHECKS.items() if not exercise.bugs and name not in CATCHES] == []
    with pytest.raises(AttributeError, match="no check 'l01_nothing'; there is l01_"):
        checks.__getattr__("l01_nothing")


def test_a_new_file_is_enough_and_a_name_without_its_lesson_is_refused(tmp_path, monkeypatch):
    (tmp_path / "new.py").write_text(
        "from minidiff.course.checks.exercise import exercise\n"
        "exercise('l03_new', lambda x: x, lambda d: (d.normal(2),), ())\n"
    )
    monkeypatch.setattr(checks, "__path__", [*checks.__path__, str(tmp_path)])
    try:
        minidiff.course.attributes(checks.__name__, CHECKS, "check")
        checks.l03_new(lambda x: 1 * x)
        with pytest.raises(NameError, match="two exercises l03_new"):
            exercise("l03_new", lambda x: x, lambda d: (), ())
        with pytest.raises(NameError, match="mine should begin with its lesson"):
            Exercise("mine", lambda x: x, lambda d: (), ())
    finally:
        CHECKS.pop("l03_new", None)
        sys.modules.pop(f"{checks.__name__}.new", None)


def test_forms_are_of_exercises():
    assert set(FORMS) <= set(CHECKS)


# What is right, and what is wrong in a known way ----------------------------------------------


@pytest.mark.parametrize("name", CHECKS)
def test_right_is_right_in_every_form(name, capsys):
    forms = [CHECKS[name].right, *FORMS.get(name, [])]
    for form in forms:
        CHECKS[name](form)
    assert capsys.readouterr().out.count("Right:") == len(forms)
    assert len(forms) > 1 or name in CATCHES, f"try another right answer: add some to tests/forms_{name[:3]}.py"


def answers(name: str, fn) -> dict:
    """The outcome of a function, computed here: these are ours, and need no worker."""
    numbers = [*range(CASES), *range(1000, 1000 + FRESH)]
    return trial.outcome(CHECKS[name], fn, numbers) | {"numbers": numbers}


@pytest.mark.parametrize("name", [name for name in CHECKS if name not in CATCHES])
def test_a_bug_gets_its_own_diagnosis_and_no_other(name):
    for bug in CHECKS[name].bugs:
        found = answers(name, bug.wrong)
        assert Evidence(CHECKS[name], found["numbers"], found["answers"]).bugs() == [bug]
        text = CHECKS[name].verdict(found)
        assert text.startswith(f"This looks like {bug.looks_like}\nLook at {bug.look_at}") and bug.in_pictures in text
        assert re.search("expected|fails at|Your function", text)  # a fact about this very function


def test_texts_are_sentences():
    for name, bug in BUGS:
        assert all(text.endswith(".") for text in (bug.looks_like, bug.look_at, bug.in_pictures)), (name, bug)
        assert not bug.in_pictures.startswith("nothing"), bug
        assert not bug.met or bug.met.startswith("https://github.com/"), bug.met
    for name, check in CHECKS.items():
        assert check.returns != Exercise.returns, f"{name} does not say which form is expected"


# The cases ----------------------------------------------------------------------------------


def test_cases_are_made_by_rule():
    """All of them in every check that has these sizes: one image and several, H = B, H != W, two channels or more."""
    for name, check in CHECKS.items():
        sizes = [check.case(number)[0].sizes_drawn for number in range(CASES)]
        if not {"B", "C", "H", "W"} <= set(sizes[0]):
            continue
        assert {1, 2, 3} <= {size["B"] for size in sizes}, name
        assert min(size["C"] for size in sizes) >= 2, name
        assert any(size["H"] == size["B"] > 1 for size in sizes) and any(size["H"] != size["W"] for size in sizes), name


def test_every_option_and_both_ends_of_an_interval_come():
    draws = [Draw(number) for number in range(CASES)]
    assert {draw.choose("kind", {"a": 1, "b": 2, "c": 3, "d": 4}) for draw in draws} == {1, 2, 3, 4}
    numbers = [draw.number_in("w", 0, 1) for draw in draws]
    assert {0.0, 1.0} < set(numbers) and all(0 <= number <= 1 for number in numbers)
    assert {float(value) for draw in draws for value in draw.uniform(-2, 2, 5)} >= {-2.0, 2.0}


def test_the_same_number_makes_the_same_case():
    for name, check in CHECKS.items():
        if name not in CATCHES:
            assert check.close(check.answer(check.right, 5), check.answer(check.right, 5)), name


# Evidence -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, fn, says",
    [
        ("l01_one_step", lambda x, eps, beta: l01.one_step(x, eps, beta) / 2, "half of the right answer in every case"),
        ("l01_one_step", lambda x, eps, beta: l01.one_step(x, eps[:1], beta), "its first entry in the place of `eps`"),
        ("l01_one_step", lambda x, eps, beta: l01.one_step(x, eps, beta).clamp(-1, 1), "clamped to \\[-1, 1\\]"),
        ("l01_one_step", lambda x, eps, beta: l01.one_step(x, eps, beta).mT, "axes in the order 0, 1, 3, 2|fails at"),
        ("l01_one_step", lambda x, eps, beta: -l01.one_step(x, eps, beta), "minus the right answer in every case"),
        (
            "l01_one_step",
            lambda x, eps, beta: (1 - beta) * x - beta**0.5 * eps,
            "two known mistakes at once. One: .* The other: ",
        ),
        (
            "l01_add_noise",
            lambda x0, eps, alpha, sigma: l01.add_noise(x0, eps, alpha, (1 - alpha**2) ** 0.5),
            "the root of 1 - alpha \\*\\* 2 in the place of `sigma`",
        ),
        (
            "l01_one_step",
            lambda x, eps, beta: l01.one_step(x, eps, beta) * (1 + 0.1 * (beta > 0.5)),
            "right up to beta = 0.*, and wrong from beta = 0.* on",
        ),
    ],
)
def test_where_no_mistake_is_known_the_numbers_say_something(name, fn, says):
    with pytest.raises(checks.NotYet, match=says) as refusal:
        CHECKS[name](fn)
    assert "To redo it by hand: x" in str(refusal.value)


def test_a_diagnosis_that_fails_on_fresh_cases_is_not_given():
    """Right about the cases of the check is not enough: what is told to be beta is beta / 2 in any other case."""
    wrong = CHECKS["l01_one_step"].bugs[0].wrong
    numbers = [*range(CASES), *range(1000, 1000 + FRESH)]
    seen = {CHECKS["l01_one_step"].case(number)[1][2] for number in range(CASES)}
    found = answers("l01_one_step", lambda x, eps, beta: wrong(x, eps, beta if beta in seen else beta / 2))
    fresh = {CHECKS["l01_one_step"].case(number)[1][2] for number in numbers[CASES:]}
    assert fresh - seen
    assert not CHECKS["l01_one_step"].verdict(found).startswith("This looks like")


# Catch the bug --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CATCHES)
def test_a_test_that_looks_at_nothing_is_told_what_it_lets_pass(name):
    count = len(CHECKS[CHECKS[name].of].bugs)
    assert f"lets {count} of {count} wrong functions pass" in CHECKS[name].diagnose(lambda function: True)
    assert "refuses a function that is right" in CHECKS[name].diagnose(lambda function: False)


def only_the_last_step(ddim_step):
    import torch

    x0, eps = torch.randn(2, 2, 3)
    alpha, sigma, alpha_to, sigma_to = torch.tensor([0.8, 0.6, 1.0, 0.0])
    assert torch.allclose(ddim_step(alpha * x0 + sigma * eps, x0, alpha, sigma, alpha_to, sigma_to), x0, atol=1e-4)


def to_the_last_digit(ddim_step):
    import torch

    x, x0, *numbers = torch.rand(6, dtype=torch.float64) / 3 + 0.1
    alpha, sigma, alpha_to, sigma_to = numbers
    return torch.equal(ddim_step(x, x0, *numbers), alpha_to * x0 + sigma_to * (x - alpha * x0) / sigma)


def test_what_a_test_misses_is_named_and_where_it_shows():
    text = CHECKS["l03_catch"].diagnose(only_the_last_step)
    assert text.startswith("Your test lets 5 of 8 wrong functions pass:\n- eps_hat without its division by sigma.")
    assert "It is right where the last step, to sigma_to = 0, and wrong in every other case." in text
    assert "computes in float32: allow for rounding" in CHECKS["l03_catch"].diagnose(to_the_last_digit)


def test_in_a_notebook_the_diagnosis_stands_alone():
    lines = checks.NotYet("This looks like a mistake.\nLook there.")._render_traceback_()
    assert lines == ["Not yet.", "This looks like a mistake.", "Look there."]
