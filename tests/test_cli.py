"""The command line: what works, and one clear line with exit status 2 for what does not."""

import json
import re
import shutil
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest
from PIL import Image

from minidiff import data
from minidiff.cli.main import main
from minidiff.diffusion import GRIDS, GUIDANCES, SAMPLERS, SCHEDULES
from minidiff.evaluation import evaluations
from minidiff.files import asset
from minidiff.formats.vae import load_vae
from minidiff.training.checkpoint import checkpoints, header
from minidiff.training.recipes import recipes


def run(*args):
    """The command in a process of its own: (exit status, what it printed, what it complained)."""
    done = subprocess.run([sys.executable, "-m", "minidiff", *map(str, args)], capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


def picture(path):
    """(width, height, frames)"""
    with Image.open(path) as image:
        return *image.size, getattr(image, "n_frames", 1)


def refused(capsys, *args):
    with pytest.raises(SystemExit) as stop:
        main([str(arg) for arg in args])
    captured = capsys.readouterr()
    assert stop.value.code == 2 and captured.out == ""
    assert captured.err.startswith("minidiff: ") and captured.err.count("\n") == 1, captured.err
    return captured.err


def test_one_command_writes_both_digits_and_again_the_same(tmp_path):
    args = ("sample", "a handwritten seven", "3", "--model", "mnist", "--steps", 20, "--scale", 2, "--seed", 0, "--out")
    for name in ("x.png", "y.png"):
        code, out, _ = run(*args, tmp_path / name)
        assert code == 0 and out == f"{tmp_path / name}: 2 images\n"
    assert (tmp_path / "x.png").read_bytes() == (tmp_path / "y.png").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.png", "y.png"]
    assert picture(tmp_path / "x.png") == (2 * 116 + 4, 116 + 4, 1)


def test_n_pictures_of_each_prompt_and_animations(tmp_path, capsys):
    main(["sample", "7", "-n", "8", "--steps", "2", "--out", str(tmp_path / "eight.png")])
    assert "8 images" in capsys.readouterr().out
    assert picture(tmp_path / "eight.png")[0] == 8 * 116 + 4
    for name in ("walk.gif", "walk.apng"):
        main(["sample", "7", "--steps", "3", "--out", str(tmp_path / name)])
        assert picture(tmp_path / name)[2] >= 3


@pytest.mark.parametrize(
    "args, problem",
    [
        (["7", "--model", "mnst"], "unknown model 'mnst'; there is color_digits, emoji, mnist"),
        (["a cat"], 'the prompt "a cat" names no digit'),
        ([""], 'the prompt "" is empty'),
        ([], "no prompt was given"),
        (["7", "--steps", "0"], "steps must be at least 1, got 0"),
        (["7", "--steps", "-3"], "steps must be at least 1, got -3"),
        (["7", "--steps", "many"], "many"),
        (["7", "--scale", "nan"], "scale must be a finite number, got nan"),
        (["7", "--scale", "inf"], "scale must be a finite number, got inf"),
        (["7", "--sampler", "magic"], "unknown sampler 'magic'; there is ddpm, ddim"),
        (["7", "-n", "0"], "n must be at least 1, got 0"),
        (["7", "--seed", "-1"], "seed must lie between"),
        (["7", "--device", "tpu"], "no device 'tpu' here; there is"),
        (["7", "--bogus", "1"], "--bogus"),
    ],
)
def test_bad_input_to_sample(tmp_path, capsys, args, problem):
    assert problem in refused(capsys, "sample", *args, "--out", tmp_path / "x.png")
    assert list(tmp_path.iterdir()) == []


def test_output_that_cannot_be_written(tmp_path, capsys):
    assert "there is no folder" in refused(capsys, "sample", "7", "--out", tmp_path / "none" / "x.png")
    assert "must end in .png" in refused(capsys, "sample", "7", "--out", tmp_path / "x.txt")
    (tmp_path / "x.png").mkdir()
    assert "it is a folder" in refused(capsys, "sample", "7", "--out", tmp_path / "x.png")


def test_a_picture_that_was_there_survives_a_mistake(tmp_path, capsys):
    (tmp_path / "x.png").write_bytes(b"precious")
    refused(capsys, "sample", "a cat", "--out", tmp_path / "x.png")
    assert (tmp_path / "x.png").read_bytes() == b"precious"


def test_damaged_weights(tmp_path, capsys):
    shutil.copytree(asset("weights/mnist"), tmp_path / "m")
    weights = tmp_path / "m" / "model.safetensors"
    whole = weights.read_bytes()
    for broken in (whole[:1000], b"random bytes, not a model"):
        weights.write_bytes(broken)
        problem = refused(capsys, "sample", "7", "--model", tmp_path / "m", "--out", tmp_path / "x.png")
        assert "not a whole safetensors file" in problem
    assert not (tmp_path / "x.png").exists()


def test_training_writes_a_model_that_draws_and_goes_on_where_it_was(tmp_path, capsys):
    folder = tmp_path / "run"
    main(["train", "mnist", "--steps", "3", "--batch", "8", "--out", str(folder)])
    assert f"minidiff sample 7 --model {folder}" in capsys.readouterr().out
    main(["sample", "7", "--steps", "2", "--model", str(folder), "--out", str(tmp_path / "x.png")])
    weights = (folder / "model.safetensors").read_bytes()
    main(["train", "mnist", "--steps", "3", "--batch", "8", "--out", str(folder)])
    assert "done" in capsys.readouterr().out and (folder / "model.safetensors").read_bytes() == weights


def test_ctrl_c_keeps_what_is_done(tmp_path):
    folder = tmp_path / "run"
    command = [sys.executable, "-m", "minidiff", "train", "mnist", "--steps", "10000", "--batch", "4", "--out", folder]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        shown = ""
        while "/10000" not in shown:  # until the progress bar is there
            assert process.poll() is None, shown
            shown += process.stderr.read(1)
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=60)
    assert process.returncode == 130 and "stopped; the same command resumes it" in out
    assert header(checkpoints(folder)[-1])["step"] > 0
    assert run("sample", "7", "--steps", 1, "--model", folder, "--out", tmp_path / "x.png")[0] == 0


