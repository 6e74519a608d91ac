"""Call a student's function and read what it answers. This runs in the worker, where it cannot harm the notebook."""

import sys
import traceback
from collections.abc import Callable
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

PRINTED = 2000  # characters of what the function prints that are shown


class Trouble(Exception):
    """The function gave no answer that could be compared; the text says why."""


class Failure(Trouble):
    """It gave none to this case; it may to others."""


class Printed:
    """Takes what is written, and keeps the beginning."""

    encoding = "utf-8"

    def __init__(self):
        self.text = ""

    def write(self, text: str) -> int:
        if len(self.text) < PRINTED:
            self.text = (self.text + text)[:PRINTED]
        return len(text)

    def flush(self) -> None:
        pass


def call(exercise, fn: Callable, args: tuple, again: tuple = (), label: str = "this case") -> list[Tensor]:
    """fn(*args), read; with `exercise.gradient`, the gradients of the answer behind it.

    again: the arguments once more, to see whether fn has changed them; without them nothing is watched. Raises Trouble with a sentence for students.
    """
    names = exercise.names
    learned = _learned(exercise, names, args)
    try:
        with _watched(exercise.forbids if again else ()):
            answer = fn(*args)
    except Trouble:
        raise
    except BaseException as error:  # also SystemExit and KeyboardInterrupt: nothing may end the worker
        raise failure(fn, error, names, label) from None
    for name, before, after in zip(names, again, args, strict=False):
        if not callable(before) and not _same(before, after):
            raise Trouble(
                f"Your function changes `{name}`, which it was only given to look at. Whoever called it still needs it.\n"
                f"Operators such as += and methods such as add_ write in place: write {name} = {name} + ... instead."
            )
    if answer is None:
        raise Trouble(f"Your function returns None. Does it end with `return` and the result, {exercise.returns}?")
    try:
        found = read(answer)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        kind = str(error) if isinstance(error, TypeError) else f"a {type(answer).__name__}"
        raise Trouble(f"Your function returns {kind}; expected is {exercise.returns}.") from None
    if learned:
        if not (isinstance(answer, Tensor) and answer.requires_grad):
            raise Trouble(
                f"No gradient comes back from what your function returns: nothing could be learned from it (at {label}).\n"
                "Something cuts it off: no_grad, detach, item, float, numpy, or a new tensor made of numbers."
            )
        found += [
            plain(g) for g in torch.autograd.grad(answer.sum(), learned, allow_unused=True, materialize_grads=True)
        ]
    return found


def read(value) -> list[Tensor]:
    """A tensor, number, array, or a list or dict of them, as float64 tensors; a dict's in the order of its keys.

    One number has no shape. A list whose parts have one shape is a tensor. Raises TypeError if it is none of these.
    """
    return [part.reshape(()) if part.numel() == 1 else part for part in _read(value)]


def _read(value) -> list[Tensor]:
    if isinstance(value, dict):
        return [tensor for key in sorted(value, key=str) for tensor in _read(value[key])]
    if isinstance(value, list | tuple | range) or hasattr(value, "__next__"):
        parts = [tensor for part in value for tensor in _read(part)]
        shapes = {part.shape for part in parts}
        if len(shapes) > 1 and all(part.numel() == 1 for part in parts):
            parts, shapes = [part.reshape(()) for part in parts], {torch.Size()}
        return parts if len(shapes) > 1 else [torch.stack(parts) if parts else torch.zeros(0, dtype=torch.float64)]
    if isinstance(value, Tensor):
        for is_so, kind in ((value.is_meta, "a tensor on the meta device, which holds no numbers"),
                            (value.is_complex(), "complex numbers"), (value.layout != torch.strided, "a sparse tensor"),
                            (value.is_quantized, "a quantized tensor")):  # fmt: skip
            if is_so:
                raise TypeError(kind)
        return [value.detach().to("cpu", torch.float64).clone()]
    if isinstance(value, str | bytes | complex) or value is None:
        raise TypeError({complex: "a complex number", type(None): "None"}.get(type(value), f"a {type(value).__name__}"))
    array = np.asarray(value)
    if (
        array.dtype == object and array.ndim == 0 and not hasattr(value, "__float__")
    ):  # a Fraction and a Decimal have it
        raise TypeError(f"a {type(value).__name__}")
    if array.dtype.kind not in "biufO":
        raise TypeError("complex numbers" if array.dtype.kind == "c" else f"a {type(value).__name__}")
    return [torch.from_numpy(array.astype(np.float64))]  # a copy: also of negative strides


def plain(tensor: Tensor) -> Tensor:
    """On the CPU, in float64; one number has no shape. Raises TypeError if it is complex."""
    if tensor.is_complex():
        raise TypeError("complex numbers")
    tensor = tensor.detach().to("cpu", torch.float64)
    return tensor.reshape(()) if tensor.numel() == 1 else tensor


