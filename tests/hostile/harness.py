"""Bad input is tried by the hundred in one warm process, and held to what may come of it: one line, and nothing else.

A test asks for the fixture `trial` and calls
    trial.refused("sample", "7", "--init", path, says="truncated")   the command line: exit 2, one line, or the test fails
    trial.refuses(lambda: read(path), says="truncated")              the same of a function
    trial.held(...)                                                  refused like that, or done: for mutated valid files
    trial.apart(["sample", "7"], [...])                              in a process of its own, with traps in its PATH
Each looks for what was written into the folder, started, executed or connected to, for memory, and for a hang.
"""

import contextlib
import copy
import faulthandler
import io
import json
import os
import re
import resource
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from hypothesis import strategies as st

import minidiff.evaluation
import minidiff.training.recipes  # noqa: F401  (warm: what imports take in memory, and run, is none of the input's)
from minidiff.cli.main import main
from minidiff.registry import UserError

LINE = 1200  # characters of a message, with the paths of this machine in it
MEMORY = 400 << 20  # bytes that may be taken while something is refused, beyond what is held before
CEILING = 8 << 30  # bytes of addresses that may be taken, so that a bomb hurts the test alone
SECONDS = 60  # after which a call counts as a hang; no measurement
FORBIDDEN = {  # audit events: somebody else's command, a pickle, the network
    "subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty", "pty.spawn",
    "os.startfile", "webbrowser.open", "pickle.find_class", "socket.connect", "socket.getaddrinfo",
}  # fmt: skip
TRAPS = ("touch", "gs", "cat", "curl", "wget", "rm", "cp", "id", "python", "python3", "git", "tar", "ssh", "convert")
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")  # what moves a cursor, or turns text round

_watched: list[str] | None = None  # while something is tried: what it did that is forbidden


def _audit(event: str, args: tuple) -> None:
    if _watched is not None and event in FORBIDDEN:
        _watched.append(f"{event} {args!r:.200}")
        raise AssertionError(f"a bad input led to {event} {args!r:.200}")


sys.addaudithook(_audit)


@dataclass(frozen=True)
class Outcome:
    """What came of one call. code: the exit status, 0 if it returned."""

    code: int
    out: str
    err: str


