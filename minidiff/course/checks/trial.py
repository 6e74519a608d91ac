"""Run a student's function so that nothing it does can hang or harm the notebook."""

import ctypes
import threading
import traceback
from collections.abc import Callable
from copy import deepcopy

import numpy as np
import torch
from torch import Tensor

SECONDS = 4.0  # for all cases together; then the student reads that it does not end


class Trouble(Exception):
    """The function gave no answer that could be compared; the text says why."""


class _Stop(BaseException):
    """Raised inside a function that does not end."""


def answers(fn: Callable, cases: list[tuple[str, tuple]], names: list[str]) -> list[list[Tensor]]:
    """What fn answers to every case, each answer as a list of float64 tensors.

    cases: (label, arguments). names: of the arguments. Raises Trouble if fn fails, does not end, changes what
    it was given, returns what is no tensor, or draws random numbers of its own. The global random state is left alone.
    """
    with torch.random.fork_rng(devices=[]):
        first, second = (_in_time(lambda s=seed: [_answer(fn, case, names, s) for case in cases]) for seed in (0, 1))
    for (label, _), a, b in zip(cases, first, second, strict=True):
        if not close(a, b):
            raise Trouble(
                "Asked the same thing twice, your function gives two answers: it draws random numbers of its own.\n"
                f"Whatever is random is handed to it: use that ({', '.join(names)}). Seen at {label}."
            )
    return first


def close(a: list[Tensor], b: list[Tensor]) -> bool:
    """Equal to three digits, in the same shapes; NaN equals NaN, and one number has no shape."""
    return len(a) == len(b) and all(
        x.shape == y.shape and torch.allclose(x, y, rtol=1e-3, atol=1e-4, equal_nan=True)
        for x, y in zip(a, b, strict=True)
    )


def _answer(fn: Callable, case: tuple[str, tuple], names: list[str], seed: int) -> list[Tensor]:
    label, given = case
    args = deepcopy(given)
    torch.manual_seed(seed)
    try:
        answer = fn(*args)
    except NotImplementedError:
        raise Trouble("Nothing here yet: write your answer in place of `raise NotImplementedError`.") from None
    except Exception as error:
        file = getattr(getattr(fn, "__code__", None), "co_filename", None)
        lines = [frame.line for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
        where = f"in the line `{lines[-1]}`" if lines else f"called with ({', '.join(names)})"
        raise Trouble(f"Your function fails at {label}, {where}.\n{type(error).__name__}: {error}") from None
    for name, before, after in zip(names, given, args, strict=True):
        if not callable(before) and not close(_tensors(before), _tensors(after)):
            raise Trouble(
                f"Your function changes `{name}`, which it was only given to look at. Whoever called it still needs it.\n"
                f"Operators such as += and methods such as add_ write in place: write {name} = {name} + ... instead."
            )
    if answer is None:
        raise Trouble("Your function returns None. Does it end with `return` and the result?")
    try:
        if isinstance(answer, list | tuple):  # of numbers or rows: as good as a tensor
            answer = torch.stack([torch.as_tensor(row) for row in answer])
        return _tensors(answer)
    except (TypeError, ValueError, RuntimeError):
        raise Trouble(f"Your function returns a {type(answer).__name__}; expected is a tensor of numbers.") from None


def _tensors(value) -> list[Tensor]:
    """A tensor, number, array, or a list or dict of them, as tensors; a dict's in the order of its keys."""
    if isinstance(value, dict):
        return [tensor for key in sorted(value) for tensor in _tensors(value[key])]
    if isinstance(value, list | tuple):
        return [tensor for part in value for tensor in _tensors(part)]
    if not isinstance(value, Tensor | np.ndarray | np.generic | float | int):
        raise TypeError(type(value))
    if torch.as_tensor(value).is_complex():
        raise TypeError("complex")
    tensor = torch.as_tensor(value).detach().to("cpu", torch.float64)
    return [tensor.reshape(()) if tensor.numel() == 1 else tensor]


def _in_time(job: Callable):
    """job(), in a thread that is stopped when it takes too long: a notebook survives `while True`."""
    outcome = {}

    def run():
        try:
            outcome["value"] = job()
        except BaseException as error:
            outcome["error"] = error

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(SECONDS / 2)  # there are two runs
    if thread.is_alive():
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(_Stop))
        raise Trouble(
            f"Your function does not come to an end; it was stopped after {SECONDS / 2:g} seconds. It should take milliseconds.\n"
            "Look at your loops: does each one get closer to its end at every turn?"
        )
    if "error" in outcome:
        raise outcome["error"]
    return outcome["value"]
