"""Names for things: how they are registered, found and chosen; and the error that its reader can mend."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pkgutil import iter_modules
from typing import TypeVar

T = TypeVar("T")


class UserError(ValueError):
    """Something that whoever typed it can mend: shown as one line. Any other exception is a bug."""


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
def of_the_user() -> Iterator[None]:
    """What the mathematics refuses in here was asked for by the user: a ValueError becomes a UserError."""
    try:
        yield
    except ValueError as error:
        raise UserError(str(error)) from None
