"""Exercise checks that tell a student what went wrong: `checks.l01_one_step(my_function)` is one of CHECKS.

To add one: in a file of this folder, `l03_new = Exercise(...)`. Its name begins with the lesson's number.
"""

import re
from importlib import import_module
from pkgutil import iter_modules

from minidiff.course.checks.exercise import Bug, Exercise, NotYet

__all__ = ["CHECKS", "Bug", "Exercise", "NotYet"]


def discovered() -> dict[str, Exercise]:
    """Every Exercise that a module of this package gives a name, in the order of the lessons."""
    found = {}
    for module in iter_modules(__path__):
        for name, thing in vars(import_module(f"{__name__}.{module.name}")).items():
            if not isinstance(thing, Exercise):
                continue
            if not re.match(r"l\d\d_", name):
                raise NameError(f"{name} in {module.name}.py should begin with its lesson, such as l03_")
            if found.setdefault(name, thing) is not thing:
                raise NameError(f"there are two exercises {name}; the second is in {module.name}.py")
    return dict(sorted(found.items()))


CHECKS = discovered()
globals().update(CHECKS)  # also where a module has the same name


def __getattr__(name: str) -> Exercise:
    if name in CHECKS:
        return CHECKS[name]
    raise AttributeError(f"there is no check {name!r}; there is {', '.join(CHECKS)}")
