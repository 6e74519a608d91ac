"""What the numbers of a wrong answer show: a known mistake, two of them, or a fact that holds on all cases.

Nothing is guessed. Whatever is said has been computed for every case, those of the check and some fresh ones, and
agrees with all that the student's function answered.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from itertools import combinations, permutations
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from minidiff.course.checks.trial import Trouble, plain

if TYPE_CHECKING:
    from minidiff.course.checks.exercise import Bug, Exercise

Test = Callable[[int], bool]  # does case i agree?
Answer = Callable[[int], list[Tensor]]  # an answer to case i

SMALL = 40  # so many numbers may a case have to be printed in full
NICE = {2: "twice", 0.5: "half of", -1: "minus", 4: "four times", 0.25: "a quarter of", 3: "three times", 1 / 3: "a third of",
        math.pi: "pi times", 1 / math.pi: "1 / pi times", 2 / math.pi: "2 / pi times", math.pi / 2: "pi / 2 times"}  # fmt: skip
ALTERED = {  # what may stand in the place of an argument z
    "{0} ** 2": lambda z: z**2, "the root of {0}": lambda z: z**0.5, "1 - {0}": lambda z: 1 - z, "-{0}": lambda z: -z,
    "1 / {0}": lambda z: 1 / z, "exp({0})": lambda z: torch.as_tensor(z).exp(), "0": lambda z: z * 0, "1": lambda z: z * 0 + 1,
    "{0} + 1": lambda z: z + 1, "{0} - 1": lambda z: z - 1, "2 * {0}": lambda z: 2 * z, "{0} / 2": lambda z: z / 2,
    "the root of 1 - {0} ** 2": lambda z: (1 - z**2) ** 0.5, "the root of 1 - {0}": lambda z: (1 - z) ** 0.5,
    "{0} clamped to [-1, 1]": lambda z: z.clamp(-1, 1), "{0} clamped to [0, 1]": lambda z: min(max(z, 0), 1),
    "its first entry": lambda z: z[:1].expand_as(z), "its last entry": lambda z: z[-1:].expand_as(z),
    "its first channel": lambda z: z[:, :1].expand_as(z), "its mean": lambda z: z.mean(0, keepdim=True).expand_as(z),
    "{0} turned round": lambda z: z.flip(0), "{0} moved on by one": lambda z: z.roll(1, 0), "{0} sorted": lambda z: z.sort(0).values,
    "{0} in whole numbers": lambda z: z.round(), "{0} with its last two axes exchanged": lambda z: z.mT,
    "{0} without its sign": lambda z: abs(z), "{0} without its last entry": lambda z: z[:-1], "{0} without its first entry": lambda z: z[1:], "not {0}": lambda z: not z,
}  # fmt: skip
ALL = tuple(ALTERED)
USUAL = (
    "{0} ** 2",
    "the root of {0}",
    "1 - {0}",
    "-{0}",
    "1",
    "its first entry",
    "2 * {0}",
)  # those tried beside a known mistake
MADE = {  # what may have become of the right answer y
    "squared": lambda y: y**2, "under a root": lambda y: y.sqrt(), "upside down, as 1 / it": lambda y: 1 / y,
    "taken from 1": lambda y: 1 - y, "in an exponential": lambda y: y.exp(), "in a logarithm": lambda y: y.log(),
    "without its sign": lambda y: y.abs(), "clamped to [-1, 1]": lambda y: y.clamp(-1, 1),
    "clamped to [0, 1]": lambda y: y.clamp(0, 1), "clamped to 0 and above": lambda y: y.clamp(min=0),
    "clamped to 1 and below": lambda y: y.clamp(max=1), "rounded to whole numbers": lambda y: y.round(),
    "cut down to whole numbers": lambda y: y.trunc(), "rounded down": lambda y: y.floor(), "rounded up": lambda y: y.ceil(),
    "in one number, as the mean": lambda y: y.mean(), "in one number, as the sum": lambda y: y.sum(),
    "as true or false": lambda y: (y != 0).double(),
}  # fmt: skip
ALONG = {  # the same along an axis
    "turned round along {0}": lambda y, a: y.flip(a), "moved on by one along {0}": lambda y, a: y.roll(1, a),
    "moved back by one along {0}": lambda y, a: y.roll(-1, a), "added up along {0}": lambda y, a: y.sum(a),
    "averaged along {0}": lambda y, a: y.mean(a), "added up along {0}, which stays": lambda y, a: y.sum(a, True),
    "averaged along {0}, which stays": lambda y, a: y.mean(a, True), "the mean along {0} for all": lambda y, a: y.mean(a, True).expand_as(y),
    "the first along {0} for all": lambda y, a: y.narrow(a, 0, 1).expand_as(y),
    "the last along {0} for all": lambda y, a: y.narrow(a, y.shape[a] - 1, 1).expand_as(y),
    "only the first along {0}": lambda y, a: y.select(a, 0), "only the first along {0}, which stays": lambda y, a: y.narrow(a, 0, 1),
    "without the first along {0}": lambda y, a: y.narrow(a, 1, y.shape[a] - 1), "sorted along {0}": lambda y, a: y.sort(a).values,
    "without the last along {0}": lambda y, a: y.narrow(a, 0, y.shape[a] - 1), "in running sums along {0}": lambda y, a: y.cumsum(a),
    "divided by its sum along {0}": lambda y, a: y / y.sum(a, True), "minus its mean along {0}": lambda y, a: y - y.mean(a, True),
    "with the last along {0} twice": lambda y, a: torch.cat([y, y.narrow(a, y.shape[a] - 1, 1)], a),
}  # fmt: skip
POWERS = {1: "times {0}", -1: "divided by {0}", 2: "times {0} ** 2", -2: "divided by {0} ** 2",
          0.5: "times the root of {0}", -0.5: "divided by the root of {0}"}  # fmt: skip
NO = (ArithmeticError, IndexError, RuntimeError, TypeError, ValueError, AttributeError, AssertionError, Trouble)


class Evidence:
    """A refused answer beside the right one, case by case; got[i] is None where the function failed."""

    def __init__(self, exercise: Exercise, numbers: list[int], got: list[list[Tensor] | None]):
        self.exercise, self.numbers, self.got = exercise, numbers, got
        self.cases = [exercise.case(number)[0] for number in numbers]
        self.given = [dict(zip(exercise.names, exercise.case(number)[1], strict=True)) for number in numbers]
        self.expected = [exercise.wanted(exercise.right, number) for number in numbers]
        self.wrong = [i for i, a in enumerate(got) if a is None or not exercise.close(a, self.expected[i])]
        self.first = next((i for i in self.wrong if got[i] is not None), self.wrong[0])
        self.order = [self.first, *self.wrong, *range(len(got))]  # a case that is wrong decides soonest

    def holds(self, test: Test) -> bool:
        """Is it so in every case? Where it cannot be computed, it is not."""
        try:
            return all(test(i) for i in self.order)
        except NO:
            return False

    def same(self, answer: Answer) -> Test:
        """Does a function give the same, and fail where the student's does?"""

        def test(i: int) -> bool:
            try:
                found = answer(i)
            except NO:
                return self.got[i] is None
            return self.got[i] is not None and self.exercise.close(self.got[i], found)

        return test

    # Known mistakes, one or two at once --------------------------------------------------------

    def bugs(self) -> list[Bug]:
        """The known mistakes that compute this, and fail where it fails."""
        return [bug for bug in self.exercise.bugs if self.holds(self.same(self.of(bug)))]

    def of(self, bug: Bug) -> Answer:
        return lambda i: self.exercise.wanted(bug.wrong, self.numbers[i])

    def pairs(self) -> Iterator[tuple[str, Test]]:
        """Two known mistakes whose differences from the right answer add up, or whose factors multiply."""

        def added(a: Bug, b: Bug) -> Answer:
            return lambda i: [p + q - y for y, p, q in zip(self.expected[i], self.of(a)(i), self.of(b)(i), strict=True)]

        def multiplied(a: Bug, b: Bug) -> Answer:
            return lambda i: [p * q / y for y, p, q in zip(self.expected[i], self.of(a)(i), self.of(b)(i), strict=True)]

        for a, b in combinations(self.exercise.bugs, 2):
            for how in (added, multiplied):
                yield f"two known mistakes at once. One: {a.looks_like} The other: {b.looks_like}", self.same(how(a, b))

    # A function given other arguments ---------------------------------------------------------

    def altered(self, fn: Callable, whose: str, texts: tuple[str, ...] = ALL) -> Iterator[tuple[str, Test]]:
        """What the right function or a known mistake answers when the arguments are others."""

        def answer(change: Callable[[dict], dict]) -> Test:
            return self.same(lambda i: self.exercise.altered(fn, self.numbers[i], change))

        def multiple(change: Callable[[dict], dict]) -> Test:
            factors: list[Tensor] = []

            def test(i: int) -> bool:
                (a,), (x,) = self.exercise.altered(fn, self.numbers[i], change), self.got[i]
                factors.append(
                    (x.flatten() / a.flatten())[a.abs().argmax()]
                )  # the first is that of a case that is wrong
                return x.shape == a.shape and self.exercise.close([x], [factors[0] * a])

            return test

        names = [
            name
            for name, value in self.given[self.first].items()
            if not callable(value) and not isinstance(value, dict | list)
        ]
        values = self.given[self.first]
        for a, b in permutations(names, 2) if texts is ALL else ():
            if type(values[a]) is not type(values[b]):
                continue
            if a < b:
                yield (
                    f"exactly what comes out {whose} with `{a}` and `{b}` exchanged",
                    answer(lambda g, a=a, b=b: g | {a: g[b], b: g[a]}),
                )
            for text, alter in {
                "`{0}`": lambda z: z,
                **{key: ALTERED[key] for key in ("1 - {0}", "the root of 1 - {0} ** 2")},
            }.items():
                yield (
                    f"exactly what comes out {whose} with {text.format(a)} in the place of `{b}`",
                    answer(lambda g, a=a, b=b, f=alter: g | {b: f(g[a])}),
                )
        for name in names:
            for text, alter in ((text, ALTERED[text]) for text in texts):
                change = lambda g, n=name, f=alter: g | {n: f(g[n])}  # noqa: E731
                put = f"{whose} with {text.format(name)} in the place of `{name}`"
                yield f"exactly what comes out {put}", answer(change)
                if texts is ALL:
                    yield f"what comes out {put}, times one and the same factor", multiple(change)

    # What became of an answer -----------------------------------------------------------------

    def made(self, base: Answer, what: str) -> Iterator[tuple[str, Test]]:
        """What may have become of base(i), in one of its parts while the others stayed."""
        try:
            sample, mine = base(self.first), self.got[self.first]
            off = [j for j, (x, y) in enumerate(zip(mine, sample, strict=True)) if not self.exercise.close([x], [y])]
        except NO:
            return
        if len(off) != 1:
            return
        (part,) = off
        only = f" ({self.part(part)}; the rest is right)" if len(sample) > 1 else ""

        def changed(change: Callable[[Tensor, int], Tensor]) -> Test:
            def turned(y: Tensor, i: int) -> Tensor:  # where one number is all there is, it has lost its axes
                return plain(change(y if y.ndim or not sample[part].ndim else y.reshape([1] * sample[part].ndim), i))

            return self.same(lambda i: [turned(y, i) if j == part else y for j, y in enumerate(base(i))])

        x, y = mine[part], sample[part]
        for text, change in self.forms(y):
            yield f"{what} {text}{only}", changed(lambda y, i, f=change: f(y))
        if x.shape == y.shape and y.numel() and bool(y.isfinite().all() and x.isfinite().all()):
            where = int(y.abs().argmax())
            top, mine_top = float(y.flatten()[where]), float(x.flatten()[where])
            given = [answer[part] for answer in self.got if answer and answer[part].numel()]
            low, high = float(min(z.min() for z in given)), float(max(z.max() for z in given))
            yield f"{what} clamped to {low:.4g} and above{only}", changed(lambda y, i: y.clamp(min=low))
            yield f"{what} clamped to {high:.4g} and below{only}", changed(lambda y, i: y.clamp(max=high))
            yield f"{what} clamped to [{low:.4g}, {high:.4g}]{only}", changed(lambda y, i: y.clamp(low, high))
            if top and mine_top:
                factor = mine_top / top
                words = next(
                    (word for value, word in NICE.items() if abs(value - factor) < 1e-3 * abs(value)),
                    f"{factor:.4g} times",
                )
                yield f"{words} {what} in every case{only}", changed(lambda y, i: factor * y)
            yield (
                f"{what} {'plus' if mine_top > top else 'minus'} {abs(mine_top - top):.4g} in every case{only}",
                changed(lambda y, i: y + (mine_top - top)),
            )
            for name in self.quantities(self.first, y):
                for sign, word in ((1, "plus"), (-1, "minus")):
                    yield (
                        f"{what} {word} {name}{only}",
                        changed(lambda y, i, s=sign, n=name: y + s * self.quantities(i, y)[n]),
                    )
                for power, words in POWERS.items():
                    yield (
                        f"{what} {words.format(name)}{only}",
                        changed(lambda y, i, p=power, n=name: y * self.quantities(i, y)[n] ** p),
                    )
        if x.numel() == y.numel():
            shapes = f"{tuple(x.shape)} instead of {tuple(y.shape)}"
            yield (
                f"{what} in another shape, such as {shapes}{only}",
                lambda i: self.exercise.close([self.got[i][part].flatten()], [base(i)[part].flatten()]),
            )
        if x.ndim > y.ndim:
            reduced = {"averaged": lambda x: x.mean(), "added up": lambda x: x.sum()}
            for axis in range(x.ndim):
                reduced |= {
                    f"averaged along axis {axis}": lambda x, a=axis: x.mean(a),
                    f"added up along axis {axis}": lambda x, a=axis: x.sum(a),
                }
            for text, reduce in reduced.items():
                yield (
                    f"{what} if they were {text}, so one step is missing{only}",
                    lambda i, f=reduce: self.exercise.close([plain(f(self.got[i][part]))], [base(i)[part]]),
                )

    def part(self, j: int) -> str:
        """What part j of an answer is called."""
        return "the gradient behind it" if self.exercise.gradient and j else f"its part {j + 1}"

    def forms(self, sample: Tensor) -> Iterator[tuple[str, Callable[[Tensor], Tensor]]]:
        yield from MADE.items()
        for axis in (*range(sample.ndim), *([-1] if sample.ndim else [])):
            for text, change in ALONG.items():
                yield (
                    text.format(self.axis(axis) if axis >= 0 else "the last axis"),
                    lambda y, a=axis, f=change: f(y, a if a >= 0 else y.ndim - 1),
                )
        for order in list(permutations(range(sample.ndim)))[1:]:
            yield f"with its axes in the order {', '.join(map(str, order))}", lambda y, o=order: y.permute(o)

    def axis(self, axis: int) -> str:
        """What an axis of the answer is called, by its letter in `returns`."""
        letters = self.exercise.returns.rpartition("(")[2].partition(")")[0].split(", ")
        names = {"B": "the images", "C": "the channels", "H": "the rows", "W": "the columns"}
        return names.get(letters[axis], f"axis {axis} ({letters[axis]})") if axis < len(letters) else f"axis {axis}"

    def quantities(self, i: int, like: Tensor) -> dict[str, Tensor | float]:
        """What a case has by which an answer could be multiplied: sizes, numbers, and arguments that fit its shape."""
        found: dict[str, Tensor | float] = {name: float(size) for name, size in self.cases[i].sizes_drawn.items()}
        found |= {"the number of entries": float(max(like.numel(), 1))}
        for name, value in self.given[i].items():
            if isinstance(value, Tensor) and value.is_floating_point():
                value = value.detach().double()
                if value.shape == like.shape or value.numel() == 1:
                    found[f"`{name}`"] = value.reshape(()) if value.numel() == 1 else value
                elif like.ndim and value.shape[:1] == like.shape[:1] and value.numel() == len(value):
                    found[f"`{name}`"] = value.reshape(-1, *[1] * (like.ndim - 1))
                found[f"the size of `{name}`"] = float(max(value.numel(), 1))
            elif isinstance(value, int | float) and not isinstance(value, bool):
                found |= {f"`{name}`": float(value), f"(1 - {name})": 1.0 - value, f"(1 + {name})": 1.0 + value}
        return found

    # Where it is right -----------------------------------------------------------------------

    def where(self) -> Iterator[str]:
        """What the cases that are right have in common, or the entries."""
        every, wrong = set(range(len(self.got))), set(self.wrong)
        right = every - wrong
        if right:
            for fact in sorted(set().union(*(case.facts for case in self.cases))):
                has = {i for i in every if fact in self.cases[i].facts}
                if has == right:
                    yield f"right where {fact}, and wrong in every other case"
                elif has == wrong:
                    yield f"wrong where {fact}, and right in every other case"
            for name in self.exercise.names:
                values = [given[name] for given in self.given]
                if all(
                    isinstance(value, int | float) or isinstance(value, Tensor) and value.ndim == 0 for value in values
                ):
                    good, bad = ([float(values[i]) for i in group] for group in (right, wrong))
                    if max(good) < min(bad):
                        yield f"right up to {name} = {max(good):g}, and wrong from {name} = {min(bad):g} on"
                    elif max(bad) < min(good):
                        yield f"wrong up to {name} = {max(bad):g}, and right from {name} = {min(good):g} on"
        yield from self.entries()

    def mostly(self) -> Iterator[str]:
        """What says nearly as much: a fact about all cases of one kind, and most of the others."""
        every, wrong = set(range(len(self.got))), set(self.wrong)
        for fact in sorted(set().union(*(case.facts for case in self.cases))):
            has = {i for i in every if fact in self.cases[i].facts}
            others = every - has
            if len(has) > 2 and not has & wrong and len(others & wrong) > 0.6 * len(others):
                yield f"right wherever {fact}, and wrong in {len(others & wrong)} of the {len(others)} other cases"
            if len(wrong) > 2 and wrong <= has and len(wrong) > 0.6 * len(has):
                yield f"wrong only where {fact}: in {len(wrong)} of these {len(has)} cases"

    def entries(self) -> Iterator[str]:
        """Which entries are right, by their place along an axis."""
        masks = []
        for i in self.wrong:
            if self.got[i] is None or [x.shape for x in self.got[i]] != [y.shape for y in self.expected[i]]:
                return
            masks += [self.exercise.near(x, y) for x, y in zip(self.got[i], self.expected[i], strict=True)]
        for axis in range(max((mask.ndim for mask in masks), default=0)):
            rows = [
                mask.movedim(axis, 0).flatten(1) if mask.ndim > 1 else mask[:, None]
                for mask in masks
                if mask.ndim > axis and mask.shape[axis] > 1
            ]
            good, bad = [row.all(1) for row in rows], [(~row).any(1) for row in rows]
            for place, word, others in ((0, "first", slice(1, None)), (-1, "last", slice(None, -1))):
                if len(rows) > 2 and all(g[place] and b[others].all() for g, b in zip(good, bad, strict=True)):
                    yield f"right for the {word} along {self.axis(axis)} only, in every case that goes wrong"
                if len(rows) > 2 and all(b[place] and g[others].all() for g, b in zip(good, bad, strict=True)):
                    yield f"right but for the {word} along {self.axis(axis)}, in every case that goes wrong"

    def always(self) -> float | None:
        """The one number that all answers consist of, if there is one."""
        if None in self.got:
            return None
        together = torch.cat([part.flatten() for answer in self.got for part in answer])
        alike = together.numel() > 0 and bool(together.isclose(together[0], rtol=1e-6, equal_nan=True).all())
        return float(together[0]) if alike else None

    # All of it -------------------------------------------------------------------------------

    def facts(self) -> Iterator[str]:
        """What the numbers show, the plainest first, as sentences."""
        if (value := self.always()) is not None:
            yield f"your function answers {value:.4g} in every case, whatever is given."
        for candidates in (
            self.made(self.expected.__getitem__, "the right answer"),
            self.altered(self.exercise.right, "of the right answer"),
        ):
            yield from (f"your numbers are {text}." for text, test in candidates if self.holds(test))
        yield from (f"{text}" for text, test in self.pairs() if self.holds(test))
        yield from (f"your function is {text}." for text in self.where())
        for bug in self.exercise.bugs:
            for candidates in (self.made(self.of(bug), "that mistake's"), self.altered(bug.wrong, "of that", USUAL)):
                yield from (f"two things at once. One looks like {bug.looks_like} The other: your numbers are {text}."
                            for text, test in candidates if self.holds(test))  # fmt: skip
        yield from (f"your function is {text}." for text in self.mostly())


