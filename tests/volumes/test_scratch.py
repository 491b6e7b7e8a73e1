"""Packed volumes that cannot be unpacked are named, and stop no others."""

import errno
import io
import os
import resource
from importlib import import_module

import numpy as np
import tifffile

from emcurate.volumes import scratch

BYTES = np.random.default_rng(1).integers(0, 256, (6, 11, 17)).astype(np.uint8)


def write_tiff(path, array):
    tifffile.imwrite(path, array, photometric="minisblack", compression="zlib")


def two_packed(directory):
    """A large packed volume and a small one beside it."""
    directory.mkdir()
    write_tiff(directory / "large.tif", np.zeros((40, 100, 100), np.uint8))
    write_tiff(directory / "small.tif", BYTES)
    return directory


def cut(volumes, sections):
    return import_module("raw.cross_section3d").main([str(volumes), str(sections), "-p", "1"])


def test_room_is_promised_once_and_what_finds_none_is_named_and_stops_no_other(tmp_path, monkeypatch, capsys):
    volumes = two_packed(tmp_path / "volumes")
    monkeypatch.setattr(scratch.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 400_000 + 1_000}))
    assert cut(volumes, tmp_path / "sections") == 1
    failed = capsys.readouterr().err.partition("Failed:")[2]
    assert "small.tif: expected room for 1,122 bytes in" in failed and "found 1,000 bytes" in failed
    assert len(list((tmp_path / "sections").glob("large-LOC-*.tiff"))) == 240


def test_a_limit_on_the_size_of_files_is_named_and_stops_no_other(tmp_path, capsys):
    volumes = two_packed(tmp_path / "volumes")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
        assert cut(volumes, tmp_path / "sections") == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    failed = capsys.readouterr().err.partition("Failed:")[2]
    assert "large.tif: expected room for 400,000 bytes in" in failed and "found file too large" in failed
    assert "small.tif" not in failed
    assert list((tmp_path / "sections").glob("small-LOC-*.tiff"))
    assert not [path for path in (tmp_path / "sections").iterdir() if path.name.endswith(".partial")]


def test_a_quota_that_is_used_up_is_named_and_stops_no_other(tmp_path, monkeypatch, capsys):
    volumes = two_packed(tmp_path / "volumes")
    write = io.FileIO.write

    class Quota(io.FileIO):
        def write(self, data):
            if len(data) >= 10_000:
                raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))
            return write(self, data)

    monkeypatch.setattr(scratch, "open", lambda path, mode, **_: Quota(path, mode), raising=False)
    assert cut(volumes, tmp_path / "sections") == 1
    failed = capsys.readouterr().err.partition("Failed:")[2]
    assert "large.tif: expected room for 400,000 bytes in" in failed and "make room there" in failed
    assert "small.tif" not in failed
    assert list((tmp_path / "sections").glob("small-LOC-*.tiff"))
