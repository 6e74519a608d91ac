"""A training run on the screen, until it is done or stopped."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from minidiff.training.distributed import any_of, is_first
from minidiff.training.recipe import Run


def follow(run: Run, name: str) -> bool:
    """Show (step, steps, loss) as a progress bar; False if it was stopped."""
    bar, mean, stopped = tqdm(desc=name, unit="step", delay=1, disable=not is_first()), None, False
    with logging_redirect_tqdm(), stop_on_ctrl_c() as pressed:  # a warning gets a line of its own
        for step, steps, loss in run:
            mean = loss if mean is None else 0.98 * mean + 0.02 * loss
            bar.total = steps
            bar.set_postfix(loss=f"{mean:.4f}", refresh=False)
            bar.update(step - bar.n)
            if stopped := any_of(pressed()):
                break
        run.close()  # it writes what is done
        stopped = stopped or pressed()
    bar.close()
    return not stopped


@contextmanager
def stop_on_ctrl_c() -> Iterator[Callable[[], bool]]:
    """Ctrl-C sets a flag that is read between two steps; a second Ctrl-C interrupts at once."""
    pressed = []

    def note(*_):
        pressed.append(True)
        signal.signal(signal.SIGINT, before)

    before = signal.signal(signal.SIGINT, note)
    try:
        yield lambda: bool(pressed)
    finally:
        signal.signal(signal.SIGINT, before)
