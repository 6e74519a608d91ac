"""Grade the lessons with nbgrader, as a teacher would: `python tests/grading.py [--short] [lesson ...]`.

For each lesson: generate_assignment from its source, then autograde four students: one with all solutions, one who has handed
in the assignment untouched, one with two mistakes (one where a lesson has two exercises), and one who is right in part where
an exercise has parts. With --short the cells between the exercises are left out.
"""

import contextlib
import importlib.util
import logging
import os
import re
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import nbformat
from nbformat import NotebookNode

HERE = Path(__file__).resolve().parent
BEGIN = "import math, torch\nfrom itertools import pairwise\nfrom minidiff.course import checks as check"
PARTLY = {"l11_start": '    return {"times": times, "x": 0}', "l11_clean": "    alpha = (1 - betas[: index + 1]).prod().sqrt()\n"
          "    return alpha * x - (1 - alpha**2).sqrt() * out"}  # fmt: skip


def builder():
    spec = importlib.util.spec_from_file_location("build", HERE.parent / "notebooks/build.py")
    build = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(build)
    return build


def shortened(notebook: NotebookNode) -> NotebookNode:
    """Its exercises alone, behind a cell with the imports that they may count on."""
    notebook.cells[:] = [cell for cell in notebook.cells if "nbgrader" in cell.metadata]
    notebook.cells.insert(0, nbformat.v4.new_code_cell(BEGIN, id="imports"))
    return notebook


def spoiled(notebook: NotebookNode, wrong: dict[str, str]) -> NotebookNode:
    """With other bodies of the functions of these exercises."""
    for cell in notebook.cells:
        name = cell.metadata.get("nbgrader", {}).get("grade_id")
        if name in wrong:
            cell.source = re.sub(
                r"^ *### BEGIN SOLUTION.*### END SOLUTION", wrong[name], cell.source, flags=re.S | re.M
            )
    return notebook


def graded(lesson: Path, short: bool = False) -> dict[str, tuple[float, float]]:
    """The points of each student, and all that there are."""
    from nbgrader.apps import NbGraderAPI
    from traitlets.config import Config

    build = builder()

    def fresh() -> NotebookNode:
        notebook = build.lesson(lesson)
        return shortened(notebook) if short else notebook

    exercises = [
        cell.metadata["nbgrader"]["grade_id"]
        for cell in fresh().cells
        if cell.metadata.get("nbgrader", {}).get("solution")
    ]
    students = {"solved": {}, "two_mistakes": dict.fromkeys(exercises[:-1][:2], "    return 0"), "untouched": None}
    if partly := {name: body for name, body in PARTLY.items() if name in exercises}:
        students["partly"] = partly
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])  # it starts alembic
    with TemporaryDirectory() as folder:
        root, name = Path(folder), lesson.stem
        config = Config()
        config.CourseDirectory.root = config.CourseDirectory.course_id = str(root)
        config.CourseDirectory.course_id = "minidiff"
        config.Execute.timeout = config.ExecutePreprocessor.timeout = 1200
        api = NbGraderAPI(config=config)
        api.log.setLevel(logging.ERROR)

        def write(notebook: NotebookNode, *place: str) -> None:
            path = root.joinpath(*place, name, f"{name}.ipynb")
            path.parent.mkdir(parents=True)
            nbformat.write(notebook, path)

        write(fresh(), "source")
        done = api.generate_assignment(name)
        assert done["success"], done.get("error") or done.get("log")
        released = nbformat.read(root / "release" / name / f"{name}.ipynb", as_version=4)
        assert not any("BEGIN SOLUTION" in cell.source for cell in released.cells)
        points = {}
        for student, wrong in students.items():
            write(released if wrong is None else spoiled(fresh(), wrong), "submitted", student)
            done = api.autograde(name, student)
            assert done["success"], done.get("error") or done.get("log")
            with contextlib.closing(api.gradebook) as book:
                submission = book.find_submission(name, student)
                points[student] = submission.score, submission.max_score
        return points


def main() -> None:
    os.environ.setdefault("MINIDIFF_BUDGET", "smoke")
    build, named = builder(), [word for word in sys.argv[1:] if not word.startswith("-")]
    lessons = [
        path
        for path in sorted((HERE.parent / "notebooks/source").glob("*.py"))
        if "### BEGIN SOLUTION" in path.read_text()
    ]
    assert build.CHECKS
    failed = False
    for lesson in lessons:
        if named and lesson.stem not in named:
            continue
        points = graded(lesson, "--short" in sys.argv)
        most = points["solved"][1]
        fine = points["solved"][0] == most and points["untouched"][0] == 0 and 0 < points["two_mistakes"][0] < most
        failed |= not fine
        print(
            f"{lesson.stem:28}"
            + "  ".join(f"{student} {got:g} of {of:g}" for student, (got, of) in points.items())
            + ("" if fine else "  WRONG"),
            flush=True,
        )
    sys.exit(failed)


if __name__ == "__main__":
    main()
