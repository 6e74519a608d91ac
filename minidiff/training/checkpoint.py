"""A training run on disk: checkpoints to resume from, a log, and a lock that keeps a second run out."""

import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.optim import Optimizer

from minidiff.files import made_folder, read_tensors, write, write_tensors
from minidiff.registry import UserError
from minidiff.training.distributed import is_first, of_first

FILE, LOG, KEPT = "resume-{:08}.safetensors", "log.jsonl", 3  # a checkpoint's name has its step; so many are kept
LAST = ("index.json", "config.json", "clip.json", "model.json", "model_index.json")  # without it a folder is no model
# Noted in a checkpoint, and free to be another when it is resumed: sums are rounded otherwise, at most
FREE = {"versions", "recipe", "save_every", "save_seconds", "accumulate", "bf16", "compile", "graphs", "fused"}
ELSE = "choose another folder, or delete it"


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Nobody else trains in `folder` meanwhile; UserError where somebody does, or where a model has no run beside it.

    The lock is the operating system's: it goes with its process, however that ends. A folder that stays empty goes too.
    """
    if not is_first():
        yield
        return
    if not checkpoints(folder) and any((folder / name).exists() for name in (*LAST, "model.safetensors")):
        raise UserError(f"{folder} holds a model, and no run that could be resumed: {ELSE}")
    lock, holder = FileLock(folder / ".lock"), folder / ".pid"
    with made_folder(folder):
        try:
            lock.acquire(timeout=0)
        except Timeout:
            process = f"process {holder.read_text()}" if holder.is_file() else "another process"
            raise UserError(f"{process} is training in {folder}: choose another folder") from None
        try:
            write(holder, str(os.getpid()))  # in the place of a link, if there is one, and not where it points
            yield
        finally:
            with suppress(OSError):
                holder.unlink()
            if [path.name for path in folder.iterdir()] == [
                ".lock"
            ]:  # else it stays: the next one may be waiting for it
                (folder / ".lock").unlink()
            lock.release()


@contextmanager
def whole(folder: Path) -> Iterator[Path]:
    """A place to write files: they appear in `folder` once all are on the disk, the one that says what they are last."""
    part = folder / ".part"
    shutil.rmtree(part, ignore_errors=True)  # of a process that was killed
    try:
        part.mkdir(parents=True)
        yield part
        paths = [path for path in part.rglob("*") if path.is_file()]
        for path in paths:
            with open(path, "rb+") as file:
                os.fsync(file.fileno())
        for name in {path.name for path in part.iterdir()} & set(LAST):
            (folder / name).unlink(missing_ok=True)
        for path in sorted(paths, key=lambda path: (path.name in LAST, path.parent == part)):
            to = folder / path.relative_to(part)
            to.parent.mkdir(exist_ok=True)
            os.replace(path, to)
    finally:
        shutil.rmtree(part, ignore_errors=True)


class RunFolder:
    """What a run keeps: nothing where `folder` is None. Of several processes, which hold the same, the first writes."""

    def __init__(self, folder: Path | None, nets: nn.ModuleDict, optimizer: Optimizer, about: dict):
        """nets: the network and its average. about: what a resumed run must share with this one."""
        self.folder, self.nets, self.optimizer = folder, nets, optimizer
        self.about = json.loads(json.dumps(about))  # as it is read again
        self.saved, self.saved_at = -1, time.monotonic()

    def begin(self) -> tuple[int, int]:
        """Resume, or write a first checkpoint: a disk that is full is found before the work. Steps done, skipped last."""
        if self.folder is None:
            return 0, 0
        there = checkpoints(self.folder)
        done, skipped = restore(there[-1], tensors(self.nets, self.optimizer), self.about) if there else (0, 0)
        if done != (first := of_first(done)):
            raise UserError(
                f"{self.folder} ends at step {done}, at {first} for the first process: all must see the same"
            )
        self.saved = done if there else -1
        self.save(done, skipped)
        if is_first():
            path, free = checkpoints(self.folder)[-1], shutil.disk_usage(self.folder).free
            if not there and free < (more := KEPT * path.stat().st_size):
                path.unlink()
                raise OSError(f"{self.folder} needs {more:,} bytes for checkpoints, {free:,} are free")
            rows = [row for row in read_log(self.folder) if row["step"] <= done]
            with whole(self.folder) as part:
                (part / LOG).write_text("".join(json.dumps(row) + "\n" for row in rows))
            self.start = time.monotonic() - (rows[-1]["seconds"] if rows else 0.0)
        return done, skipped

    def note(self, **row: float | None) -> None:
        """Add a row to the log."""
        if self.folder is not None and is_first():
            with open(self.folder / LOG, "a") as log:
                log.write(json.dumps(row | {"seconds": round(time.monotonic() - self.start, 3)}) + "\n")

    def save(self, step: int, skipped: int) -> None:
        """Write a checkpoint, unless there is one of this step; OSError where that fails, and the old ones stay."""
        if self.folder is None or step == self.saved or not is_first():
            return
        about = json.dumps(self.about | {"step": step, "skipped": skipped})
        try:
            with whole(self.folder) as part:
                write_tensors(part / FILE.format(step), tensors(self.nets, self.optimizer), {"about": about})
        except OSError as error:
            last = f"the last one is of step {self.saved}" if self.saved >= 0 else "there is none yet"
            raise OSError(f"cannot keep a checkpoint in {self.folder} ({error}): {last}") from error
        self.saved, self.saved_at = step, time.monotonic()
        for path in checkpoints(self.folder)[:-KEPT]:
            path.unlink()


def checkpoints(folder: Path) -> list[Path]:
    """Those of a run, the last one last."""
    return sorted(Path(folder).glob("resume-*.safetensors"))


def tensors(nets: nn.ModuleDict, optimizer: Optimizer) -> dict[str, Tensor]:
    """All that a run has to remember, by name: the weights, and AdamW's moments, which it would create at its first step."""
    group, named = optimizer.param_groups[0], dict(nets.state_dict())
    for i, parameter in enumerate(group["params"]):
        if not (state := optimizer.state[parameter]):  # AdamW counts on the CPU, unless it is fused
            state["step"] = torch.zeros((), device=parameter.device if group["fused"] else "cpu")
            state |= {key: torch.zeros_like(parameter, requires_grad=False) for key in ("exp_avg", "exp_avg_sq")}
        named |= {f"optimizer.{i}.{key}": value for key, value in state.items()}
    return named


