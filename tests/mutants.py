"""Break every right answer in every small way, and see what the checks say: `python tests/mutants.py [--all] [exercise ...]`.

Without --all these are 30 mutants of each solution and three of two mistakes, of which ten are explained (--most=30 --two=3
--explain=10); with it, all mutants of all solutions and forms. --show prints those that are refused without a word.

A mutant is a right answer, the lesson's solution or one of the forms, with one thing changed (or two). One that a check
accepts is compared with the right answer on hundreds of fresh arguments: if it agrees on all of them, it is no mistake
(equivalent); if it differs, the check has a hole, and the last line says which. Of those that are refused, the table
counts how many were given the name of a known mistake, how many a fact that was computed, and how many failed with an
error of their own in every case.
"""

import ast
import importlib
import inspect
import math
import random
import re
import signal
import sys
import textwrap
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from itertools import pairwise
from pathlib import Path

import torch
import torch.nn.functional as F

from minidiff.course.checks import CHECKS, Exercise
from minidiff.course.checks.evidence import Evidence
from minidiff.course.checks.exercise import CASES, FRESH
from minidiff.course.checks.trial import Trouble

HERE = Path(__file__).resolve().parent
SOURCES = sorted((HERE.parent / "notebooks/source").glob("*.py"))
MANY = range(10**6, 10**6 + 200)  # the cases on which equal is called equal
OTHER = {  # a method or function, and what it is mistaken for
    "mean": "sum", "sum": "mean", "any": "all", "all": "any", "min": "max", "max": "min", "argmax": "argmin", "argmin": "argmax",
    "amax": "amin", "floor": "ceil", "ceil": "floor", "cumprod": "cumsum", "cumsum": "cumprod", "prod": "sum", "sin": "cos", "cos": "sin",
    "exp": "log", "log": "exp", "sqrt": "square", "square": "sqrt", "log_softmax": "softmax", "softmax": "log_softmax",
    "std": "var", "var": "std", "abs": "square", "int": "round", "zeros": "ones", "ones": "zeros", "kthvalue": "kthvalue",
    "append": "append", "reversed": "list", "flip": "roll", "log2": "log", "log10": "log", "logsumexp": "sum", "norm": "sum",
}  # fmt: skip
DROP = {"sqrt", "square", "exp", "log", "abs", "clamp", "clip", "T", "mT", "transpose", "flip", "double", "float", "floor", "softmax", "log_softmax",
        "cumsum", "cumprod", "mean", "sum", "flatten", "diagonal", "relu", "clone", "detach", "sort", "acos", "atan", "reversed", "silu", "tanh"}  # fmt: skip


# Right answers ------------------------------------------------------------------------------


def solutions() -> dict[str, tuple[str, str]]:
    """Of each exercise, the function's name and the source of the lesson's solution."""
    found = {}
    for source in SOURCES:
        cells = re.split(r"^# %%.*$", source.read_text(), flags=re.M)
        for cell, check in pairwise(cells):
            called = re.search(r"^check\.(\w+)\((\w+)\)", check, re.M)
            if "### BEGIN SOLUTION" in cell and called:
                found[called[1]] = called[2], cell.strip()
    return found


def forms() -> Iterator[tuple[str, str, str]]:
    """(exercise, function's name, source) of every form that is a function of its own."""
    for file in sorted(HERE.glob("forms_l*.py")):
        module = importlib.import_module(file.stem)
        for name, functions in module.FORMS.items():
            for function in functions:
                if function.__name__ != "<lambda>" and inspect.getsourcefile(function) == str(file):
                    yield name, function.__name__, textwrap.dedent(inspect.getsource(function))


def namespace() -> dict:
    """What a right answer finds around it."""
    import copy

    import numpy as np
    from einops import einsum, rearrange, reduce

    return {"math": math, "torch": torch, "F": F, "pairwise": pairwise, "np": np, "copy": copy,
            "einsum": einsum, "rearrange": rearrange, "reduce": reduce}  # fmt: skip


# Mutants ------------------------------------------------------------------------------------


