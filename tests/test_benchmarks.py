"""The experiments: what may be said, that a stopped run goes on, and that what is timed is what is said."""

import importlib.util
import json
import sys
from dataclasses import replace
from itertools import repeat
from pathlib import Path

import pytest
import torch

from minidiff.networks import VAE, UNetConfig, VAEConfig
from minidiff.training.denoiser import DenoiserRecipe
from minidiff.training.recipes import RECIPES

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def load(name: str):
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


experiment = load("experiment")
recipe, ablations, quality, vae = load("recipe"), load("ablations"), load("time_to_quality"), load("vae")
latents, ladder, true_size = load("latents"), load("gpu_ladder"), load("true_size")
SETTINGS = {"command": "python x.py", "machine": "here", "n": 9, "scale": 1.5, "seeds": [0, 1, 2]}


def test_a_difference_is_taken_seed_by_seed():
    base = [100.0, 200.0, 300.0]  # seeds differ much; the row is better by 9, 10 and 11 with each
    mean, std = experiment.difference([91.0, 190.0, 289.0], base)
    assert (mean, std) == (pytest.approx(-10), pytest.approx(1))


@pytest.mark.parametrize(
    "row, less_is_better, said",
    [
        ([9.0, 8.0, 7.0], True, "not significant"),  # -2 +- 1: exactly two standard deviations
        ([8.9, 7.9, 6.9], True, "helps"),  # -2.1 +- 1
        ([8.9, 7.9, 6.9], False, "hurts"),
        ([11.1, 12.1, 13.1], True, "hurts"),
        ([11.1, 12.1, 13.1], False, "helps"),
        ([10.0, 10.0, 10.0], True, "not significant"),  # nothing changed at all
        ([1.0], True, "not significant"),  # one seed says nothing, however large the difference
    ],
)
def test_verdicts(row, less_is_better, said):
    assert experiment.verdict(row, [10.0, 10.0, 10.0], less_is_better) == said


def test_a_stopped_experiment_goes_on_where_it_was(tmp_path):
    path, asked = tmp_path / "runs" / "x.json", []

    def work(seed: int) -> dict[str, float]:
        if len(asked) == 4:
            raise KeyboardInterrupt
        asked.append(seed)
        return {"frechet": 10.0 + seed, "accuracy": 0.5}

    def experiment_of_two(work):
        results = experiment.open_results(path, SETTINGS)
        for name in ("base", "other"):
            experiment.fill(path, results, name, work, what=f"the {name}", parameters=1000, steps=7)
        return results

    with pytest.raises(KeyboardInterrupt):
        experiment_of_two(work)
    assert [len(row["frechet"]) for row in json.loads(path.read_text())["rows"]] == [3, 1]
    results = experiment_of_two(lambda seed: asked.append(seed) or {"frechet": 5.0 + seed, "accuracy": 0.4})
    assert asked == [0, 1, 2, 0, 1, 2]
    assert results == json.loads(path.read_text())
    assert results["rows"][1]["frechet"] == [10.0, 6.0, 7.0]
    experiment_of_two(None)  # nothing left to do
    with pytest.raises(ValueError, match="was made with n 9, not 10"):
        experiment.open_results(path, SETTINGS | {"n": 10})


def test_the_table_has_a_line_for_each_row():
    rows = [
        {
            "name": "a",
            "what": "all",
            "parameters": 1234,
            "steps": 5,
            "frechet": [9.0, 10.0, 11.0],
            "accuracy": [0.5] * 3,
        },
        {"name": "b", "what": "less", "parameters": 12, "steps": 5, "frechet": [1.0, 2.0, 3.5], "accuracy": [0.5] * 3},
        {"name": "c", "what": "begun", "parameters": 12, "steps": 5, "frechet": [1.0], "accuracy": [0.9]},
    ]
    lines = experiment.table(SETTINGS | {"rows": rows, "seconds": 120.0}).splitlines()
    assert lines[2].startswith("| all | 1,234 | 5 | 10.00 ± 1.00 |  |  | 50.0% ± 0.0% |")
    assert "| 2.17 ± 1.26 | -7.83 ± 0.17 | helps |" in lines[3] and lines[3].endswith(
        "| +0.0% ± 0.0% | not significant |"
    )
    assert "| 1.00 | -8.00 | not significant |" in lines[4]
    assert "n = 9, seeds 0, 1, 2, validation split" in lines[7] and "2 minutes" in lines[8]


