"""labeling.ipynb in a real JupyterLab and a real browser: what a person does, and what is on disk afterwards.

Needs Chromium (Debian's package, or any browser named by EMCURATE_CHROMIUM) and Playwright; skipped without.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import tifffile

from emcurate.images.sections import write_section
from emcurate.labeling.tiles import describe_place
from emcurate.patches.labels import load_labels
from emcurate.patches.pathlists import PathList, write_path_list
from tests.browsers import CHROMIUM, FLAGS, needs_chromium

sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
pytest.importorskip("jupyterlab", reason="JupyterLab is not installed")
pytest.importorskip("anywidget", reason="anywidget is not installed")

NOTEBOOK = "labeling.ipynb"
COUNT = 30
COLUMNS = 4  # of the pages of those tests that count on 3 x 4
PAGE = 12
ORDER = np.random.default_rng(0).permutation(COUNT).tolist()  # the widget's default, of seed 0
GONE = 7  # the place on the first page of a patch whose file is not there

pytestmark = [
    needs_chromium,
    pytest.mark.timeout(240),
]


class Lab:
    """A Jupyter server of this test's own on 127.0.0.1; `module` is jupyterlab or notebook."""

    def __init__(self, directory: Path, root: Path, module: str = "jupyterlab") -> None:
        self.directory = directory
        self.page = "lab/tree" if module == "jupyterlab" else "notebooks"
        self.token = secrets.token_hex(16)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        own = directory.parent / module
        settings = own / "settings" / "@jupyterlab" / "apputils-extension"
        settings.mkdir(parents=True)
        (settings / "notification.jupyterlab-settings").write_text('{"fetchNews": "false", "checkForUpdates": false}')
        environment = {
            **os.environ,
            "PYTHONPATH": str(root),
            "JUPYTER_TOKEN": self.token,
            "JUPYTER_CONFIG_DIR": str(own / "config"),
            "JUPYTER_DATA_DIR": str(own / "data"),
            "JUPYTER_RUNTIME_DIR": str(own / "runtime"),
            "JUPYTERLAB_SETTINGS_DIR": str(own / "settings"),
            "JUPYTERLAB_WORKSPACES_DIR": str(own / "workspaces"),
            "IPYTHONDIR": str(own / "ipython"),
        }
        self.log = open(own / "server.log", "wb")  # noqa: SIM115
        command = [sys.executable, "-m", module, "--no-browser", "--allow-root"]
        command += ["--ServerApp.ip=127.0.0.1", f"--ServerApp.port={self.port}", "--ServerApp.port_retries=0"]
        command += [f"--ServerApp.root_dir={directory}"]
        self.process = subprocess.Popen(command, env=environment, stdout=self.log, stderr=subprocess.STDOUT)

    def ask(self, path: str, data: dict | None = None, method: str | None = None):
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/api/{path}",
            data=None if data is None else json.dumps(data).encode(),
            headers={"Authorization": f"token {self.token}"},
            method=method,
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.loads(answer.read() or "null")

    def wait(self) -> None:
        for _ in range(300):
            try:
                self.ask("status")
            except OSError:
                assert self.process.poll() is None, "the server has stopped"
                time.sleep(0.2)
            else:
                return
        raise AssertionError("Jupyter has not started within a minute")

    def start_kernel(self) -> None:
        kernel = {"path": NOTEBOOK, "name": NOTEBOOK, "type": "notebook", "kernel": {"name": "python3"}}
        self.ask("sessions", kernel)

    def stop_kernels(self) -> None:
        for session in self.ask("sessions"):
            self.ask(f"sessions/{session['id']}", method="DELETE")

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(30)
        self.log.close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/{self.page}/{NOTEBOOK}?token={self.token}"


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """Thirty patches in two datasets, one of them missing, and a path list."""
    directory = tmp_path_factory.mktemp("browser") / "work"
    (directory / "patches").mkdir(parents=True)
    generator = np.random.default_rng(0)
    paths = []
    for i in range(COUNT):
        name = f"fly-LOC-0_{i:03d}_0_0" if i < 24 else f"mouse-LOC-2d-grid {i}_0_224"
        path = directory / "patches" / f"{name}.tiff"
        smooth = np.cumsum(generator.normal(0, 8, (64, 64)), 0) + 128
        write_section(path, np.clip(smooth, 0, 255).astype(np.uint8))
        paths.append(str(path))
    Path(paths[ORDER[GONE]]).unlink()
    write_path_list(directory / "deduplicated_fpaths.npz", paths)
    return directory