def expression(text: str, **parts: ast.expr) -> ast.expr:
    """An expression in which names stand for others."""

    class Put(ast.NodeTransformer):
        def visit_Name(self, node):
            return deepcopy(parts[node.id]) if node.id in parts else node

    return Put().visit(ast.parse(text, mode="eval").body)


def changes(node: ast.AST, parameters: list[str]) -> Iterator[ast.AST]:
    """All that may become of one node."""
    if isinstance(node, ast.BinOp):
        a, b = node.left, node.right
        swaps = {ast.Add: "a - b", ast.Sub: "a + b", ast.Mult: "a / b", ast.Div: "a * b", ast.FloorDiv: "-(-a // b)", ast.Pow: "a * b", ast.MatMult: "b @ a",
                 ast.Mod: "a // b"}  # fmt: skip
        if type(node.op) in swaps:
            yield expression(swaps[type(node.op)], a=a, b=b)
        yield a
        if not isinstance(node.op, ast.Pow):
            yield b
        if isinstance(node.op, ast.Sub | ast.Div):
            yield ast.BinOp(b, node.op, a)
        if isinstance(node.op, ast.FloorDiv):
            yield expression("a / b", a=a, b=b)
    if isinstance(node, ast.Compare) and len(node.ops) == 1:
        others = {ast.Lt: [ast.LtE, ast.Gt], ast.LtE: [ast.Lt, ast.GtE], ast.Gt: [ast.GtE, ast.Lt], ast.GtE: [ast.Gt, ast.LtE],
                  ast.Eq: [ast.NotEq], ast.NotEq: [ast.Eq], ast.In: [ast.NotIn], ast.NotIn: [ast.In]}  # fmt: skip
        for other in others.get(type(node.ops[0]), []):
            yield ast.Compare(node.left, [other()], node.comparators)
    if isinstance(node, ast.UnaryOp):
        yield node.operand
    if isinstance(node, ast.Constant):
        if isinstance(node.value, bool):
            yield ast.Constant(not node.value)
        elif isinstance(node.value, int):
            yield from (
                ast.Constant(value) for value in (node.value + 1, node.value - 1, 2 * node.value) if value != node.value
            )
        elif isinstance(node.value, float):
            yield from (ast.Constant(value) for value in (2 * node.value, node.value / 2, node.value + 0.5))
    if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
        if OTHER.get(node.attr, node.attr) != node.attr:
            yield ast.Attribute(node.value, OTHER[node.attr], node.ctx)
        if node.attr in DROP:
            yield node.value
    if isinstance(node, ast.Call):
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        if isinstance(node.func, ast.Name) and OTHER.get(name, name) != name:
            yield ast.Call(ast.Name(OTHER[name], ast.Load()), node.args, node.keywords)
        if name in DROP:
            library = isinstance(node.func, ast.Name) or getattr(node.func.value, "id", "") in (
                "torch",
                "F",
                "math",
                "np",
            )
            yield node.args[0] if library and node.args else node.func.value if not library else node
        for k in range(len(node.args) - 1):
            args = [*node.args]
            args[k], args[k + 1] = args[k + 1], args[k]
            yield ast.Call(node.func, args, node.keywords)
        for k in range(len(node.keywords)):
            yield ast.Call(node.func, node.args, node.keywords[:k] + node.keywords[k + 1 :])
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id in parameters:
        for other in parameters:
            if other != node.id:
                yield ast.Name(other, ast.Load())
        for text in ("a[:1]", "a.clamp(-1, 1)", "a.flip(0)", "1 - a", "a ** 2", "a ** 0.5", "-a", "2 * a", "a.detach()", "a[:, :1]", "a.abs()",
                     "a.mT", "a.round()", "a.roll(1, 0)", "a.mean(0, keepdim=True)"):  # fmt: skip
            yield expression(text, a=node)
    if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Load):
        part = node.slice
        if isinstance(part, ast.Slice):
            for lower, upper in ((None, part.upper), (part.lower, None)):
                if (lower, upper) != (part.lower, part.upper):
                    yield ast.Subscript(node.value, ast.Slice(lower, upper, part.step), node.ctx)
            one = ast.Constant(1)
            yield ast.Subscript(
                node.value,
                ast.Slice(ast.BinOp(part.lower, ast.Add(), one) if part.lower else one, part.upper, part.step),
                node.ctx,
            )
            if part.upper:
                yield ast.Subscript(
                    node.value, ast.Slice(part.lower, ast.BinOp(part.upper, ast.Add(), one), part.step), node.ctx
                )
                yield ast.Subscript(
                    node.value, ast.Slice(part.lower, ast.BinOp(part.upper, ast.Sub(), one), part.step), node.ctx
                )
    if isinstance(node, ast.Return) and node.value is not None:
        for text in ("-a", "a.clamp(-1, 1)", "a.clamp(0, 1)", "a[:1]", "a.mean()", "a.detach()", "2 * a", "a.mT", "a[..., :1]", "a + 1", "a / 2", "a[0]",
                     "a ** 2", "a.abs()", "a.round()", "a.flip(0)", "a.flip(-1)", "a.roll(1, 0)", "a.sum()", "a.squeeze(0)", "1 - a", "1 / a",
                     "a.mean(0, keepdim=True)", "a.sort(0).values", "a.clamp(min=1e-2)", "a[:-1]", "a[1:]", "a.float().floor()"):  # fmt: skip
            yield ast.Return(expression(text, a=node.value))
    if isinstance(node, ast.If | ast.IfExp):
        yield type(node)(
            **{**{name: getattr(node, name) for name in node._fields}, "test": ast.UnaryOp(ast.Not(), node.test)}
        )
        if isinstance(node, ast.IfExp):
            yield from (node.body, node.orelse)