def header(path: Path) -> dict:
    """What a checkpoint says of its run; nothing else is read. Raises UserError for one that is damaged."""
    try:
        if not path.is_file():  # a pipe, from which nothing comes
            raise OSError("it is no file")
        with safe_open(path, "pt") as file:
            about = dict(json.loads((file.metadata() or {})["about"]))
        counts = [about[key] for key in ("step", "steps", "skipped")]
        wrong = {int} != set(map(type, counts)) or min(counts) < 0 or counts[0] > counts[1]
        if wrong or path.name != FILE.format(counts[0]):
            raise ValueError(f"it says step, steps, skipped {counts}")
        torch.tensor(about["fingerprint"], dtype=torch.float64)  # is it numbers?
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, RecursionError) as error:
        broken = f"{path} is not a whole safetensors file of a run ({error})"
        raise UserError(f"{broken}: delete it, and the run resumes from the one before") from None
    return about


def restore(path: Path, into: dict[str, Tensor], about: dict) -> tuple[int, int]:
    """Copy a checkpoint, of a run that was begun with these settings, into the tensors; steps done, and skipped last."""
    saved, other = header(path), None
    for key in about.keys() - FREE - {"fingerprint"}:
        longer = key == "steps" and saved["step"] == saved[key] < about[key]  # a run that is done can be made longer
        if saved.get(key) != about[key] and not longer:
            other = f"another {key}" if isinstance(about[key], dict) else f"{key} {saved.get(key)}, not {about[key]}"
    means = zip(*(torch.tensor(each.get("fingerprint", ())).flatten() for each in (saved, about)), strict=False)
    if not all(torch.isclose(was, now, rtol=1e-4, atol=1e-4, equal_nan=True) for was, now in means):
        other = other or "other data"
    if other:
        raise UserError(f"{path} was begun with {other}: {ELSE}")
    found = read_tensors(path)
    for name, like in into.items():
        tensor, counts = found.get(name), name.endswith(".step")
        if tensor is None or (tensor.shape, tensor.dtype) != (like.shape, like.dtype):
            raise UserError(f"{path} holds another network, or not all of it ({name}): {ELSE}")
        if not tensor.isfinite().all() or counts and not 0 <= tensor.round() == tensor <= saved["step"]:
            raise UserError(f"{path} is damaged: {name} has values that cannot be; {ELSE}")
    with torch.no_grad():
        for name, tensor in into.items():
            tensor.copy_(found[name])  # on its device, in its memory layout
    return saved["step"], saved["skipped"]


def averaged(folder: Path, net: nn.Module) -> int:
    """Load the averaged weights of the last checkpoint, and return its step."""
    path = checkpoints(folder)[-1]
    found = read_tensors(path)
    net.load_state_dict({name: found[f"ema.{name}"] for name in net.state_dict()})
    return header(path)["step"]


def planned_steps(folder: Path) -> int | None:
    """How many steps the saved run is to have in all; None if the folder holds none."""
    there = checkpoints(folder)
    return header(there[-1])["steps"] if there else None


def read_log(folder: Path) -> list[dict]:
    """A row for each step of a run, to plot: step, loss, lr, images and seconds of training, all of them so far.

    The loss is None where it or its gradient was not finite: that step was skipped. A row that is damaged is left out.
    """
    rows, path = {}, Path(folder) / LOG
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else ():
        with suppress(ValueError, RecursionError):
            row = json.loads(line)
            numbers = [row.get(key) for key in ("lr", "images", "seconds")] if isinstance(row, dict) else [None]
            if all(isinstance(number, int | float) for number in numbers) and type(row.get("step")) is int:
                rows[row["step"]] = row
    return list(rows.values())
