"""What the lessons use: checks of exercises, figures, widgets, and a few helpers."""

import sys
from collections.abc import Callable, Mapping

from minidiff.registry import discover


def attributes(package: str, known: Mapping[str, Callable], kind: str) -> tuple[Callable, Callable]:
    """`__getattr__` and `__dir__` of a package whose modules register things: package.name is known[name], also later."""
    discover(package)
    own = vars(sys.modules[package])
    for name in known:  # not hidden by a module of the same name
        own.pop(name, None)

    def find(name: str) -> Callable:
        if name in known:
            return known[name]
        raise AttributeError(f"there is no {kind} {name!r}; there is {', '.join(known)}")

    return find, lambda: [*own["__all__"], *known]  # the second for completion
