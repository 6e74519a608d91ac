"""How long a step takes, from a few of them: for runs that are given minutes instead of steps."""

import time
from collections.abc import Iterator

from minidiff.training.distributed import any_of
from minidiff.training.optimise import Progress


def seconds_a_step(trial: Iterator[Progress], count: int = 20, patience: float = 20.0) -> float:
    """Measured over `count` steps after ten that find memory; over fewer where `patience` seconds are up."""
    timed(trial, 10, patience)
    done, seconds = timed(trial, count, patience)
    return seconds / done


def timed(trial: Iterator[Progress], count: int, patience: float) -> tuple[int, float]:
    """Steps done and the seconds they took: `count`, or as many as begin before `patience` seconds are up."""
    start, seconds = time.perf_counter(), 0.0
    for done in range(1, count + 1):
        next(trial)
        seconds = time.perf_counter() - start
        if any_of(seconds > patience):
            break
    return done, seconds
