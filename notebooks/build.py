"""Make the notebooks from their sources.

    python notebooks/build.py                all of them; only those whose code has changed are executed
    python notebooks/build.py --all          execute all of them
    python notebooks/build.py 03_sampling    this one alone, or several

notebooks/source/NN_name.py becomes notebooks/NN_name.ipynb, executed, with solutions and pictures, and, if
it has exercises, notebooks/exercises/NN_name.ipynb, the student's: not executed, without the lines between
`### BEGIN SOLUTION` and `### END SOLUTION` (nbgrader's markers).

Terms stand in **bold** where they are explained: GLOSSARY.md is made of these sentences. {{study time}} becomes the
minutes that a lesson takes, and a cell that begins with `# folded` is folded up in JupyterLab.

A source links to code by name: {{schedules.add_noise}} becomes a link to the function, and
{{samplers.ddpm: kept = now.alpha / to.alpha}} shows that line of it, with a link.

The same source gives the same notebook but for its outputs: cell ids are stable, and there are no time
stamps and no widget states. Each notebook carries the sha256 of its source, so that a stale one can be told;
the numbers of the lines that it links to are no part of that.
"""

import ast
import base64
import copy
import functools
import hashlib
import io
import math
import os
import re
import sys
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import jupytext
import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode
from PIL import Image, ImageChops, ImageSequence, ImageStat
from traitlets.config import Config

import minidiff
from minidiff.course.checks import CHECKS

HERE = Path(__file__).resolve().parent
WIDGET = "application/vnd.jupyter.widget-view+json"
SOLUTION = re.compile(r"^( *)### BEGIN SOLUTION\n.*?### END SOLUTION$", re.M | re.S)
LINK = re.compile(r"\{\{(\w+(?:\.\w+)+)(?:: (.+?))?\}\}")  # {{module.symbol}} or {{module.symbol: text of one line}}


@functools.cache
def symbols() -> dict[str, tuple[Path, ast.stmt]]:
    """Every class, function, method and constant of the package: its full name, its file, and where it stands."""
    found = {}

    def look(parent: ast.AST, prefix: str, path: Path) -> None:
        for node in ast.iter_child_nodes(parent):
            names = []
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                names = [node.name]
                look(node, f"{prefix}{node.name}.", path)
            elif isinstance(node, ast.Assign | ast.AnnAssign) and not isinstance(parent, ast.FunctionDef):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                names = [target.id for target in targets if isinstance(target, ast.Name)]
            found.update({f"{prefix}{name}": (path, node) for name in names})

    for path in sorted((HERE.parent / "minidiff").rglob("*.py")):
        module = ".".join(path.relative_to(HERE.parent).with_suffix("").parts).removesuffix(".__init__")
        look(ast.parse(path.read_text()), f"{module}.", path)
    return found


def link(name: str, text: str | None) -> str:
    """A link in Markdown to what `name` means, after the line of it that has `text`. Raises ValueError unless there is one.

    `name` is the end of a full name, such as schedules.Schedule.add_noise; parts in the middle may be left out.
    """
    parts = re.compile(r"(?:.+\.)?" + r"\.(?:.+\.)?".join(name.split(".")))
    full = [known for known in symbols() if parts.fullmatch(known)]
    full = [known for known in full if known.endswith(f".{name}")] or full
    if len(full) != 1:
        raise ValueError(f"{name!r} should be one symbol of minidiff, and is {' or '.join(full) or 'none'}")
    path, node = symbols()[full[0]]
    number, code = node.lineno, ""
    if text:
        lines = enumerate(path.read_text().splitlines()[: node.end_lineno], start=1)
        numbers = [i for i, line in lines if i >= node.lineno and text in line]
        if len(numbers) != 1:
            raise ValueError(f"{full[0]} should have one line with {text!r}, and has {len(numbers)}")
        number, code = numbers[0], f"`{text}` "
    return f"{code}[`{name}`](../{path.relative_to(HERE.parent).as_posix()}#L{number})"


def text_of(source: Path) -> str:
    """A source with its {{links}} resolved. Raises ValueError, with the name of the source, if one of them leads nowhere."""
    text = source.read_text().replace("{{study time}}", f"{study_time(source)} minutes")
    try:
        return LINK.sub(lambda match: link(*match.groups()), text)
    except ValueError as error:
        raise ValueError(f"{source.name}: {error}") from None


def prose(source: Path) -> list[str]:
    """The cells of a source that are text, in Markdown."""
    cells = jupytext.reads(source.read_text(), fmt="py:percent").cells
    return [cell.source for cell in cells if cell.cell_type == "markdown"]


def study_time(source: Path) -> int:
    """Minutes, to the next five: 200 words a minute, and what the exercises say of themselves."""
    text = "\n".join(prose(source))
    exercises = sum(int(minutes) for minutes in re.findall(r"^\*(?:easy|medium|hard), (\d+) minutes\.\*", text, re.M))
    return 5 * math.ceil((len(text.split()) / 200 + exercises) / 5)


