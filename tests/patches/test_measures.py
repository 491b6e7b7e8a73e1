"""What is measured of patches, against scikit-image and numpy; and what is done where an earlier version had not."""

import importlib
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from skimage.filters import gaussian
from skimage.measure import blur_effect, shannon_entropy

from emcurate.patches import crop_plan, measures, table_updates, tables
from emcurate.patches.cuts import read_cuts, write_cuts
from emcurate.patches.joined import Results, write_joined
from tests.textures import make_texture

crop_patches = importlib.import_module("raw.crop_patches")

MEASURES = ["mean", "deviation", "entropy", "blur", "saturated"]
RNG = np.random.default_rng(5)


def by_libraries(patch):
    blur = blur_effect(patch) if min(patch.shape) >= 4 else np.nan
    return [patch.mean(), patch.std(), shannon_entropy(patch), blur, ((patch == 0) | (patch == 255)).mean()]


def sums_of(loops, patch):
    counts, edges = np.full((1, 256), -1), np.zeros((1, 2, 2), np.int64)
    loops(patch, np.array([[0, 0, *patch.shape]], np.int32), counts, edges)
    return counts.tolist(), edges.tolist()


def make_patch(height, width, sigma):
    noise = gaussian(RNG.random((height, width)), sigma)
    return np.clip((noise - noise.min()) / max(np.ptp(noise), 1e-9) * 300 - 20, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("shape", [(224, 224), (37, 224), (224, 8), (9, 11), (5, 4), (4, 300)])
@pytest.mark.parametrize("sigma", [0, 0.7, 3])
def test_measures_are_those_of_scikit_image_and_numpy(shape, sigma):
    patch = make_patch(*shape, sigma)
    found = measures.measure_patch(patch)
    assert list(found) == MEASURES
    assert list(found.values()) == pytest.approx(by_libraries(patch), rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("value", [0, 7, 255])
def test_a_blank_patch_says_nothing_and_is_wholly_blurred(value):
    patch = np.full((32, 32), value, np.uint8)
    saturated = float(value in (0, 255))
    assert list(measures.measure_patch(patch).values()) == [value, 0, 0, 1, saturated]
    assert blur_effect(patch) == 1


def test_the_blur_of_a_patch_too_narrow_to_tell_is_not_known():
    for shape in ((3, 50), (50, 1)):
        found = measures.measure_patch(RNG.integers(0, 256, shape).astype(np.uint8))
        assert np.isnan(found.pop("blur")) and not np.isnan(list(found.values())).any()


@settings(max_examples=150)
@given(hnp.arrays(np.uint8, st.tuples(st.integers(1, 24), st.integers(1, 24))))
def test_compiled_loops_and_numpy_add_up_alike(patch):
    add_up_all = measures.add_up_all_compiled

    assert sums_of(add_up_all, patch) == sums_of(measures.add_up_all_plainly, patch)


def test_sums_fit_where_steepness_is_largest():
    add_up_all = measures.add_up_all_compiled

    stripes = np.where(np.arange(20_000) % 4 < 2, 0, 255).astype(np.uint8)
    for patch in (np.tile(stripes, (5, 1)), np.tile(stripes, (5, 1)).T):
        assert sums_of(add_up_all, patch) == sums_of(measures.add_up_all_plainly, patch)


def test_places_in_a_section_are_measured_as_patches_by_themselves(monkeypatch):
    monkeypatch.setattr(measures, "BATCH", 7)
    section = make_patch(100, 120, 1)
    places = np.array([[y, x, 20, 24 - y // 20] for y in range(0, 80, 20) for x in range(0, 96, 24)], np.int32)
    found = measures.measure_places(section, places)
    alone = [list(measures.measure_patch(section[y : y + h, x : x + w]).values()) for y, x, h, w in places]
    np.testing.assert_array_equal(found, alone)
    assert measures.measure_places(section, places[:0]).shape == (0, 5)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    directory = tmp_path_factory.mktemp("corpus")
    tifffile.imwrite(directory / "fly.tif", make_texture((30, 70, 80)), imagej=True, metadata={"axes": "ZYX"})
    return directory


def cut(corpus, out, *flags):
    return crop_patches.main([str(corpus), str(out), "--from-volumes", "-cs", "32", "-s", "7", "-p", "1", *flags])


def test_every_way_of_cutting_gives_a_table_with_the_measures_of_every_patch(corpus, tmp_path):
    found = []
    for name, flags in (("files", ()), ("hashes", ("--hashes-only",)), ("shards", ("--store", "tar"))):
        assert cut(corpus, tmp_path / name, *flags) == 0
        found.append(pd.read_parquet(tmp_path / name / "fly_patches.parquet"))
    for rows in found[1:]:
        pd.testing.assert_frame_equal(rows[["patch", *MEASURES]], found[0][["patch", *MEASURES]])
    rows = found[0].set_index("patch")[MEASURES]
    expected = {name: by_libraries(tifffile.imread(tmp_path / "files" / f"{name}.tiff")) for name in rows.index}
    np.testing.assert_allclose(rows.to_numpy(), [expected[name] for name in rows.index], rtol=1e-6)
    for name in ("files", "hashes"):
        write_joined(tmp_path / "patches.parquet", Results((tmp_path / name,)))
        joined = pd.read_parquet(tmp_path / "patches.parquet")
        pd.testing.assert_frame_equal(joined[["patch", *MEASURES]], found[0][["patch", *MEASURES]])


def as_of_an_earlier_version(out):
    """Make a directory one that a version without measures has left."""
    table = out / "fly_patches.parquet"
    rows = pq.read_table(table)
    pq.write_table(rows.drop_columns(MEASURES), table)
    return rows


def test_a_table_of_an_earlier_version_is_read_without_measures(corpus, tmp_path):
    out = tmp_path / "out"
    cut(corpus, out, "--hashes-only")
    table, rows = out / "fly_patches.parquet", as_of_an_earlier_version(out)
    assert tables.read_table(table).column_names == [name for name in rows.column_names if name not in MEASURES]
    one = rows["patch"][0].as_py()
    assert "mean" not in tables.read_rows(table, [one])[0]
    cuts, _ = read_cuts(table)
    assert sum(len(some.places) for some in cuts.values()) == len(rows)
    assert not any(some.is_measured() for some in cuts.values())
    write_cuts(tmp_path / "again.parquet", cuts.values(), None, {"crop_size": 32, "hash_size": 8, "hash": "d"})
    assert pq.read_table(tmp_path / "again.parquet")["mean"].null_count == len(rows)
    write_joined(tmp_path / "patches.parquet", Results((out,)))
    joined = pq.read_table(tmp_path / "patches.parquet")
    assert all(joined[name].null_count == len(rows) for name in MEASURES)


def test_tables_without_measures_are_named_and_made_again_when_they_are_removed(corpus, tmp_path, capsys, monkeypatch):
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        # What an earlier version noted, whose tables had fewer columns.
        for module in (crop_plan, table_updates):
            patch.setattr(module, "MEASURED", "of old")
        cut(corpus, out)
    before = {path.name: path.stat().st_mtime_ns for path in out.glob("*.tiff")}
    capsys.readouterr()
    assert cut(corpus, out) == 0
    said = capsys.readouterr().out
    assert "1 tables of an earlier version do not have the measures of all patches" in said
    assert "0 sections cut" in said
    (out / "fly_patches.parquet").unlink()
    assert cut(corpus, out) == 0
    assert "earlier version" not in capsys.readouterr().out
    assert {path.name: path.stat().st_mtime_ns for path in out.glob("*.tiff")} == before
    cut(corpus, tmp_path / "fresh")
    pd.testing.assert_frame_equal(*(pd.read_parquet(d / "fly_patches.parquet") for d in (out, tmp_path / "fresh")))


def test_few_patches_are_measured_without_a_compiler(corpus, tmp_path, root):
    words = [str(corpus), str(tmp_path / "out"), "--from-volumes", "-cs", "32", "-s", "7", "-p", "1"]
    command = [sys.executable, "-X", "importtime", str(root / "raw" / "crop_patches.py"), *words]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    loaded = {line.rpartition("|")[2].strip() for line in result.stderr.splitlines() if line.startswith("import time:")}
    assert "emcurate.patches.measures" in loaded
    assert not loaded & {"numba", "scipy", "skimage", "torch"}
    shutil.rmtree(tmp_path / "out")
