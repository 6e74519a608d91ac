"""Numbers and names that nobody can mean."""

import pytest

SAMPLE = [
    (["7", "-n", 0], "n must be at least 1"),
]


@pytest.mark.parametrize("args, says", SAMPLE)
def test_sample(trial, args, says):
    trial.refused("sample", "--steps", "1", *args, "--out", trial.folder / "x.png", says=says)


def test_in_a_process_of_its_own(trial):
    nothing, done = trial.apart(["sample", "7", "-n", "0"], ["sample", "7", "--steps", "1"])
    assert nothing.code == 2 and done.code == 0
