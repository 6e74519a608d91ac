"""Training that is killed, stopped, starved and resumed: what is kept, and what is refused."""

import errno
import itertools
import json
import os
import resource
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from minidiff.cli.main import main
from minidiff.cli.progress import follow, on_stop
from minidiff.files import read_tensors, write_tensors
from minidiff.registry import UserError
from minidiff.training import OptimConfig, checkpoint, optimise
from minidiff.training.checkpoint import alone, checkpoints, header, read_log, whole
from minidiff.training.recipe import RECIPES, Recipe, reported
from minidiff.training.recipes.clip import batches as clip_batches

CONFIG = OptimConfig(steps=12, lr=1e-2, warmup=2, save_every=4)


class Net(nn.Sequential):
    def __init__(self):
        torch.manual_seed(0)
        super().__init__(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Linear(8, 1))


def data(bad=()):
    """Batches (8, 3); those whose step is in `bad` hold an infinite number."""
    for step in itertools.count():
        x = torch.randn(8, 3, generator=torch.Generator().manual_seed(step))
        yield torch.full_like(x, torch.inf) if step in bad else x


def begin(folder, config=CONFIG, bad=(), net=None, batches=None, loss=None, **about):
    mean = loss or (lambda net, x: (net(x) - x.sum(1, keepdim=True)).square().mean())
    return optimise(net or Net(), batches or data(bad), lambda x, _: (x,), mean, config, folder=folder, about=about)


def run(folder, stop=None, **options):
    steps = begin(folder, **options)
    done = [(step.step, float(step.loss)) for step in itertools.islice(steps, stop)]
    steps.close()
    return done


class Small(Recipe):
    """What `minidiff train small` trains; bad: as in `data`."""

    def run(self, folder, device, config, batch):
        net = Net()
        steps = begin(folder, config, bad=BAD, net=net)

        def keep(net, part):
            write_tensors(part / "model.safetensors", net.state_dict())
            (part / "model.json").write_text("{}")

        return reported(steps, config, folder, net, keep)


BAD = set()


@pytest.fixture
def small(monkeypatch, tmp_path):
    """The command that trains it, and its folder."""
    monkeypatch.setitem(RECIPES, "small", Small(about="", batch=8, train=CONFIG))
    return ["train", "small", "--device", "cpu", "--out", str(tmp_path / "run")], tmp_path / "run"


def names(folder):
    return {path.name for path in folder.iterdir()} - {".lock"}  # which stays, as the next one may be waiting for it


def failed(capsys, command):
    with pytest.raises(SystemExit) as stop:
        main(command)
    said = capsys.readouterr()
    assert said.err.count("\n") == 1 or "step/s" in said.err, said.err
    return stop.value.code, said.err, said.out


# What is kept -----------------------------------------------------------------------------------


def test_the_last_three_checkpoints_and_a_row_of_the_log_for_every_step(tmp_path):
    whole_run = run(tmp_path / "whole", config=replace(CONFIG, save_every=2))
    assert [header(path)["step"] for path in checkpoints(tmp_path / "whole")] == [8, 10, 12]
    parts = run(tmp_path / "parts", stop=5)
    with open(tmp_path / "parts/log.jsonl", "a") as log:  # as after a kill between two checkpoints
        log.write('{"step": 6, "loss": 7.0, "lr": 1, "images": 1, "seconds": 1}\n{"step": 7, "lo')
    assert parts + run(tmp_path / "parts") == whole_run
    for folder in ("whole", "parts"):
        rows = read_log(tmp_path / folder)
        assert [(row["step"], row["loss"]) for row in rows] == whole_run
        assert [row["images"] for row in rows] == [8 * k for k in range(1, 13)] and rows[-1]["lr"] < rows[3]["lr"]
        seconds = [row["seconds"] for row in rows]
        assert seconds == sorted(seconds)
        assert len((tmp_path / folder / "log.jsonl").read_text().splitlines()) == 12
    about = header(checkpoints(tmp_path / "parts")[-1])
    assert {"seed", "batch", "lr", "steps", "versions", "fingerprint"} <= about.keys() and about["batch"] == 8
    assert len(checkpoints(tmp_path / "parts")) == 3 and "log.jsonl" in names(tmp_path / "parts")