def test_every_recipe_changes_one_thing_and_can_be_built():
    base = recipe.RECIPES[0]
    assert len({r.name for r in recipe.RECIPES}) == len(recipe.RECIPES)
    for other in recipe.RECIPES[1:]:
        assert (other.model, other.train, other.batch) != (base.model, base.train, base.batch), other.name
        other.model.build()


def test_an_untouched_network_uses_all_its_parameters():
    torch.manual_seed(0)
    net = recipe.RECIPES[0].model.build()
    assert ablations.used(net) == sum(p.numel() for p in net.parameters())


MEASURED = {"n": 200, "seed": 0, "speed": {"ours": 0.2, "peer": 1.8, "machine": "here"}}
OURS = [{"steps": 100, "accuracy": 0.5}, {"steps": 300, "accuracy": 0.96}, {"steps": 400, "accuracy": 0.99}]


@pytest.mark.parametrize(
    "last, said",
    [
        (0.95, "ours after 60 seconds, the peer after 60.0 minutes\nratio: 60.0;"),
        (0.94, "ours after 60 seconds, the peer not within 60 minutes\nratio: at least 60.0;"),
    ],
)
def test_the_time_to_quality_is_steps_times_seconds_a_step(last, said, tmp_path, capsys):
    peer = [{"steps": 1000, "accuracy": 0.8}, {"steps": 2000, "accuracy": last}]
    options = quality.Options("table", out=tmp_path / "q.json")
    quality.table(options, MEASURED | {"ours": OURS, "peer": peer})
    assert said in capsys.readouterr().out
    assert (tmp_path / "q.png").stat().st_size > 5000
    with pytest.raises(ValueError, match="ours never reached 95%"):
        quality.table(options, MEASURED | {"ours": OURS[:1], "peer": peer})


def test_both_contestants_train_and_draw():
    labels = torch.tensor([3, 8])
    for run, draw in ((quality.our_run(2, 0), quality.our_digits), (quality.peer_run(0), quality.peer_digits)):
        first = next(run)
        pictures = draw(first.net if hasattr(first, "net") else first[-1], labels, 2)
        assert pictures.shape == (2, 1, 28, 28) and pictures.isfinite().all() and pictures.abs().max() <= 1


def test_the_vae_is_measured(capsys):
    vae.main(vae.Options(n=4, device="cpu"))
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines[1:5]] == [[split, "4"] for split in vae.SPLITS]
    assert vae.decibels(torch.zeros(4), torch.full((4,), 0.2)) == pytest.approx(20)  # 10 log10(4 / 0.04)
    assert "tiles of 256" in lines[-3] and "tiles of 128" in lines[-2]


# Latents against pixels --------------------------------------------------------------------

TINY = UNetConfig(4, 4, (8, 16), (False, True), layers=1, heads=2, context_dim=8, groups=4, pooled=True)


@pytest.fixture
def small(monkeypatch):
    """A tiny UNet and a tiny VAE of factor 4 in the place of the emoji model's."""
    monkeypatch.setattr(latents, "EMOJI", replace(latents.EMOJI, unet=TINY, fold=1))
    monkeypatch.setattr(latents, "EMOJI_VAE", VAEConfig(channels=(4, 4, 8), layers=1, groups=4))
    monkeypatch.setattr(latents, "PICTURES", 16)
    return latents.Options(repeats=2, batch=2, side=16, device="cpu")


