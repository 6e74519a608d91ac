"""Exercise checks that tell a student what went wrong: `check.l01_one_step(my_function)`."""

from minidiff.checks.exercise import Bug, Exercise, NotYet
from minidiff.checks.l01 import l01_add_noise, l01_one_step, l01_to_model
from minidiff.checks.l01_schedules import l01_alphas, l01_cosine_time
from minidiff.checks.l02 import l02_loss, l02_x0_from_eps, l02_x0_from_v
from minidiff.checks.l02_averages import l02_best_guess, l02_ema
from minidiff.checks.l03 import l03_ancestral_step, l03_ddim_step, l03_heun_step
from minidiff.checks.l03_walk import l03_order, l03_walk

__all__ = [
    "Bug",
    "Exercise",
    "NotYet",
    "l01_add_noise",
    "l01_alphas",
    "l01_cosine_time",
    "l01_one_step",
    "l01_to_model",
    "l02_best_guess",
    "l02_ema",
    "l02_loss",
    "l02_x0_from_eps",
    "l02_x0_from_v",
    "l03_ancestral_step",
    "l03_ddim_step",
    "l03_heun_step",
    "l03_order",
    "l03_walk",
]