def test_checkpoints_by_time(tmp_path):
    steps = begin(tmp_path, config=replace(CONFIG, save_every=1000, save_seconds=0))
    next(steps), next(steps), next(steps)
    assert [header(path)["step"] for path in checkpoints(tmp_path)] == [1, 2, 3]
    steps.close()


def test_a_model_that_is_missing_or_damaged_is_written_again(small, capsys):
    command, folder = small
    main(command)
    model = (folder / "model.safetensors").read_bytes()
    (folder / "model.json").unlink()
    (folder / "model.safetensors").write_bytes(model[:50])
    main(command)
    assert (folder / "model.safetensors").read_bytes() == model and (folder / "model.json").exists()
    kept = {f"resume-{step:08}.safetensors" for step in (4, 8, 12)}
    assert names(folder) == {"model.safetensors", "model.json", "log.jsonl"} | kept  # no lock, no part


def test_a_longer_run_after_one_that_is_done(tmp_path):
    run(tmp_path)
    assert [step for step, _ in run(tmp_path, config=replace(CONFIG, steps=14))] == [13, 14]


def test_files_appear_together_and_what_describes_them_last(tmp_path, monkeypatch):
    (tmp_path / "model.json").write_text("old")
    order, replaced = [], os.replace

    def noted(a, b):
        order.append((Path(b).name, (tmp_path / "model.json").exists()))
        replaced(a, b)

    with pytest.raises(ZeroDivisionError), whole(tmp_path) as part:
        (part / "model.json").write_text("new")
        raise ZeroDivisionError
    assert names(tmp_path) == {"model.json"} and (tmp_path / "model.json").read_text() == "old"
    monkeypatch.setattr(os, "replace", noted)
    with whole(tmp_path) as part:
        for name in ("a.txt", "model.json", "vocab.json", "unet/config.json"):
            (part / name).parent.mkdir(exist_ok=True)
            (part / name).write_text("new")
    assert order[-1] == ("model.json", False) and not any(there for _, there in order)
    assert names(tmp_path) == {"a.txt", "model.json", "vocab.json", "unet"}


# Stopped ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_even_two_at_once_save_and_stop(small, capsys, monkeypatch, number):
    command, folder = small
    real = checkpoint.RunFolder.note

    def note(self, step, **row):
        real(self, step=step, **row)
        if step == 5:
            os.kill(os.getpid(), number)

    saved = checkpoint.write_tensors

    def save(*args):  # the second one comes while the checkpoint is written
        os.kill(os.getpid(), number)
        saved(*args)

    monkeypatch.setattr(checkpoint.RunFolder, "note", note)
    before = signal.getsignal(number)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "write_tensors", save if number != signal.SIGTERM else saved)
        with pytest.raises(SystemExit) as stop:
            main(command)
    said = capsys.readouterr().out
    assert stop.value.code == 130 and "stopped; the same command resumes it after step" in said
    done = header(checkpoints(folder)[-1])["step"]
    assert f"after step {done}" in said and done == (5 if number == signal.SIGTERM else 1)
    assert signal.getsignal(number) == before
    monkeypatch.setattr(checkpoint.RunFolder, "note", real)
    main(command)
    assert [(row["step"], row["loss"]) for row in read_log(folder)] == run(folder.parent / "whole")


