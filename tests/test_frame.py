"""The frame: what the front pages, the Makefile and the environment promise is there.

`python tests/test_frame.py` brings the line counts of minidiff/README.md and the badges up to date.
"""

import re
import tomllib
from pathlib import Path

import pytest

from minidiff import REPOSITORY

ROOT = Path(__file__).resolve().parent.parent
README, GUIDE = ROOT / "README.md", ROOT / "minidiff/README.md"
PAGES = ["README.md", "CONTRIBUTING.md", "minidiff/README.md", "minidiff/formats/README.md", "benchmarks/README.md"]
CORE_FILE = re.compile(r"^(\| \[\w+\.py\]\((\w+/\w+\.py)\) \| .* \| )([\d,]+)( \| .* \|)$", re.M)
BADGES = re.compile(r"(?<=<!-- badges -->\n).*?(?=<!-- /badges -->)", re.S)
REFRESH = "run: python tests/test_frame.py"


def counted(text: str) -> str:
    """minidiff/README.md with the line counts of the files as they are, in tens: a few lines more are no other number."""
    lines = core_lines(text)
    text = CORE_FILE.sub(lambda m: f"{m[1]}{round(lines[m[2]], -1)}{m[4]}", text)
    return re.sub(r"(?<=Its files have about )[\d,]+(?= lines)", f"{round(sum(lines.values()), -2):,}", text)


def core_lines(text: str) -> dict[str, int]:
    return {path: len((GUIDE.parent / path).read_text().splitlines()) for _, path, *_ in CORE_FILE.findall(text)}


def badged(text: str, repository: str = REPOSITORY) -> str:
    """README.md with the badges of the public repository; without one there are none."""
    path = repository.removeprefix("https://github.com/")
    tour = "notebooks/00_tour.ipynb"
    badges = [
        f"[![tests]({repository}/actions/workflows/tests.yml/badge.svg)]({repository}/actions)",
        f"[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/{path}/blob/main/{tour})",
        f"[![Binder](https://mybinder.org/badge_logo.svg)](https://mybinder.org/v2/gh/{path}/HEAD?labpath={tour})",
    ]
    return BADGES.sub(" ".join(badges) + "\n" if repository else "", text)


def test_the_line_counts_of_the_core_are_true():
    text = GUIDE.read_text()
    said = {path: int(count) for _, path, count, _ in CORE_FILE.findall(text)}
    assert {path: n for path, n in core_lines(text).items() if abs(n - said[path]) > 20} == {}, REFRESH
    total = int(re.search(r"Its files have about ([\d,]+) lines", text)[1].replace(",", ""))
    assert abs(sum(core_lines(text).values()) - total) <= 100, REFRESH


def test_the_core_is_small():
    lines = core_lines(GUIDE.read_text())
    assert {path.split("/")[0] for path in lines} == {"diffusion", "networks", "training", "pipeline"}
    assert sum(lines.values()) <= 1500, lines
    assert {path: count for path, count in lines.items() if count > 270} == {}


def test_the_guide_names_everything_in_the_package():
    names = re.findall(r"^\| \[[\w.]+/?\]\((\w+(?:\.py)?)", GUIDE.read_text(), re.M)
    there = {p.name for p in GUIDE.parent.iterdir() if p.suffix == ".py" or (p / "__init__.py").exists()}
    assert sorted(there - {"__init__.py", "__main__.py"} - set(names)) == []


def test_badges_come_from_one_constant():
    text = README.read_text()
    assert text == badged(text), REFRESH
    public = badged(text, "https://github.com/someone/minidiff")
    assert public.count("github.com/someone/minidiff/actions") == 2 and "/gh/someone/minidiff/" in public
    assert badged(public, "") == badged(text, "")


def test_the_front_page_is_short():
    assert len(README.read_text().splitlines()) <= 200


@pytest.mark.parametrize("page", PAGES)
def test_every_file_that_a_page_names_is_there(page):
    named = set(re.findall(r"`((?:minidiff|benchmarks|assets|notebooks|tests)/[\w./]*\w)", (ROOT / page).read_text()))
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


def test_every_make_target_is_explained():
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M)
    assert {"check", "demo", "test", "lab", "notebooks", "figures"} <= set(targets)
    words = README.read_text() + (ROOT / "CONTRIBUTING.md").read_text()
    assert [target for target in targets if f"make {target}" not in words] == []


def test_every_benchmark_has_a_section():
    page = (ROOT / "benchmarks/README.md").read_text()
    scripts = {path.name for path in (ROOT / "benchmarks").glob("*.py")} - {"experiment.py"}  # what they share
    assert [name for name in sorted(scripts) if f"python benchmarks/{name}" not in page] == []


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
    code = [path for folder in ("minidiff", "benchmarks", "assets") for path in (ROOT / folder).rglob("*.py")]
    unpickles = [path.name for path in code if re.search(r"torch\.load\(|import pickle|pickle\.load", path.read_text())]
    assert unpickles == ["worker.py"]  # which reads what the student's own notebook has just written to it


if __name__ == "__main__":
    for page, fresh in ((GUIDE, counted), (README, badged)):
        page.write_text(fresh(page.read_text()))
