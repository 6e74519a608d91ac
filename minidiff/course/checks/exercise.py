"""An exercise: the right answer, a few exact cases, and the mistakes that people make.

A mistake is recognised by what it computes: every known one is kept as a function, the right one with one bug
planted, and an answer is given a diagnosis only if it agrees with that function on all cases. A diagnosis
is never a guess.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from minidiff.course.checks.trial import Trouble, answers, close


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

    name: str
    right: Callable
    cases: Callable[[], list[tuple[str, tuple]]]  # (label, arguments), new at every call
    bugs: tuple[Bug, ...]

    def __call__(self, fn: Callable) -> None:
        diagnosis = self.diagnose(fn)
        if diagnosis:
            raise NotYet(diagnosis)
        print(f"Right: {self.name} agrees on all {len(self.cases())} cases.")

    def diagnose(self, fn: Callable) -> str | None:
        """What is wrong with `fn`, in a few lines; None if nothing is."""
        if not callable(fn):
            return f"Hand over the function itself, without calling it; this is a {type(fn).__name__}."
        cases, expected = self.cases(), self.answers(self.right)
        try:
            got = self.answers(fn)
        except Trouble as trouble:
            return str(trouble)
        if _agree(got, expected):
            return None
        number = _first_difference(cases, got, expected)
        for bug in self.matching(got):
            return f"This looks like {bug.looks_like}\nLook at {bug.look_at} In pictures: {bug.in_pictures}\n{number}"
        return f"None of the mistakes known here computes this.\n{number}"

    def answers(self, fn: Callable) -> list[list[Tensor]]:
        """What `fn` answers to every case. Raises Trouble if it does not."""
        return answers(fn, self.cases(), list(inspect.signature(self.right).parameters))

    def matching(self, got: list[list[Tensor]]) -> list[Bug]:
        """All bugs that give these answers: at most one, the tests see to it."""
        return [bug for bug in self.bugs if _agree(got, self.answers(bug.wrong))]


def noise(*shape: int, seed: int = 0) -> Tensor:
    """Standard normal numbers for a case, the same at every call (float64)."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _agree(got: list[list[Tensor]], expected: list[list[Tensor]]) -> bool:
    return all(close(a, b) for a, b in zip(got, expected, strict=True))


def _first_difference(cases, got: list[list[Tensor]], expected: list[list[Tensor]]) -> str:
    """The number that differs, in the first case that has one."""
    for (label, _), a, b in zip(cases, got, expected, strict=True):
        if close(a, b):
            continue
        if [x.shape for x in a] != [y.shape for y in b]:
            shapes = [", ".join(str(tuple(x.shape)) for x in tensors) for tensors in (b, a)]
            return f"At {label}: expected the shape {shapes[0]}, got {shapes[1]}."
        for x, y in zip(a, b, strict=True):
            where = ((x - y).abs() > 1e-4 + 1e-3 * y.abs()) | x.isnan()
            if where.any():
                index = tuple(torch.nonzero(where)[0].tolist())
                entry = f" (entry {list(index)})" if index else ""
                note = " NaN is what 0/0 or the root of a negative number gives." if x.isnan().any() else ""
                return f"At {label}: expected {y[index]:.4f}, got {x[index]:.4f}{entry}.{note}"
    raise ValueError("there is no difference")
