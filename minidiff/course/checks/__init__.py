"""Exercise checks that tell a student what went wrong: `checks.l01_one_step(my_function)` is one of CHECKS.

To add one: in a file of this folder, `exercise("l03_new", ...)`. Its name begins with the lesson's number.
"""

import sys

from minidiff.course import attributes
from minidiff.course.checks.exercise import CHECKS, Bug, Exercise, NotYet
from minidiff.course.checks.worker import warm_up

__all__ = ["CHECKS", "Bug", "Exercise", "NotYet"]

__getattr__, __dir__ = attributes(__name__, CHECKS, "check")

if "ipykernel" in sys.modules:  # in a notebook, while its first cells run
    warm_up()
