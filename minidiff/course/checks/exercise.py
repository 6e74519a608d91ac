"""An exercise: the right answer, what its arguments may be, and the mistakes that people make.

A mistake is recognised by what it computes: every known one is kept as a function, the right one with one bug
planted, and an answer is given a diagnosis only if it agrees with that function on all cases, also on fresh ones
that were drawn after it was refused. Where none fits, evidence.py says what the numbers themselves show.
"""

import inspect
import linecache
import os
import random
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

from torch import Tensor

from minidiff.course.checks import evidence, trial, worker
from minidiff.course.checks.cases import Draw

CHECKS: dict[str, "Exercise"] = {}  # every exercise, in the order of its file
CASES, FRESH = 24, 6


@dataclass(frozen=True)
class Bug:
    """One mistake. To add one is to add an entry; the tests see to it that it is told apart from all others."""

    wrong: Callable  # the right function with this one mistake
    looks_like: str  # the mistake, in a sentence that follows "This looks like "
    look_at: str  # where to look, and why it should be otherwise
    in_pictures: str  # how it shows in pictures
    met: str = ""  # a public thread in which people met it


class NotYet(AssertionError):
    """An answer that is not right yet. Jupyter shows the text alone, without a traceback."""

    def _render_traceback_(self) -> list[str]:
        return ["Not yet.", *str(self).splitlines()]