def explain(exercise: Exercise, numbers: list[int], got: list[list[Tensor] | None], failure: str | None = None) -> str:
    """What is wrong with an answer that was refused, in a few lines. failure: how it failed, where it did."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what is tried on the way
        return _explained(Evidence(exercise, numbers, got), failure)


def _explained(found: Evidence, failure: str | None) -> str:
    for bug in found.bugs():
        return f"This looks like {bug.looks_like}\nLook at {bug.look_at} In pictures: {bug.in_pictures}\n{failure or smallest(found)}"
    fact = next(found.facts(), None)
    if failure:
        return f"{failure}\nWhat else the numbers show: {fact}" if fact else failure
    head = (
        f"None of the mistakes known here, but this is what the numbers show: {fact}"
        if fact
        else "None of the mistakes known here computes this."
    )
    return f"{head}\n{smallest(found)}"


def smallest(found: Evidence) -> str:
    """The smallest case that goes wrong: the number that differs, and all that is needed to redo it by hand."""
    exercise = found.exercise
    size = {
        i: sum(a.numel() if isinstance(a, Tensor) else 1 for a in found.given[i].values())
        for i in found.wrong
        if found.got[i] is not None
    }
    i = min(size, key=size.__getitem__)
    got, expected, label = found.got[i], found.expected[i], found.cases[i].label
    if [x.shape for x in got] != [y.shape for y in expected]:
        if exercise.returns.startswith("a list"):
            sizes = [f"a list of length {sum(x.numel() for x in tensors)}" for tensors in (expected, got)]
        else:
            sizes = ["the shape " + ", ".join(str(tuple(x.shape)) for x in tensors) for tensors in (expected, got)]
        line = f"At {label}: expected {sizes[0]}, got {sizes[1].removeprefix('the shape ')}. The answer is {exercise.returns}."
    else:
        line = next(
            _difference(exercise, x, y, label)
            for x, y in zip(got, expected, strict=True)
            if not exercise.near(x, y).all()
        )
    if size[i] <= SMALL:
        line += "\nTo redo it by hand: " + ", ".join(
            f"{name} = {shown(value)}" for name, value in found.given[i].items()
        )
        line += f". Expected {', '.join(shown(y) for y in expected)}, got {', '.join(shown(x) for x in got)}."
    return line


def _difference(exercise: Exercise, x: Tensor, y: Tensor, label: str) -> str:
    index = tuple(torch.nonzero(~exercise.near(x, y))[0].tolist())
    entry = f" (entry {list(index)})" if index else ""
    note = " NaN is what 0/0 or the root of a negative number gives." if x.isnan().any() and not y.isnan().any() else ""
    return f"At {label}: expected {y[index]:.4f}, got {x[index]:.4f}{entry}.{note}"


def shown(value) -> str:
    """An argument or answer, short enough for a line."""
    if callable(value):
        return (value.__doc__ or "the function that is given").split("\n")[0].rstrip(".")
    if isinstance(value, Tensor):
        value = value.detach().to(torch.float64).tolist() if value.is_floating_point() else value.tolist()
    if isinstance(value, list):
        return f"[{', '.join(shown(part) for part in value)}]"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