@pytest.fixture(scope="module")
def lab(work, root):
    lab = Lab(work, root)
    try:
        lab.wait()
        yield lab
    finally:
        lab.stop()


@pytest.fixture
def notebook_server(work, root):
    pytest.importorskip("notebook", reason="Notebook 7 is not installed")
    server = Lab(work, root, "notebook")
    try:
        server.wait()
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser):
    context = browser.new_context(viewport={"width": 1500, "height": 1300})
    context.set_default_timeout(30_000)
    yield context.new_page()
    context.close()


def write_notebook(root: Path, work: Path, **values: object) -> None:
    """Put the repository's notebook, with this test's paths, where the server finds it."""
    notebook = json.loads((root / NOTEBOOK).read_text("utf-8"))
    cell = next(cell for cell in notebook["cells"] if cell["id"] == "paths")
    source = "".join(cell["source"])
    for name, value in values.items():
        source, count = re.subn(
            rf"^{name} = \S+", lambda _, v=value, n=name: f"{n} = {v!r}", source, flags=re.MULTILINE
        )
        assert count == 1, f"{name} is not among the notebook's paths"
    cell["source"] = source
    (work / NOTEBOOK).write_text(json.dumps(notebook), "utf-8")


def run_all(page, lab: Lab, until: str = ".emcurate-labeling .emc-grid") -> None:
    """Run all cells and wait for what they show."""
    page.locator(".jp-Notebook .jp-CodeCell").first.wait_for()
    for _ in range(150):
        if any(kernel["connections"] for kernel in lab.ask("kernels")):
            break
        time.sleep(0.2)
    for _ in range(3):
        page.get_by_role("menuitem", name="Run", exact=True).click()
        page.locator('.lm-Menu-item[data-command="runmenu:run-all"]').click()
        for _ in range(150):
            if page.locator(until).count():
                return
            # Lab may ask which kernel to use; then what was to be run has to be run again.
            if page.locator(".jp-Dialog .jp-mod-accept").count():
                page.locator(".jp-Dialog .jp-mod-accept").first.click()
                page.wait_for_timeout(2000)
                break
            page.wait_for_timeout(100)
    raise AssertionError(f"{until} has not appeared")


def keys(page, *names: str) -> None:
    for name in names:
        page.keyboard.press(name)


def settle(page) -> None:
    """Wait until the kernel has confirmed everything."""
    page.wait_for_function(
        "document.querySelector('.emcurate-labeling .emc-saved')?.textContent === 'all labels saved'"
        " && !document.querySelector('.emc-waiting')"
    )


def letters(page) -> list[str]:
    return page.locator(".emc-tile .emc-badge").all_inner_texts()


def fix_grid(page) -> None:
    """Show 3 x 4 patches, whatever the window has room for."""
    settle(page)
    widget = page.locator(".emcurate-labeling")
    widget.get_by_label("Fit window").uncheck()
    for name, count in (("Rows", 3), ("Columns", COLUMNS)):
        widget.get_by_label(name).fill(str(count))
        widget.get_by_label(name).press("Enter")
        settle(page)
    page.wait_for_function(f"document.querySelectorAll('.emc-tile').length === {PAGE}")


def tile(page, place: int):
    return page.locator(".emc-tile").nth(place)


def cursor(page) -> int:
    return page.locator(".emc-tile").evaluate_all("tiles => tiles.findIndex(t => t.classList.contains('emc-cursor'))")


def saved(path: Path, work: Path) -> list[str]:
    """A label file in the order in which the widget shows patches, as the letters it shows."""
    labels = load_labels(path, PathList(work / "deduplicated_fpaths.npz"))
    return [{"informative": "I", "uninformative": "U", "unsure": "?", "none": ""}[labels[i]] for i in ORDER]


