"""Imports go one way, and what is not needed is not imported."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import minidiff

PACKAGE = Path(minidiff.__file__).parent
# from top to bottom: each imports from itself and from those below it, and from nothing above
ORDER = [
    "cli", "course", "evaluation", "training", "pipeline", "formats", "data", "tokenizer", "networks", "diffusion",
    "image_files", "device", "files", "registry",
]  # fmt: skip
ALONE = {"diffusion", "networks", "registry"}  # these import nothing else of minidiff
TOP = {"__init__": {"pipeline"}, "__main__": {"cli"}}  # the two files above the list
OF_THE_PACKAGE = {"TextToImage": "pipeline", "REPOSITORY": None, "__version__": None}  # from minidiff import ...
FILES = sorted(path for path in PACKAGE.rglob("*.py") if "_assets" not in path.parts)


def belongs_to(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    """What a file imports of minidiff, wherever in the file."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
            assert "minidiff" not in modules, f"{path}: import what is used, not the whole package"
            found |= {module.split(".")[1] for module in modules if module.startswith("minidiff.")}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative import"
            if node.module == "minidiff":
                found |= {OF_THE_PACKAGE.get(alias.name, alias.name) for alias in node.names}
            elif node.module.startswith("minidiff."):
                found.add(node.module.split(".")[1])
    return found - {None}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down(path):
    here = belongs_to(path)
    if here in TOP:
        allowed = TOP[here]
    elif here in ALONE:
        allowed = {here}
    else:
        allowed = set(ORDER[ORDER.index(here) :])  # fails for a package that is not in the list
    if here == "cli":
        allowed.remove("course")  # the command line needs no notebooks
    assert imports(path) <= allowed


def test_the_list_covers_the_package_and_nothing_else():
    assert {belongs_to(path) for path in FILES} == {*ORDER, *TOP}


def test_the_test_sees_lazy_imports(tmp_path):
    file = tmp_path / "x.py"
    file.write_text("def f():\n    from minidiff import TextToImage, data\n    import minidiff.cli.main\n")
    assert imports(file) == {"pipeline", "data", "cli"}


def test_the_package_can_be_surveyed():
    assert len([path for path in PACKAGE.iterdir() if path.name not in {"__pycache__", "_assets"}]) <= 18
    lines = {path: len(path.read_text().splitlines()) for path in FILES if "checks" not in path.parts}
    assert sum(lines.values()) <= 11150, sum(lines.values())


SAMPLE = "['minidiff', 'sample', '3', '--steps', '1', '--device', 'cpu', '--out', 'x.png']"
RUN = "import sys; from minidiff.cli.main import main; sys.argv = {}\ntry: main()\nexcept SystemExit: pass"


@pytest.mark.parametrize(
    "code, absent, written",
    [
        ("import minidiff", {"torch", "numpy"}, []),
        (RUN.format("['minidiff', '--help']"), {"torch"}, []),
        (RUN.format(SAMPLE), {"matplotlib", "ipywidgets", "IPython"}, ["x.png"]),
    ],
    ids=["import", "help", "sample"],
)
def test_what_is_not_needed_is_not_imported(code, absent, written, tmp_path):
    code += "\nimport sys; print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert absent & set(done.stderr.split()) == set() and "minidiff" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == written
