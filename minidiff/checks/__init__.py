"""Exercise checks that tell a student what went wrong: `check.l01_one_step(my_function)`."""

from minidiff.checks.exercise import Bug, Exercise, NotYet
from minidiff.checks.l01 import l01_add_noise, l01_alphas, l01_cosine_time, l01_one_step, l01_to_model

__all__ = [
    "Bug",
    "Exercise",
    "NotYet",
    "l01_add_noise",
    "l01_alphas",
    "l01_cosine_time",
    "l01_one_step",
    "l01_to_model",
]
