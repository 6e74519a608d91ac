"""One folder, one process and one count for all bad inputs. `make fuzz` mutates on, with other random numbers."""

from collections import Counter

import pytest
from hostile.harness import Trial
from hypothesis import HealthCheck, settings

HELD = {"deadline": None, "database": None, "suppress_health_check": list(HealthCheck)}
settings.register_profile("suite", derandomize=True, max_examples=40, **HELD)
settings.register_profile("fuzz", max_examples=5000, print_blob=True, **HELD)
settings.load_profile("suite")


@pytest.fixture
def trial(tmp_path, monkeypatch, record_property):
    monkeypatch.chdir(tmp_path)
    trial = Trial(tmp_path)
    yield trial
    record_property("bad inputs", (trial.tried, len(trial.refusals)))


def pytest_terminal_summary(terminalreporter):
    tried, refused = Counter(), Counter()
    for report in terminalreporter.getreports(""):  # those of setup and teardown
        for name, value in getattr(report, "user_properties", ()):
            if name == "bad inputs" and report.when == "teardown":
                file = report.nodeid.split("::")[0].split("/")[-1]
                tried[file] += value[0]
                refused[file] += value[1]
    for file in tried:
        counts = f"{tried[file]} bad inputs, {refused[file]} refused, the others taken"
        terminalreporter.write_line(f"{file}: {counts}")
