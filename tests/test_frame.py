"""The frame: what the README, the Makefile and the environment promise is there."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()


@pytest.mark.parametrize("file", ["README.md", "assets/README.md"])
def test_every_link_and_picture_leads_somewhere(file):
    targets = re.findall(r"\]\(([^)#]+)[^)]*\)|src=\"([^\"]+)\"", (ROOT / file).read_text())
    local = [a or b for a, b in targets if not (a or b).startswith("http")]
    assert local
    assert [target for target in local if not (ROOT / file).parent.joinpath(target).exists()] == []


def test_every_file_that_the_readme_names_is_there():
    named = set(re.findall(r"`((?:minidiff|benchmarks|assets|notebooks|tests)/[\w./]*)`", README))
    assert len(named) > 8
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


def test_the_readme_tells_of_every_make_target():
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M)
    assert {"demo", "test", "lab", "notebooks", "figures"} == set(targets)
    assert [target for target in targets if f"make {target}" not in README] == []


def test_the_conda_environment_has_everything_that_the_package_needs():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = project["dependencies"] + [name for extra in project["optional-dependencies"].values() for name in extra]
    conda = re.findall(r"^  - ([\w-]+)", (ROOT / "environment.yml").read_text(), re.M)
    names = {re.match(r"[\w-]+", requirement)[0] for requirement in wanted}
    assert sorted(names - set(conda) - {"torch"}) == [] and "pytorch" in conda
    assert {"torchvision", "matplotlib", "jupyter", "ipywidgets", "einops", "transformers"} <= set(conda)


def test_nothing_shipped_is_a_pickle_and_nothing_unpickles():
    shipped = [path for path in (ROOT / "assets").rglob("*") if path.suffix in {".pkl", ".pt", ".pth", ".ckpt", ".bin"}]
    assert shipped == []
    code = [path for room in ("minidiff", "benchmarks", "assets") for path in (ROOT / room).rglob("*.py")]
    assert [path for path in code if re.search(r"torch\.load\(|import pickle|pickle\.load", path.read_text())] == []