def statements(body: list[ast.stmt]) -> Iterator[list[ast.stmt]]:
    """A body with a statement left out, two exchanged, or the last of a loop behind it, or its first before it."""
    for k, statement in enumerate(body):
        if not isinstance(statement, ast.Return) and len(body) > 1:
            yield body[:k] + body[k + 1 :]
        if k + 1 < len(body) and not isinstance(body[k + 1], ast.Return):
            yield body[:k] + [body[k + 1], statement] + body[k + 2 :]
        if isinstance(statement, ast.For) and len(statement.body) > 1:
            for inside, before, after in (
                (statement.body[:-1], [], statement.body[-1:]),
                (statement.body[1:], statement.body[:1], []),
            ):
                loop = ast.For(statement.target, statement.iter, inside, [])
                yield body[:k] + before + [loop] + after + body[k + 1 :]


def mutants(source: str) -> Iterator[str]:
    """The source with one thing changed, in every way, without repetition."""
    tree = ast.parse(source)
    function = next(node for node in tree.body if isinstance(node, ast.FunctionDef))
    parameters = [argument.arg for argument in function.args.args]
    seen = {ast.unparse(tree)}

    def places(node: ast.AST) -> Iterator[tuple[ast.AST, str, int | None]]:
        for field, value in ast.iter_fields(node):
            if field in ("args", "decorator_list", "returns") and isinstance(node, ast.FunctionDef | ast.Lambda):
                continue
            for k, part in enumerate(value) if isinstance(value, list) else [(None, value)]:
                if isinstance(part, ast.AST):
                    yield node, field, k
                    yield from places(part)

    def tried(node: ast.AST, field: str, value) -> Iterator[str]:
        before = getattr(node, field)
        setattr(node, field, value)
        text = ast.unparse(ast.fix_missing_locations(tree))
        setattr(node, field, before)
        if text not in seen:
            seen.add(text)
            yield text

    for node, field, k in list(places(function)):
        value = getattr(node, field)
        for other in changes(value if k is None else value[k], parameters):
            yield from tried(node, field, other if k is None else value[:k] + [other] + value[k + 1 :])
    for node in ast.walk(function):
        if isinstance(getattr(node, "body", None), list):
            for body in statements(node.body):
                yield from tried(node, "body", body)


def made(source: str, name: str) -> Callable:
    names = namespace()
    exec(compile(source, "<mutant>", "exec"), names)
    return names[name]


