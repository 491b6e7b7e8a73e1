"""The report says what the table of all patches says, in one file that is safe to open, whatever data files hold."""

import html.parser
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from emcurate.errors import InputError
from emcurate.images.sections import write_section
from emcurate.patches.pathlists import write_path_list
from emcurate.reporting.advice import advise
from emcurate.reporting.page import ReportedRun, StageRun, render, write_page
from emcurate.reporting.summary import GREY_BARS, SCORE_BARS, SHOWN_BY_SCORE, summarize
from emcurate.reporting.thumbnails import Thumbnails, encode_pixels

HOSTILE = "x<script>alert('é')</script>\" onload=\"alert(1)"
LARGEST_PAGE = 10_000_000


def make_table(path, datasets, sections, patches, seed=0, rows_a_group=5000):
    """Write a table of all patches as curate.py does, of random numbers; return it as pandas reads it."""
    random = np.random.default_rng(seed)
    count = len(datasets) * sections * patches
    dataset = np.repeat(np.array(datasets, object), sections * patches)
    index = np.tile(np.repeat(np.arange(sections), patches), len(datasets))
    column = np.tile(np.arange(patches), len(datasets) * sections)
    patch = np.array([f"{d}-LOC-0_{i}_0_{x * 64}" for d, i, x in zip(dataset, index, column, strict=True)], object)
    outcome = random.choice(["duplicate", "informative", "uninformative"], count, p=[0.5, 0.3, 0.2])
    outcome[0] = "informative"
    # A duplicate's exemplar is the last patch before it of its dataset that is none.
    chief = np.maximum.accumulate(np.where(outcome != "duplicate", np.arange(count), 0))
    score = np.where(outcome == "duplicate", np.nan, random.random(count)).astype(np.float32)
    frame = pd.DataFrame(
        {
            "patch": patch,
            "dataset": dataset,
            "kind": np.where(dataset == datasets[0], "2d", "volume"),
            "plane": np.zeros(count, np.int8),
            "index": index.astype(np.int32),
            "height": 64,
            "width": 64,
            "pixel_size_y_nm": np.where(dataset == datasets[0], np.nan, 4.0),
            "pixel_size_x_nm": np.where(dataset == datasets[0], np.nan, 4.0),
            "step_nm": np.nan,
            "source": [f"/data/{d}.mrc" for d in dataset],
            "lo": random.integers(-50, 0, count).astype(float),
            "hi": random.integers(200, 255, count).astype(float),
            "exemplar": patch[chief],
            "distance": np.where(outcome == "duplicate", random.integers(0, 13, count), 0).astype(np.int32),
            "score": score,
            "mean": random.uniform(0, 255, count),
            "outcome": outcome,
            "why": [f"score {s:.6f} above 0.5" if s == s else "7 bits from its exemplar" for s in score],
        }
    )
    table = pa.Table.from_pandas(frame, preserve_index=False)
    pq.write_table(table, path, row_group_size=rows_a_group)
    return frame


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    path = tmp_path_factory.mktemp("table") / "patches.parquet"
    return make_table(path, ["cell", HOSTILE, "zebra"], 40, 90, rows_a_group=1234), summarize(path)


def test_datasets_are_summed_up_as_pandas_does(made):
    frame, summary = made
    assert list(summary.datasets) == list(frame["dataset"].unique())
    for name, rows in frame.groupby("dataset"):
        dataset = summary.datasets[name]
        assert dataset.patches == len(rows)
        assert dataset.sections == rows["index"].nunique()
        assert dict(dataset.outcomes) == rows["outcome"].value_counts().to_dict()
        assert dataset.limits == (rows["lo"].min(), rows["hi"].max())
        assert dataset.pixel_sizes_nm == (set() if name == "cell" else {(4.0, 4.0)})
        for outcome, thinned in dataset.names.items():
            some = thinned.take(5)
            assert len(set(some)) == 5
            assert set(some) <= set(rows.loc[rows["outcome"] == outcome, "patch"])
    assert summary.patches == len(frame)


