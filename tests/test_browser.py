"""A reader's way through a lesson, in a real JupyterLab and a real browser.

Needs Chromium (apt install chromium) beside the dev extra; skipped without.
"""

import ast
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import nbformat
import pytest

NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"
CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
)

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: apt install chromium"),
    pytest.mark.xdist_group("browser"),  # one server and one browser for all of them
]
SETTINGS = {
    "labconfig/page_config.json": '{"disabledExtensions": {"@jupyterlab/apputils-extension:announcements": true}}',
    # draw all cells, also those that one would have to scroll to
    "lab/user-settings/@jupyterlab/notebook-extension/tracker.jupyterlab-settings": '{"windowingMode": "none"}',
}


def names_in(tree: ast.AST) -> tuple[set[str], set[str]]:
    """The names that some code uses, and those that it defines."""
    used, defined = set(), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            (used if isinstance(node.ctx, ast.Load) else defined).add(node.id)
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            defined.add(node.name)
        elif isinstance(node, ast.alias):
            defined.add(node.asname or node.name.split(".")[0])
    return used, defined


def only_for_widgets(path: Path) -> None:
    """Leave out of a lesson what its widgets do not need: test_notebooks.py runs all of it, and a browser waits for it."""
    notebook, needed = nbformat.read(path, as_version=4), set()
    for cell in reversed(notebook.cells):
        used, defined = names_in(ast.parse(cell.source)) if cell.cell_type == "code" else (set(), set())
        if cell.source.startswith("widgets.") or defined & needed:
            needed = (needed - defined) | used
        else:
            notebook.cells.remove(cell)
    nbformat.write(notebook, path)


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """The address of a JupyterLab that shows a copy of the notebooks; from lesson 02 on, what widgets need of them."""
    home = tmp_path_factory.mktemp("lab")
    shutil.copytree(NOTEBOOKS, home / "notebooks")
    for path in sorted((home / "notebooks").glob("*.ipynb"))[2:]:
        only_for_widgets(path)
    for name, text in SETTINGS.items():
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text(text)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = os.environ | {
        "MINIDIFF_BUDGET": "smoke",
        "JUPYTER_CONFIG_DIR": str(home),
        "JUPYTERLAB_SETTINGS_DIR": str(home / "lab/user-settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces"),
        "JUPYTER_RUNTIME_DIR": str(home / "runtime"),
    }
    options = [
        "--no-browser",
        "--ServerApp.token=",
        "--ServerApp.password=",
        f"--ServerApp.port={port}",
        "--allow-root",
    ]
    command = [sys.executable, "-m", "jupyterlab", *options, f"--ServerApp.root_dir={home / 'notebooks'}"]
    with (home / "log").open("wb") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    address = f"http://127.0.0.1:{port}/lab"
    try:
        for _ in range(240):
            try:
                urllib.request.urlopen(address, timeout=1).close()
                break
            except OSError:
                assert server.poll() is None, (home / "log").read_text()
                time.sleep(0.5)
        else:
            pytest.fail(f"JupyterLab does not answer: {(home / 'log').read_text()}")
        yield address
    finally:
        server.terminate()
        server.wait()


@pytest.fixture(scope="module")
def chromium():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def open_notebook(lab, chromium):
    """Opens a notebook with a kernel; afterwards, nobody may have complained in the console."""
    complaints, pages = [], []

    def open_it(name):
        page = chromium.new_page(viewport={"width": 1300, "height": 1000})
        pages.append(page)
        page.set_default_timeout(300_000)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda message: message.type == "error" and complaints.append(message.text))
        with page.expect_websocket(lambda socket: "/channels" in socket.url) as kernel:
            page.goto(f"{lab}/tree/{name}?reset")
        kernel.value.wait_for_event("framereceived")  # the kernel has answered
        page.locator(".jp-Notebook-ExecutionIndicator[data-status=idle]").wait_for(state="attached")
        return page

    yield open_it
    for page in pages:
        page.close()
    assert complaints == []


def run_all(page):
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()


def cell(page, code):
    """The code cell that begins with this."""
    return page.locator(".jp-CodeCell", has=page.locator(".cm-line:first-child", has_text=code)).first


def turn(page, code, find, key):
    """Press a key on what `find` finds in the widget that this code shows; returns its picture before and after."""
    output = cell(page, code).locator(".jp-OutputArea")
    picture = output.locator("img").first
    control = find(output)
    control.focus()
    before = picture.get_attribute("src")
    control.press(key)
    page.wait_for_function("([image, old]) => image.src !== old", arg=[picture.element_handle(), before])
    page.wait_for_function("image => image.complete && image.naturalWidth > 0", arg=picture.element_handle())
    return before, picture.get_attribute("src")


def move_with_the_keyboard(page, code, label):
    """Press an arrow key on a slider of the widget that this code shows."""

    def slider(output):
        return output.locator(".widget-hslider", has=page.get_by_text(label, exact=True)).get_by_role("slider")

    return turn(page, code, slider, "ArrowRight")


def write(page, code, text):
    """Put `text` where `code` is the first line of a cell, and run it."""
    where = cell(page, code)
    where.locator(".cm-content").click()
    page.keyboard.press("ControlOrMeta+a")
    page.keyboard.insert_text(text)
    page.keyboard.press("Shift+Enter")


