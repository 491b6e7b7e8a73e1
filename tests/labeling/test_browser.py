"""labeling.ipynb in a real JupyterLab and a real browser: what a person does, and what is on disk afterwards.

Needs Chromium (Debian's package, or any browser named by EMCURATE_CHROMIUM) and Playwright; skipped without.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
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

sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
pytest.importorskip("jupyterlab", reason="JupyterLab is not installed")
pytest.importorskip("anywidget", reason="anywidget is not installed")

CHROMIUM = os.environ.get("EMCURATE_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
NOTEBOOK = "labeling.ipynb"
COUNT = 30
COLUMNS = 4  # of a page, as the widget begins: 3 x 4
PAGE = 12
ORDER = np.random.default_rng(0).permutation(COUNT).tolist()  # the widget's default, of seed 0
GONE = 7  # the place on the first page of a patch whose file is not there

pytestmark = [
    pytest.mark.skipif(
        CHROMIUM is None, reason="no Chromium found; apt-get install chromium, or set EMCURATE_CHROMIUM"
    ),
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
    return page.locator(".emc-tile > .emc-badge").all_inner_texts()


def tile(page, place: int):
    return page.locator(".emc-tile").nth(place)


def cursor(page) -> int:
    return page.locator(".emc-tile").evaluate_all("tiles => tiles.findIndex(t => t.classList.contains('emc-cursor'))")


def saved(path: Path, work: Path) -> list[str]:
    """A label file in the order in which the widget shows patches, as the letters it shows."""
    labels = load_labels(path, PathList(work / "deduplicated_fpaths.npz"))
    return [{"informative": "I", "uninformative": "U", "none": ""}[labels[i]] for i in ORDER]


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
    assert page.locator(".emc-tile .emc-caption").first.evaluate("c => getComputedStyle(c).opacity") == "1"

    # Keys label and advance, move, and toggle.
    tile(page, 0).click()
    keys(page, "i", "u", "i", "n")
    expected[:3] = ["I", "U", "I"]
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
    page.get_by_title("Label the selection (U)").click()
    tile(page, 10).click()
    tile(page, 11).click(modifiers=["Shift"])
    page.get_by_title("Label the selection (I)").click()
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
    page.locator(".jp-Notebook .jp-MarkdownCell").first.click()
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
