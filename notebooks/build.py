"""Make the notebooks from their sources.

    python notebooks/build.py          those whose source has changed; executed if their code has
    python notebooks/build.py --all    all of them

notebooks/source/NN_name.py becomes notebooks/NN_name.ipynb, executed, with solutions and pictures, and, if
it has exercises, notebooks/exercises/NN_name.ipynb, the student's: not executed, without the lines between
`### BEGIN SOLUTION` and `### END SOLUTION` (nbgrader's markers).

The same source gives the same notebook but for its outputs: cell ids are stable, and there are no time
stamps and no widget states. Each notebook carries the sha256 of its source, so that a stale one can be told.
"""

import base64
import copy
import hashlib
import io
import os
import re
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import jupytext
import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode
from PIL import Image
from traitlets.config import Config

from minidiff.course import checks

HERE = Path(__file__).resolve().parent
WIDGET = "application/vnd.jupyter.widget-view+json"
SOLUTION = re.compile(r"^( *)### BEGIN SOLUTION\n.*?### END SOLUTION$", re.M | re.S)
CODE = re.compile(r"\{\{([\w/.]+): (.+?)\}\}")  # {{file: text of one of its lines}}


def text_of(source: Path) -> str:
    """A source with each {{file: text}} replaced by a link to that line. Raises ValueError if there is no such line."""

    def link(match: re.Match) -> str:
        file, wanted = match.groups()
        lines = (HERE.parent / file).read_text().splitlines()
        numbers = [i for i, line in enumerate(lines, start=1) if wanted in line]
        if len(numbers) != 1:
            raise ValueError(f"{source.name}: {file} has {len(numbers)} lines with {wanted!r}; there should be one")
        return f"`{wanted}` [{Path(file).name}:{numbers[0]}](../{file}#L{numbers[0]})"

    return CODE.sub(link, source.read_text())


def lesson(source: Path) -> NotebookNode:
    """The lesson of a source, not executed."""
    text = text_of(source)
    notebook = jupytext.reads(text, fmt="py:percent")
    for i, cell in enumerate(notebook.cells):
        cell.id = f"{source.stem}-{i:02d}"
        cell.metadata = {}
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
        "minidiff": {"source_sha256": hashlib.sha256(text.encode()).hexdigest()},
    }
    return notebook


def student(lesson: NotebookNode) -> NotebookNode | None:
    """The same without solutions; None if there are none."""
    notebook = copy.deepcopy(lesson)
    for cell in notebook.cells:
        if cell.cell_type == "markdown":  # links are seen from one folder further down
            cell.source = re.sub(r"\]\((?!http|#)", "](../", cell.source)
        elif SOLUTION.search(cell.source):
            cell.source = SOLUTION.sub(r"\1# your code here\n\1raise NotImplementedError", cell.source)
        elif cell.source.startswith("check."):
            cell.metadata = {"tags": ["raises-exception"]}  # "Run All" goes on below an exercise that is not done yet
    return notebook if notebook != lesson else None


def is_current(source: Path, path: Path) -> bool:
    """Was the notebook at `path` made from the source as it is now?"""
    if not path.exists():
        return False
    made_from = nbformat.read(path, as_version=4).metadata.get("minidiff", {}).get("source_sha256")
    return made_from == lesson(source).metadata["minidiff"]["source_sha256"]


def execute(notebook: NotebookNode, folder: Path = HERE) -> NotebookNode:
    """Run every cell; an error in a cell, or hidden in a widget, ends it with an exception."""
    metadata = copy.deepcopy(notebook.metadata)
    with TemporaryDirectory() as sockets:
        # where there are such, sockets in files: two kernels that start at once never want the same port
        where = {"transport": "ipc", "ip": f"{sockets}/kernel"} if os.name == "posix" else {}
        client = NotebookClient(
            notebook,
            timeout=1200,
            kernel_name="python3",
            record_timing=False,
            coalesce_streams=True,  # what a cell prints is one output, however slowly it came
            resources={"metadata": {"path": str(folder)}},
            config=Config(KernelManager=where),
        )
        client.execute()
    for state in client.widget_state.values():  # a widget's callback can raise without stopping its cell
        for output in state.get("outputs", ()):
            if output["output_type"] == "error" or output.get("name") == "stderr":
                raise RuntimeError(f"error in a widget: {output.get('evalue', output.get('text'))}")
    notebook.metadata = metadata  # without the widget state and the version of Python
    for cell in notebook.cells:
        if cell.cell_type == "code":  # a widget is alive only in a running notebook; a picture stands above each
            cell.outputs = [output for output in cell.outputs if WIDGET not in output.get("data", {})]
            for output in cell.outputs:
                if "image/png" in output.get("data", {}):
                    output.data["image/png"] = small(output.data["image/png"])
    return notebook


def with_old_outputs(notebook: NotebookNode, path: Path) -> NotebookNode | None:
    """The notebook with the outputs of the one at `path`, if only its text has changed: nothing needs to run."""
    if not path.exists():
        return None
    old, new = ([cell for cell in n.cells if cell.cell_type == "code"] for n in (nbformat.read(path, 4), notebook))
    if [cell.source for cell in old] != [cell.source for cell in new]:
        return None
    for before, after in zip(old, new, strict=True):
        after.outputs, after.execution_count = before.outputs, before.execution_count
    return notebook


def small(png: str) -> str:
    """A PNG file in base64, in 256 colours, which makes a figure a third of the size; animations stay as they are."""
    picture = Image.open(io.BytesIO(base64.b64decode(png)))
    if picture.mode in "LP" or getattr(picture, "n_frames", 1) > 1:
        return png
    buffer = io.BytesIO()
    few = picture.convert("RGB").quantize(256, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    few.save(buffer, "PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()


def mistakes() -> str:
    """A page for teachers: all mistakes that the checks know."""
    lines = [
        "# Exercises",
        "",
        "The lessons without their solutions. Run a notebook from the top; at its end are the exercises, each with a check that",
        "names the mistake. Below is what the checks know: every row is a function that was tried, so that a diagnosis is never",
        "a guess. The last column leads to a public thread in which people met the mistake or something close to it.",
        "`make notebooks` writes this page from `minidiff/checks/`.",
    ]
    for name in checks.__all__:
        exercise = getattr(checks, name)
        if isinstance(exercise, checks.Exercise):
            lines += ["", f"## {name}", "", "| it looks like | in pictures | met |", "|---|---|---|"]
            for bug in exercise.bugs:
                met = f"[{bug.met.removeprefix('https://github.com/')}]({bug.met})" if bug.met else ""
                lines.append(f"| {bug.looks_like} | {bug.in_pictures} | {met} |".replace("**", r"\*\*"))
    return "\n".join(lines) + "\n"


def main() -> None:
    (HERE / "exercises").mkdir(exist_ok=True)
    (HERE / "exercises/README.md").write_text(mistakes())
    for source in sorted((HERE / "source").glob("*.py")):
        name = f"{source.stem}.ipynb"
        everything = "--all" in sys.argv
        if is_current(source, HERE / name) and not everything:
            print(f"{name}: current")
            continue
        notebook = lesson(source)
        if exercises := student(notebook):
            nbformat.write(exercises, HERE / "exercises" / name)
        kept = None if everything else with_old_outputs(notebook, HERE / name)
        nbformat.write(kept or execute(notebook), HERE / name)
        print(f"{name}: built, {(HERE / name).stat().st_size / 1000:.0f} KB")


if __name__ == "__main__":
    main()
