"""The cases of an exercise, made by rule: an exercise says what its arguments may be, and a Draw chooses them."""

import math
import random
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

import torch
from torch import Tensor

from minidiff.course.checks.trial import Failure

LIMITS = {"B": (1, 4), "C": (2, 3), "H": (1, 4), "W": (2, 4), "D": (2, 4), "N": (2, 6), "M": (2, 6), "L": (2, 4)}

SCHEDULES = {  # where the circle's rule is broken, whoever relies on it goes wrong
    "circle": ("alpha^2 + sigma^2 = 1", lambda t: ((math.pi / 2 * t).cos(), (math.pi / 2 * t).sin())),
    "flow": ("alpha + sigma = 1", lambda t: (1 - t, t)),
    "edm": ("alpha = 1", lambda t: (t * 0 + 1, 3 * t)),
}


def noise(*shape: int, seed: int = 0) -> Tensor:
    """Standard normal numbers, the same at every call (float64): for the weights of small networks."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def once(name: str, fn: Callable) -> Callable:
    """A function that may be called once, as the text of the exercise asks."""
    calls = count(1)

    def counted(*args, **kwargs):
        if next(calls) > 1:
            raise Failure(f"Your function calls `{name}` more than once. The exercise asks for one call.")
        return fn(*args, **kwargs)

    counted.__doc__ = fn.__doc__
    return counted


class Draw:
    """Chooses the arguments of one case; its number decides everything.

    Numbers 0 to 23 are the cases of every check. In number 0 all sizes are the smallest; in 1 and 2 all are equal, so
    that what is lined up with the wrong axis is not stopped by an error. Of the options of a choice, and of an interval's
    two ends, each comes in turn. Numbers from 1000 on are for fresh cases, on which a diagnosis is tried once more.
    """

    def __init__(self, number: int):
        self.number = number
        self.random = random.Random(number)
        self.sizes_drawn: dict[str, int] = {}
        self.tags: list[str] = []  # what is special about the case, as in its label

    @property
    def label(self) -> str:
        """What is special about the case, in words."""
        sizes = ", ".join(f"{name} = {size}" for name, size in self.sizes_drawn.items())
        return ", ".join(filter(None, [*self.tags, sizes])) or f"case {self.number + 1}"

    @property
    def facts(self) -> set[str]:
        """All that can be said about the case, to find what the cases that go wrong have in common."""
        sizes = self.sizes_drawn.items()
        equal = {f"{a} = {b}" for a, i in sizes for b, j in sizes if a < b and i == j}
        return {*self.tags, *equal, *(f"{name} = 1" for name, size in sizes if size == 1)}

    # Sizes -----------------------------------------------------------------------------------

    def sizes(self, names: str, **limits: tuple[int, int]) -> list[int]:
        """A size for each name, as in "B C H W": from LIMITS, or within (low, high) if that is given."""
        for name in names.split():
            low, high = limits.get(name) or LIMITS[name]
            equal = {0: low, 1: 2, 2: 3}.get(self.number)
            chosen = self.random.randint(low, high) if equal is None else min(max(equal, low), high)
            self.sizes_drawn[name] = chosen
        return [self.sizes_drawn[name] for name in names.split()]

    # Numbers ---------------------------------------------------------------------------------

    def choose(self, name: str, options: dict[str, Any] | Sequence) -> Any:
        """One of the options: each of them in turn, in an order that no other choice has. A dict's keys are tags."""
        labels = list(options)
        turn, place = divmod(self.number, len(labels))
        label = random.Random(f"{name} {turn}").sample(labels, len(labels))[place]
        if not isinstance(options, dict):
            return label
        self.tags += [label] if label else []
        return options[label]

    def number_in(self, name: str, low: float, high: float, digits: int = 2) -> float:
        """A number in [low, high]; every fourth time each of the two ends."""
        end = self.choose(name, ["between", "between", "low", "high"])
        value = {"low": low, "high": high, "between": round(self.random.uniform(low, high), digits)}[end]
        self.tags.append(f"{name} = {value:g}")
        return float(value)

    def whole(self, name: str, low: int, high: int) -> int:
        """A whole number in [low, high]."""
        value = low if self.number == 0 else self.random.randint(low, high)
        self.tags.append(f"{name} = {value}")
        return value

    def normal(self, *shape: int, scale: float = 1.0, digits: int = 2) -> Tensor:
        """Normal numbers (float64) with few digits, so that a case can be redone by hand."""
        return (scale * torch.randn(shape, generator=self._generator(), dtype=torch.float64)).round(decimals=digits)

    def uniform(self, low: float, high: float, *shape: int, digits: int = 2, ends: bool = True) -> Tensor:
        """Numbers from [low, high] (float64); about one in five is one of the two ends, unless `ends` is False."""
        values = torch.rand(shape, generator=self._generator(), dtype=torch.float64)
        if ends:
            values = values.mul(1.25).sub(0.125).clamp(0, 1)
        return (low + (high - low) * values).round(decimals=digits)

    def images(self, count: int) -> list[Tensor]:
        """So many tensors of one shape (B, C, H, W), with values beyond [-1, 1]."""
        shape = self.sizes("B C H W")
        return [self.normal(*shape, scale=1.5) for _ in range(count)]

    def labels(self, n: int, classes: int, *shape: int) -> Tensor:
        """Whole numbers below `classes`, (n,): in no order, repeated where n allows it."""
        return torch.randint(classes, (n, *shape), generator=self._generator())

    def coefficients(
        self, *shape: int, low: float = 0.0, high: float = 1.0, on: Sequence[str] = tuple(SCHEDULES)
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Times t in [low, high], and alpha and sigma of one of the schedules at these, `shape` each."""
        return self.at(self.uniform(low, high, *shape), on)

    def at(self, t: Tensor, on: Sequence[str] = tuple(SCHEDULES)) -> tuple[Tensor, Tensor, Tensor]:
        """The times t, and alpha and sigma of one of the schedules there."""
        return t, *self.choose("schedule", {SCHEDULES[name][0]: SCHEDULES[name][1] for name in on})(t)

    def _generator(self) -> torch.Generator:
        return torch.Generator().manual_seed(self.random.getrandbits(31))