@dataclass(frozen=True)
class Exercise:
    """Call it with a student's function: it says "Right", or raises NotYet and says what is wrong."""

    name: str  # as in CHECKS: begins with the lesson, l03_
    right: Callable
    given: Callable[[Draw], tuple]  # draws the arguments of one case
    bugs: tuple[Bug, ...]
    returns: str = (
        "a tensor of numbers"  # the form that is expected, and the shape with its letters: a tensor (B, C, H, W)
    )
    gradient: tuple[str, ...] = ()  # arguments by which the gradient of the answer must be right too: it is a loss
    forbids: tuple[str, ...] = ()  # what the text says must not be called: names, or modules with a dot
    points: int = 1  # 1 easy, 2 medium, 3 hard
    parts: tuple[str, ...] = ()  # tags of cases that are worth a part of the points each

    def __post_init__(self):
        if not re.match(r"l\d\d_", self.name):
            raise NameError(f"the name {self.name} should begin with its lesson, such as l03_")

    def __call__(self, fn: Callable) -> float | None:
        """Print that it is right, or raise NotYet. When nbgrader grades, what is right in part is not raised but returned."""
        found = self.run(fn)
        diagnosis = self.verdict(found)
        for line in (found.get("printed", "").rstrip(), found.get("note", "")):
            if line:
                print(line)
        if diagnosis and os.environ.get("NBGRADER_EXECUTION") and (share := self.share(found)):
            print(f"Not yet.\n{diagnosis}")
            return round(share * self.points, 2)
        if diagnosis:
            raise NotYet(diagnosis)
        print(f"Right: {self.name} {self.praise}.")
        return None

    def share(self, found: dict) -> float:
        """How much of a refused answer is right: the parts whose cases all are, or the values of a dict; 0 if it has no parts."""
        if "trouble" in found or found.get("failure"):
            return 0.0
        numbers = found["numbers"]
        both = [
            (self.case(k)[0], a, self.wanted(self.right, k)) for k, a in zip(numbers, found["answers"], strict=True)
        ]
        if self.parts:
            right = [all(self.close(a, b) for case, a, b in both if part in case.tags) for part in self.parts]
        elif self.gradient or any(len(a) != len(b) for _, a, b in both):
            return 0.0
        else:
            right = [all(self.close([a[j]], [b[j]]) for _, a, b in both) for j in range(len(both[0][2]))]
        return sum(right) / len(right)

    @property
    def praise(self) -> str:
        return f"agrees on all {CASES} cases"

    def diagnose(self, fn: Callable) -> str | None:
        """What is wrong with `fn`, in a few lines; None if nothing is."""
        return self.verdict(self.run(fn))

    def run(self, fn: Callable) -> dict:
        """What `fn` answers to all cases and to some fresh ones: see tried."""
        return self.tried(fn, [*range(CASES), *random.SystemRandom().sample(range(1000, 1500), FRESH)])

    def tried(self, fn: Callable, numbers: list[int]) -> dict:
        """What `fn` answers to the cases with these numbers, in the worker: see trial.outcome."""
        if not callable(fn):
            return {"trouble": f"Hand over the function itself, without calling it; this is a {type(fn).__name__}."}
        try:
            found = worker.outcome(replace(self, bugs=()), fn, numbers) | {"numbers": numbers}
        except trial.Trouble as trouble:
            return {"trouble": str(trouble)}
        if found.get("failure"):  # the worker knows the number of the line, and the notebook the line
            file = getattr(getattr(fn, "__code__", None), "co_filename", "")
            found["failure"] = re.sub(
                r"@(\d+)@", lambda at: f"`{linecache.getline(file, int(at[1])).strip()}`", found["failure"]
            )
        return found

    def verdict(self, found: dict) -> str | None:
        """What is wrong with a function that gave this outcome; None if nothing is."""
        if "trouble" in found:
            return found["trouble"]
        numbers, got, failure = found["numbers"], found["answers"], found.get("failure")
        if not failure and all(
            self.close(a, self.wanted(self.right, k)) for k, a in zip(numbers[:CASES], got, strict=False)
        ):
            return None
        return evidence.explain(self, numbers, got, failure) if any(got) else failure

    # The cases -------------------------------------------------------------------------------

    @cached_property
    def names(self) -> list[str]:
        return list(inspect.signature(self.right).parameters)

    def case(self, number: int) -> tuple[Draw, tuple]:
        """A case: all that was said while it was drawn, and its arguments, to look at; kept."""
        if ("case", number) not in self._kept:
            draw = Draw(number)
            self._kept["case", number] = draw, self.given(draw)
        return self._kept["case", number]

    def answer(self, fn: Callable, number: int) -> list[Tensor]:
        """What `fn` answers to a case, here. Raises Trouble if it does not."""
        draw, again = self.case(number)
        return trial.call(self, fn, self.given(Draw(number)), again, draw.label)

    def wanted(self, fn: Callable, number: int) -> list[Tensor]:
        """What the right function or a known bug answers to a case; kept. Raises Trouble if it fails."""
        if (fn, number) not in self._kept:
            try:
                self._kept[fn, number] = trial.call(self, fn, self.given(Draw(number)))
            except trial.Trouble as trouble:
                self._kept[fn, number] = trouble
        if isinstance(answer := self._kept[fn, number], trial.Trouble):
            raise answer
        return answer

    @cached_property
    def _kept(self) -> dict:
        return {}

    def altered(self, fn: Callable, number: int, change: Callable[[dict], dict]) -> list[Tensor]:
        """What `fn` answers to a case whose arguments were changed, by name."""
        args = self.case(number)[1]
        args = self.given(Draw(number)) if any(callable(arg) for arg in args) else args  # which may be called once only
        changed = change(dict(zip(self.names, args, strict=True)))
        for name, before in zip(self.names, args, strict=True):  # infinite matrices make libraries complain
            after = changed[name]
            if isinstance(after, Tensor) and not after.isfinite().all() and before.isfinite().all():
                raise ValueError(name)
        return trial.call(self, fn, tuple(changed.values()))

    @staticmethod
    def near(x: Tensor, y: Tensor) -> Tensor:
        """Where two tensors of one shape agree to three digits of the largest number; NaN with NaN."""
        finite = y[y.isfinite()].abs()
        scale = float(finite.max()) if finite.numel() else 0.0
        return x.isclose(y, rtol=1e-3, atol=1e-4 * scale + 1e-7, equal_nan=True)

    @classmethod
    def close(cls, a: list[Tensor], b: list[Tensor]) -> bool:
        """Equal, in the same shapes: see near."""
        return len(a) == len(b) and all(
            x.shape == y.shape and bool(cls.near(x, y).all()) for x, y in zip(a, b, strict=True)
        )


def exercise(name: str, right: Callable, given: Callable[[Draw], tuple], bugs: tuple[Bug, ...], **more) -> Exercise:
    """An Exercise that is one of CHECKS from now on."""
    if name in CHECKS:
        raise NameError(f"there are two exercises {name}")
    return CHECKS.setdefault(name, Exercise(name, right, given, bugs, **more))
