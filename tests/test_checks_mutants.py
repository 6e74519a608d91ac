"""Every check refuses what differs from its right answer: `python tests/mutants.py --all` tries all of them."""

from collections import Counter

import mutants
import pytest

from minidiff.course.checks import CHECKS

SOLVED = sorted(mutants.solutions())


@pytest.fixture(scope="module")
def counts() -> dict[str, Counter]:
    """Eight mutants of each solution, chosen by a fixed seed, and one of two mistakes; four of them explained."""
    return {name: mutants.table([name], most=8, explained=4, two=1)[name] for name in SOLVED if CHECKS[name].bugs}


def test_every_exercise_has_mutants(counts):
    assert set(SOLVED) == set(CHECKS)
    assert [name for name, found in counts.items() if found["generated"] < 5] == []


def test_no_mutant_that_differs_is_accepted(counts):
    assert [name for name, found in counts.items() if found["accepted"]] == []
    assert sum(found["equivalent"] for found in counts.values()) < 0.25 * sum(
        found["generated"] for found in counts.values()
    )


def test_most_refusals_say_what_is_wrong(counts):
    total = sum(counts.values(), Counter())
    said = total["named"] + total["evidence"]
    assert said / (said + total["bare"]) >= 0.6  # 70 % of these 136


def test_a_hole_in_a_check_is_found():
    """A check whose cases are all of one image accepts what looks at the first image alone."""
    from dataclasses import replace

    from minidiff.course.checks.cases import Draw

    whole = CHECKS["l01_one_step"]

    def narrow(draw: Draw):
        x, eps, beta = whole.given(draw)
        return (x, eps, beta) if draw.number >= 1000 else (x[:1], eps[:1], beta)

    source = "def one_step(x, eps, beta):\n    return math.sqrt(1 - beta) * x + math.sqrt(beta) * eps[:1]"
    assert mutants.verdict(replace(whole, given=narrow), mutants.made(source, "one_step"), explain=False) == "accepted"
    assert mutants.verdict(whole, mutants.made(source, "one_step"), explain=False) == "refused"
    same = "def one_step(x, eps, beta):\n    return eps * beta ** 0.5 + (1 - beta) ** 0.5 * x"
    assert mutants.verdict(whole, mutants.made(same, "one_step")) == "equivalent"
