"""Fetching volumes from servers: each chunk once, many at a time, only those that are wanted, in bounded memory."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from emcurate.addresses import parse_address
from emcurate.running.report import Report
from emcurate.volumes import fetched
from emcurate.volumes.fetched import all_fetched, is_remote
from emcurate.volumes.formats import copies
from emcurate.volumes.formats.copies import divide, mark_wanted
from emcurate.volumes.views import View
from emcurate.volumes.volume import open_volume
from tests.volumes.chunked_volumes import write_ome_zarr
from tests.volumes.precomputed_volumes import write_precomputed
from tests.volumes.test_servers import impatient, site  # noqa: F401 - fixtures
from tests.web import send

VOXELS = np.random.default_rng(11).integers(1, 256, (22, 33, 44)).astype(np.uint16) * 200


def open_there(site, name, **options):  # noqa: F811
    return open_volume(parse_address(f"{site.url}/{name}"), **options)


def chunk_requests(site, part):  # noqa: F811
    return {
        path: count for path, count in site.requests.items() if part in path and not path.endswith((".zarray", ".json"))
    }


WRITERS = {
    "a.zarr": lambda path: write_ome_zarr(path, VOXELS),
    "b.zarr": lambda path: write_ome_zarr(path, VOXELS, version="0.5"),
    "c": lambda path: write_precomputed(path, [VOXELS], [(4, 8, 30)], offset=(5, 6, 7), chunk=(8, 8, 8)),
}


@pytest.mark.parametrize("name", WRITERS)
def test_each_chunk_is_asked_for_once_and_many_at_a_time(tmp_path, site, name, monkeypatch):  # noqa: F811
    monkeypatch.setattr(copies, "PIECE_BYTES", 3000)
    WRITERS[name](tmp_path / name)
    volume = open_there(site, name)
    assert is_remote(volume)
    site.requests.clear()
    site.delay = 0.02
    report = Report("test")
    with all_fetched([volume], tmp_path, report) as (copy,):
        assert (copy.path, copy.name, copy.voxel_size_nm) == (volume.path, volume.name, volume.voxel_size_nm)
        site.requests_before = sum(site.requests.values())
        np.testing.assert_array_equal(copy.read(), VOXELS)
        np.testing.assert_array_equal(copy.read(slice(3, 9), slice(None), slice(5, 40, 3)), VOXELS[3:9, :, 5:40:3])
        assert not is_remote(copy) and sum(site.requests.values()) == site.requests_before
        assert len([entry for entry in tmp_path.iterdir() if entry.name.startswith(".")]) == 1
    chunks = chunk_requests(site, "/4_8_30/" if name == "c" else "/s0/")
    assert len(chunks) == 3 * 5 * 6 and set(chunks.values()) == {1}
    assert site.most_at_once >= 4
    assert report.counts == {fetched.FETCHED: VOXELS.nbytes}
    assert not [entry for entry in tmp_path.iterdir() if entry.name.startswith(".")]


def test_only_chunks_that_are_wanted_are_asked_for(tmp_path, site):  # noqa: F811
    write_ome_zarr(tmp_path / "a.zarr", VOXELS)
    volume = open_there(site, "a.zarr")
    boxes = [(slice(5, 9), slice(8, 16), slice(0, 1)), (slice(21, 22), slice(None), slice(43, 44)), (slice(3, 3),) * 3]
    with all_fetched([volume], tmp_path, Report("test"), {volume.path: boxes}) as (copy,):
        for box in boxes:
            np.testing.assert_array_equal(copy.read(*box), VOXELS[box])
    wanted = {f"/a.zarr/s0/{z}.1.0" for z in (0, 1)} | {f"/a.zarr/s0/2.{y}.5" for y in range(5)}
    assert set(chunk_requests(site, "/s0/")) == wanted


def test_inverted_levels_are_fetched_as_they_are_read(tmp_path, site):  # noqa: F811
    write_ome_zarr(tmp_path / "a.zarr", VOXELS)
    volume = open_there(site, "a.zarr", view=View(level=1, inverted=True))
    with all_fetched([volume], tmp_path, Report("test")) as (copy,):
        np.testing.assert_array_equal(copy.read(), 65535 - VOXELS[::2, ::2, ::2])


def test_of_several_volumes_those_that_cannot_be_fetched_are_named_and_the_others_given(tmp_path, site):  # noqa: F811
    names = [f"{letter}.zarr" for letter in "abcd"]
    for name in names:
        write_ome_zarr(tmp_path / name, VOXELS, fill_value=0)
    for chunk in (tmp_path / "d.zarr" / "s0").glob("[0-9]*"):
        chunk.unlink()
    volumes = [open_there(site, name) for name in names]
    site.answers["/b.zarr/s0/2.2.2"] = lambda handler, count: send(handler, b"", 403)
    site.answers["/c.zarr/s0/1.1.1"] = lambda handler, count: (
        send(handler, b"<html>", 200) if count == 1 else "as usual"
    )
    report = Report("test")
    with all_fetched(volumes, tmp_path, report) as copies_of:
        assert [copy.name for copy in copies_of] == ["a", "c"]
        for copy in copies_of:
            np.testing.assert_array_equal(copy.read(), VOXELS)
    assert len(report.failures) == 2
    assert "b.zarr: expected chunks" in report.failures[0] and "403" in report.failures[0]
    assert "d.zarr: expected a chunk that is there, or not 0" in report.failures[1]


def test_a_volume_for_which_there_is_no_room_is_refused_before_anything_is_fetched(tmp_path, site, monkeypatch):  # noqa: F811
    write_ome_zarr(tmp_path / "a.zarr", VOXELS)
    volume = open_there(site, "a.zarr")
    site.requests.clear()
    full = type("Usage", (), {"free": VOXELS.nbytes - 1})
    monkeypatch.setattr(fetched.shutil, "disk_usage", lambda directory: full)
    report = Report("test")
    with all_fetched([volume], tmp_path, report) as copies_of:
        assert copies_of == []
    assert "expected room for 63,888 bytes" in report.failures[0] and "--level" in report.failures[0]
    assert not site.requests


def test_what_is_under_way_stays_below_a_bound(tmp_path, site, monkeypatch):  # noqa: F811
    write_ome_zarr(tmp_path / "a.zarr", VOXELS)
    monkeypatch.setattr(copies, "PIECE_BYTES", 2048)
    monkeypatch.setattr(copies, "AHEAD_BYTES", 8192)
    volume, under_way, most = open_there(site, "a.zarr"), [], []
    ask = copies.Chunks.ask

    def ask_and_count(self, *box):
        size = int(np.prod([part.stop - part.start for part in box])) * 2
        under_way.append(size)
        most.append(sum(under_way))
        future = ask(self, *box)
        future.add_done_callback(lambda _: under_way.remove(size))
        return future

    monkeypatch.setattr(copies.Chunks, "ask", ask_and_count)
    with all_fetched([volume], tmp_path, Report("test")):
        pass
    assert 2048 < max(most) <= 8192


def test_boxes_are_whole_chunks_and_cover_what_is_wanted():
    shape, chunk = (10, 7, 30), (4, 7, 5)
    for boxes in (None, [], [(slice(3, 5), slice(0, 1), slice(6, 7))], [(slice(0, 10, 9), slice(None), slice(29, 30))]):
        covered = np.zeros(shape, int)
        for box in divide(shape, chunk, 200, mark_wanted(shape, chunk, boxes)):
            covered[box] += 1
        expected = np.zeros(shape, int)
        grid = itertools.product(*(range(0, side, part) for side, part in zip(shape, chunk, strict=True)))
        for corner in grid:
            cell = tuple(slice(at, at + part) for at, part in zip(corner, chunk, strict=True))
            wanted = np.zeros(shape, bool)
            for box in [(slice(None),) * 3] if boxes is None else boxes:
                # What lies between the voxels of a box with steps is fetched too.
                wanted[tuple(slice(part.start, part.stop) for part in box)] = True
            expected[cell] = wanted[cell].any()
        np.testing.assert_array_equal(covered, expected)