# What the checks say ------------------------------------------------------------------------


class TooLong(BaseException):
    pass


@contextmanager
def at_most(seconds: float):
    """Stop what runs inside."""

    def stop(*_):
        raise TooLong

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def answered(exercise: Exercise, fn: Callable, number: int):
    """What fn answers, or None if it fails."""
    try:
        with at_most(20), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return exercise.answer(fn, number)
    except (Trouble, TooLong, Exception):
        return None


def right_at(exercise: Exercise, fn: Callable, number: int) -> bool:
    answer = answered(exercise, fn, number)
    return answer is not None and exercise.close(answer, exercise.wanted(exercise.right, number))


def verdict(exercise: Exercise, fn: Callable, explain: bool = True) -> str:
    """accepted, equivalent, refused, error, named, evidence or bare."""
    if all(right_at(exercise, fn, number) for number in range(CASES)):
        for number in MANY:
            if not right_at(exercise, fn, number):
                return "accepted"
            exercise._kept.clear() if number % 50 == 0 else None
        return "equivalent"
    if not explain:
        return "refused"
    numbers = [*range(CASES), *range(1000, 1000 + FRESH)]
    got = [answered(exercise, fn, number) for number in numbers]
    if not any(got):
        return "error"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = Evidence(exercise, numbers, got)
        return "named" if found.bugs() else "evidence" if next(found.facts(), None) else "bare"


def table(
    names: list[str],
    most: int | None,
    explained: int | None,
    two: int = 0,
    with_forms: bool = False,
    show: bool = False,
) -> dict[str, Counter]:
    """Counts by exercise; so many mutants of each right answer at most, of which so many are explained, chosen by a fixed seed."""
    found = {name: Counter() for name in names}
    right = [(name, *solution) for name, solution in solutions().items()] + (list(forms()) if with_forms else [])
    for name, function, source in right:
        if name not in found:
            continue
        dice = random.Random(source)
        texts = list(mutants(source))
        texts = texts if most is None else dice.sample(texts, min(most, len(texts)))
        for _ in range(two):  # at the beginning, so that they are explained too
            again = list(mutants(dice.choice(texts)))
            texts = [dice.choice(again), *texts] if again else texts
        for k, text in enumerate(texts):
            said = verdict(CHECKS[name], made(text, function), explained is None or k < explained)
            found[name]["generated"] += 1
            found[name][said] += 1
            if said == "accepted" or (show and said == "bare"):
                before, after = ast.unparse(ast.parse(source)).splitlines(), text.splitlines()
                changed = [line.strip() for line in after if line not in before] or ["a line is gone"]
                print(f"  {said} {name} ({function}): {' | '.join(changed)}", file=sys.stderr, flush=True)
        CHECKS[name]._kept.clear()
    return found


def main() -> None:
    options, names = [w for w in sys.argv[1:] if w.startswith("-")], [w for w in sys.argv[1:] if not w.startswith("-")]
    every = "--all" in options
    asked = {key: int(value) for key, _, value in (option.strip("-").partition("=") for option in options) if value}
    most, explained, two = (
        asked.get(key, None if every else few) for key, few in (("most", 30), ("explain", 10), ("two", 3))
    )
    kinds = ["generated", "equivalent", "accepted", "refused", "error", "named", "evidence", "bare"]
    print(f"{'exercise':22}" + "".join(f"{kind:>11}" for kind in kinds))
    total = Counter()
    for name in names or CHECKS:
        counts = table([name], most, explained, two or 20, every, "--show" in options)[name]
        total += counts
        print(f"{name:22}" + "".join(f"{counts[kind]:>11}" for kind in kinds), flush=True)
    print(f"{'all':22}" + "".join(f"{total[kind]:>11}" for kind in kinds))
    told = total["named"] + total["evidence"] + total["bare"]
    print(
        f"a name or a fact: {(total['named'] + total['evidence']) / max(told, 1):.0%} of {told} refusals with numbers"
    )
    sys.exit(total["accepted"] > 0)


if __name__ == "__main__":
    main()