def _same(before, after) -> bool:
    """Is an argument what it was? Also a list or dict of them."""
    try:
        a, b = read(before), read(after)
    except (TypeError, ValueError):
        return True
    return len(a) == len(b) and all(
        x.shape == y.shape and torch.equal(x.nan_to_num(), y.nan_to_num()) for x, y in zip(a, b, strict=True)
    )


def _learned(exercise, names: list[str], args: tuple) -> list[Tensor]:
    """What the answer's gradient is taken by: tensors among the arguments, or the parameters of modules among them."""
    found = []
    for name in exercise.gradient:
        given = args[names.index(name)]
        found += [given.requires_grad_()] if isinstance(given, Tensor) else list(given.parameters())
    return found


def failure(fn: Callable, error: BaseException, names: list[str], label: str) -> Trouble:
    """A sentence on an exception that came out of fn."""
    code = getattr(fn, "__code__", None)
    frames = list(traceback.walk_tb(error.__traceback__))
    own = [line for frame, line in frames if frame.f_code is code]
    if isinstance(error, NotImplementedError) and not error.args and frames[-1][0].f_code is code:
        return Trouble("Nothing here yet: write your answer in place of `raise NotImplementedError`.")
    if isinstance(error, SystemExit):
        return Trouble(
            f"Your function ends the whole program at {label} (quit, exit or sys.exit). It should only return."
        )
    if isinstance(error, KeyboardInterrupt):
        return Trouble(f"Your function raises KeyboardInterrupt at {label}, as if somebody had stopped it.")
    if isinstance(error, MemoryError) or "allocate memory" in str(error):
        return Trouble(f"Your function asks for more memory than a check may have, at {label}. Kilobytes should do.")
    if isinstance(error, RecursionError):
        return Trouble(f"Your function calls itself without end, at {label}. When should it stop?")
    where = f"in the line @{own[-1]}@" if own else f"called with ({', '.join(names)})"
    return Failure(f"Your function fails at {label}, {where}.\n{type(error).__name__}: {str(error)[:500]}")


@contextmanager
def _watched(forbids: tuple[str, ...]):
    """Whoever calls something that the text forbids is told so: a function's name, or the beginning of a module's."""
    if not forbids:
        yield
        return

    def look(frame, event, argument) -> None:
        if event == "c_call":
            name = getattr(argument, "__name__", "")
        else:
            name = frame.f_globals.get("__name__", "") if event == "call" else ""
            if event == "call" and frame.f_code.co_name in forbids:
                name = frame.f_code.co_name
        for word in forbids:
            if name == word or ("." in word and name.startswith(word) and not name.startswith("minidiff.course")):
                raise Trouble(f"Your function uses {name}. The exercise asks you to write it without.")

    before = sys.getprofile()
    sys.setprofile(look)
    try:
        yield
    finally:
        sys.setprofile(before)


def outcome(exercise, fn: Callable, numbers: list[int]) -> dict:
    """What fn answers to the cases with these numbers: {"answers": [...]} or {"trouble": text}, and what it printed.

    Each case is called twice, with another random seed: whoever draws numbers of their own answers twice differently.
    """
    said, out, state, drawn = Printed(), (sys.stdout, sys.stderr), _state(), np.random.get_state()
    try:
        sys.stdout = sys.stderr = said
        answers, shown, failed = [], "", None
        for number in numbers:
            try:
                pair = []
                for seed in (0, 1):
                    torch.manual_seed(seed)
                    np.random.seed(seed)
                    pair.append(exercise.answer(fn, number))
                    shown = shown or said.text
            except Failure as error:
                answers.append(None)
                failed = failed or str(error)
                continue
            if not exercise.close(*pair):
                names = ", ".join(exercise.names)
                raise Trouble(
                    "Asked the same thing twice, your function gives two answers: it draws random numbers of its own, or keeps\n"
                    f"something from one call to the next. Whatever it needs is handed to it: use that ({names})."
                )
            answers.append(pair[0])
            changed = [what for what, value in _state().items() if value != state[what]]
            if changed:
                raise Trouble(
                    f"Your function changes {changed[0]} for everything that runs after it. Leave it as it is."
                )
        return {"answers": answers, "failure": failed, "printed": shown}
    except Trouble as trouble:
        return {"trouble": str(trouble), "printed": said.text}
    finally:
        sys.stdout, sys.stderr = out
        np.random.set_state(drawn)
        torch.set_default_dtype(state["torch's default dtype"])
        torch.set_grad_enabled(state["torch's gradient mode"])


def _state() -> dict:
    return {"torch's default dtype": torch.get_default_dtype(), "torch's gradient mode": torch.is_grad_enabled()}
