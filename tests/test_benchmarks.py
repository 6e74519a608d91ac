"""The experiments: what may be said, and that a stopped run goes on."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def load(name: str):
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


experiment = load("experiment")
recipe, ablations, quality = load("recipe"), load("ablations"), load("time_to_quality")
SETTINGS = {"command": "python x.py", "machine": "here", "n": 9, "scale": 1.5, "seeds": [0, 1, 2]}


def test_a_difference_is_taken_seed_by_seed():
    base = [100.0, 200.0, 300.0]  # seeds differ much; the row is better by 9, 10 and 11 with each
    mean, std = experiment.difference([91.0, 190.0, 289.0], base)
    assert (mean, std) == (pytest.approx(-10), pytest.approx(1))


@pytest.mark.parametrize(
    "row, less_is_better, said",
    [
        ([9.0, 8.0, 7.0], True, "undecided"),  # -2 +- 1: exactly two standard deviations
        ([8.9, 7.9, 6.9], True, "helps"),  # -2.1 +- 1
        ([8.9, 7.9, 6.9], False, "hurts"),
        ([11.1, 12.1, 13.1], True, "hurts"),
        ([11.1, 12.1, 13.1], False, "helps"),
        ([10.0, 10.0, 10.0], True, "undecided"),  # nothing changed at all
        ([1.0], True, "undecided"),  # one seed says nothing, however large the difference
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
    assert "| 2.17 ± 1.26 | -7.83 ± 0.17 | helps |" in lines[3] and lines[3].endswith("| +0.0% ± 0.0% | undecided |")
    assert "| 1.00 | -8.00 | undecided |" in lines[4]
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
