"""The import rule: diffusion/ and networks/ import nothing else of minidiff; data/ knows no models."""

import ast
from pathlib import Path

import pytest

import minidiff

PACKAGE = Path(minidiff.__file__).parent
ALLOWED = {  # room: what it may import of minidiff, besides itself
    "diffusion": set(),
    "networks": set(),
    "checks": set(),
    "data": {"files"},
    "training": {"diffusion", "networks", "config", "data", "files", "pipeline", "tokenizer", "weights", "weights_vae"},
}


def rooms_imported(path: Path) -> set[str]:
    names = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative import"
            names += [node.module] if node.module != "minidiff" else [f"minidiff.{alias.name}" for alias in node.names]
    return {name.split(".")[1] for name in names if name.startswith("minidiff.")}


@pytest.mark.parametrize("room", ALLOWED)
def test_rooms_import_only_what_they_may(room):
    files = sorted((PACKAGE / room).glob("*.py"))
    assert files
    for path in files:
        assert rooms_imported(path) <= ALLOWED[room] | {room}, path


def test_the_test_sees_imports():
    assert rooms_imported(PACKAGE / "pipeline.py") >= {"diffusion", "networks", "data", "edits"}


def test_files_can_be_read_in_one_sitting():
    long = {path.name: n for path in PACKAGE.rglob("*.py") if (n := len(path.read_text().splitlines())) > 270}
    assert not long
