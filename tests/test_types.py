"""The rooms that a learner reads carry types, and they are right: basedpyright finds no error in them."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_no_type_error():
    command = [sys.executable, "-m", "basedpyright", "--outputjson", "--pythonpath", sys.executable]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)  # the folders are in pyproject.toml
    assert run.stdout, run.stderr
    report = json.loads(run.stdout)
    assert report["summary"]["filesAnalyzed"] > 0
    found = [
        f"{Path(each['file']).relative_to(ROOT)}:{each['range']['start']['line'] + 1}: {each['message']}"
        for each in report["generalDiagnostics"]
        if each["severity"] == "error"
    ]
    assert not found, "\n".join(found)