def command(*args: Any) -> Outcome:
    """`minidiff ...` in this process."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main([str(arg) for arg in args])
        except SystemExit as stop:
            code = int(stop.code or 0)
    return Outcome(code, out.getvalue(), err.getvalue())


def called(function: Callable[[], Any]) -> Outcome:
    """A function, as the command line would end it."""
    try:
        function()
    except (UserError, OSError) as error:
        return Outcome(2, "", f"minidiff: {error}\n")
    except Exception:
        return Outcome(1, "", traceback.format_exc())
    return Outcome(0, "", "")


@dataclass
class Trial:
    """Tries bad input in a folder, which is also the working directory."""

    folder: Path
    tried: int = 0
    refusals: list[str] = field(default_factory=list)

    def refused(self, *args: Any, says: str = "") -> str:
        """The line with which the command refuses."""
        outcome = self._watch(lambda: command(*args), args)
        assert outcome.code == 2, f"{args} was not refused: {outcome}"
        return self._line(outcome, args, says)

    def refuses(self, function: Callable[[], Any], says: str = "", what: Any = "") -> str:
        """The line with which the function refuses, by UserError or OSError."""
        outcome = self._watch(lambda: called(function), what)
        assert outcome.code == 2, f"{what or function} was not refused: {outcome.code} {outcome.err}"
        return self._line(outcome, what, says)

    def held(self, *args: Any) -> str | None:
        """None if the command, or function, was done without a word; otherwise the line with which it refused."""
        run = (lambda: called(args[0])) if callable(args[0]) else (lambda: command(*args))
        outcome = self._watch(run, args)
        assert outcome.code in (0, 2), f"{args}: {outcome.err}"
        return self._line(outcome, args, "") if outcome.code else None

    def apart(self, *commands: Sequence[Any], memory: int = CEILING) -> list[Outcome]:
        """These commands, one after the other in a process of its own, all refused or done.

        A program that is found in PATH leaves a mark, and the test fails. memory: bytes of addresses that may be had.
        """
        self.tried += len(commands)
        traps, mark = self.folder.parent / f"{self.folder.name} traps", self.folder.parent / f"{self.folder.name} mark"
        traps.mkdir(exist_ok=True)
        for name in TRAPS:
            (traps / name).write_text(f'#!/bin/sh\necho {name} "$@" >> "{mark}"\n')
            (traps / name).chmod(0o755)
        code = "import json, sys; from hostile.harness import command; "
        code += "print(json.dumps([vars(command(*args)) for args in json.loads(sys.argv[1])]))"
        typed = json.dumps([[str(arg) for arg in args] for args in commands])
        before, paths = listing(self.folder), [str(Path(minidiff.__file__).parents[1]), str(Path(__file__).parents[1])]
        done = subprocess.run(
            [sys.executable, "-c", code, typed], capture_output=True, text=True, timeout=4 * SECONDS,
            env=os.environ | {"PATH": f"{traps}:{os.environ['PATH']}", "PYTHONPATH": ":".join(paths)},
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (memory, memory)),
        )  # fmt: skip
        assert not mark.exists(), f"{commands} ran {mark.read_text()}"
        assert done.returncode == 0, done.stderr
        outcomes = [Outcome(**outcome) for outcome in json.loads(done.stdout)]
        for args, outcome in zip(commands, outcomes, strict=True):
            assert outcome.code in (0, 2), f"{args}: {outcome.err}"
            if outcome.code:
                self._line(outcome, args, "")
        if all(outcome.code for outcome in outcomes):
            assert listing(self.folder) == before, f"{commands} left something behind"
        return outcomes

    def _watch(self, run: Callable[[], Outcome], what: Any) -> Outcome:
        global _watched
        self.tried += 1
        before, _watched = listing(self.folder), []
        try:
            with time_limit(what), address_limit(), peak_memory() as taken:
                outcome = run()
            done = list(_watched)
        finally:
            _watched = None
        assert not done, f"{what} led to {done}"
        assert taken() < MEMORY, f"{what} took {taken() >> 20} MiB"
        if outcome.code:
            assert (after := listing(self.folder)) == before, f"{what} left {sorted(set(after) ^ set(before))} behind"
        return outcome

    def _line(self, outcome: Outcome, what: Any, says: str) -> str:
        line = outcome.err.removesuffix("\n")
        assert outcome.out == "", f"{what} printed {outcome.out!r} before it was refused"
        assert line.startswith("minidiff: ") and len(line) > len("minidiff: "), f"{what}: {outcome.err}"
        assert "\n" not in line and "Traceback" not in line, f"{what}: {outcome.err}"
        assert not CONTROL.search(line), f"{what}: control characters in {line!r}"
        assert len(line) <= LINE, f"{what}: a message of {len(line)} characters"
        assert says in line, f"{what}: expected {says!r} in {line!r}"
        self.refusals.append(line)
        return line


def listing(folder: Path) -> dict[str, tuple]:
    """Every file of a folder, with what changes when it is written."""
    found = {}
    for path in folder.rglob("*"):
        about = path.lstat()
        kept = () if path.is_dir() else (about.st_size, about.st_mtime_ns, about.st_ino)
        found[str(path.relative_to(folder))] = (about.st_mode, *kept)
    return found


@contextlib.contextmanager
def time_limit(what: Any) -> Iterator[None]:
    def over(*_):
        raise AssertionError(f"{what} hangs")

    before = signal.signal(signal.SIGALRM, over)
    signal.alarm(SECONDS)
    faulthandler.dump_traceback_later(3 * SECONDS, exit=True)  # for what hangs outside of Python, and hears no signal
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def address_limit() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    held = psutil.Process().memory_info().vms
    resource.setrlimit(resource.RLIMIT_AS, (held + CEILING, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@contextlib.contextmanager
def peak_memory() -> Iterator[Callable[[], int]]:
    """Asked afterwards: how many bytes the process took at most in here, beyond what it had. On Linux; 0 elsewhere."""
    status, clear = Path("/proc/self/status"), Path("/proc/self/clear_refs")

    def now(field: str) -> int:
        return int(re.search(rf"{field}:\s+(\d+)", status.read_text())[1]) << 10

    if not clear.exists():
        yield lambda: 0
        return
    clear.write_text("5")  # the peak starts from what is held now
    before = now("VmRSS")
    peak: list[int] = []
    yield lambda: peak[0] - before
    peak.append(now("VmHWM"))


# Mutations of valid files -----------------------------------------------------------------------------------------


@st.composite
def damaged(draw: st.DrawFn, whole: bytes) -> bytes:
    """A valid file's bytes, cut, overwritten, shortened or lengthened in one to four places."""
    content = bytearray(whole)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(0, len(content) - 1)))
        match draw(st.sampled_from(("flip", "cut", "drop", "insert", "number", "repeat"))):
            case "flip" if content:
                content[at] ^= 1 << draw(st.integers(0, 7))
            case "cut":
                del content[at:]
            case "drop":
                del content[at : at + draw(st.integers(1, 64))]
            case "insert":
                content[at:at] = draw(st.binary(min_size=1, max_size=16))
            case "number":  # what lengths and offsets become when somebody wants harm
                number = draw(
                    st.sampled_from((b"\0" * 4, b"\xff" * 4, b"\xff\xff\xff\x7f", b"\0\0\0\x80", b"\xff" * 8))
                )
                content[at : at + len(number)] = number
            case "repeat":
                content[at:at] = content[at : at + draw(st.integers(1, 256))]
    return bytes(content)


