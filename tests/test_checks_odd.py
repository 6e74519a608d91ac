"""Whatever a student's function does, one sentence says so, and nothing in the notebook is touched."""

# ruff: noqa: E731
import ctypes
import math
import os
import random
import sys
import threading
import time
from decimal import Decimal
from fractions import Fraction

import cloudpickle
import numpy as np
import psutil
import pytest
import torch

from minidiff.course import checks
from minidiff.course.checks import CHECKS, worker

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # as a notebook's functions are


def right(x, eps, beta):
    return math.sqrt(1 - beta) * x + math.sqrt(beta) * eps


def for_ever(x, eps, beta):
    while True:
        x = x + 0


def for_ever_in_c(x, eps, beta):
    return sum(range(10**13))


def for_ever_and_uncaught(x, eps, beta):
    while True:
        try:
            while True:
                pass
        except BaseException:
            pass


def sleeps(x, eps, beta):
    time.sleep(1000)


def waits_for_a_lock(x, eps, beta):
    lock = threading.Lock()
    lock.acquire()
    lock.acquire()


def floods(x, eps, beta):
    while True:
        print("still here", flush=True)


def floods_below_python(x, eps, beta):
    for _ in range(1000):
        os.write(1, b"x" * 1000)
        os.write(2, b"x" * 1000)
    return right(x, eps, beta)


def leaves_a_thread(x, eps, beta):
    threading.Thread(target=time.sleep, args=(1000,)).start()
    return right(x, eps, beta)


def leaves_a_process(x, eps, beta):
    import subprocess

    subprocess.run(["sleep", "1000"])


def ends_the_program(x, eps, beta):
    sys.exit(3)


def quits(x, eps, beta):
    quit()


def ends_the_process(x, eps, beta):
    os._exit(0)


def crashes(x, eps, beta):
    ctypes.string_at(0)


def is_interrupted(x, eps, beta):
    raise KeyboardInterrupt


def allocates(x, eps, beta):
    return torch.ones(10**12)


def allocates_bit_by_bit(x, eps, beta):
    kept = []
    while True:
        kept.append(bytearray(10**8))


def calls_itself(x, eps, beta):
    return calls_itself(x, eps, beta)


def fails(x, eps, beta):
    return x @ "noise"


