"""Every relative link and anchor of the pages and notebooks leads somewhere. Nothing is fetched."""

import json
import re
from functools import cache
from pathlib import Path
from urllib.parse import unquote

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = [
    "README.md", "CONTRIBUTING.md", "CHANGELOG.md", "minidiff/README.md", "minidiff/formats/README.md",
    "benchmarks/README.md", "assets/README.md", "notebooks/exercises/README.md",
]  # fmt: skip
NOTEBOOKS = [*ROOT.glob("notebooks/*.md"), *ROOT.glob("notebooks/**/*.ipynb")]
PAGES += sorted(str(path.relative_to(ROOT)) for path in NOTEBOOKS if ".ipynb_checkpoints" not in path.parts)
LINK = re.compile(r"\]\(([^()\s]+(?:\([^()\s]*\)[^()\s]*)?)[^()]*\)|(?:src|href)=\"([^\"]+)\"")
CODE = re.compile(r"^(```|~~~).*?^\1|(`+)(?!`).+?(?<!`)\2(?!`)", re.M | re.S)


@cache
def prose(path: Path) -> str:
    """The Markdown of a page or a notebook."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".ipynb":
        return text
    cells = json.loads(text)["cells"]
    return "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")


@cache
def anchors(path: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them, and its explicit ones."""
    text = re.sub(r"^(```|~~~).*?^\1", "", prose(path), flags=re.M | re.S)
    found = set(re.findall(r"(?:id|name)=\"([^\"]+)\"", text))
    for heading in re.findall(r"^#{1,6}\s+(.+?)\s*#*$", text, re.M):
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", words.lower()).replace(" ", "-")
        again = sum(name == slug or re.fullmatch(re.escape(slug) + r"-\d+", name) is not None for name in found)
        found.add(f"{slug}-{again}" if slug in found else slug)
        found.add(words.replace(" ", "-"))  # as Jupyter makes them
    return found


def lost(path: Path) -> list[str]:
    """The links of a page that lead nowhere."""
    bad = []
    for markdown, html in LINK.findall(CODE.sub("", prose(path))):
        link = markdown or html
        if re.match(r"[a-z][a-z+.-]*:|//", link) or link.startswith("attachment:"):
            continue
        where, _, anchor = unquote(link).partition("#")
        target = path.parent / where if where else path
        if not target.exists():
            bad.append(link)
        elif lines := re.fullmatch(r"L(\d+)(?:-L(\d+))?", anchor):
            there = len(target.read_text(encoding="utf-8").splitlines())
            bad += [] if all(1 <= int(n) <= there for n in lines.groups() if n) else [link]
        elif anchor and (target.is_dir() or anchor not in anchors(target)):
            bad.append(link)
    return bad


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(page):
    assert lost(ROOT / page) == []


def test_dead_links_are_found(tmp_path):
    page = tmp_path / "page.md"
    (tmp_path / "code.py").write_text("one\ntwo\n")
    (tmp_path / "other.md").write_text("# One & two\n\n## What's `x0`?\n\n## Again\n\n## Again\n")
    good = ["code.py#L2", "other.md#one--two", "other.md#whats-x0", "other.md#again-1", "#title", "https://x.org/y#z"]
    dead = ["nowhere.md", "code.py#L3", "other.md#three", "other.md#again-2", "#missing"]
    links = "\n".join(f"[a link]({link})" for link in good + dead)
    page.write_text(f'# Title\n\n{links}\n\n<img src="gone.png">\n\n`[code](is_no_link)`\n\n```\n[nor](here)\n```\n')
    assert lost(page) == [*dead, "gone.png"]
