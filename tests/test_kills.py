"""benchmarks/kills.py in short: ten kills, and three signals that stop a run."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this operating system cannot fork")
def test_runs_that_were_killed_equal_one_that_was_not():
    command = [sys.executable, "benchmarks/kills.py", "--kills", "5", "--burst", "5", "--stops", "1"]
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*command, "--recipes", "clip", "mnist"], cwd=ROOT, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    counts = {}
    for each in found["counts"].values():
        for what, count in each.items():
            counts[what.split()[0]] = counts.get(what.split()[0], 0) + count
    assert found["problems"] == [] and counts["SIGKILL"] == 10
    assert counts["SIGTERM"] == counts["SIGINT"] == counts["SIGHUP"] == 1 and counts["runs"] >= 5
