"""The notebooks are current, tidy, and run; the students' keep no solutions, and no check passes untouched."""

import ast
import base64
import importlib.util
import io
import re
from pathlib import Path

import jupytext
import nbformat
import numpy as np
import psutil
import pytest
from PIL import Image

import minidiff
from minidiff.course.checks import CHECKS, NotYet
from minidiff.image_files import encode

FOLDER = Path(__file__).resolve().parent.parent / "notebooks"
SOURCES = sorted((FOLDER / "source").glob("*.py"))
TODAYS = [source for source in SOURCES if "GLOSSARY.md" in source.read_text()]  # see test_voice.py
LESSONS = [source for source in SOURCES if "### BEGIN SOLUTION" in source.read_text()]

spec = importlib.util.spec_from_file_location("build", FOLDER / "build.py")
build = importlib.util.module_from_spec(spec)
spec.loader.exec_module(build)


def stem(path: Path) -> str:
    return path.stem


def code_of(notebook) -> list:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def cells_of(notebook) -> list:
    """Without the numbers of the lines that it links to: a line that moves makes no notebook stale."""
    return [(cell.id, cell.metadata, re.sub(r"#L\d+\)", ")", cell.source)) for cell in notebook.cells]


@pytest.mark.parametrize("source", SOURCES, ids=stem)
def test_the_notebook_is_made_from_this_source(source):
    assert build.is_current(source, FOLDER / f"{source.stem}.ipynb"), "run: make notebooks"


@pytest.mark.parametrize("source", LESSONS, ids=stem)
def test_the_students_notebook_is_made_from_this_source(source):
    there = nbformat.read(FOLDER / "exercises" / f"{source.stem}.ipynb", as_version=4)
    should = build.student(build.lesson(source))
    assert (there.metadata, cells_of(there)) == (should.metadata, cells_of(should)), "run: make notebooks"
    assert not any(cell.outputs or cell.execution_count for cell in code_of(there))


def test_the_page_of_mistakes_is_made_from_the_checks():
    page = (FOLDER / "exercises/README.md").read_text()
    assert page == build.mistakes(), "run: make notebooks"
    assert re.findall(r"^## (l\d\d.+)", page, re.M) == list(CHECKS)


def test_a_changed_source_is_noticed(tmp_path):
    changed = tmp_path / SOURCES[0].name
    changed.write_bytes(SOURCES[0].read_bytes() + b"# one more line\n")
    assert not build.is_current(changed, FOLDER / f"{SOURCES[0].stem}.ipynb")


@pytest.mark.parametrize("source", SOURCES, ids=stem)
def test_every_link_to_code_leads_there(source):
    text = build.text_of(source)
    assert "{{" not in "".join(re.findall(r"^# \|.*", text, re.M)), (
        "a link is written {{module.symbol: text of a line}}"
    )
    for file, number in re.findall(r"\]\(\.\./([\w/.]+)(?:#L(\d+))?\)", text):
        lines = (FOLDER.parent / file).read_bytes().splitlines()  # it may be an image
        assert 1 <= int(number or 1) <= len(lines)


def line_of(file: str, text: str) -> int:
    (number,) = (i for i, line in enumerate((FOLDER.parent / file).read_text().splitlines(), 1) if text in line)
    return number


def test_a_link_names_a_symbol_or_a_line_of_it():
    file = "minidiff/files.py"
    assert build.link("files.asset", None) == f"[`files.asset`](../{file}#L{line_of(file, 'def asset(')})"
    assert build.link("minidiff.files.asset", None).endswith(f"(../{file}#L{line_of(file, 'def asset(')})")
    file = "minidiff/course/checks/exercise.py"
    number = line_of(file, "    def diagnose(")
    for name in ("exercise.Exercise.diagnose", "exercise.diagnose", "course.exercise.diagnose"):
        assert build.link(name, None) == f"[`{name}`](../{file}#L{number})"
    assert build.link("exercise.diagnose", "def diagnose(self").startswith("`def diagnose(self` [`exercise.diagnose`](")
    assert build.link("minidiff.REPOSITORY", None).startswith("[`minidiff.REPOSITORY`](../minidiff/__init__.py#L")


@pytest.mark.parametrize(
    "link, says",
    [
        ("files.nowhere", "'files.nowhere' should be one symbol of minidiff, and is none"),
        ("minidiff.__init__", "should be one symbol of minidiff, and is minidiff.* or minidiff"),
        (
            "files.asset: nothing like this",
            "minidiff.files.asset should have one line with 'nothing like .*, and has 0",
        ),
        ("files.asset: a", "minidiff.files.asset should have one line with 'a', and has [1-9]"),
    ],
)
def test_a_link_that_leads_nowhere_is_refused_by_name(link, says, tmp_path):
    source = tmp_path / "99_lines.py"
    source.write_text(f"# %% [markdown]\n# see {{{{{link}}}}}\n")
    with pytest.raises(ValueError, match=f"^99_lines.py: .*{says}"):
        build.lesson(source)


