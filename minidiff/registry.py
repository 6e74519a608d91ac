"""Names for things: how they are registered, found and chosen; and what is said of them on a terminal."""

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import TypeVar

T = TypeVar("T")
LINE = 1000  # characters of a message


class UserError(ValueError):
    """Something that whoever typed it can mend: shown as one line. Any other exception is a bug."""

    def __str__(self) -> str:
        return one_line(super().__str__())


def one_line(text: str) -> str:
    """As one line that any terminal can show: control characters of names escaped, the middle of a long one left out."""
    text = "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in " ".join(text.split()))
    return text if len(text) <= LINE else f"{text[: LINE // 2]} ... {text[-LINE // 2 :]}"


def say(text: str) -> None:
    """Print what was done. That the terminal lacks a letter, or that nobody listens, does not undo it."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    try:
        print(one_line(text).encode(encoding, "backslashreplace").decode(encoding), flush=True)
    except OSError:  # a full disk, a pipe that was closed: what is left of it goes nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def choose(name: str, known: Mapping[str, T], kind: str, hint: str = "") -> T:
    """known[name]. Raises UserError that lists what there is."""
    if name not in known:
        raise UserError(f"unknown {kind} {name!r}; there is {', '.join(known) or 'none'}{hint}")
    return known[name]


def check_between(name: str, value: float, low: float, high: float) -> None:
    """Raises UserError for a value outside [low, high]."""
    if not low <= value <= high:
        raise UserError(f"{name} must lie between {low} and {high}, got {value}")


def register(known: dict[str, T], name: str | None = None) -> Callable[[T], T]:
    """A decorator: known[name] = the function or class below it; its own name if none is given."""

    def keep(thing: T) -> T:
        known[name or thing.__name__] = thing  # type: ignore[attr-defined]
        return thing

    return keep


def discover(package: str) -> None:
    """Import every module of a package, so that all that is registered in them is known."""
    for module in iter_modules(import_module(package).__path__):
        import_module(f"{package}.{module.name}")


@contextmanager
def enough_memory() -> Iterator[None]:
    """Work that needs more memory than there is, on any device, was asked for by the user: a UserError."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        known = ("out of memory", "allocate memory", "ALLOC_FAILED")  # CUDA and MPS, CPU, cuDNN and cuBLAS
        if not isinstance(error, MemoryError) and not any(words in str(error) for words in known):
            raise
        raise UserError(
            "out of memory: ask for fewer or smaller images, a smaller batch, --tile or --accumulate"
        ) from error


@contextmanager
def of_the_user(what: str | Path = "") -> Iterator[None]:
    """What is refused in here came from the user: a ValueError becomes a UserError.

    what: the file or field that it is about, named first.
    """
    try:
        yield
    except ValueError as error:
        raise UserError(f"{what}: {error}" if what else str(error)) from None