def test_minutes_become_steps_once_and_stay_the_same(tmp_path, monkeypatch):
    from minidiff.training import denoiser
    from minidiff.training.checkpoint import planned_steps

    monkeypatch.setattr(denoiser, "seconds_a_step", lambda trial: 0.002)
    for _ in range(2):  # the second time there is nothing left to do, and the speed is not asked
        main(["train", "mnist", "--minutes", "0.001", "--batch", "4", "--out", str(tmp_path / "run")])
        assert planned_steps(tmp_path / "run") == 30  # 0.06 s of 2 ms each
        monkeypatch.setattr(denoiser, "seconds_a_step", lambda trial: 1e-9)


def test_the_speed_is_measured_in_steps():
    from minidiff.training.denoiser import seconds_a_step

    taken = []
    assert seconds_a_step(iter(lambda: taken.append(1), 0), count=5) > 0 and len(taken) == 15


def test_slow_steps_are_measured_over_fewer(monkeypatch):
    from minidiff.training import denoiser as speed

    clock = []
    monkeypatch.setattr(speed, "time", SimpleNamespace(perf_counter=lambda: 15.0 * len(clock)))
    assert speed.seconds_a_step(iter(lambda: clock.append(1), 0)) == 15 and len(clock) == 4  # not 30, and 450 seconds


