"""A process of its own for students' functions: nothing that they do can hang or harm the notebook.

It starts once and stays warm. On Linux every check runs in a fork of it; elsewhere it answers once, and the next one
starts while the student reads. What the function needs goes there by value (cloudpickle); back come numbers, as JSON.
"""

import io
import json
import os
import queue
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from importlib import import_module

import cloudpickle
import psutil
import torch

from minidiff.course.checks import trial

SECONDS = 3.0  # of computing, or of waiting for nothing; then the student reads that it does not end
MEMORY = 2 * 2**30  # bytes, beyond what the worker has when it is warm
FORKS = sys.platform == "linux"  # elsewhere a fork of a process that has loaded torch is not safe
PAUSE = 0.02


class Worker:
    """The process, and a thread that reads what it says."""

    def __init__(self):
        path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
        self.process = subprocess.Popen(
            [sys.executable, "-c", "from minidiff.course.checks.worker import serve; serve()"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": path, "TORCH_COMPILE_DISABLE": "1", "OMP_NUM_THREADS": "1"},
            start_new_session=True,  # an interrupt of the notebook is not for the worker
        )  # fmt: skip
        self.said: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        threading.Thread(target=self._listen, daemon=True).start()
        self.ready = False

    def _listen(self) -> None:
        while (frame := _read(self.process.stdout)) is not None:
            self.said.put(frame)
        self.said.put(b"")

    def ask(self, request: bytes) -> dict:
        """The outcome of a request. Raises Trouble if it takes too long, too much memory, or ends the process.

        Raises ConnectionError if there is no worker to ask.
        """
        if not self.ready:
            self.ready = self.said.get() == b"warm"
        if not self.ready:
            raise ConnectionError("it does not start")
        _write(self.process.stdin, request)
        pid = self.said.get()
        if not pid:
            raise ConnectionError("it has ended")
        try:
            answer = self._wait(int(pid))
        except BaseException:
            _kill(int(pid))
            if FORKS and self.process.poll() is None:
                self.said.get()  # what is left to say of this request
            raise
        if not answer:
            raise trial.Trouble(
                "Your function ended the whole process that it ran in, as os._exit does, or a crash outside of Python."
            )
        return json.loads(answer)

    def _wait(self, pid: int) -> bytes:
        try:
            process = psutil.Process(pid)
        except psutil.NoSuchProcess:  # it was quicker than we
            return self.said.get()
        start = busy = time.monotonic()
        used, first, least = 0.0, None, None  # seconds of computing; those, and the bytes, before the function began
        while True:
            try:
                return self.said.get(timeout=PAUSE)
            except queue.Empty:
                pass
            try:
                times, memory, status = process.cpu_times(), process.memory_info().rss, process.status()
            except psutil.Error:
                return self.said.get()
            now = times.user + times.system
            first, least = (now, memory) if first is None else (first, least)
            if now > used + 1e-3 or status != psutil.STATUS_SLEEPING:
                busy = time.monotonic()
            used = now
            if memory > least + MEMORY:
                raise trial.Trouble("Your function asks for more memory than a check may have. Kilobytes should do.")
            if used - first > SECONDS or time.monotonic() - busy > SECONDS or time.monotonic() - start > 20 * SECONDS:
                raise trial.Trouble(
                    f"Your function does not come to an end; it was stopped after {SECONDS:g} seconds. It should take milliseconds.\n"
                    "Look at your loops: does each one get closer to its end at every turn?"
                )


def outcome(exercise, fn: Callable, numbers: list[int]) -> dict:
    """trial.outcome in the worker, or here in a thread if fn cannot be sent there; then "note" says so."""
    try:
        request = _packed((exercise, fn, numbers))
        try:
            found = _worker().ask(request)
        finally:
            if not FORKS:  # one answer each: whatever the function has changed goes with it
                _current[:] = [Worker()]
    except trial.Trouble:
        raise
    except Exception as error:  # it cannot be pickled, or there is no worker
        found = _here(exercise, fn, numbers)
        why = f"{type(error).__name__}: {str(error).splitlines()[0][:200]}" if str(error) else type(error).__name__
        return found | {"note": f"(Your function could not be sent to a process of its own, so it ran here. {why})"}
    if "answers" in found:
        found["answers"] = [answer and [_tensor(part) for part in answer] for answer in found["answers"]]
    return found


_current: list[Worker] = []


def _worker() -> Worker:
    """The worker that answers next."""
    if not _current or _current[0].process.poll() is not None:
        _current[:] = [Worker()]
    return _current[0]


def warm_up() -> None:
    """Start the worker now, so that it is warm when the first check comes. Returns at once."""
    _worker()


class _Pickler(cloudpickle.Pickler):
    """By value; a compiled function as what it was compiled from, and the notebook's own `quit` as Python's."""

    def reducer_override(self, obj):
        original = getattr(obj, "_torchdynamo_orig_callable", None) or getattr(obj, "_orig_mod", None)
        if original is not None and callable(obj):
            return _same, (original,)
        if type(obj).__name__ in ("ExitAutocall", "ZMQExitAutocall"):
            return _builtin_exit, ()
        return super().reducer_override(obj)


def _same(thing):
    return thing


def _builtin_exit():
    return exit


def _packed(thing) -> bytes:
    buffer = io.BytesIO()
    _Pickler(buffer).dump(thing)
    return buffer.getvalue()


def _here(exercise, fn: Callable, numbers: list[int]) -> dict:
    """trial.outcome in a thread of this process."""
    found: dict = {}
    thread = threading.Thread(target=lambda: found.update(trial.outcome(exercise, fn, numbers)), daemon=True)
    with torch.random.fork_rng(devices=[]):
        thread.start()
        thread.join(SECONDS)
    if thread.is_alive():
        _interrupt(thread)
        raise trial.Trouble(
            "Your function does not come to an end. Look at your loops: does each get closer to its end?"
        )
    return found


def _interrupt(thread: threading.Thread) -> None:
    import ctypes

    for _ in range(100):  # a function may catch what stops it; not for ever
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(SystemExit))
        thread.join(PAUSE)
        if not thread.is_alive():
            break