def test_latents_and_pixels_take_turns(small, tmp_path, monkeypatch, capsys):
    turns, encoded, plain, whole = [], [], VAE.encode, latents.training

    def told(config, pictures, each, *rest):
        for progress in whole(config, pictures, each, *rest):
            turns.append(config.in_channels)
            yield progress

    def spy(vae, x):
        encoded.append(len(x))
        return plain(vae, x)

    monkeypatch.setattr(latents, "training", told)
    monkeypatch.setattr(VAE, "encode", spy)
    small.out = tmp_path / "runs" / "latents.json"
    latents.main(small)
    assert turns == [4, 4, 12, 3] * (latents.WARM + 2)
    # all at once for the first row; for the second a batch at every step, besides one for its shape and one to count
    assert encoded == [16, 1, 1] + [2] * (latents.WARM + 2)

    results = json.loads(small.out.read_text())
    cached, encoding, folded, pixels = results["rows"]
    assert [row["shape"] for row in results["rows"]] == [[4, 4, 4], [4, 4, 4], [12, 8, 8], [3, 16, 16]]
    a_channel = 8 * 9 + 8 * 9 + 1  # of the first convolution, and of the last with its bias
    for row in results["rows"]:
        assert row["parameters"] - pixels["parameters"] == (row["shape"][0] - 3) * a_channel
        assert len(row["seconds"]) == len(row["cpu_seconds"]) == 2 and min(row["seconds"]) > 0
    assert cached["flops"] < encoding["flops"] and 9 * cached["flops"] < 3 * folded["flops"] < pixels["flops"]

    said = capsys.readouterr().out
    latents.main(latents.Options(table=small.out))
    assert capsys.readouterr().out == said


def test_the_ratio_is_of_medians():
    row = {"shape": [4, 4, 4], "parameters": 1234, "flops": 2_500_000}
    made_up = {"command": "python x.py", "n": 3, "batch": 10, "seed": 0, "machine": "here"}
    made_up["rows"] = [
        row | {"name": "latents", "seconds": [0.1, 0.2, 0.4], "cpu_seconds": [0.1, 0.1, 0.1]},
        row | {"name": "pixels", "seconds": [2.0, 1.0, 9.0], "cpu_seconds": [1.0, 0.8, 0.9]},
    ]
    lines = latents.table(made_up).splitlines()
    assert " ".join(lines[1].split()) == "latents 4 x 4 x 4 1,234 0.003 50.0 33.3 to 66.7 10.0 9.0"
    assert lines[2].split()[-2:] == ["1.0", "1.0"] and lines[-1] == "float32; here"


def test_one_step_has_no_quartiles_and_no_picture_no_speed(small):
    with pytest.raises(ValueError, match="repeats must be at least 2, got 1"):
        latents.measure(replace(small, repeats=1))
    with pytest.raises(ValueError, match="batch must be at least 1, got 0"):
        latents.measure(replace(small, batch=0))


# The ladder --------------------------------------------------------------------------------


@pytest.fixture
def rungs(monkeypatch):
    """A tiny mnist model, and options for the shortest run."""
    preset = RECIPES["mnist"]
    tiny = replace(preset, config=replace(preset.config, unet=replace(TINY, pooled=False)))
    monkeypatch.setitem(ladder.RECIPES, "mnist", tiny)
    return ladder.Options(model="mnist", device="cpu", batch=2, steps=1, windows=2, warm=1)


@pytest.fixture
def asked(monkeypatch):
    """Nothing is trained: what would be asked of the loop is noted."""
    noted = []

    def train(net, schedule, pred, batches, config, null):
        rows = net.unet.conv_in.weight.is_contiguous(memory_format=torch.channels_last)
        noted.append((config.bf16, rows, config.fused, config.compile, config.graphs))
        if config.compile and not config.fused:
            raise RuntimeError("no compiler here\nand much more")
        return repeat(None)

    monkeypatch.setattr(ladder, "train", train)
    return noted


def test_each_rung_keeps_those_below(rungs, asked, monkeypatch):
    monkeypatch.setattr(ladder, "missing", lambda *_: None)
    results = ladder.measure(rungs)
    assert [row["rung"] for row in results["rows"]] == [ladder.BASE, *ladder.RUNGS]
    assert asked == [tuple(k < n for k in range(5)) for n in range(6)]
    first, second, third = results["rows"][:3]
    assert first["ratio"] == 1 and second["ratio"] == second["median"] / first["median"]
    assert third["ratio"] == third["median"] / second["median"]
    assert results["left_out"] == {} and len(first["images_s"]) == 2