def test_labelling_by_keyboard_and_mouse_undo_reload_and_resume(page, lab, work, root):
    labels = work / "patch_quality_labels.npy"
    write_notebook(
        root,
        work,
        FPATHS=str(work / "deduplicated_fpaths.npz"),
        LABELS=str(labels),
        ANNOTATOR="anna",
    )
    lab.start_kernel()
    page.goto(lab.url)
    run_all(page, lab)
    fix_grid(page)
    cells = page.locator(".jp-Notebook .jp-Cell").count()
    expected = [""] * COUNT

    def check(first: int = 0) -> None:
        settle(page)
        assert letters(page) == expected[first : first + PAGE]
        assert saved(labels, work) == expected

    check()
    assert page.locator(".emc-tile canvas").count() == PAGE - 1
    assert "no such file" in tile(page, GONE).inner_text()

    # What is drawn are the file's pixels, pixel for pixel.
    canvas = page.locator(".emc-tile canvas").first
    drawn = canvas.evaluate(
        "c => Array.from(c.getContext('2d').getImageData(0, 0, c.width, c.height).data).filter((_, i) => i % 4 === 0)"
    )
    path = PathList(work / "deduplicated_fpaths.npz")[ORDER[0]]
    assert drawn == tifffile.imread(path).ravel().tolist()
    assert canvas.evaluate("c => getComputedStyle(c).imageRendering") == "pixelated"
    canvas.hover()
    assert describe_place(path) in page.locator(".emc-info").inner_text()
    box, caption = canvas.bounding_box(), tile(page, 0).locator(".emc-caption").bounding_box()
    assert caption["y"] >= box["y"] + box["height"], "nothing lies over a patch"

    # Keys label and advance, move, and toggle.
    tile(page, 0).click()
    keys(page, "i", "u", "o", "n")
    expected[:3] = ["I", "U", "?"]
    check()
    assert cursor(page) == 4
    keys(page, "Home", "ArrowDown", "ArrowRight", "u", "ArrowLeft", "Space", "ArrowUp", "Space")
    expected[COLUMNS + 1] = expected[1] = "I"
    check()
    assert cursor(page) == 1

    # Shift selects a range, one key labels it but for what is missing, and Z takes it back as one action.
    tile(page, GONE - 1).click()
    keys(page, "Shift+ArrowRight", "Shift+ArrowRight", "i")
    before = [*expected]
    expected[GONE - 1] = expected[GONE + 1] = "I"
    check()
    assert cursor(page) == GONE + 2
    keys(page, "z")
    expected = before
    check()

    # The mouse: drag over two and press a button, extend by a shift-click, toggle by a double click.
    tile(page, 8).hover()
    page.mouse.down()
    tile(page, 9).hover()
    page.mouse.up()
    page.get_by_title("Label the selection as uninformative").click()
    tile(page, 10).click()
    tile(page, 11).click(modifiers=["Shift"])
    page.get_by_title("Label the selection as informative").click()
    tile(page, 9).dblclick()
    expected[8:12] = ["U", "I", "I", "I"]
    check()

    # One key marks the rest of the page, and never what is missing.
    keys(page, "Shift+U")
    expected[:PAGE] = ["" if place == GONE else letter or "U" for place, letter in enumerate(expected[:PAGE])]
    check()
    tile(page, GONE).click()
    keys(page, "i")
    assert "cannot be labelled" in page.locator(".emc-error").inner_text()
    check()

    # The next page, its keys struck without waiting for it.
    keys(page, "Enter", "i", "i", "u")
    expected[PAGE : PAGE + 3] = ["I", "I", "U"]
    check(PAGE)

    # None of these keys did anything to the notebook itself.
    assert page.locator(".jp-Notebook .jp-Cell").count() == cells
    assert page.locator(".jp-Notebook.jp-mod-editMode").count() == 0

    # Save the notebook and reload the page: the kernel lives on, and so does the widget.
    keys(page, "Control+s")
    page.wait_for_function("!document.querySelector('.jp-mod-dirty')")
    page.reload()
    page.locator(".emcurate-labeling .emc-tile").first.wait_for()
    check(PAGE)
    assert cursor(page) == 3
    tile(page, 3).click()
    keys(page, "u", "z", "z")
    expected[PAGE + 2] = ""
    check(PAGE)
    page.close()

    # Stop the kernel and begin anew: it goes on where it stopped, and undo reaches back.
    lab.stop_kernels()
    lab.start_kernel()
    page = page.context.new_page()
    page.goto(lab.url)
    run_all(page, lab)
    check(PAGE)
    tile(page, 5).click()
    keys(page, "i", "z", "z")
    expected[PAGE + 1] = ""
    check(PAGE)

    widget = page.locator(".emcurate-labeling")
    # Fewer columns and a filter: pages are made anew, and no label is touched.
    widget.get_by_label("Columns").fill("3")
    widget.get_by_label("Columns").press("Enter")
    page.wait_for_function("document.querySelectorAll('.emc-tile').length === 9")
    widget.get_by_label("Show").select_option("uninformative")
    settle(page)
    assert set(letters(page)) == {"U"}
    page.get_by_text("Progress by dataset").click()
    page.locator(".emc-details td", has_text="mouse").wait_for()
    assert saved(labels, work) == expected