# Inside of the worker ---------------------------------------------------------------------------


def serve() -> None:
    """Answer requests from standard input until it ends."""
    source, sink = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):  # whoever reads or prints past Python talks to nobody
        os.dup2(nothing, standard)
    torch.set_num_threads(1)
    import_module("torch._dynamo")  # every optimizer imports it, which takes seconds
    _write(sink, b"warm")
    while (request := _read(source)) is not None:
        if not FORKS:
            _write(sink, str(os.getpid()).encode())
            _write(sink, _answered(request))
            return
        there, back = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(there)
            _limit_memory()
            answer = _answered(request)
            while answer:
                answer = answer[os.write(back, answer) :]
            os._exit(0)
        os.close(back)
        _write(sink, str(child).encode())
        with os.fdopen(there, "rb") as pipe:
            answer = pipe.read()
        os.waitpid(child, 0)
        _write(sink, answer)


def _answered(request: bytes) -> bytes:
    try:
        exercise, fn, numbers = cloudpickle.loads(request)
        found = trial.outcome(exercise, fn, numbers)
    except BaseException as error:
        found = {"trouble": f"Your function could not be run: {type(error).__name__}: {error}"}
    if "answers" in found:
        found["answers"] = [
            [[list(part.shape), part.flatten().tolist()] for part in a or ()] or None for a in found["answers"]
        ]
    return json.dumps(found).encode()


def _tensor(part: list) -> torch.Tensor:
    shape, values = part
    return torch.tensor(values, dtype=torch.float64).reshape(shape)


def _limit_memory() -> None:
    import resource

    limit = psutil.Process().memory_info().vms + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _kill(pid: int) -> None:
    try:
        process = psutil.Process(pid)
        for one in [*process.children(recursive=True), process]:
            one.kill()
    except psutil.Error:
        pass


def _write(pipe, data: bytes) -> None:
    pipe.write(struct.pack("!Q", len(data)) + data)
    pipe.flush()


def _read(pipe) -> bytes | None:
    head = pipe.read(8)
    return pipe.read(struct.unpack("!Q", head)[0]) if len(head) == 8 else None
