"""The lessons read and look as the course means to: every lesson that links to the glossary is held to it."""

import base64
import io
import re

import nbformat
import pytest
from PIL import Image
from test_notebooks import FOLDER, SOURCES, TODAYS, build, code_of, stem

# What the field calls otherwise, or nobody says. A lesson's exceptions: a part of the line that may have it.
BANNED = {
    r"\bbelie(f|fs|ve|ves)\b": "the denoised estimate",
    r"\bwalk(s|ed|ing)?\b": "sampling, the trajectory",
    r"\bask(s|ed|ing)? the network\b": "a forward pass",
    r"\btold nothing\b": "unconditional",
    r"\bislands?\b": "clusters, modes",
    r"\brows? of noise\b": "noise vectors",
    r"\bspread\b": "standard deviation, variance",
    r"\bthe price of\b": "the KL term, the cost",
    r"\bundecided\b": "not significant",
    r"\bcannot be had\b|\bis owed to\b|\bdoes not do\b|\bto be had\b": "say it as to a student across a table",
    r"\btake along\b|\bcome along\b": "remember",
    r"\bbeauties\b|\bfor nothing\b|\bof their own accord\b": "say it as to a student across a table",
    r"\bforetold\b": "predicted",
    r"\bnobody can\b|\bnobody has\b|\bby nobody\b": "say what is possible",
    r"\bis no [a-z]+\.|\bare no [a-z]+\.": "is not a ...",
}
ALLOWED = ("random walk", "walk through", "walks you through")


@pytest.mark.parametrize("source", TODAYS, ids=stem)
def test_the_words_are_the_fields(source):
    for cell in build.prose(source):
        for line in cell.splitlines():
            for words in ALLOWED:
                line = line.replace(words, "")
            for banned, better in BANNED.items():
                found = re.search(banned, line, re.I)
                assert not found, f"{found[0]!r} ({better}): {line}"


@pytest.mark.parametrize("source", TODAYS, ids=stem)
def test_a_lesson_says_what_it_is_for_and_where_to_read_on(source):
    text = "\n".join(build.prose(source))
    for row in ("| After this lesson you can |", "| Study time | {{study time}}", "| Compute time |", "| You need |"):
        assert row in text
    assert "[glossary](GLOSSARY.md)" in text
    reading = text.split("## Further reading\n")[1]
    assert len(re.findall(r"\]\(https://(?:arxiv\.org/abs/|doi\.org/|\S+)\)", reading)) >= 2
    assert len(re.findall(r"Before you run", text)) >= 2 and text.count("<details>") >= 2, "guess first, two times"
    tries = re.findall(r"^\*Try:?\*.*?(?=\n\n|\Z)", text, re.M | re.S)
    assert text.count("<summary>Answer") >= len(tries) + 2, "each Try and each guess has its answer"


@pytest.mark.parametrize("source", TODAYS, ids=stem)
def test_every_figure_has_words_and_one_moves(source):
    moving = 0
    for cell in code_of(nbformat.read(FOLDER / f"{source.stem}.ipynb", as_version=4)):
        for output, after in zip(cell.outputs, [*cell.outputs[1:], {}], strict=False):
            if png := output.get("data", {}).get("image/png"):
                assert len(output.metadata.get("image/png", {}).get("alt", "")) > 20, f"no alt text: {cell.source}"
                caption = after.get("data", {}).get("text/markdown", "")
                assert re.fullmatch(r"\*[^\n]{20,}\*", caption), f"no caption: {cell.source}"
                moving += getattr(Image.open(io.BytesIO(base64.b64decode(png))), "n_frames", 1) > 1
    assert moving, "the idea of the lesson should be seen moving"


@pytest.mark.parametrize("source", TODAYS, ids=stem)
def test_no_cell_is_too_long_to_read(source):
    for cell in code_of(build.lesson(source)):
        folded = cell.metadata.get("jupyter", {}).get("source_hidden")
        assert folded or len(cell.source.splitlines()) <= 25, cell.source


def test_the_glossary_is_made_from_the_lessons():
    page = (FOLDER / "GLOSSARY.md").read_text()
    assert page == build.glossary(SOURCES), "run: make notebooks"
    for source in TODAYS:
        assert len(build.terms(source)) >= 5
        assert all(len(sentence.split()) > 3 for sentence in build.terms(source).values())