def test_nohup_is_heeded():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with on_stop(pytest.fail):
            os.kill(os.getpid(), signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_before_the_first_step_a_signal_stops_at_once(small, capsys, monkeypatch, number):
    command, folder = small
    monkeypatch.setattr(Small, "run", lambda *_: os.kill(os.getpid(), number))
    status, said, _ = failed(capsys, command)
    assert status == 130 and "stopped before or after training: what the folder of the run holds is as it was" in said
    assert not folder.exists()


@pytest.mark.parametrize(
    "row", ["[" * 10**5, '{"step": "x"}', '{"step": 1}', '{"step": 1, "lr": 1, "images": 1, "seconds": "x"}', "7"]
)
def test_a_row_of_the_log_that_is_damaged_is_left_out(tmp_path, row):
    good = {"step": 2, "loss": None, "lr": 0.1, "images": 4, "seconds": 1.5}
    (tmp_path / "log.jsonl").write_bytes(row.encode() + b"\n\xff\xfe\n" + json.dumps(good).encode() + b"\n")
    assert read_log(tmp_path) == [good]


def test_nothing_else_is_written_through_a_link(small, tmp_path):
    command, folder = small
    folder.mkdir()
    (tmp_path / "mine").write_text("precious")
    (folder / ".pid").symlink_to(tmp_path / "mine")
    main(command)
    assert (tmp_path / "mine").read_text() == "precious"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes with names here")
def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(small, capsys):
    command, folder = small
    main(command)
    last = checkpoints(folder)[-1]
    for path in (last, folder / "log.jsonl", folder / ".pid"):
        content = path.read_bytes() if path.exists() else None
        path.unlink(missing_ok=True)
        os.mkfifo(path)
        if path == last:
            assert failed(capsys, command)[0] == 2
        else:
            main(command)
        path.unlink(missing_ok=True)
        if content:
            path.write_bytes(content)


@pytest.mark.parametrize("broken", ["write_tensors", "fsync"])
def test_a_stop_that_cannot_be_kept_is_no_stop_that_is_kept(small, capsys, monkeypatch, broken):
    """A full disk: an error, a status of failure, and the last good checkpoint with nothing beside it."""
    command, folder = small

    def full(*args):
        if broken == "write_tensors":
            args[0].write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    def note(self, step, **row):
        if step == 6:
            monkeypatch.setattr(*(checkpoint, broken) if broken == "write_tensors" else (os, broken), full)
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(checkpoint.RunFolder, "note", note)
    status, said, out = failed(capsys, command)
    assert status == 2 and "stopped" not in out and "done" not in out
    assert f"cannot keep a checkpoint in {folder} (" in said
    assert "No space left on device): the last one is of step 4" in said
    assert names(folder) == {"log.jsonl", "resume-00000000.safetensors", "resume-00000004.safetensors"}
    assert header(checkpoints(folder)[-1])["step"] == 4 and read_tensors(checkpoints(folder)[-1])


def test_a_disk_that_is_too_small_is_found_before_the_work(small, capsys, monkeypatch):
    command, folder = small
    monkeypatch.setattr(checkpoint.shutil, "disk_usage", lambda _: type("", (), {"free": 5000}))
    status, said, _ = failed(capsys, command)
    assert status == 2 and "bytes for checkpoints, 5,000 are free" in said and not folder.exists()


def test_a_limit_of_file_sizes_is_found_before_the_work(tmp_path):
    def limited():
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    command = [sys.executable, "-m", "minidiff", "train", "mnist", "--steps", "9", "--batch", "4", "--device", "cpu"]
    done = subprocess.run(
        [*command, "--out", tmp_path / "run"], preexec_fn=limited, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2 and "File too large): there is none yet" in done.stderr and not done.stdout
    assert not (tmp_path / "run").exists()


# Numbers that are not finite ----------------------------------------------------------------------


def test_a_step_that_is_not_finite_changes_nothing(tmp_path):
    bad, net = {3, 4, 5, 8}, Net()
    states, averages, losses = [], [], []
    for step in begin(tmp_path, bad=bad, net=net):
        states.append({name: value.clone() for name, value in net.state_dict().items()})
        averages.append({name: value.clone() for name, value in step.net.state_dict().items()})
        losses.append(float(step.loss))
    for kept in (states, averages):
        for k in range(1, 12):
            same = all(torch.equal(kept[k][name], kept[k - 1][name]) for name in kept[k])
            assert same == (k in bad)
    assert [row["loss"] is None for row in read_log(tmp_path)] == [k in bad for k in range(12)]
    assert "NaN" not in (tmp_path / "log.jsonl").read_text()
    assert all(value.isfinite().all() for value in read_tensors(checkpoints(tmp_path)[-1]).values())


def test_a_gradient_that_is_not_finite_counts_too(tmp_path):
    def rough(net, x):  # finite, and its gradient is not
        return net(x).square().mean() + (net[0].weight * 0).abs().sqrt().sum()

    with pytest.raises(
        FloatingPointError, match="not finite: the loss or its gradient in 10 steps in a row, up to step 10"
    ):
        run(tmp_path, loss=rough)
    net = read_tensors(checkpoints(tmp_path)[-1])
    assert all(torch.equal(net[f"net.{name}"], value) for name, value in Net().state_dict().items())


def test_ten_in_a_row_end_the_run_also_over_a_stop(small, capsys, monkeypatch):
    command, folder = small
    monkeypatch.setattr(sys.modules[__name__], "BAD", {0, *range(2, 12)})
    status, said, out = failed(capsys, command)
    assert status == 1 and "up to step 12, at a learning rate of" in said and "; 8 steps are kept" in said
    assert not out and "model.json" not in names(folder) and "model.safetensors" not in names(folder)
    assert failed(capsys, command)[:2] == (status, said)  # from step 8 on: six had been bad, and four are to come


def test_skipped_steps_are_said(small, capsys, monkeypatch):
    command, folder = small
    monkeypatch.setattr(sys.modules[__name__], "BAD", {2, 3})
    main(command)
    assert capsys.readouterr().out.startswith("2 steps were skipped: their loss or gradient was not finite\n")


# What is not resumed ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change, problem",
    [
        ({"config": replace(CONFIG, seed=1)}, "begun with seed 0, not 1"),
        ({"config": replace(CONFIG, steps=13)}, "begun with steps 12, not 13"),
        ({"config": replace(CONFIG, lr=0.5)}, "begun with lr 0.01, not 0.5"),
        ({"config": replace(CONFIG, betas=(0.9, 0.99))}, r"begun with betas \[0.9, 0.999\], not \[0.9, 0.99\]"),
        ({"batches": (x[:4] for x in data())}, "begun with batch 8, not 4"),
        ({"batches": (x + 0.01 for x in data())}, "begun with other data"),
        ({"model": {"heads": 2}}, "begun with another model"),
        ({"net": nn.Sequential(nn.Linear(3, 7), nn.BatchNorm1d(7), nn.Linear(7, 1))}, "holds another network"),
    ],
)
def test_a_run_is_not_resumed_as_another(tmp_path, change, problem):
    run(tmp_path, stop=5, model={"heads": 1})
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(UserError, match=problem):
        run(tmp_path, **{"model": {"heads": 1}} | change)
    assert before == {path: path.read_bytes() for path in tmp_path.iterdir()}
    assert run(tmp_path, stop=1, config=replace(CONFIG, save_every=1, fused=True), model={"heads": 1})[0][0] == 6


def missing(tensors, about):
    del tensors["optimizer.0.exp_avg"]


def broadcast(tensors, about):
    tensors["optimizer.0.exp_avg_sq"] = torch.zeros(1)


def not_a_number(tensors, about):
    tensors["optimizer.1.exp_avg"][0] = torch.nan


def weight(tensors, about):
    tensors["ema.0.bias"][2] = torch.inf


def half(tensors, about):
    tensors["optimizer.2.step"] += 0.5


def far(tensors, about):
    tensors["optimizer.2.step"] += 100


def whole_numbers(tensors, about):
    tensors["net.0.bias"] = tensors["net.0.bias"].int()


def said(key, value):
    return lambda tensors, about: about.__setitem__(key, value)


@pytest.mark.parametrize(
    "damage, problem",
    [
        (missing, r"not all of it \(optimizer.0.exp_avg\)"),
        (broadcast, r"not all of it \(optimizer.0.exp_avg_sq\)"),
        (not_a_number, "damaged: optimizer.1.exp_avg has values that cannot be"),
        (weight, "damaged: ema.0.bias has values"),
        (half, "damaged: optimizer.2.step has values"),
        (far, "damaged: optimizer.2.step has values"),
        (whole_numbers, r"not all of it \(net.0.bias\)"),
        (said("step", 5.0), "not a whole safetensors file of a run"),
        (said("step", "5"), "not a whole safetensors file of a run"),
        (said("step", 4), "not a whole safetensors file of a run"),
        (said("step", True), "not a whole safetensors file of a run"),
        (said("skipped", -1), "not a whole safetensors file of a run"),
        (said("steps", 3), "not a whole safetensors file of a run"),
        (said("steps", None), "not a whole safetensors file of a run"),
        (said("seed", None), "begun with seed None, not 0"),
        (said("fingerprint", [["x"]]), "not a whole safetensors file of a run"),
        (said("fingerprint", [[0.5, 0.5]]), "begun with other data"),
    ],
)
def test_a_damaged_checkpoint_is_refused_and_the_one_before_serves(tmp_path, damage, problem):
    done = run(tmp_path, stop=5)
    path = checkpoints(tmp_path)[-1]
    tensors, about = read_tensors(path), header(path)
    damage(tensors, about)
    write_tensors(path, tensors, {"about": json.dumps(about)})
    with pytest.raises(UserError, match=problem) as error:
        run(tmp_path)
    assert "\n" not in str(error.value)
    path.unlink()
    assert done[:4] + run(tmp_path) == run(tmp_path / "whole")


# Folders --------------------------------------------------------------------------------------------


def test_a_second_run_is_told_who_trains_and_a_dead_one_does_not_count(small, capsys):
    command, folder = small
    hold = "import sys, time; from pathlib import Path; from minidiff.training.checkpoint import alone\n"
    hold += "with alone(Path(sys.argv[1])): print('held', flush=True); time.sleep(600)"
    with subprocess.Popen([sys.executable, "-c", hold, folder], stdout=subprocess.PIPE, text=True) as other:
        try:
            assert other.stdout.readline() == "held\n"
            status, said, _ = failed(capsys, command)
            assert status == 2 and f"process {other.pid} is training in {folder}: choose another folder" in said
        finally:
            other.kill()
    main(command)
    assert "done" in capsys.readouterr().out and ".pid" not in names(folder)


def test_a_model_without_a_run_is_not_overwritten(small, capsys):
    command, folder = small
    for name in ("model.json", "clip.json", "config.json", "model_index.json", "model.safetensors"):
        folder.mkdir()
        (folder / name).write_text("mine")
        status, said, _ = failed(capsys, command)
        assert status == 2 and "holds a model, and no run that could be resumed" in said
        assert names(folder) == {name} and (folder / name).read_text() == "mine"
        (folder / name).unlink()
        folder.rmdir()


def test_no_empty_folder_is_left(tmp_path):
    with pytest.raises(OSError, match="no network"), alone(tmp_path / "runs/x"):
        raise OSError("no network")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "mine").mkdir()
    with alone(tmp_path / "mine"):
        pass
    assert names(tmp_path) == {"mine"} and names(tmp_path / "mine") == set()


def test_every_batch_of_clip_has_as_many_images_as_were_asked_for():
    for n in (1, 8, 31, 32, 100):
        for batch in itertools.islice(clip_batches(n, seed=0), 5):
            assert len(batch.images) == len(batch.captions) == len(batch.scenes) == n


def test_a_bar_shows_numbers_after_a_step_that_was_skipped(capsys):
    def steps():
        yield 1, 2, float("nan")
        yield 2, 2, 0.5

    assert follow(steps(), "x")