def test_notebook_7_leaves_the_keys_to_the_widget(page, notebook_server, work, root):
    labels = work / "notebook_labels.npy"
    write_notebook(root, work, FPATHS=str(work / "deduplicated_fpaths.npz"), LABELS=str(labels))
    notebook_server.start_kernel()
    page.goto(notebook_server.url)
    run_all(page, notebook_server)
    settle(page)
    assert has_keys(page)
    fix_grid(page)
    cells = page.locator(".jp-Notebook .jp-Cell").count()
    tile(page, 0).click()
    # Twice I would stop the kernel, twice D delete the cell, Enter edit it.
    # With nothing to undo yet, Z leaves the selection alone.
    keys(page, "Shift+ArrowRight", "z", "i", "u", "u", "d", "d", "Space", "z", "Shift+U", "Enter", "i", "i")
    settle(page)
    assert letters(page) == ["I", "I"] + [""] * 10
    first = ["" if place == GONE else "I" if place < 2 else "U" for place in range(PAGE)]
    assert saved(labels, work) == first + ["I", "I"] + [""] * 16
    assert page.locator(".jp-Notebook .jp-Cell").count() == cells
    assert page.locator(".jp-Notebook.jp-mod-editMode").count() == 0
    keys(page, "Control+s")
    page.wait_for_function("!document.querySelector('.jp-mod-dirty')")


def open_notebook(page, lab: Lab, root: Path, work: Path, **values: object) -> None:
    """Run the notebook afresh on the thirty patches, and wait for the first page."""
    write_notebook(root, work, FPATHS=str(work / "deduplicated_fpaths.npz"), **values)
    lab.stop_kernels()
    lab.start_kernel()
    page.goto(lab.url)
    run_all(page, lab)
    settle(page)


def has_keys(page) -> bool:
    return page.evaluate("document.activeElement.classList.contains('emc-grid')")


def cut_off(page, selector: str) -> list[str]:
    """What of a selector's elements is not, or not wholly, within the part of the notebook that is on the screen."""
    return page.locator(selector).evaluate_all(
        """nodes => {
            const frame = document.querySelector('.jp-WindowedPanel-outer').getBoundingClientRect();
            return nodes.filter(node => {
                const box = node.getBoundingClientRect();
                return box.width && (box.top < frame.top - 1 || box.bottom > frame.bottom + 1
                    || box.left < frame.left - 1 || box.right > frame.right + 1);
            }).map(node => node.className + ' ' + (node.title || node.textContent));
        }"""
    )


CONTROLS = ".emcurate-labeling > .emc-bar *, .emc-progress *, .emc-info, .emc-grid"


