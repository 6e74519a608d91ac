"""The one-place rule on the command line: what is registered, also at run time, every command accepts."""

import importlib.util
import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from minidiff import TextToImage
from minidiff.cli.main import main
from minidiff.course import checks
from minidiff.course.checks import CHECKS
from minidiff.data import DATASETS
from minidiff.data.mnist import idx_dataset
from minidiff.diffusion import (
    DEFAULT_SAMPLER,
    GRIDS,
    GUIDANCES,
    PREDICTIONS,
    SAMPLERS,
    SCHEDULES,
    Prediction,
    Schedule,
    denoiser,
    uniform,
)
from minidiff.evaluation import EVALUATIONS
from minidiff.evaluation.report import Evaluation, Report
from minidiff.registry import UserError
from minidiff.training.optimise import OptimConfig
from minidiff.training.recipe import RECIPES, Recipe

NAME = "one_more"
ANIMALS = ("ant", "bee", "cat", "dog", "eel", "fox", "gnu", "hen", "ibis", "jay")


@pytest.fixture
def registered(monkeypatch, tmp_path):
    """A new one of everything that a model of images is made and sampled with; which of them were called."""
    called = []

    def noted(kind, function):
        def call(*args, **options):
            called.append(kind)
            return function(*args, **options)

        return call

    path = Schedule(lambda t: (1 - t).sqrt(), lambda t: t.sqrt(), lambda t: 1000 * t)
    monkeypatch.setitem(SCHEDULES, NAME, noted("schedule", lambda: path))
    monkeypatch.setitem(PREDICTIONS, NAME, Prediction(NAME, noted("prediction", lambda alpha, sigma: (1, -2))))
    monkeypatch.setitem(SAMPLERS, NAME, noted("sampler", SAMPLERS[DEFAULT_SAMPLER]))
    monkeypatch.setitem(GRIDS, NAME, noted("grid", lambda n, schedule: uniform(n, schedule) ** 2))
    conditional = lambda net, schedule, pred, context, null, scale: denoiser(net, schedule, pred, context)  # noqa: E731
    monkeypatch.setitem(GUIDANCES, NAME, noted("guidance", conditional))
    monkeypatch.setitem(DATASETS, NAME, None)  # so that it is taken out again
    idx_dataset(NAME, idx_files(tmp_path / "animals"), ANIMALS)
    return called


def idx_files(folder: Path) -> Path:
    folder.mkdir()
    rng = np.random.default_rng(0)
    for file, n in (("train", 240), ("t10k", 200)):
        for kind, shape in (("images-idx3", (n, 28, 28)), ("labels-idx1", (n,))):
            header = bytes((0, 0, 8, len(shape))) + np.array(shape, ">u4").tobytes()
            content = rng.integers(256 if len(shape) == 3 else 10, size=shape).astype(np.uint8)
            (folder / f"{file}-{kind}-ubyte").write_bytes(header + content.tobytes())
    return folder


def typed(capsys, *words: str) -> str:
    main([*words])
    return capsys.readouterr().out


def test_a_new_one_of_everything(registered, tmp_path, capsys, monkeypatch):
    folder, sheet = str(tmp_path / "run"), tmp_path / "fox.png"
    chosen = ["--prediction", NAME, "--schedule", NAME]
    said = typed(capsys, "train", NAME, "--steps", "2", "--batch", "8", "--out", folder, *chosen)
    assert "done" in said and {"schedule", "prediction"} <= set(registered)
    config = json.loads((tmp_path / "run/model.json").read_text())
    assert [config[field] for field in ("name", "labels", "prediction", "schedule")] == [NAME] * 4

    chosen = ["--sampler", NAME, "--grid", NAME, "--guidance", NAME, "--steps", "2"]
    typed(capsys, "sample", "a photo of a fox", "--model", folder, "--out", str(sheet), *chosen)
    assert sheet.stat().st_size and {"sampler", "grid", "guidance"} <= set(registered)

    with pytest.raises(SystemExit) as stop:  # its labels have an evaluation, in Inception's features
        typed(capsys, "evaluate", folder, "-n", "65", "--steps", "2")
    assert stop.value.code == 2 and "--inception" in capsys.readouterr().err

    monkeypatch.setitem(EVALUATIONS, NAME, Evaluation("how red they are", redness, NAME))
    said = typed(capsys, "evaluate", folder, "-n", "3", "--steps", "2", "--json")
    assert json.loads(said)["red"] == 0.0  # by the model's name
    assert json.loads(typed(capsys, "evaluate", folder, "-n", "3", "--evaluation", NAME, "--json"))["n"] == 3


