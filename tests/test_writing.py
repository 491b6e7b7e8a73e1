import errno
import os
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import tifffile

from emcurate import outputs, writing
from emcurate.errors import InputError
from emcurate.exchange import exchange


def test_atomic_path_leaves_nothing_when_writing_fails(tmp_path):
    target = tmp_path / "result"
    target.write_text("before")
    with pytest.raises(RuntimeError), writing.atomic_path(target) as partial:
        partial.write_text("half")
        assert target.read_text() == "before"
        raise RuntimeError
    assert target.read_text() == "before"
    assert os.listdir(tmp_path) == ["result"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a disk that is always full is Linux'")  # noqa: PTH110
@pytest.mark.parametrize("count", [10, 100_000])
def test_an_array_that_a_full_disk_does_not_take_is_heard_of(count):
    with pytest.raises(OSError, match="No space left") as caught, writing.create_for_arrays(Path("/dev/full")) as file:
        np.save(file, np.zeros(count))
    assert caught.value.errno == errno.ENOSPC
    with pytest.raises(OSError, match="No space left"), writing.create_for_arrays(Path("/dev/full")) as file:
        tifffile.imwrite(file, np.zeros((count, 1), np.uint8))


def test_atomic_path_replaces_a_directory(tmp_path):
    target = tmp_path / "list"
    target.mkdir()
    (target / "old").touch()
    with writing.atomic_path(target) as partial:
        partial.mkdir()
        (partial / "new").touch()
    assert os.listdir(target) == ["new"]
    assert os.listdir(tmp_path) == ["list"]


def test_pieces_are_written_once_and_digested_on_the_way(tmp_path):
    target = tmp_path / "table.csv"
    output = writing.write_pieces(target, iter([b"one", memoryview(b", two"), b""]))
    assert target.read_bytes() == b"one, two"
    assert output == outputs.note_output(target, tmp_path)
    assert writing.write_pieces(target, [b"one, ", b"two"]) == output
    with pytest.raises(InputError, match=r"table\.csv: expected no such file"):
        writing.write_pieces(target, [b"two"])
    assert target.read_bytes() == b"one, two"
    assert writing.write_pieces(target, [b"two"], overwrite=True) == outputs.note_output(target, tmp_path)
    (tmp_path / "directory").mkdir()
    with pytest.raises(InputError, match="a directory of that name"):
        writing.write_pieces(tmp_path / "directory", [b"one"], overwrite=True)
    assert sorted(os.listdir(tmp_path)) == ["directory", "table.csv"]


def test_pieces_that_break_off_leave_nothing(tmp_path):
    def pieces():
        yield b"one"
        raise RuntimeError

    with pytest.raises(RuntimeError):
        writing.write_pieces(tmp_path / "table.csv", pieces())
    assert os.listdir(tmp_path) == []


def test_of_several_files_one_that_is_taken_is_named_before_any_is_written(tmp_path):
    (tmp_path / "same").write_bytes(b"one")
    wanted = {"same": b"one", "new": b"two"}
    writing.refuse_different(tmp_path, wanted)
    for name, make in (("taken", lambda path: path.write_bytes(b"yours")), ("directory", lambda path: path.mkdir())):
        make(tmp_path / name)
        with pytest.raises(InputError, match="--overwrite to replace it") as error:
            writing.refuse_different(tmp_path, wanted | {name: b"three"})
        assert error.value.path == str(tmp_path / name)
    assert not (tmp_path / "new").exists()


def test_write_once_never_replaces_other_content(tmp_path):
    target = tmp_path / "a"
    assert writing.write_once(target, b"one") is True
    assert writing.write_once(target, b"one") is False
    with pytest.raises(InputError, match="--overwrite"):
        writing.write_once(target, b"two")
    assert target.read_bytes() == b"one"
    assert writing.write_once(target, b"two", overwrite=True) is True
    assert target.read_bytes() == b"two"


@pytest.mark.parametrize("can_exchange", [True, False])
def test_a_directory_is_replaced_whole(tmp_path, monkeypatch, can_exchange):
    if not can_exchange:
        monkeypatch.setattr(writing, "exchange", lambda path, other: False)
    target = tmp_path / "list"
    for content in ("first", "second"):
        with writing.atomic_path(target) as partial:
            partial.mkdir()
            (partial / content).touch()
    assert [path.name for path in target.iterdir()] == ["second"]
    assert [path.name for path in tmp_path.iterdir()] == ["list"]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="renameat2 is Linux'")
def test_whoever_looks_meanwhile_always_finds_a_directory(tmp_path):
    target, other = tmp_path / "list", tmp_path / "probe"
    target.mkdir()
    other.mkdir()
    if not exchange(target, other):
        pytest.skip("this file system cannot exchange directories")
    found, done = [], threading.Event()

    def look():
        while not done.is_set():
            found.append(target.is_dir())

    watcher = threading.Thread(target=look)
    watcher.start()
    for _ in range(500):
        with writing.atomic_path(target) as partial:
            partial.mkdir()
    done.set()
    watcher.join()
    assert all(found) and len(found) > 500