def divides_by_zero(x, eps, beta):
    return x / (1 // 2 * 0 or 0) if False else 1 / 0


def untouched(x, eps, beta):
    raise NotImplementedError


def subtracts_a_mask(x, eps, beta):
    return 1 - (x > 0)


def asks(x, eps, beta):
    return float(input("beta? "))


def changes_x(x, eps, beta):
    x *= (1 - beta) ** 0.5
    return x + beta**0.5 * eps


def sets_the_dtype(x, eps, beta):
    torch.set_default_dtype(torch.float16)
    return right(x, eps, beta)


def ends_gradients(x, eps, beta):
    torch.set_grad_enabled(False)
    return right(x, eps, beta)


def seeds(x, eps, beta):
    torch.manual_seed(7)
    np.random.seed(7)
    random.seed(7)
    return right(x, eps, beta)


def takes_the_output(x, eps, beta):
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    return right(x, eps, beta)


def patches_torch(x, eps, beta):
    torch.Tensor.__add__ = lambda a, b: a
    return x + eps


def breaks_an_import(x, eps, beta):
    sys.modules["json"] = None
    import json

    return json


def moves(x, eps, beta):
    os.chdir("/")
    os.environ["HOME"] = "/"
    return right(x, eps, beta)


def yields(x, eps, beta):
    yield x


async def waits(x, eps, beta):
    return x


class NoNumber:
    pass


class BadNumber:
    def __float__(self):
        raise RuntimeError("no")


generator = (k for k in range(3))


def cannot_be_sent(x, eps, beta):
    return right(x, eps, beta + 0 * len([generator]))


def cannot_be_sent_and_does_not_end(x, eps, beta):
    while generator:
        pass


ENDLESS, MEMORY = "does not come to an end", "asks for more memory than a check may have"
ODD = [
    (for_ever, ENDLESS), (for_ever_in_c, ENDLESS), (for_ever_and_uncaught, ENDLESS), (sleeps, ENDLESS), (waits_for_a_lock, ENDLESS), (floods, ENDLESS),
    (leaves_a_process, ENDLESS), (floods_below_python, None), (leaves_a_thread, None), (ends_the_program, "ends the whole program"),
    (quits, "ends the whole program"), (ends_the_process, "ended the whole process"), (crashes, "ended the whole process"),
    (is_interrupted, "raises KeyboardInterrupt"), (allocates, MEMORY), (allocates_bit_by_bit, f"{MEMORY}|{ENDLESS}"), (calls_itself, "calls itself without end"),
    (fails, 'fails at beta = .*, in the line `return x @ "noise"`.\nTypeError'), (divides_by_zero, "ZeroDivisionError"),
    (untouched, "^Nothing here yet"), (subtracts_a_mask, "fails at .*\nNotImplementedError: Subtraction"), (asks, "EOFError"),
    (changes_x, "changes `x`, which it was only given"), (sets_the_dtype, "changes torch's default dtype"),
    (ends_gradients, "changes torch's gradient mode"), (seeds, None), (takes_the_output, None), (patches_torch, "known here|fails"),
    (breaks_an_import, "fails at .*\nModuleNotFoundError"), (moves, None), (yields, "expected the shape|another shape|known here"),
    (waits, "returns a coroutine"), (cannot_be_sent, None), (cannot_be_sent_and_does_not_end, ENDLESS),
    (lambda x, eps, beta: None, "returns None"), (lambda x, eps, beta: "seven", "returns a str; expected is a tensor of the shape of `x`"),
    (lambda x, eps, beta: x * 1j, "returns complex numbers"), (lambda x, eps, beta: x.to("meta"), "meta device"),
    (lambda x, eps, beta: x.to_sparse(), "returns a sparse tensor"), (lambda x, eps, beta: NoNumber(), "returns a NoNumber"),
    (lambda x, eps, beta: BadNumber(), "returns a BadNumber"), (lambda x, eps, beta: print, "returns a builtin_function_or_method"),
    (lambda x, eps, beta: x * float("nan"), "got nan"), (lambda x, eps, beta: x[0], "expected the shape"),
    (lambda x, eps, beta: torch.randn_like(x), "draws random numbers of its own"), (lambda x, eps, beta: [], "expected the shape \\(1, 2, 1, 2\\), got \\(0,\\)"),
    (lambda x, eps, beta: {"x": right(x, eps, beta)}, None), (lambda x, eps: x, "fails at .*called with \\(x, eps, beta\\).\nTypeError"),
    (lambda x, eps, beta: right, "returns a function"), (torch.zeros(3), "Hand over the function itself.* a Tensor"), (None, "a NoneType"),
    (right(torch.ones(2), torch.ones(2), 0.5), "Hand over the function itself"), (torch.compile(right), None), (torch.nn.Identity(), "fails at"),
]  # fmt: skip


def state() -> dict:
    """What a function could change for everything that runs after it."""
    return {
        "dtype": torch.get_default_dtype(), "gradients": torch.is_grad_enabled(), "random": random.getstate()[1][:9],
        "torch's random": torch.random.get_rng_state().sum().item(), "numpy's random": np.random.get_state()[1].sum(),
        "output": (sys.stdout, sys.stderr), "add": torch.Tensor.__add__, "json": sys.modules.get("json"), "folder": os.getcwd(), "home": os.environ.get("HOME"),
    }  # fmt: skip


@pytest.mark.parametrize("fn, says", ODD, ids=[getattr(fn, "__name__", str(k)) for k, (fn, _) in enumerate(ODD)])
def test_whatever_a_function_does_a_sentence_says_so(fn, says, monkeypatch):
    monkeypatch.setattr(worker, "SECONDS", 1.0)
    before, threads = state(), threading.active_count()
    text = CHECKS["l01_one_step"].diagnose(fn)
    assert state() == before
    assert threading.active_count() <= threads + 1  # the one that listens to the worker
    if says is None:
        assert text is None
        return
    with pytest.raises(checks.NotYet, match=says):
        raise checks.NotYet(text)
    assert len(text.splitlines()) <= 4


def test_nothing_is_left_running(monkeypatch):
    """Neither a thread of the function's nor a process."""
    monkeypatch.setattr(worker, "SECONDS", 0.5)
    for fn in (for_ever, leaves_a_thread, leaves_a_process):
        CHECKS["l01_one_step"].diagnose(fn)
    left = [child for child in psutil.Process().children(recursive=True) if child.pid != worker._current[0].process.pid]
    assert [child.cmdline() for child in left if child.status() != psutil.STATUS_ZOMBIE] == []


def test_an_answer_may_come_before_anybody_looks(monkeypatch, capsys):
    process = psutil.Process

    def late(*pid):
        time.sleep(0.5 if pid else 0)
        return process(*pid)

    monkeypatch.setattr(worker.psutil, "Process", late)
    for fn, says in ((untouched, "Nothing here yet"), (lambda x, eps, beta: x, "expected")) * 2:
        assert says in CHECKS["l01_one_step"].diagnose(fn)
    checks.l01_one_step(right)
    assert "so it ran here" not in capsys.readouterr().out


def test_a_right_answer_may_print_and_what_it_prints_is_shown_once(capsys):
    def says_so(x, eps, beta):
        print("x is", tuple(x.shape))
        return right(x, eps, beta)

    checks.l01_one_step(says_so)
    assert capsys.readouterr().out.startswith("x is (1, 2, 1, 2)\nRight: l01_one_step")


def test_what_cannot_be_sent_runs_here_and_says_so(capsys):
    checks.l01_one_step(cannot_be_sent)
    assert "could not be sent to a process of its own, so it ran here. TypeError" in capsys.readouterr().out


def test_a_function_may_do_without_tensors():
    unusual = {
        "l06_days": [lambda s, b, n, small, t: Fraction(t) * s * b / (n * small * 86_400), lambda s, b, n, small, t: Decimal(t) * s * b / (n * small * 86_400),
                     lambda s, b, n, small, t: np.float32(t * s * b / (n * small * 86_400)), lambda s, b, n, small, t: [t * s * b / (n * small * 86_400)]],
        "l12_memory": [lambda p, kept, batch, ema: np.array([[4 * p * (4 + ema) + batch * kept]]), lambda p, kept, batch, ema: {"bytes": 4 * p * (4 + ema) + batch * kept}],
        "l06_mirror": [lambda p, coins: np.where(coins[:, None, None, None], p.numpy()[..., ::-1], p.numpy()).tolist()],
        "l08_merge": [lambda letters, merges: (torch.tensor([k]) if k % 2 else k for k in CHECKS["l08_merge"].right(letters, merges))],
    }  # fmt: skip
    for name, forms in unusual.items():
        assert [CHECKS[name].diagnose(form) for form in forms] == [None] * len(forms)


def test_what_the_text_forbids_is_refused():
    def fast(q, k, v, heads):
        split = (z.unflatten(2, (heads, -1)).transpose(1, 2) for z in (q, k, v))
        return torch.nn.functional.scaled_dot_product_attention(*split).transpose(1, 2).flatten(2)

    def twice(net, x, t, text, null, w):
        return (1 - w) * net(x, t, null) + w * net(x, t, text)

    def ours(denoise, classify, x, t, labels, alpha, sigma, w):
        from minidiff.diffusion import Schedule, guide

        path = Schedule(*(lambda t, c=c: torch.full_like(t, c) for c in (alpha, sigma, 0.0)))
        return guide(denoise, lambda x, t, x0_hat: classify(x, t).log_softmax(1)[range(len(x)), labels], path, w)(x, t)

    def counted(batch, before, after, side, kernel, stride, padding):
        out = torch.nn.functional.conv2d(
            torch.zeros(batch, before, side, side),
            torch.zeros(after, before, kernel, kernel),
            stride=stride,
            padding=padding,
        )
        return 2 * out.numel() * before * kernel**2

    def all_at_once(judge, pictures, size):
        return judge.eval().features(pictures * 2 - 1)

    def by_the_ends(steps, errors):
        return math.log(errors[0] / errors[-1]) / math.log(steps[-1] / steps[0])

    for name, fn, says in [("l05_attention", fast, "uses scaled_dot_product_attention"), ("l09_guided", twice, "calls `net` more than once"),
                           ("l07_belief", ours, "uses minidiff.diffusion"), ("l12_operations", counted, "uses conv2d"),
                           ("l04_features", all_at_once, "images at a time, and `size` is"), ("l03_order", by_the_ends, "right where errors of an exact law")]:  # fmt: skip
        assert says in CHECKS[name].diagnose(fn), name


def test_a_loss_without_a_gradient_is_refused():
    losses = {
        "l02_loss": lambda net, x0, eps, t, alpha, sigma: (
            (net(alpha * x0 + sigma * eps, t) - eps).square().mean().detach()
        ),
        "l08_contrastive": torch.no_grad()(CHECKS["l08_contrastive"].right),
        "l10_loss": lambda *args: CHECKS["l10_loss"].right(*args).item(),
    }
    for name, loss in losses.items():
        assert CHECKS[name].diagnose(loss).startswith("No gradient comes back"), name

    def half_of_it(x, mean, log_variance, noise, decode, weight):
        return CHECKS["l10_loss"].right(x, mean.detach(), log_variance, noise, decode, weight)

    assert "expected" in CHECKS["l10_loss"].diagnose(half_of_it)