NASTY: list[Any] = [
    None, True, False, -1, 0, 1.5, 2**31, 2**63, 10**30, 1e308, float("nan"), float("inf"), -float("inf"), "", "x",
    "../..", "/etc/passwd", "\x1b[2J\x07\u202e", "long " * 20_000, [], [[]], {}, {"": None}, [1, "a", None], [10**9] * 3,
]  # fmt: skip


def nasty_json(fields: dict, values: list[Any] = NASTY) -> Iterator[tuple[str, str]]:
    """(what was done, text): every field without its value, and with each of the values that do not belong there.

    Values that are equal to the field's own are left out, and so are fields of fields beyond the first level below.
    """
    for where in _paths(fields):
        for value in [_GONE, *values]:
            changed = copy.deepcopy(fields)
            inside = changed
            for name in where[:-1]:
                inside = inside[name]
            if value is _GONE:
                del inside[where[-1]]
            elif type(value) is type(inside[where[-1]]) and value == inside[where[-1]]:
                continue
            else:
                inside[where[-1]] = value
            yield f"{'.'.join(map(str, where))} = {'gone' if value is _GONE else repr(value)[:60]}", json.dumps(changed)


def nasty_texts(text: str) -> Iterator[tuple[str, bytes]]:
    """(what was done, bytes): a JSON file that is none, or of an unbearable kind."""
    yield "empty", b""
    yield "cut", text.encode()[: len(text) // 2]
    yield "not UTF-8", b"\xff\xfe" + text.encode("utf-16-le")
    yield "nothing but zeros", b"\0" * 4096
    yield "a list", b"[" + text.encode() + b"]"
    yield "a number", b"7"
    yield "null", b"null"
    yield "nested 100,000 deep", b"[" * 100_000 + b"]" * 100_000
    yield "fields nested 100,000 deep", b'{"a":' * 100_000 + b"1" + b"}" * 100_000
    yield "a number of 10,000 digits", b'{"a": ' + b"9" * 10_000 + b"}"
    yield "one name twice", text.encode().rstrip()[:-1] + b', "a": 1, "a": 2}'
    yield "half a character", b'{"a": "\\ud800"}'


def safetensors(header: dict | bytes, data: bytes = b"", length: int | None = None) -> bytes:
    """A safetensors file with whatever header, said to have whatever length."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(raw) if length is None else length).to_bytes(8, "little") + raw + data


_GONE = object()


def _paths(fields: dict, above: tuple = ()) -> Iterator[tuple]:
    for name, value in fields.items():
        yield (*above, name)
        if isinstance(value, dict) and not above:
            yield from _paths(value, (name,))