def test_histograms_and_ranks_are_numpys(made):
    frame, summary = made
    duplicates = frame[frame["outcome"] == "duplicate"]
    assert np.array_equal(summary.distances, np.bincount(duplicates["distance"]))
    assert np.array_equal(summary.scores, np.histogram(frame["score"].dropna(), SCORE_BARS, (0, 1))[0])
    assert np.array_equal(summary.greys, np.histogram(frame["mean"], GREY_BARS, (0, 255))[0])
    judged = frame.dropna(subset="score").astype({"score": float})
    assert [s for _, s in summary.highest] == judged["score"].nlargest(SHOWN_BY_SCORE).tolist()
    assert [s for _, s in summary.lowest] == judged["score"].nsmallest(SHOWN_BY_SCORE).tolist()
    doubt = (judged["score"] - 0.5).abs().nsmallest(SHOWN_BY_SCORE)
    assert [name for name, _ in summary.doubtful] == judged.loc[doubt.index, "patch"].tolist()
    sizes = duplicates["exemplar"].value_counts()
    assert [size for _, size in summary.groups] == (sizes.nlargest(len(summary.groups)) + 1).tolist()
    assert all(sizes[name] + 1 == size for name, size in summary.groups)


class Page(html.parser.HTMLParser):
    """What a page has: its tags, their addresses, and its text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.addresses, self.handlers, self.text = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        for name, value in attributes:
            if name in ("src", "href", "srcset", "data", "action"):
                self.addresses.append(value)
            if name.startswith("on"):
                self.handlers.append(name)

    def handle_data(self, data):
        self.text.append(data)


def test_nothing_that_data_files_hold_becomes_markup(made, tmp_path):
    _, summary = made
    hostile = f"</title></style><img src=x onerror=alert(1)>{HOSTILE}"
    run = ReportedRun(tmp_path, hostile, [StageRun("crop_patches", hostile, 1.0, hostile, (hostile,))], [hostile])
    run.next_steps = [hostile]
    page = Page(render(run, summary))
    assert "script" not in page.tags
    assert not page.handlers
    assert all(address.startswith("data:image/") for address in page.addresses)
    assert HOSTILE in "".join(page.text)
    assert not re.search(r"https?://", re.sub(r'xmlns="[^"]*"', "", render(run, summary)))


def test_a_warning_of_both_runs_of_a_stage_is_told_once(made, tmp_path):
    _, summary = made
    runs = [
        StageRun("crop_patches", words, 1.0, "", ("the voxel size is odd", f"only {words}")) for words in ("a", "b")
    ]
    text = "".join(Page(render(ReportedRun(tmp_path, "curate", runs), summary)).text)
    assert text.count("the voxel size is odd") == 1 and "only a" in text and "only b" in text


def test_numbers_of_the_summary_stand_on_the_page(made, tmp_path):
    frame, summary = made
    text = " ".join("".join(Page(render(ReportedRun(tmp_path, "curate"), summary)).text).split())
    for outcome in ("informative", "uninformative"):
        assert f"{(frame['outcome'] == outcome).sum():,} {outcome}" in text
    assert f"{len(frame):,}" in text


def test_patches_on_disk_are_shown_and_those_that_are_gone_are_not(tmp_path):
    make_table(tmp_path / "patches.parquet", ["cell"], 1, 4)
    summary = summarize(tmp_path / "patches.parquet")
    paths = []
    for name in summary.datasets["cell"].names["informative"].take(9):
        paths.append(str(tmp_path / f"{name}.tiff"))
    for path in paths[1:]:
        write_section(Path(path), np.full((64, 64), 90, np.uint8))
    write_path_list(tmp_path / "listed.npz", paths)
    page = render(ReportedRun(tmp_path, "curate", lists=[tmp_path / "listed.npz", tmp_path / "none.npz"]), summary)
    assert len(re.findall(r'<img class="kept"', page.split("Near-duplicates")[0])) == len(paths) - 1


def test_a_report_takes_the_place_of_one_and_of_nothing_else(made, tmp_path):
    _, summary = made
    run = ReportedRun(tmp_path, "curate")
    path = write_page(run, summary)
    first = path.read_text()
    run.next_steps = ["rest"]
    write_page(run, summary)
    assert path.read_text() != first
    path.write_text("<html>mine</html>")
    with pytest.raises(InputError, match="another file, which was left"):
        write_page(run, summary)
    assert path.read_text() == "<html>mine</html>"


def test_a_table_that_is_damaged_is_named(tmp_path):
    (tmp_path / "patches.parquet").write_bytes(b"PAR1 no more PAR1")
    with pytest.raises(InputError, match=r"patches\.parquet"):
        summarize(tmp_path / "patches.parquet")


def test_a_page_of_thousands_of_datasets_is_less_than_10_megabytes(tmp_path, monkeypatch):
    names = [f"dataset {number:04d} {'with a long name ' * 6}" for number in range(2000)]
    make_table(tmp_path / "patches.parquet", names, 1, 50, rows_a_group=20_000)
    noise = np.random.default_rng(0).integers(0, 256, (224, 224), np.uint8)
    write_section(tmp_path / "noise.tiff", noise)
    largest = encode_pixels(str(tmp_path / "noise.tiff"))
    monkeypatch.setattr(Thumbnails, "picture", lambda self, name: largest)  # all that can be shown is, as noise
    failures = [f"/data/{number} {'x' * 200}: expected a volume" for number in range(10_000)]
    text = render(ReportedRun(tmp_path, "curate", failures=failures), summarize(tmp_path / "patches.parquet"))
    assert text.count(largest) > 300
    assert len(text.encode()) < LARGEST_PAGE


def test_advice_fits_how_far_a_run_has_come(made, tmp_path):
    _, summary = made
    said = "\n".join(advise(summary, *(tmp_path / f"{name}.npz" for name in "abc"), has_failed=True))
    assert "Mend or take away" in said
    assert "pixel size of cell is unknown" in said
    assert "export.py" in said
    assert "Label some hundreds" not in said


@pytest.mark.parametrize("is_judged", [True, False])
def test_what_was_selected_is_told_with_what_it_was_selected_from(tmp_path, is_judged):
    frame = make_table(tmp_path / "patches.parquet", ["cell", "fly"], 4, 50)
    left = frame["outcome"] == ("informative" if is_judged else "uninformative")
    if not is_judged:
        frame = frame[left | (frame["outcome"] == "duplicate")].reset_index(drop=True)
        left = frame["outcome"] == "uninformative"
    frame["kept"] = left if is_judged else None
    frame["kept"] = frame["kept"].astype("boolean")
    is_first = left & (left.cumsum() <= 20)
    frame["outcome"] = np.where(is_first, "selected", np.where(left, "passed over", frame["outcome"]))
    pq.write_table(pa.Table.from_pandas(frame, preserve_index=False), tmp_path / "patches.parquet")
    summary = summarize(tmp_path / "patches.parquet")
    assert summary.informative == (left.sum() if is_judged else 0)
    text = render(ReportedRun(tmp_path, "curate"), summary)
    assert '<b>20</b><span class="faint">selected</span>' in text
    assert ('<span class="faint">informative</span>' in text) == is_judged
    whence = "informative" if is_judged else "exemplars"
    for name, count in (("selected", 20), ("passed over", int(left.sum()) - 20)):
        assert re.search(rf"{whence}[^<]*{name}[^<]*\b{count}\b", text), (whence, name, count)
    steps = "\n".join(advise(summary, *(tmp_path / f"{name}.npz" for name in "abc"), has_failed=False))
    assert "c.npz" in steps and ("b.npz" not in steps)