@pytest.mark.parametrize("size", [(1280, 720), (1440, 900), (1920, 1080)])
def test_after_run_all_the_grid_has_the_keys_and_everything_is_in_sight(page, lab, work, root, size):
    labels = work / f"labels_{size[0]}.npy"
    page.set_viewport_size({"width": size[0], "height": size[1]})
    open_notebook(page, lab, root, work, LABELS=str(labels), ANNOTATOR="anna")
    assert has_keys(page)
    shown = page.locator(".emc-tile").count()
    assert shown >= 6
    assert cut_off(page, ".emc-tile") == []
    assert cut_off(page, CONTROLS) == []
    keys(page, "Shift+U")
    settle(page)
    expected = ["" if place == GONE or place >= shown else "U" for place in range(COUNT)]
    assert saved(labels, work) == expected

    # The same after the window was made smaller, and on the whole screen.
    page.set_viewport_size({"width": size[0] - 200, "height": size[1] - 100})
    page.wait_for_timeout(500)
    settle(page)
    assert cut_off(page, ".emc-tile") == []
    before = page.locator(".emc-tile").count()
    keys(page, "f")
    page.wait_for_function(f"document.fullscreenElement && document.querySelectorAll('.emc-tile').length > {before}")
    settle(page)
    height = page.evaluate("window.innerHeight")
    assert all(box["y"] + box["height"] <= height for box in boxes(page, ".emc-tile, .emcurate-labeling > .emc-bar"))
    keys(page, "f")
    page.wait_for_function(f"!document.fullscreenElement && document.querySelectorAll('.emc-tile').length === {before}")
    assert has_keys(page)


def boxes(page, selector: str) -> list[dict]:
    return [node.bounding_box() for node in page.locator(selector).all()]


def test_only_what_is_in_sight_is_marked_and_it_is_said_what_is_not(page, lab, work, root):
    labels = work / "sight_labels.npy"
    page.set_viewport_size({"width": 1280, "height": 720})
    open_notebook(page, lab, root, work, LABELS=str(labels), ANNOTATOR="anna")
    fix_grid(page)
    assert has_keys(page)
    keys(page, "Shift+I")
    settle(page)
    marked = [place for place, letter in enumerate(letters(page)) if letter]
    assert 0 < len(marked) < PAGE - 1
    frame, grid = boxes(page, ".jp-WindowedPanel-outer")[0], boxes(page, ".emc-grid")[0]
    for place, box in enumerate(boxes(page, ".emc-tile")):
        seen = all(
            box["y"] >= limit["y"] - 3
            and box["y"] + box["height"] <= limit["y"] + limit["height"] + 3
            and box["x"] >= limit["x"] - 3
            and box["x"] + box["width"] <= limit["x"] + limit["width"] + 3
            for limit in (frame, grid)
        )
        assert (place in marked) == (seen and place != GONE)
    assert "out of sight and left as they are" in page.locator(".emc-message").inner_text()
    assert saved(labels, work) == ["I" if place in marked else "" for place in range(COUNT)]


def test_after_its_last_patch_a_page_is_turned_and_no_key_labels_a_patch_twice(page, lab, work, root):
    labels = work / "turning_labels.npy"
    open_notebook(page, lab, root, work, LABELS=str(labels), ANNOTATOR="anna")
    fix_grid(page)
    keys(page, *"iiiiiiiiiiiii", "u")
    settle(page)
    expected = ["" if place == GONE else "I" for place in range(PAGE)] + ["I", "U"] + [""] * (COUNT - PAGE - 2)
    assert saved(labels, work) == expected
    assert page.get_by_title("Page", exact=True).last.input_value() == "2"
    # With the switch off, the page stays, and so does its last patch.
    page.locator(".emcurate-labeling").get_by_label("Turn page").uncheck()
    assert has_keys(page)
    keys(page, "End", "u", "u", "o")
    expected[2 * PAGE - 1] = "U"
    settle(page)
    assert saved(labels, work) == expected
    assert "End of the page" in page.locator(".emc-message").inner_text()
    assert cursor(page) == -1
    keys(page, "ArrowLeft", "o")
    expected[2 * PAGE - 1] = "?"
    # J goes to the next without a label: unsure is not unseen, and what is missing cannot be labelled.
    keys(page, "j", "i")
    expected[2 * PAGE] = "I"
    # Nor does the end of the last page label anything twice.
    keys(page, "End", "i", "u", "u")
    expected[COUNT - 1] = "I"
    settle(page)
    assert saved(labels, work) == expected
    assert "End of the last page" in page.locator(".emc-message").inner_text()


