"""Catch the bug: the student writes a test, and what it is tried on are an exercise's known mistakes."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from minidiff.course.checks import trial
from minidiff.course.checks.evidence import Evidence
from minidiff.course.checks.exercise import CASES, CHECKS, Bug, Exercise


@dataclass(frozen=True)
class Catch(Exercise):
    """Call it with a student's test of an exercise's function: it must let the right one pass, and catch every mistake.

    A test returns False, or raises AssertionError or any other error, for a function that it refuses; whatever else it
    returns, None too, it lets the function pass.
    """

    of: str = ""  # the exercise whose function is tested

    @property
    def tested(self) -> Exercise:
        return CHECKS[self.of]

    @property
    def praise(self) -> str:
        return f"lets a right function pass, and catches all {len(self.tested.bugs)} wrong ones"

    @cached_property
    def functions(self) -> list[Callable]:
        """The right function, the same in float32, and those with a mistake."""
        return [self.tested.right, self._rounded, *(bug.wrong for bug in self.tested.bugs)]

    def _rounded(self, *args):
        return self.tested.right(*(a.float() if isinstance(a, Tensor) and a.is_floating_point() else a for a in args))

    def answer(self, fn: Callable, number: int) -> list[Tensor]:
        """1 if the test lets a function pass, 0 if it refuses it."""

        def passes(function: Callable) -> float:
            try:
                return float(fn(function) is not False)
            except NotImplementedError:
                raise
            except Exception:
                return 0.0

        if number > 1:
            return trial.call(self, passes, (self.functions[number],))
        try:  # of a right function all is told
            return [torch.tensor(float(fn(self.functions[number]) is not False))]
        except AssertionError:
            return [torch.tensor(0.0)]
        except BaseException as error:
            raise trial.failure(fn, error, ["a right function"], "a right function") from None

    def run(self, fn: Callable) -> dict:
        return self.tried(fn, list(range(len(self.functions))))

    def verdict(self, found: dict) -> str | None:
        if "trouble" in found or found.get("failure"):
            return found.get("trouble") or found["failure"]
        right, rounded, *wrong = (bool(answer[0]) for answer in found["answers"])
        if not right:
            return "Your test refuses a function that is right: what it demands does not hold."
        if not rounded:
            return "Your test refuses a right function that computes in float32: allow for rounding, as torch.allclose does."
        missed = [bug for bug, passed in zip(self.tested.bugs, wrong, strict=True) if passed]
        if not missed:
            return None
        lines = [f"Your test lets {len(missed)} of {len(wrong)} wrong functions pass:"]
        return "\n".join([*lines, *(f"- {bug.looks_like}{self._shows(bug)}" for bug in missed)])

    def share(self, found: dict) -> float:
        """The fraction of the wrong functions that are caught, if the right ones pass."""
        if "trouble" in found or found.get("failure"):
            return 0.0
        right, rounded, *wrong = (bool(answer[0]) for answer in found["answers"])
        return wrong.count(False) / len(wrong) if right and rounded else 0.0

    def _shows(self, bug: Bug) -> str:
        """Where a mistake shows, if that can be said in a few words."""
        got = []
        for number in range(CASES):
            try:
                got.append(self.tested.wanted(bug.wrong, number))
            except trial.Trouble:
                got.append(None)
        fact = next(Evidence(self.tested, list(range(CASES)), got).where(), "")
        return f" It is {fact}. Does your test look where it goes wrong?" if fact else ""


def catch(name: str, of: str, right: Callable, points: int = 1) -> None:
    """A Catch that is one of CHECKS from now on. right: a test that catches all mistakes of the exercise `of`."""
    CHECKS[name] = Catch(name, right, lambda draw: (), (), f"a test of {of}", points=points, of=of)
