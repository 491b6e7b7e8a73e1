"""The report in a real browser: at three sizes, in light and in dark, and without a word to any network."""

import numpy as np
import pytest

from emcurate.images.sections import write_section
from emcurate.patches.pathlists import write_path_list
from emcurate.reporting.page import ReportedRun, StageRun, write_page
from emcurate.reporting.summary import summarize
from tests.browsers import CHROMIUM, FLAGS, needs_chromium
from tests.reporting.test_report import HOSTILE, make_table

sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
pytestmark = [needs_chromium, pytest.mark.timeout(120)]

SIZES = [(1440, 900), (820, 1180), (390, 844)]


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    directory = tmp_path_factory.mktemp("report")
    frame = make_table(directory / "patches.parquet", [HOSTILE, "cell", "a" * 180], 3, 30)
    paths = [str(directory / f"{name}.tiff") for name in frame["patch"] if name.startswith("cell")]
    for path in paths:
        write_section(directory / path, np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8))
    write_path_list(directory / "listed.npz", paths)
    stages = [StageRun("crop_patches", f"python raw/crop_patches.py {'/long' * 60}", 1.5, "270 patches", (HOSTILE,))]
    run = ReportedRun(
        directory, "python curate.py " + "/long" * 60, stages, [HOSTILE], lists=[directory / "listed.npz"]
    )
    return write_page(run, summarize(directory / "patches.parquet"), threshold=0.5)


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.mark.parametrize("size", SIZES)
def test_the_page_fits_every_window_and_asks_nobody(report, browser, size):
    grounds = set()
    for scheme in ("light", "dark"):
        page = browser.new_page(viewport={"width": size[0], "height": size[1]}, color_scheme=scheme)
        asked, said = [], []
        page.on("request", lambda request, asked=asked: asked.append(request.url))
        page.on("console", lambda message, said=said: said.append(message.text))
        page.on("dialog", lambda dialog, said=said: said.append(dialog.message))
        page.goto(report.as_uri())
        assert [url for url in asked if not url.startswith("data:")] == [report.as_uri()]
        assert said == []
        assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
        images = page.locator("article img.kept")
        assert images.count() > 0
        images.first.scroll_into_view_if_needed()
        page.wait_for_function("document.querySelector('article img.kept').naturalWidth > 0")
        assert page.locator("svg.flow text").count() >= 4
        grounds.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        page.close()
    assert len(grounds) == 2
