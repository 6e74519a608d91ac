"""A training run on the screen, until it is done or stopped."""

import math
import signal
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any


def follow(run: Any, name: str) -> bool:
    """Show (step, steps, loss) of a recipe's Run as a progress bar; False if it was stopped. What is done is kept then."""
    from tqdm import tqdm
    from tqdm.contrib.logging import logging_redirect_tqdm

    from minidiff.training.distributed import any_of, is_first

    bar, mean, noted, stopped = tqdm(desc=name, unit="step", delay=1, disable=not is_first()), math.nan, [], False
    # a warning gets a line of its own; closing the run writes what is done, or raises
    with logging_redirect_tqdm(), on_stop(noted.append), closing(run):
        for step, steps, loss in run:
            if math.isfinite(loss):
                mean = 0.98 * mean + 0.02 * loss if math.isfinite(mean) else loss
            bar.total = steps
            bar.set_postfix(loss=f"{mean:.4f}", refresh=False)
            bar.update(step - bar.n)
            if stopped := any_of(bool(noted)):
                break
    bar.close()
    return not stopped


@contextmanager
def on_stop(call: Callable[[int], Any]) -> Iterator[None]:
    """Ctrl-C, SIGTERM and SIGHUP do nothing but call `call` with their number. SIGHUP under nohup does nothing at all."""
    numbers = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    if signal.getsignal(numbers[-1]) == signal.SIG_IGN:
        numbers.pop()
    before = [signal.signal(number, lambda number, frame: call(number)) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