def test_a_line_that_moved_makes_nothing_stale_and_its_number_is_refreshed(tmp_path, monkeypatch):
    source, path = tmp_path / "99_lines.py", tmp_path / "99_lines.ipynb"
    source.write_text("# %% [markdown]\n# see {{files.asset}}\n\n# %%\n1 + 1\n")
    old = build.lesson(source)
    old.cells[1].outputs = [nbformat.v4.new_output("stream", text="2")]
    nbformat.write(old, path)
    where, node = build.symbols()["minidiff.files.asset"]
    moved = ast.FunctionDef(name="asset", lineno=node.lineno + 7, end_lineno=node.end_lineno + 7)
    monkeypatch.setitem(build.symbols(), "minidiff.files.asset", (where, moved))
    assert build.is_current(source, path)
    new = build.with_old_outputs(build.lesson(source), path)
    assert f"#L{node.lineno + 7})" in new.cells[0].source and new.cells[1].outputs[0].text == "2"
    assert cells_of(new) == cells_of(old) and new.cells != old.cells


def test_badges_wait_for_a_public_address(monkeypatch):
    assert ("colab" in build.lesson(LESSONS[0]).cells[0].source) == bool(minidiff.REPOSITORY)
    monkeypatch.setattr(minidiff, "REPOSITORY", "https://github.com/OWNER/minidiff")
    lesson = build.lesson(LESSONS[0])
    there = "(https://colab.research.google.com/github/OWNER/minidiff/blob/main/notebooks/{}.ipynb)"
    assert there.format(LESSONS[0].stem) in lesson.cells[0].source.splitlines()[2]
    assert there.format(f"exercises/{LESSONS[0].stem}") in build.student(lesson).cells[0].source


def test_outputs_are_kept_if_only_the_text_has_changed(tmp_path):
    path = tmp_path / "old.ipynb"
    old = of_cells("1 + 1")
    old.cells[0].outputs = [nbformat.v4.new_output("stream", text="2")]
    nbformat.write(old, path)
    with_text = of_cells("1 + 1")
    with_text.cells.insert(0, nbformat.v4.new_markdown_cell("new words"))
    assert build.with_old_outputs(with_text, path).cells[1].outputs[0].text == "2"
    assert build.with_old_outputs(of_cells("1 + 2"), path) is None
    assert build.with_old_outputs(of_cells("1 + 1"), tmp_path / "none.ipynb") is None


def test_figures_get_few_colours_and_animations_keep_their_frames():
    noise = np.random.default_rng(0).integers(0, 60, (4, 40, 50, 3), dtype=np.uint8)
    frames = [Image.fromarray(pixels + np.uint8(40 * k)) for k, pixels in enumerate(noise)]
    for pictures in (frames[0], frames):
        large = base64.b64encode(encode(pictures)).decode()
        made = Image.open(io.BytesIO(base64.b64decode(build.small(large))))
        whole = Image.open(io.BytesIO(base64.b64decode(large)))
        assert made.mode == "P" and len(build.small(large)) < len(large) / 2
        count = getattr(whole, "n_frames", 1)
        assert (count, whole.info) == (getattr(made, "n_frames", 1), made.info) and count in (1, 5)
        for k in range(count):
            made.seek(k), whole.seek(k)
            assert made.info.get("duration") == whole.info.get("duration")
            apart = np.asarray(made.convert("RGB")).astype(int) - np.asarray(whole.convert("RGB"))
            assert abs(apart).mean() < 12


@pytest.mark.parametrize("source", SOURCES, ids=stem)
def test_the_notebook_is_tidy(source):
    path = FOLDER / f"{source.stem}.ipynb"
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert path.stat().st_size <= 1_200_000
    assert "widgets" not in notebook.metadata
    outputs = [output for cell in code_of(notebook) for output in cell.outputs]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"] == []
    assert [output for output in outputs if build.WIDGET in output.get("data", {})] == []
    ran = [cell.execution_count for cell in code_of(notebook)]
    assert ran == list(range(1, len(ran) + 1))  # from top to bottom, once
    unexecuted = build.lesson(source)
    assert cells_of(notebook) == cells_of(unexecuted)


@pytest.mark.parametrize("source", [source for source in SOURCES if source.stem != "00_tour"], ids=stem)
def test_the_lesson_has_its_frame(source):
    text = source.read_text()
    headings = re.findall(r"^# (##? .+)$", text, re.M)
    number, question = re.match(r"# # (\d\d\w?) · (.+\?)$", text.splitlines()[1]).groups()
    row = re.search(rf"^\| \**{number}\** \|[^|]+\| (.+?) \|", (FOLDER.parent / "README.md").read_text(), re.M)
    assert row[1] == question, "the title is the question of the README"
    if source not in TODAYS:
        assert all(row in text for row in ("| You will see |", "| It costs |", "| You need |"))
    assert build.LINK.search(text), "an equation has a link to the line that implements it"
    exercises = text.count("### BEGIN SOLUTION")
    assert len(re.findall(r"^# ### Exercise \d", text, re.M)) == exercises
    assert len(re.findall(r"^# \*(?:easy|medium|hard), \d+ minutes\.\*", text, re.M)) == exercises
    assert headings[-1] == ("## Further reading" if source in TODAYS else "## Where to go next")
    for widget in re.findall(r"^widgets\.(\w+)\(", text, re.M):  # a static picture for those who only read
        assert re.search(rf"show\(\s*figures\.{widget}\(", text)