def test_a_rung_that_is_switched_off_or_fails_is_left_out(rungs, asked):
    results = ladder.measure(replace(rungs, bf16=False, fused=False))
    assert [row["rung"] for row in results["rows"]] == [ladder.BASE, "channels_last"]
    assert results["left_out"] == {
        "compile": "failed: no compiler here",
        "graphs": "CUDA graphs do not exist on cpu",
    }
    assert "left out: compile (failed: no compiler here)" in ladder.table(results)


def test_what_a_device_has_not(monkeypatch):
    cuda = torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    assert "bfloat16" in ladder.missing("bf16", [], cuda) and ladder.missing("bf16", [], torch.device("cpu")) is None
    assert ladder.missing("graphs", ["compile"], cuda) is None and "compile" in ladder.missing("graphs", [], cuda)


def test_a_real_ladder_on_a_cpu_says_so(rungs, tmp_path, capsys):
    rungs.out = tmp_path / "runs" / "ladder.json"
    ladder.main(replace(rungs, compile=False))
    said = capsys.readouterr().out
    results = json.loads(rungs.out.read_text())
    assert [row["rung"] for row in results["rows"]] == [ladder.BASE, "bf16", "channels_last", "fused"]
    assert said.endswith("Measured on a CPU: nothing about GPUs follows from it.\n") and "MFU:" not in said
    ladder.main(ladder.Options(table=rungs.out))
    assert capsys.readouterr().out == said


def test_the_share_of_the_peak(rungs, asked, monkeypatch):
    """A device of this speed: the network's operations for each picture, over the planner's peak."""
    assert set(ladder.KNOWN.values()) <= set(ladder.GPUS)
    monkeypatch.setattr(ladder, "pick_device", lambda name: torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla T4")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    monkeypatch.setattr(ladder, "training", lambda *_: None)
    monkeypatch.setattr(ladder, "timed", lambda *_: {"images_s": [1e6, 3e6, 2e6], "memory": 5e9})
    results = ladder.measure(replace(rungs, graphs=False))
    assert results["rows"][0]["mfu"] == pytest.approx(2e6 * results["flops"] / 65e12)
    lines = ladder.table(results).splitlines()
    assert lines[1].split()[-2:] == ["5.00", "GB"] and "%" in lines[1] and "cuda (Tesla T4" in lines[-2]
    assert "CPU" not in lines[-1]
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H100 PCIe")
    results = ladder.measure(replace(rungs, graphs=False))
    assert results["rows"][0]["mfu"] is None and "%" not in ladder.table(results)


def test_every_model_has_a_size():
    models = [name for name, recipe in RECIPES.items() if isinstance(recipe, DenoiserRecipe)]
    assert ladder.Options.model in models
    for name in models:
        (channels, side, _), tokens = ladder.seen(RECIPES[name])
        assert channels == RECIPES[name].config.unet.in_channels and side in (14, 16, 32) and tokens in (2, 32)


def test_numbers_that_cannot_be(rungs):
    for name in ("steps", "windows", "warm", "batch"):
        with pytest.raises(ValueError, match=f"^{name} must be at least 1, got 0"):
            ladder.measure(replace(rungs, **{name: 0}))


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_ours_and_theirs_in_processes_of_their_own(capsys):
    true_size.main(true_size.Options(size="tiny", n=1, seconds=0.0, turns=1))
    lines = {line.split()[0]: line.split() for line in capsys.readouterr().out.splitlines()[1:]}
    for part in ("text", "unet", "vae"):
        _, ours, _, theirs, _, ratio, apart = lines[part]
        assert float(ours) >= 0 and float(theirs) >= 0 and float(ratio) > 0
        assert float(apart) < 1e-3
    assert 0 < float(lines["memory"][-5]) < 1.2 and lines["load"][2] == "s"
