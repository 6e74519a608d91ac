"""The notebooks are current, tidy, and run."""

import importlib.util
from pathlib import Path

import nbformat
import pytest

FOLDER = Path(__file__).resolve().parent.parent / "notebooks"
SOURCES = sorted((FOLDER / "source").glob("*.py"))

spec = importlib.util.spec_from_file_location("build", FOLDER / "build.py")
build = importlib.util.module_from_spec(spec)
spec.loader.exec_module(build)


@pytest.fixture(params=SOURCES, ids=lambda path: path.stem)
def source(request):
    return request.param


def test_the_notebook_is_made_from_this_source(source):
    assert build.is_current(source, FOLDER / f"{source.stem}.ipynb"), "run: make notebooks"


def test_a_changed_source_is_noticed(source, tmp_path):
    changed = tmp_path / source.name
    changed.write_bytes(source.read_bytes() + b"# one more line\n")
    assert not build.is_current(changed, FOLDER / f"{source.stem}.ipynb")


def test_the_notebook_is_tidy(source):
    path = FOLDER / f"{source.stem}.ipynb"
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert path.stat().st_size <= 400_000
    assert "widgets" not in notebook.metadata
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"] == []
    ran = [cell.execution_count for cell in notebook.cells if cell.cell_type == "code"]
    assert ran == list(range(1, len(ran) + 1))  # from top to bottom, once
    unexecuted = build.read(source)
    assert [(cell.id, cell.source) for cell in notebook.cells] == [(cell.id, cell.source) for cell in unexecuted.cells]


def test_the_lesson_runs(source, monkeypatch):
    monkeypatch.setenv("MINIDIFF_BUDGET", "smoke")
    notebook = build.execute(build.read(source))
    assert all(cell.execution_count for cell in notebook.cells if cell.cell_type == "code")