def terms(source: Path) -> dict[str, str]:
    """What a lesson explains: each **term**, with the sentence that it first stands in."""
    found = {}
    for paragraph in re.split(r"\n\s*\n", "\n\n".join(prose(source))):
        if not re.match(r"[#|<$*-] ?", paragraph) or paragraph.startswith("**"):
            for sentence in re.split(r"(?<=[.?!)])\s+(?=[A-Z*(])", " ".join(paragraph.split())):
                for term in re.findall(r"\*\*(.+?)\*\*", sentence):
                    found.setdefault(term, sentence)
    return found


def glossary(sources: list[Path]) -> str:
    """The page of all terms, from the lessons that link to it; each is explained where it stands first."""
    entries = {}
    for source in sources:
        if "GLOSSARY.md" in source.read_text():
            number = source.stem.split("_")[0]
            for term, sentence in terms(source).items():
                said = sentence.replace(f"**{term}**", term).replace("**", "")
                entries.setdefault(term.lower(), f"**{term}**: {said} ([lesson {number}]({source.stem}.ipynb))")
    return "\n\n".join(["# Glossary", GLOSSARY, *(entries[term] for term in sorted(entries))]) + "\n"


def badge(notebook: str) -> str:
    """Opens a notebook in Colab."""
    there = minidiff.REPOSITORY.replace("https://github.com", "https://colab.research.google.com/github")
    image = "https://colab.research.google.com/assets/colab-badge.svg"
    return f"[![Open in Colab]({image})]({there}/blob/main/notebooks/{notebook})"


def lesson(source: Path) -> NotebookNode:
    """The lesson of a source, not executed."""
    notebook = jupytext.reads(text_of(source), fmt="py:percent")
    if minidiff.REPOSITORY:
        title, *rest = notebook.cells[0].source.split("\n")
        notebook.cells[0].source = "\n".join([title, "", badge(f"{source.stem}.ipynb"), *rest])
    for i, cell in enumerate(notebook.cells):
        cell.id = f"{source.stem}-{i:02d}"
        cell.metadata = NotebookNode()
        if cell.cell_type == "code" and cell.source.startswith("# folded"):
            cell.metadata["jupyter"] = {"source_hidden": True}
    graded(notebook)
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
        "minidiff": {"source_sha256": hashlib.sha256(source.read_bytes()).hexdigest()},
    }
    return notebook


def graded(notebook: NotebookNode) -> None:
    """Add nbgrader's metadata: a cell with a solution is answered by students, and the check behind it gives the points."""
    for cell, check in pairwise(notebook.cells):
        if SOLUTION.search(cell.source) and (called := re.match(r"check\.(\w+)\(", check.source)):
            name, both = called[1], {"schema_version": 3, "task": False}
            cell.metadata["nbgrader"] = both | {"grade_id": name, "grade": False, "locked": False, "solution": True}
            check.metadata["nbgrader"] = both | {
                "grade_id": f"{name}-check",
                "grade": True,
                "locked": True,
                "solution": False,
            }
            check.metadata["nbgrader"]["points"] = CHECKS[name].points


def student(lesson: NotebookNode) -> NotebookNode | None:
    """The same without solutions; None if there are no exercises."""
    if not any(re.search("^#+ Exercise", cell.source, re.M) or SOLUTION.search(cell.source) for cell in lesson.cells):
        return None
    notebook = copy.deepcopy(lesson)
    for cell in notebook.cells:
        if cell.cell_type == "markdown":  # links are seen from one folder further down
            cell.source = re.sub(r"\]\((?!http|#)", "](../", cell.source)
            cell.source = re.sub(r"(colab\S+/notebooks/)", r"\1exercises/", cell.source)
        elif SOLUTION.search(cell.source):
            cell.source = SOLUTION.sub(r"\1# your code here\n\1raise NotImplementedError", cell.source)
        elif cell.source.startswith("check."):
            cell.metadata["tags"] = ["raises-exception"]  # "Run All" goes on below an exercise that is not done yet
    return notebook


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
    """The notebook with the outputs of the one at `path`, if the code is the same in both: nothing needs to run."""
    if not path.exists():
        return None
    old, new = ([cell for cell in n.cells if cell.cell_type == "code"] for n in (nbformat.read(path, 4), notebook))
    if [cell.source for cell in old] != [cell.source for cell in new]:
        return None
    for before, after in zip(old, new, strict=True):
        after.outputs, after.execution_count = before.outputs, before.execution_count
    return notebook