@dataclass(frozen=True, kw_only=True)
class Redness(Report):
    n: int
    red: float

    def table(self) -> list[str]:
        return [f"red  {self.red}"]


def redness(
    pipe: TextToImage, n: int = 4, *, split: str = "test", steps: int = 2, seed: int = 0, progress=None
) -> Redness:
    images = pipe.decode(pipe.latents(list(ANIMALS[:n]), steps=steps, seed=seed))
    return Redness(model=pipe.config.name, split=split, seed=seed, machine="", n=len(images), red=0.0)


def test_a_recipe(monkeypatch, tmp_path, capsys):
    @dataclass(frozen=True, kw_only=True)
    class Nothing(Recipe):
        def run(self, folder, device, config, batch):
            for step in range(config.steps):
                yield step + 1, config.steps, 0.5

    monkeypatch.setitem(
        RECIPES, NAME, Nothing(about="nothing", batch=1, train=OptimConfig(steps=3), after="look: {folder}")
    )
    assert f"look: {tmp_path}" in typed(capsys, "train", NAME, "--out", str(tmp_path))
    with pytest.raises(SystemExit):
        main(["train", NAME, "--out", str(tmp_path), "--schedule", "flow"])
    assert f"{NAME} does not take --schedule" in capsys.readouterr().err


def test_everything_is_listed(registered, monkeypatch, capsys):
    monkeypatch.setitem(EVALUATIONS, NAME, Evaluation("how red they are", redness, "mnist"))
    said = typed(capsys, "list")
    kinds = [line.split("  ")[0] for line in said.splitlines() if NAME in line]
    assert kinds == ["data set", "recipe", "evaluation", "samplers", "schedules", "predictions", "grids", "guidances"]
    for unknown in (["sample", "7", "--sampler"], ["sample", "7", "--grid"], ["sample", "7", "--guidance"],
                    ["train", "mnist", "--schedule"], ["train", "mnist", "--prediction"], ["train"],
                    ["evaluate", "mnist", "--evaluation"]):  # fmt: skip
        with pytest.raises(SystemExit) as stop:
            main([*unknown, "nonsense"])
        line = capsys.readouterr().err
        assert stop.value.code == 2 and line.count("\n") == 1 and "unknown" in line and "'nonsense'" in line
        assert NAME in line or unknown[0] == "evaluate"  # what could have been meant


def test_a_check(monkeypatch, capsys):
    known = next(iter(CHECKS.values()))
    monkeypatch.setitem(CHECKS, "l99_one_more", replace(known, name="l99_one_more"))
    checks.l99_one_more(known.right)
    assert "Right: l99_one_more" in capsys.readouterr().out
    spec = importlib.util.spec_from_file_location("build", Path(__file__).parent.parent / "notebooks/build.py")
    build = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(build)
    assert "## l99_one_more" in build.mistakes()


def test_samplers_of_the_pipeline_follow_the_registry(registered, tmp_path):
    """In Python as on the command line; latents alone, nothing is decoded."""
    pipe = TextToImage.load("mnist", device="cpu")
    for name in SAMPLERS:
        assert pipe.latents(["7"], sampler=name, steps=2, scale=1).isfinite().all()
    for grid in ("uniform", "karras", NAME):
        assert pipe.latents(["7"], grid=grid, steps=2, scale=1).isfinite().all()
    assert torch.equal(pipe.latents(["7"], steps=2, guidance=NAME), pipe.latents(["7"], steps=2, scale=1))


def test_a_weak_model_sees_the_same_noise():
    """Of another schedule it would see another amount of noise than it was trained for."""
    pipe = TextToImage.load("mnist", device="cpu")
    other = TextToImage(replace(pipe.config, schedule="cosine"), pipe.net, "cpu")
    with pytest.raises(UserError, match="does not draw images of the same kind"):
        pipe.stream(["7"], guidance="autoguidance", weak=other)
    pipe.stream(["7"], guidance="autoguidance", weak=pipe)