@pytest.mark.parametrize("source", SOURCES, ids=stem)
def test_the_lesson_runs(source, monkeypatch, tmp_path):
    monkeypatch.setenv("MINIDIFF_BUDGET", "smoke")
    notebook = build.execute(build.lesson(source), tmp_path)  # an empty folder: all that is needed is the package
    assert all(cell.execution_count for cell in code_of(notebook))


@pytest.mark.filterwarnings("ignore")  # diffusers has many
def test_lesson_11_runs_on_a_checkpoint_of_others(monkeypatch, tmp_path):
    from tiny_sd import tiny

    tiny("2.x").save_pretrained(tmp_path / "sd")
    monkeypatch.setenv("MINIDIFF_BUDGET", "smoke")
    lesson = build.lesson(FOLDER / "source/11_stable_diffusion.py")
    (cell,) = (cell for cell in lesson.cells if cell.source.startswith("CHECKPOINT = None"))
    cell.source = f"CHECKPOINT = {str(tmp_path / 'sd')!r}"
    text = "".join(
        output.get("text", "") for cell in build.execute(lesson, tmp_path).cells for output in cell.get("outputs", ())
    )
    assert "a</w>=" in text and "of</w>=" in text and "twemoji" not in text  # this prompt, not that of our emoji
    assert "the same shapes: True" in text and "as the pipeline has it: True" in text


def of_cells(*cells: str) -> nbformat.NotebookNode:
    return jupytext.reads("\n\n".join(f"# %%\n{cell}" for cell in cells), fmt="py:percent")


def test_a_kernel_does_not_outlive_its_notebook(tmp_path):
    notebook = build.execute(of_cells("import os\nos.getpid()"), tmp_path)
    assert not psutil.pid_exists(int(notebook.cells[0].outputs[0].data["text/plain"]))


def test_an_error_hidden_in_a_widget_is_found():
    good = of_cells("import ipywidgets\nout = ipywidgets.Output()\nout", "with out:\n    print(1)")
    assert [cell.outputs for cell in build.execute(good).cells] == [[], []]  # no widget is stored
    with pytest.raises(RuntimeError, match="division by zero"):
        build.execute(of_cells("import ipywidgets\nout = ipywidgets.Output()\nout", "with out:\n    1 / 0"))


@pytest.mark.parametrize("source", LESSONS, ids=stem)
def test_every_check_refuses_the_untouched_answer_and_takes_the_solution(source):
    lesson = build.lesson(source)
    student = build.student(lesson)
    both = [each.read_text() for each in LESSONS if each.stem[:2] == source.stem[:2]]  # 04 and 04b
    asked = re.findall(r"^check\.(\w+)\(", "\n".join(both), re.M)
    assert sorted(asked) == sorted(name for name in CHECKS if name.startswith(f"l{source.stem[:2]}_"))
    assert "BEGIN SOLUTION" not in "".join(cell.source for cell in student.cells)
    for solved, cell, check in zip(lesson.cells, student.cells, student.cells[1:], strict=False):
        if "BEGIN SOLUTION" not in solved.source:
            continue
        name, function = re.fullmatch(r"check\.(\w+)\((\w+)\)", check.source).groups()
        assert check.metadata["tags"] == ["raises-exception"]
        assert cell.metadata["nbgrader"]["grade_id"] == name and cell.metadata["nbgrader"]["solution"]
        assert check.metadata["nbgrader"]["grade_id"] == f"{name}-check" and check.metadata["nbgrader"]["grade"]
        names = {}
        exec("import math, torch\nfrom itertools import pairwise", names)
        exec(cell.source, names)
        with pytest.raises(NotYet, match="Nothing here yet"):
            CHECKS[name](names[function])
        exec(solved.source, names)
        CHECKS[name](names[function])


def test_links_of_a_student_lead_one_folder_further_up():
    lesson = of_cells("def f():\n    ### BEGIN SOLUTION\n    return 1\n    ### END SOLUTION")
    lesson.cells.insert(0, nbformat.v4.new_markdown_cell("[a](../minidiff/files.py#L1) [b](00_tour.ipynb) [c](#d)"))
    student = build.student(lesson)
    assert student.cells[0].source == "[a](../../minidiff/files.py#L1) [b](../00_tour.ipynb) [c](#d)"
    assert student.cells[1].source == "def f():\n    # your code here\n    raise NotImplementedError"
    assert build.student(of_cells("1 + 1")) is None