def test_the_grid_takes_the_keys_from_an_empty_new_cell_and_not_from_who_is_writing(page, lab, work, root):
    open_notebook(page, lab, root, work, LABELS=str(work / "cells_labels.npy"), ANNOTATOR="anna")
    cells = page.locator(".jp-Notebook .jp-CodeCell .cm-content")
    for written in ("", "x = 12"):
        before = cells.count()
        page.locator(".emc-tile").first.evaluate("tile => (tile.dataset.old = true)")
        if written:  # before, since what is drawn at the first letter's moment takes the others
            cells.last.click()
            page.keyboard.type(written)
        cells.nth(1).click()
        # In the last cell this makes a new one below, and goes there.
        keys(page, "Shift+Enter")
        if written:
            cells.last.click()
        page.wait_for_function("document.querySelector('.emc-tile') && !document.querySelector('.emc-tile[data-old]')")
        settle(page)
        assert has_keys(page) == (not written)
        assert cells.count() == (before if written else before + 1)
    assert cells.last.inner_text() == "x = 12"


def test_keys_come_back_from_the_page_field_the_slider_and_the_lists(page, lab, work, root):
    open_notebook(page, lab, root, work, LABELS=str(work / "focus_labels.npy"), ANNOTATOR="anna")
    widget = page.locator(".emcurate-labeling")
    fix_grid(page)
    widget.locator("input[title=Page]").fill("2")
    widget.locator("input[title=Page]").press("Enter")
    settle(page)
    assert has_keys(page) and widget.locator("input[title=Page]").input_value() == "2"
    slider = widget.locator("input[type=range]").bounding_box()
    page.mouse.click(slider["x"] + slider["width"] * 0.2, slider["y"] + slider["height"] / 2)
    settle(page)
    assert has_keys(page)
    widget.get_by_label("Show").select_option("none")
    settle(page)
    assert has_keys(page)
    widget.get_by_label("Contrast").check()
    assert has_keys(page)
    page.locator(".emc-info").click()
    assert has_keys(page)


def test_what_could_not_be_saved_is_never_called_saved_and_the_cursor_waits_there(page, lab, work, root):
    labels = work / "lost_labels.npy"
    log = work / "lost_labels.log.jsonl"
    open_notebook(page, lab, root, work, LABELS=str(labels), ANNOTATOR="anna")
    fix_grid(page)
    keys(page, "i", "i")
    settle(page)
    kept = log.read_bytes()
    log.unlink()
    log.mkdir()
    keys(page, "u")
    page.locator(".emc-message.emc-error").wait_for()
    assert page.locator(".emc-saved").inner_text() == "1 label not saved"
    assert letters(page)[:4] == ["I", "I", "", ""]
    assert cursor(page) == 2
    keys(page, "c")
    page.wait_for_timeout(500)
    assert page.locator(".emc-saved").inner_text() == "1 label not saved", "to draw it again saves nothing"
    keys(page, "End", "u")
    page.wait_for_function("document.querySelector('.emc-saved').textContent === '2 labels not saved'")
    page.wait_for_timeout(500)
    assert page.locator("input[title=Page]").input_value() == "1", "a label that is not saved turns no page"
    assert cursor(page) == 2
    log.rmdir()
    log.write_bytes(kept)
    keys(page, "u", "End", "u")
    settle(page)
    assert page.locator(".emc-message.emc-error").count() == 0
    assert page.locator("input[title=Page]").input_value() == "2"
    assert saved(labels, work)[:PAGE] == ["I", "I", "U", *[""] * (PAGE - 4), "U"]


