"""Make the lessons: notebooks/source/NN_name.py -> notebooks/NN_name.ipynb, executed, with pictures.

    python notebooks/build.py          those whose source has changed
    python notebooks/build.py --all    all of them

The same source gives the same notebook but for its outputs: cell ids are stable, and there are no time
stamps. Each notebook carries the sha256 of its source, so that a stale one can be told.
"""

import hashlib
import sys
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient

HERE = Path(__file__).resolve().parent


def digest(source: Path) -> str:
    return hashlib.sha256(source.read_bytes()).hexdigest()


def is_current(source: Path, notebook: Path) -> bool:
    if not notebook.exists():
        return False
    return nbformat.read(notebook, as_version=4).metadata.get("minidiff", {}).get("source_sha256") == digest(source)


def read(source: Path) -> nbformat.NotebookNode:
    """The notebook of a source, not executed."""
    notebook = jupytext.read(source)
    for i, cell in enumerate(notebook.cells):
        cell.id = f"{source.stem}-{i:02d}"
        cell.metadata = {}
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
        "minidiff": {"source_sha256": digest(source)},
    }
    return notebook


def execute(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Run every cell, in the folder of the notebooks; an error in a cell ends it."""
    metadata = notebook.metadata
    NotebookClient(
        notebook, timeout=1200, kernel_name="python3", record_timing=False, resources={"metadata": {"path": str(HERE)}}
    ).execute()
    notebook.metadata = metadata  # without the widget state and the version of Python
    return notebook


def main() -> None:
    for source in sorted((HERE / "source").glob("*.py")):
        path = HERE / f"{source.stem}.ipynb"
        if is_current(source, path) and "--all" not in sys.argv:
            print(f"{path.name}: current")
            continue
        nbformat.write(execute(read(source)), path)
        print(f"{path.name}: built, {path.stat().st_size / 1000:.0f} KB")


if __name__ == "__main__":
    main()
