"""Volumes on servers through the stages: all that comes out is what the same files here give."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
import sys
import threading

import numpy as np
import pandas as pd
import pytest

from emcurate.patches.pathlists import write_path_list
from emcurate.volumes.formats import chunked, stores
from tests.results import contents
from tests.textures import make_texture
from tests.volumes.chunked_volumes import write_ome_zarr
from tests.volumes.precomputed_volumes import write_precomputed
from tests.web import send, serve_directory

cross_section3d = importlib.import_module("raw.cross_section3d")
crop_patches = importlib.import_module("raw.crop_patches")
reconstruct3d = importlib.import_module("3d.reconstruct3d")
curate = importlib.import_module("curate")

VOXELS = make_texture((24, 32, 40)).astype(np.uint16) * 200
SIZE, CHUNKS = (8.0, 8.0, 8.0), (16, 16, 16)


@pytest.fixture
def site(tmp_path):
    (tmp_path / "pub").mkdir()
    with serve_directory(tmp_path / "pub") as (url, found):
        found.url = url
        yield found


def forget_chunks():
    """As if another process asked for them."""
    chunked._open.cache_clear()
    stores.context.cache_clear()


def write_volumes(directory):
    write_ome_zarr(directory / "a.ome.zarr", VOXELS, scale=SIZE, chunks=CHUNKS)
    write_precomputed(directory / "b", [VOXELS[::-1], VOXELS[::-1, ::2, ::2]], [(8, 8, 8), (16, 16, 8)], chunk=CHUNKS)


def run_stages(volumes, out, *flags):
    """Cut sections, patches and subvolumes; return their bytes, and the tables but for where volumes lie."""
    sections, patches, boxes = out / "sections", out / "patches", out / "boxes"
    assert cross_section3d.main([str(volumes), str(sections), "-s", "7", "-p", "1", *flags]) == 0
    assert crop_patches.main([str(volumes), str(patches), "--from-volumes", "-cs", "16", "-p", "2", *flags]) == 0
    write_path_list(out / "chosen.npz", sorted(patches.rglob("*.tiff")))
    assert reconstruct3d.main([str(out / "chosen.npz"), str(volumes), str(boxes), "-nz", "8", "-p", "1", *flags]) == 0
    assert list(boxes.glob("*.npy"))
    files = {name: data for part in (sections, patches, boxes) for name, data in contents(part).items()}
    tables = {path.name: pd.read_parquet(path) for path in sorted(patches.glob("*.parquet"))}
    files = {name: data for name, data in files.items() if not name.endswith(".parquet")}
    return files, {name: table.drop(columns=["source", "source_fingerprint"]) for name, table in tables.items()}


def test_a_list_of_addresses_gives_what_the_directory_gives(tmp_path, site):
    write_volumes(tmp_path / "pub")
    files, tables = run_stages(tmp_path / "pub", tmp_path / "here")
    listed = tmp_path / "volumes.txt"
    listed.write_text(f"# two volumes\n{site.url}/a.ome.zarr?token=SECRET\n\nprecomputed://{site.url}/b\n")
    same_files, same_tables = run_stages(listed, tmp_path / "there")
    assert len(files) > 100
    assert files == same_files
    assert tables.keys() == same_tables.keys() and len(tables) == 2
    for name, table in tables.items():
        pd.testing.assert_frame_equal(table, same_tables[name], check_exact=True)
    written = b"".join(path.read_bytes() for path in (tmp_path / "there").rglob("*") if path.is_file())
    assert b"SECRET" not in written
    source = pd.read_parquet(tmp_path / "there" / "patches" / "a_patches.parquet")["source"]
    assert set(source) == {f"{site.url}/a.ome.zarr"}


def test_a_stage_asks_for_each_chunk_once_though_it_cuts_along_three_axes_and_measures(tmp_path, site):
    write_volumes(tmp_path / "pub")
    for stage, flags in ((cross_section3d, []), (crop_patches, ["--from-volumes", "--hashes-only", "-cs", "16"])):
        site.requests.clear()
        forget_chunks()
        assert stage.main([f"{site.url}/a.ome.zarr", str(tmp_path / stage.__name__), "-p", "1", *flags]) == 0
        chunks = {path: count for path, count in site.requests.items() if path.rpartition("/")[2][0].isdigit()}
        assert len(chunks) == 2 * 2 * 3 and set(chunks.values()) == {1}


def test_only_chunks_of_the_sections_that_are_cut_are_asked_for(tmp_path, site):
    voxels = np.concatenate([VOXELS, VOXELS]).astype(np.uint8)
    write_ome_zarr(tmp_path / "pub" / "a.zarr", voxels, scale=SIZE, chunks=(8, 16, 40))
    assert cross_section3d.main([f"{site.url}/a.zarr", str(tmp_path / "out"), "-a", "0", "-s", "40", "-p", "1"]) == 0
    layers = {path.rpartition("/")[2][0] for path in site.requests if path.rpartition("/")[2][0].isdigit()}
    assert layers == {"0", "5"}  # of 8 sections each, in which 0, 40 and 47 lie


def test_what_a_server_does_not_give_is_named_and_the_rest_is_done(tmp_path, site, capfd):
    write_volumes(tmp_path / "pub")
    write_ome_zarr(tmp_path / "pub" / "c.zarr", VOXELS, scale=SIZE, chunks=CHUNKS)
    site.answers["/c.zarr/s0/1.1.1"] = lambda handler, count: send(handler, b"", 403)
    listed = tmp_path / "volumes.txt"
    listed.write_text("\n".join(f"{site.url}/{name}" for name in ("a.ome.zarr", "c.zarr", "nothing.zarr", "b")))
    argv = [str(listed), str(tmp_path / "out"), "-s", "10", "-p", "1"]
    assert cross_section3d.main(argv) == 1
    said = capfd.readouterr()
    assert "2 volumes cut" in said.out
    failures = said.err.partition("Failed:")[2]
    assert f"{site.url}/c.zarr: expected" in failures and "403" in failures
    assert f"{site.url}/nothing.zarr: expected the metadata" in failures
    assert not list((tmp_path / "out").glob("c-LOC*"))
    # What could not be had is neither gone, nor done; the next run gets it.
    site.answers.clear()
    assert cross_section3d.main(argv) == 1
    said = capfd.readouterr()
    assert "2 volumes already done" in said.out and "1 volumes cut" in said.out and "gone" not in said.err


def test_a_changed_source_is_refused_and_one_taken_off_the_list_is_named(tmp_path, site, capfd):
    write_volumes(tmp_path / "pub")
    listed, out = tmp_path / "volumes.txt", tmp_path / "out"
    listed.write_text(f"{site.url}/a.ome.zarr\n{site.url}/b\n")
    argv = [str(listed), str(out), "-s", "10", "-p", "1"]
    assert cross_section3d.main(argv) == 0
    before = contents(out)
    assert cross_section3d.main(argv) == 0 and contents(out) == before
    write_ome_zarr(tmp_path / "pub" / "a.ome.zarr", VOXELS // 2, scale=SIZE, chunks=CHUNKS)
    listed.write_text(f"{site.url}/a.ome.zarr\n")
    capfd.readouterr()
    assert cross_section3d.main(argv) == 1
    said = capfd.readouterr().err
    assert f"{site.url}/a.ome.zarr: expected the input that its results" in said
    assert "what b came of is gone" in said and "--prune" in said
    assert cross_section3d.main([*argv, "--overwrite"]) == 0
    assert {path.name[0] for path in out.glob("*.tiff")} == {"a"}


def test_levels_are_cut_and_a_box_of_another_level_is_never_taken(tmp_path, site, capfd):
    write_volumes(tmp_path / "pub")
    out, address = tmp_path / "out", f"{site.url}/a.ome.zarr"
    patches, boxes = out / "patches", out / "boxes"
    flags = ["--level", "1", "-p", "1"]
    assert crop_patches.main([address, str(patches), "--from-volumes", "-cs", "8", *flags]) == 0
    write_path_list(out / "chosen.npz", sorted(patches.rglob("*.tiff")))
    argv = [str(out / "chosen.npz"), address, str(boxes), "-nz", "8", "-p", "1"]
    assert reconstruct3d.main(argv) == 1
    assert "what its patches were cut from (level 1), found level 0; give the --level" in capfd.readouterr().err
    assert reconstruct3d.main([*argv, "--level", "1"]) == 0
    for path in boxes.glob("*.npy"):
        z, y, x = map(int, path.stem.split("-")[-1].split("_")[:3])
        found = np.load(path)
        d, h, w = found.shape
        np.testing.assert_array_equal(found, VOXELS[::2, ::2, ::2][z : z + d, y : y + h, x : x + w])


def test_curate_works_from_a_list_to_exemplars(tmp_path, site, capfd):
    write_volumes(tmp_path / "pub")
    listed = tmp_path / "volumes.txt"
    listed.write_text(f"{site.url}/a.ome.zarr?token=SECRET\n{site.url}/b\n")
    flags = ["--crop-size", "16", "-s", "10", "--until", "deduplicate", "-p", "1"]
    assert curate.main(["--volumes", str(listed), "--out", str(tmp_path / "out"), *flags]) == 0
    assert curate.main(["--volumes", str(tmp_path / "pub"), "--out", str(tmp_path / "same"), *flags]) == 0
    for name in ("a_exemplars.npy", "b_exemplars.npy"):
        there, here = (np.load(tmp_path / out / "deduplicate" / name) for out in ("out", "same"))
        assert [path.rpartition("/")[2] for path in there.tolist()] == [
            path.rpartition("/")[2] for path in here.tolist()
        ]
    alone = ["--volumes", f"{site.url}/a.ome.zarr?token=SECRET", "--out", str(tmp_path / "alone"), *flags]
    assert curate.main(alone) == 0
    said = capfd.readouterr()
    assert "SECRET" not in said.out + said.err and "bytes of voxels fetched" in said.out


# Runs a stage that asks nobody twice.
IMPATIENT = """
import importlib, sys
from emcurate.volumes.formats import copies, stores
stores.RETRIES = 0
copies.Piece.__init__.__defaults__ = (1,)
sys.exit(importlib.import_module("raw.cross_section3d").main(sys.argv[1:]))
"""


def test_a_server_that_stands_still_is_given_up(tmp_path, site):
    write_ome_zarr(tmp_path / "pub" / "a.zarr", VOXELS, scale=SIZE, chunks=CHUNKS)
    (tmp_path / "pub" / "d").mkdir()
    write_volumes(tmp_path / "pub" / "d")

    def stand_still(handler, count):
        handler.send_response(200)
        handler.send_header("Content-Length", "1000")
        handler.end_headers()
        handler.wfile.write(b"x")
        handler.wfile.flush()
        site.released.wait(60)

    site.released = threading.Event()
    site.answers["/a.zarr/s0/1.1.1"] = stand_still
    listed = tmp_path / "volumes.txt"
    listed.write_text(f"{site.url}/a.zarr\n{site.url}/d/b\n")
    settings = {"TENSORSTORE_CURL_LOW_SPEED_TIME_SECONDS": "5", "TENSORSTORE_CURL_LOW_SPEED_LIMIT_BYTES": "1"}
    command = [sys.executable, "-c", IMPATIENT, str(listed), str(tmp_path / "out"), "-s", "20", "-p", "1"]
    root = importlib.import_module("emcurate").__path__[0] + "/.."
    environment = {**os.environ, **settings, "PYTHONPATH": root}
    try:
        done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=120)
    finally:
        site.released.set()
    assert done.returncode == 1, done.stderr
    assert f"{site.url}/a.zarr: expected chunks" in done.stderr and "Timeout" in done.stderr
    assert "1 volumes cut" in done.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["ftp://h/a", "out"], "found ftp://"),
        (["nothing.txt", "out"], "found nothing"),
        (["https://h/a.zarr", "out", "--level", "-1"], "--level"),
    ],
)
def test_wrong_arguments_end_with_usage(tmp_path, monkeypatch, capsys, words, said):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        cross_section3d.main(words)
    assert ended.value.code == 2 and said in capsys.readouterr().err
    with pytest.raises(SystemExit) as ended:
        crop_patches.main(["https://h/a.zarr", "out"])
    assert ended.value.code == 2 and "--from-volumes" in capsys.readouterr().err


def test_a_list_that_moved_is_the_same_list(tmp_path, site, capfd):
    write_volumes(tmp_path / "pub")
    listed, out = tmp_path / "volumes.txt", tmp_path / "out"
    listed.write_text(f"{site.url}/a.ome.zarr\n{site.url}/b\n")
    assert cross_section3d.main([str(listed), str(out), "-s", "10", "-p", "1"]) == 0
    shutil.move(listed, tmp_path / "moved.txt")
    capfd.readouterr()
    assert cross_section3d.main([str(tmp_path / "moved.txt"), str(out), "-s", "10", "-p", "1"]) == 0
    assert "2 volumes already done" in capfd.readouterr().out
    roots = {
        json.loads(line).get("root")
        for line in (out / ".emcurate" / "cross_section3d.jsonl").read_text().split("\n")
        if line
    }
    assert str(tmp_path / "moved.txt") in roots