def test_a_models_labels_are_shown_taken_and_given_back_and_keys_can_be_others(page, lab, work, root):
    labels = work / "model_labels.npy"
    scores = np.random.default_rng(1).random(COUNT).astype(np.float32)
    np.save(work / "nn_scores.npy", scores)
    values = {"LABELS": str(labels), "ANNOTATOR": "anna", "SCORES": str(work / "nn_scores.npy")}
    open_notebook(page, lab, root, work, **values, KEYS={"informative": "1", "accept": "a"})
    fix_grid(page)
    drawn = page.locator(".emc-tile .emc-score").all_inner_texts()
    assert drawn == [f"{scores[i]:.2f}" for i in ORDER[:PAGE]]
    keys(page, "1", "i", "a")
    model = ["I" if scores[i] > 0.5 else "U" for i in ORDER]
    expected = ["I", *model[1:PAGE]] + [""] * (COUNT - PAGE)
    expected[GONE] = ""
    settle(page)
    assert saved(labels, work) == expected
    keys(page, "z")
    settle(page)
    assert saved(labels, work) == ["I"] + [""] * (COUNT - 1)
    keys(page, "h")
    assert page.locator(".emc-help kbd").first.inner_text() == "1"


def test_a_patch_is_shown_in_its_section_or_it_is_said_why_not(page, lab, work, root):
    sections = work / "sections"
    sections.mkdir()
    shown = next(place for place, index in enumerate(ORDER) if index < 24 and place != GONE)
    paths = PathList(work / "deduplicated_fpaths.npz")
    section = np.random.default_rng(2).integers(0, 256, (160, 200), dtype=np.uint8)
    section[:64, :64] = tifffile.imread(paths[ORDER[shown]])
    write_section(sections / f"fly-LOC-0_{ORDER[shown]:03d}.tiff", section)
    labels = str(work / "around_labels.npy")
    open_notebook(page, lab, root, work, LABELS=labels, ANNOTATOR="anna", SOURCES=str(sections))
    fix_grid(page)
    tile(page, shown).click()
    keys(page, "v")
    page.locator(".emc-panel:not([hidden]):not(.emc-stale) canvas").wait_for()
    drawn = page.locator(".emc-panel canvas").evaluate(
        "c => Array.from(c.getContext('2d').getImageData(0, 0, c.width, c.height).data).filter((_, i) => i % 4 === 0)"
    )
    assert drawn == section[:, : 3 * 64].ravel().tolist()
    assert page.locator(".emc-tile canvas").nth(0).is_visible()
    # It follows the cursor, and where there is nothing, the button is grey and says why.
    other = shown + 1 if shown + 1 != GONE else shown + 2
    tile(page, other).click() if other % COLUMNS < COLUMNS / 2 else keys(page, "v")
    tile(page, other).click()
    button = page.get_by_role("button", name="Surroundings")
    page.wait_for_function("document.querySelector('.emc-closed')")
    assert "_patches.parquet" in button.get_attribute("title")
    assert button.get_attribute("aria-disabled") == "true"


def test_alike_side_by_side_orders_the_patches_and_keeps_the_keys(page, lab, work, root):
    open_notebook(page, lab, root, work, LABELS=str(work / "alike_labels.npy"), ANNOTATOR="anna")
    widget = page.locator(".emcurate-labeling")
    widget.get_by_label("Order").select_option("similar")
    settle(page)
    assert has_keys(page)
    assert widget.get_by_label("Order").input_value() == "similar"
    assert page.locator(".emc-tile canvas").count() > 0


def test_a_wrong_path_is_one_line_not_a_traceback(page, lab, work, root):
    write_notebook(root, work, FPATHS=str(work / "nowhere.npz"), LABELS=str(work / "other_labels.npy"))
    lab.stop_kernels()
    lab.start_kernel()
    page.goto(lab.url)
    run_all(page, lab, until=".jp-OutputArea-output")
    output = page.locator(".jp-OutputArea-output").last
    text = output.inner_text().strip()
    advice = "expected a path list, which is a directory of .npy files, found nothing; check the path"
    assert text == f"{work / 'nowhere.npz'}: {advice}"
    assert not (work / "other_labels.npy").exists()


def test_the_notebook_is_committed_without_outputs(root):
    notebook = json.loads((root / NOTEBOOK).read_text("utf-8"))
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert len(notebook["cells"]) <= 6
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