@pytest.mark.parametrize(
    "args, problem",
    [
        (["cats"], "cats"),
        (["mnist", "--minutes", "0"], "minutes must be a number above 0"),
        (["mnist", "--minutes", "nan"], "minutes must be a number above 0"),
        (["mnist", "--steps", "-1"], "steps must be a number above 0"),
        (["mnist", "--batch", "0"], "batch must be a number above 0"),
        (["mnist", "--steps", "5", "--minutes", "1"], "not both"),
        (["mnist", "--steps", "5", "--seed", "-1"], "seed must lie between"),
        (["mnist", "--data", "x"], "mnist does not take --data"),
        (["vae", "--accumulate", "2"], "vae does not take --accumulate"),
        (["mnist", "--dtype", "float16"], "--dtype"),
    ],
)
def test_bad_input_to_train(tmp_path, capsys, args, problem):
    assert problem in refused(capsys, "train", *args, "--out", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_bad_input_to_evaluate(capsys):
    assert "n must lie between 65" in refused(capsys, "evaluate", "mnist", "-n", "0")
    assert "unknown model" in refused(capsys, "evaluate", "nobody")
    assert "steps must be at least 1" in refused(capsys, "evaluate", "-n", "100", "--steps", "0")
    assert "nothing.safetensors" in refused(capsys, "evaluate", "--inception", "nothing.safetensors")


def test_evaluate_prints_a_table_or_json(capsys):
    settings = ["evaluate", "mnist", "-n", "65", "--split", "validation", "--steps", "1", "--seed", "3"]
    main(settings)
    shown = capsys.readouterr().out
    assert all(words in shown for words in ("recall", "n = 65, seed 3, scale 1.5, 1 steps of dpmpp_2m", "machine: cpu"))
    main([*settings, "--json"])
    report = json.loads(capsys.readouterr().out)
    assert report["n"] == 65 and f"{report['recall']:.3f}" in shown and f"{report['frechet']:.2f}" in shown


def test_a_command_that_does_not_exist_and_help():
    code, _, error = run("paint")
    assert code == 2 and error.count("\n") == 1 and "paint" in error
    code, out, _ = run("--help")
    assert code == 0 and all(command in out for command in ("sample", "train", "evaluate", "list", "doctor"))


def test_list_and_doctor(capsys):
    main(["list"])
    rows = [re.split("  +", line, maxsplit=2) for line in capsys.readouterr().out.splitlines()]
    assert ["data set", "mnist"] in [row[:2] for row in rows] and len({row[0] for row in rows}) > 5
    for kind, known in (("data set", data.DATASETS), ("recipe", recipes()), ("evaluation", evaluations())):
        assert [row[1] for row in rows if row[0] == kind] == list(known)
    for kind, known in (("samplers", SAMPLERS), ("schedules", SCHEDULES), ("grids", GRIDS), ("guidances", GUIDANCES)):
        assert [kind, ", ".join(known)] in rows
    with pytest.raises(SystemExit) as stop:
        main(["doctor"])
    assert stop.value.code == 0, capsys.readouterr().out


def test_words_from_training_to_pictures_and_what_is_not_read_is_said(tmp_path, capsys):
    folder, out = tmp_path / "run", tmp_path / "x.png"
    main(["train", "color_digits", "--steps", "2", "--batch", "4", "--out", str(folder)])
    assert "draw with it: minidiff sample" in capsys.readouterr().out
    main(["sample", "a red seven", "a red elephant", "--model", str(folder), "--steps", "1", "--out", str(out)])
    said = capsys.readouterr()
    assert said.out == f"{out}: 2 images\n" and picture(out) == (2 * 132 + 4, 132 + 4, 1)
    assert said.err.count("minidiff: ") == 1 and "not in the vocabulary, read in pieces: elephant\n" in said.err
    main(["evaluate", str(folder), "-n", "20", "--steps", "1", "--scale", "1"])
    table = capsys.readouterr().out
    assert "never-seen" in table and "n = 20, seed 0" in table


def test_a_clip_from_training_to_retrieval(tmp_path, capsys):
    main(["train", "clip", "--steps", "2", "--batch", "64", "--out", str(tmp_path)])
    assert f"minidiff evaluate {tmp_path}" in capsys.readouterr().out
    main(["evaluate", str(tmp_path), "--json"])
    assert json.loads(capsys.readouterr().out)["split"] == "test"


def test_a_vae_is_trained_and_loads(tmp_path, capsys):
    main(["train", "vae", "--steps", "2", "--batch", "2", "--out", str(tmp_path)])
    assert f"benchmarks/vae.py --vae {tmp_path}" in capsys.readouterr().out
    assert load_vae(tmp_path).config.factor == 4


def test_emoji_are_drawn_from_words(tmp_path, capsys):
    out = tmp_path / "apple.png"
    main(["sample", "a twemoji emoji of a red apple", "--model", "emoji", "--steps", "2", "--out", str(out)])
    said = capsys.readouterr()
    assert said.out == f"{out}: 1 image\n" and "minidiff:" not in said.err  # every word is known
    main(["sample", "a noto emoji of a zeppelin", "--model", "emoji", "--steps", "1", "--out", str(out)])
    assert "in no caption of its training, read in pieces: zeppelin" in capsys.readouterr().err