def test_corruption_moves(open_notebook):
    page = open_notebook("01_corruption.ipynb")
    run_all(page)
    before, after = move_with_the_keyboard(page, "widgets.corruption(", "t")
    assert before.startswith("blob:") and before != after


def test_the_sampler_draws_another_picture(open_notebook):
    page = open_notebook("03_sampling.ipynb")
    run_all(page)
    before, after = move_with_the_keyboard(page, "widgets.sampler(", "steps")
    assert before != after


def test_the_metric_explorer_measures_again(open_notebook):
    page = open_notebook("04b_publishing.ipynb")
    run_all(page)
    before, after = move_with_the_keyboard(page, "widgets.metric(", "amount")
    assert before.startswith("blob:") and before != after


def test_another_block_of_the_network_is_chosen_with_the_keyboard(open_notebook):
    page = open_notebook("05_unet.ipynb")
    run_all(page)
    before, after = turn(
        page, "widgets.unet(", lambda output: output.get_by_role("button", name="mid_block", exact=True), "Space"
    )
    assert before.startswith("blob:") and before != after


def test_a_caption_is_typed_and_what_cannot_be_read_is_said(open_notebook):
    from playwright.sync_api import expect

    page = open_notebook("08_clip.ipynb")
    run_all(page)
    output = cell(page, "widgets.clip(").locator(".jp-OutputArea")
    picture, prompt = output.locator("img").first, output.get_by_role("textbox", name="own")
    prompt.wait_for()
    said = output.get_by_role("status")
    assert said.inner_text().strip() == ""
    for text, words in (("a purple <b>elephant</b>", "elephant"), ("a green three on a white background", "")):
        before = picture.get_attribute("src")
        prompt.fill(text)
        assert picture.get_attribute("src") == before  # nothing is drawn while one types
        prompt.press("Enter")
        page.wait_for_function("([image, old]) => image.src !== old", arg=[picture.element_handle(), before])
        # the line is replaced, not changed: `expect` finds it anew at each try
        expect(said).to_have_text(re.compile(words or r"^\s*$"), timeout=300_000)
    assert output.get_by_text("Traceback").count() == 0


def test_guidance_is_amplified_with_the_keyboard(open_notebook):
    page = open_notebook("09_text_to_image.ipynb")
    run_all(page)
    before, after = move_with_the_keyboard(page, "widgets.guidance(", "scale")
    assert before.startswith("blob:") and before != after


def test_a_prompt_is_drawn_and_its_trajectory_looked_at(open_notebook):
    from playwright.sync_api import expect

    page = open_notebook("10_latents.ipynb")
    run_all(page)
    output = cell(page, "widgets.prompt_box(").locator(".jp-OutputArea")
    picture, prompt = output.locator("img").first, output.get_by_role("textbox", name="prompt")
    prompt.wait_for()
    said = output.get_by_role("status")
    for text, words in (("a purple <b>elephant</b>", "no emoji has"), ("a green apple", "in the emoji's training set")):
        before = picture.get_attribute("src")
        prompt.fill(text)
        assert picture.get_attribute("src") == before  # nothing is drawn while one types
        prompt.press("Enter")
        expect(picture).not_to_have_attribute("src", before, timeout=300_000)
        expect(said).to_have_text(re.compile(words), timeout=300_000)

    def step(output):
        return output.locator(".widget-hslider", has=page.get_by_text("step", exact=True)).get_by_role("slider")

    before, after = turn(page, "widgets.prompt_box(", step, "ArrowLeft")
    assert before.startswith("blob:") and before != after
    assert output.get_by_text("Traceback").count() == 0


def test_more_of_an_image_is_generated_anew(open_notebook):
    page = open_notebook("11_stable_diffusion.ipynb")
    run_all(page)
    before, after = move_with_the_keyboard(page, "widgets.edit(", "strength")
    assert before.startswith("blob:") and before != after
    output = cell(page, "widgets.edit(").locator(".jp-OutputArea")
    part = output.get_by_role("button", name="middle")
    picture = output.locator("img").first
    part.click()
    page.wait_for_function("([image, old]) => image.src !== old", arg=[picture.element_handle(), after])
    assert output.get_by_text("Traceback").count() == 0


WRONG = "def one_step(x, eps, beta):\n    return math.sqrt(1 - beta) * x + beta * eps"
RIGHT = "def one_step(x, eps, beta):\n    return math.sqrt(1 - beta) * x + math.sqrt(beta) * eps"


def test_a_student_reads_what_is_wrong_and_mends_it(open_notebook):
    page = open_notebook("exercises/01_corruption.ipynb")
    run_all(page)
    check = cell(page, "check.l01_one_step(")
    check.get_by_text("Nothing here yet").wait_for()
    cell(page, "check.l01_cosine_time(").get_by_text("Nothing here yet").wait_for()  # it has run to the end
    for answer, says in ((WRONG, "beta where its square root belongs"), (RIGHT, "Right: l01_one_step")):
        write(page, "def one_step(", answer)
        page.keyboard.press("Shift+Enter")  # the next cell is the check
        check.get_by_text(says).wait_for()
    assert check.get_by_text("Traceback").count() == 0
