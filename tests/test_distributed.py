"""Two processes, started by torchrun, train what one would."""

import os
import subprocess
import sys
from pathlib import Path

import crew
import pytest
import torch

from minidiff.cli.main import main
from minidiff.files import read_tensors
from minidiff.training import TrainConfig, checkpoint, distributed
from minidiff.training.checkpoint import checkpoints
from minidiff.training.distributed import any_of, average, batch_parts, join, my_rows, of_first, size, together


def torchrun(*args, processes=2):
    """Exit status, what was printed, and the lines of minidiff's own among the complaints."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1])}
    with subprocess.Popen(
        [*command, *map(str, args)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env
    ) as process:
        try:
            printed, complaints = process.communicate(timeout=300)  # about 10 seconds, but the machine may be busy
        finally:
            process.terminate()  # it ends its processes too
    own = [line for line in complaints.splitlines() if line.startswith("minidiff: ")]
    return process.returncode, printed, own or complaints


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """The folder with what two processes found, and one process before them."""
    out = tmp_path_factory.mktemp("crew")
    crew.run(folder=out / "by_one", stop=5)
    (out / "by_one.before").write_bytes(checkpoints(out / "by_one")[-1].read_bytes())
    status, _, complaint = torchrun(crew.__file__, out)
    assert (out / "done.1").exists(), complaint
    assert status != 0 and "stumbled" in complaint  # the last thing they do is to fail, see `stumble`
    return out


def far(a, b):
    assert a.keys() == b.keys()
    return max(float((a[name].double() - b[name].double()).abs().max()) for name in a)


@pytest.mark.parametrize(
    "name, how, near",
    [
        ("sgd", {"optimizer": "SGD", "dtype": torch.float64, "accumulate": 2}, 1e-12),
        ("adamw", {"accumulate": 2}, 1e-5),
        ("parts", {"optimizer": "SGD", "dtype": torch.float64}, 1e-12),  # parts of unequal size
    ],
)
def test_two_processes_equal_one(out, name, how, near):
    two = read_tensors(out / f"{name}.0")
    assert far(two, crew.run(**how)) < near
    assert far(two, read_tensors(out / f"{name}.1")) == 0  # weights, average and loss alike


def test_accumulating_changes_nothing_but_sums():
    one, parts = (crew.run("SGD", torch.float64, accumulate=n) for n in (1, 5))
    assert 0 < far(one, parts) < 1e-12
    with crew.spied(seen := []):
        crew.run(steps=1, accumulate=5)
    assert [len(rows) for rows in seen] == [4, 4, 4, 4]  # 16 in at most 5 parts


def test_every_picture_once_an_epoch(out):
    first, second = (read_tensors(out / f"seen.{rank}")["seen"] for rank in (0, 1))
    assert first.shape == second.shape == (3, 8)
    assert sorted(torch.cat([first, second], 1).flatten().tolist()) == list(range(crew.N))
    with crew.spied(seen := []):
        crew.run(steps=3)
    assert torch.equal(torch.stack(seen), torch.cat([first, second], 1))  # the batches of one process


def test_a_checkpoint_of_two_is_gone_on_with_by_one_and_back(out):
    begun, back = read_tensors(out / "begun.0"), read_tensors(out / "back.1")
    saved = read_tensors(checkpoints(out / "by_two")[-1])
    assert all(torch.equal(saved[name], value) for name, value in begun.items() if name != "losses")
    assert far(begun, read_tensors(out / "begun.1")) == 0
    rest, whole = crew.run(folder=out / "by_two", accumulate=2), crew.run(accumulate=2)
    assert torch.equal(rest.pop("losses"), whole.pop("losses")[3:])
    assert far(rest, whole) < 1e-5
    before = read_tensors(out / "by_one.before")
    assert all(torch.equal(before[name], value) for name, value in back.items())
    assert (
        checkpoints(out / "by_one")[-1].read_bytes() == (out / "by_one.before").read_bytes()
    )  # read and written by two


def test_what_processes_tell_each_other(out):
    for rank in (0, 1):
        told = {name: int(value) for name, value in read_tensors(out / f"told.{rank}").items()}
        assert told == {"any": 1, "none": 0, "of_first": 10, "there": rank}


def test_alone_nothing_happens():
    net = torch.nn.Linear(1, 1)
    assert together(net) is net and size() == 1 and join(torch.device("cpu")) == torch.device("cpu")
    assert my_rows(7) == slice(0, 7) and list(batch_parts(net, 7)) == [(slice(0, 7), 1.0)]
    assert list(batch_parts(net, 7, 3)) == [(slice(0, 3), 3 / 7), (slice(3, 6), 3 / 7), (slice(6, 7), 1 / 7)]
    assert (
        any_of(True)
        and not any_of(False)
        and of_first(3) == 3
        and float(average(torch.tensor(0.1))) == pytest.approx(0.1)
    )


def test_another_checkpoint_than_the_first_process_has(tmp_path, monkeypatch):
    crew.run(folder=tmp_path, stop=2)
    monkeypatch.setattr(checkpoint, "of_first", lambda done: 4)
    with pytest.raises(ValueError, match="ends at step 2, at 4 for the first process: all must see the same"):
        crew.run(folder=tmp_path)


@pytest.mark.parametrize(
    "device, problem",
    [
        ("cuda:1", "a GPU of its own: give cuda as device, not cuda:1"),
        ("cuda", "3 processes for 2 GPUs: --nproc_per_node 2"),
        ("mps", "on cuda or cpu, not on mps"),
    ],
)
def test_devices_that_cannot_be_shared(device, problem, monkeypatch):
    for name, value in (("TORCHELASTIC_RUN_ID", "x"), ("LOCAL_RANK", "2"), ("LOCAL_WORLD_SIZE", "3")):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ValueError, match=problem):
        join(torch.device(device))


def test_what_only_one_process_can_train(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(distributed, "size", lambda: 2)
    for what in ("clip", "judge", "noisy_classifier"):
        with pytest.raises(SystemExit):
            main(["train", what, "--out", str(tmp_path / "run")])
        assert f"{what} is trained by one process: leave torchrun away" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_parts_are_counted_from_one(capsys):
    with pytest.raises(ValueError, match="accumulate must be at least 1, got 0"):
        TrainConfig(accumulate=0)
    with pytest.raises(SystemExit):
        main(["train", "mnist", "--accumulate", "0"])
    assert "accumulate must be a number above 0, got 0" in capsys.readouterr().err


def test_one_that_fails_does_not_leave_the_others_waiting(out):
    """It would have waited ten minutes; torchrun has ended it, in the fixture."""
    assert not (out / "waited").exists()


def test_the_command_of_one_is_the_command_of_two(tmp_path, capsys):
    command = ["train", "mnist", "--steps", "3", "--batch", "8", "--device", "cpu", "--out"]
    main([*command, str(tmp_path / "one")])
    alone = capsys.readouterr().out.replace(str(tmp_path / "one"), str(tmp_path / "two"))
    status, printed, complaint = torchrun("-m", "minidiff", *command, tmp_path / "two")
    assert status == 0, complaint
    assert printed == alone  # once, not twice
    kept = {".lock", "resume-00000000.safetensors", "resume-00000003.safetensors", "log.jsonl"}
    assert {path.name for path in (tmp_path / "two").iterdir()} == {"model.json", "model.safetensors"} | kept
    one, two = (read_tensors(checkpoints(tmp_path / name)[-1]) for name in ("one", "two"))
    assert far(one, two) < 1e-5


def test_a_batch_that_cannot_be_shared(tmp_path):
    command = ["train", "mnist", "--steps", "3", "--batch", "9", "--device", "cpu", "--out", tmp_path / "run"]
    status, printed, complaints = torchrun("-m", "minidiff", *command)
    assert status != 0 and not printed and not (tmp_path / "run").exists()
    assert complaints == ["minidiff: a batch of 9 cannot be shared equally by 2 processes: take a multiple"]