def small(png: str) -> str:
    """A PNG file in base64, in 256 colours, which makes a figure a third of the size; of an animation, one set for all frames."""
    picture = Image.open(io.BytesIO(base64.b64decode(png)))
    if picture.mode in "LP":
        return png
    frames = [frame.convert("RGB") for frame in ImageSequence.Iterator(picture)]
    times = [frame.info.get("duration", 0) for frame in ImageSequence.Iterator(picture)]
    every = Image.new("RGB", (picture.width, picture.height * len(frames)))
    for k, frame in enumerate(frames):
        every.paste(frame, (0, k * picture.height))
    palette = every.quantize(256, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    if len(frames) == 1 and error(every, palette) > 1:  # a gradient, of which the octree makes bands, or noise
        finer = every.quantize(256, Image.Quantize.MEDIANCUT, kmeans=1, dither=Image.Dither.NONE)
        palette = finer if error(every, finer) < 1 else palette
    palette.putpalette([255 if value > 251 else value for value in palette.getpalette()])  # white stays white
    first, *rest = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    still = picture.info.get("default_image", False)  # the first frame is for viewers that do not play it
    moving = {"save_all": True, "append_images": rest, "duration": times[still:], "default_image": still, "loop": 0}
    buffer = io.BytesIO()
    first.save(buffer, "PNG", optimize=True, **(moving if rest else {}))
    return base64.b64encode(buffer.getvalue()).decode()


def error(whole: Image.Image, few: Image.Image) -> float:
    """The mean difference of a picture in few colours from the whole one, of 255, in the channel where it is largest."""
    return max(ImageStat.Stat(ImageChops.difference(whole, few.convert("RGB"))).mean)


GLOSSARY = "The terms of the course, each in the sentence that explains it. `make notebooks` writes this page."
FOR_TEACHERS = """# Exercises

The lessons without their solutions. Run a notebook from the top. `make notebooks` writes this page from `minidiff/course/checks/`.

## How a check decides

A check calls the student's function on 24 cases, which are made by rule from what the exercise says of its arguments: one
image and several, as many images as rows, schedules with and without alpha^2 + sigma^2 = 1, both ends of every interval, values beyond [-1, 1].
A loss must have the right gradient too. An answer is right if it agrees with the right one to three digits in all of them, whatever its form.
Then the answer is compared, on these and on fresh cases:

1. with every mistake below. Each row stands for a function that computes it, so a diagnosis is never a guess. The last column links to a public
   thread in which people met the mistake, or one close to it;
2. with what has become of the right answer, such as "half of the right answer in every case", "clamped to [-1, 1]", "axes in another order";
3. with the right answer to other arguments, such as "`1 - t` in the place of `t`";
4. with two known mistakes at once;
5. by what the wrong cases have in common, such as "right where alpha^2 + sigma^2 = 1, and wrong in every other case".

Whatever is said holds on all cases, and the smallest case that goes wrong is printed, to be redone by hand. The function runs in a process of its
own, for at most 3 seconds and with at most 2 GB: whatever it does, the notebook goes on.

## Grading with nbgrader

The executed lessons carry nbgrader's metadata: each is the source of an assignment. In a folder for the course, with `pip install nbgrader`:

```
mkdir -p source/01_corruption && cp .../notebooks/01_corruption.ipynb source/01_corruption/
nbgrader generate_assignment 01_corruption
nbgrader autograde 01_corruption --Execute.timeout=600
nbgrader generate_feedback 01_corruption
```

Easy exercises give 1 point, medium ones 2, hard ones 3. What is right in part gives a part of the points: one of two values in a dict, one of two kinds
of answer, or so many wrong functions caught out of all. `python tests/grading.py` grades all lessons' solutions, untouched copies, and copies with two mistakes."""


def mistakes() -> str:
    """A page for teachers: how checks decide, grading, and all mistakes that they know."""
    lines = [FOR_TEACHERS]
    for name, exercise in CHECKS.items():
        lines += [
            "",
            f"## {name}",
            "",
            f"{exercise.points} point{'s' * (exercise.points > 1)}. Expected is {exercise.returns}.",
            "",
        ]
        lines += ["| it looks like | in pictures | met |", "|---|---|---|"] if exercise.bugs else []
        for bug in exercise.bugs:
            met = f"[{bug.met.removeprefix('https://github.com/')}]({bug.met})" if bug.met else ""
            lines.append(f"| {bug.looks_like} | {bug.in_pictures} | {met} |".replace("**", r"\*\*"))
    return "\n".join(lines).rstrip() + "\n"


def main() -> None:
    (HERE / "exercises").mkdir(exist_ok=True)
    (HERE / "exercises/README.md").write_text(mistakes())
    (HERE / "GLOSSARY.md").write_text(glossary(sorted((HERE / "source").glob("*.py"))))
    named = [word.removesuffix(".py") for word in sys.argv[1:] if word != "--all"]
    sources = [HERE / "source" / f"{name}.py" for name in named] or sorted((HERE / "source").glob("*.py"))
    for source in sources:
        notebook, path = lesson(source), HERE / f"{source.stem}.ipynb"
        exercises = student(notebook)
        kept = None if "--all" in sys.argv else with_old_outputs(notebook, path)
        nbformat.write(kept or execute(notebook), path)
        if exercises:
            nbformat.write(exercises, HERE / "exercises" / path.name)
        print(f"{path.name}: {'as it was executed' if kept else 'executed'}, {path.stat().st_size / 1000:.0f} KB")


if __name__ == "__main__":
    main()
