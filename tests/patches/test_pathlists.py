import os
import pickle
import subprocess
import sys
from pathlib import Path

import dask.array
import numpy as np
import pytest

from emcurate.errors import InputError
from emcurate.outputs import note_output
from emcurate.patches import pathlists
from emcurate.patches.pathlists import PathList, join_files, same_paths, write_path_list, write_path_list_once

PATHS = [f"/data/sets/ö {i}-LOC-2d_0_0.tiff" for i in range(25)]


@pytest.fixture
def directory(tmp_path):
    directory = tmp_path / "deduplicated_fpaths.npz"
    write_path_list(directory, PATHS, chunk_paths=10)
    return directory


def test_dask_reads_what_we_write(directory):
    assert dask.array.from_npy_stack(str(directory)).compute().tolist() == PATHS


def contents(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def write_by_dask(directory, paths, chunk_paths):
    array = np.array(paths, np.str_) if paths else np.zeros(0, "<U1")
    dask.array.to_npy_stack(str(directory), dask.array.from_array(array, chunks=chunk_paths))
    return contents(directory)


@pytest.mark.parametrize("count", [0, 1, 9, 10, 20, 25])
@pytest.mark.parametrize("chunk_paths", [1, 10, 100])
def test_a_list_has_the_very_bytes_dask_writes(tmp_path, count, chunk_paths):
    write_path_list(tmp_path / "ours", PATHS[:count], chunk_paths)
    # Of fewer paths than a chunk has room for, dask is told so.
    theirs = write_by_dask(tmp_path / "theirs", PATHS[:count], max(1, min(chunk_paths, count)))
    assert contents(tmp_path / "ours") == theirs


@pytest.mark.parametrize("counts", [[], [0], [3], [4, 0, 1], [1, 10, 2, 7]])
@pytest.mark.parametrize("chunk_paths", [1, 3, 100])
def test_files_are_joined_to_the_list_of_all_their_paths(tmp_path, counts, chunk_paths, monkeypatch):
    files, every = [], []
    for number, count in enumerate(counts):
        paths = [f"/data/{'long' * (number % 3)} ö/{number}-{i}.tiff" for i in range(count)]
        files.append(tmp_path / f"{number}.npy")
        np.save(files[-1], np.array(paths, np.str_))
        every += paths
    monkeypatch.setattr(pathlists, "CHUNK_PATHS", 2)
    joined = join_files(files)
    assert write_path_list(tmp_path / "ours", joined, chunk_paths) == len(every)
    write_path_list(tmp_path / "theirs", every, chunk_paths)
    assert contents(tmp_path / "ours") == contents(tmp_path / "theirs")
    assert same_paths(tmp_path / "ours", joined)
    assert not same_paths(tmp_path / "ours", [*every, "/more"])
    if every:
        assert not same_paths(tmp_path / "ours", [*every[:-1], "/other"])


def test_only_files_of_strings_are_joined(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros(3))
    with pytest.raises(InputError, match="1-D array of strings"):
        join_files([tmp_path / "a.npy"])
    with pytest.raises(InputError, match="no such file"):
        join_files([tmp_path / "none.npy"])


def test_dask_is_not_loaded_to_write_a_list(tmp_path):
    code = (
        "import sys; from pathlib import Path; from emcurate.patches.pathlists import write_path_list;"
        "write_path_list(Path(sys.argv[1]), ['a']); sys.exit('dask' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path / "list.npz")], check=False).returncode == 0


def test_we_read_what_dask_writes(tmp_path):
    array = dask.array.from_array(np.array(PATHS), chunks=7)
    dask.array.to_npy_stack(str(tmp_path / "list.npz"), array)
    assert list(PathList(tmp_path / "list.npz")) == PATHS


def test_items_slices_and_length(directory):
    paths = PathList(directory)
    assert len(paths) == 25
    assert [paths[i] for i in (0, 9, 10, 24, -1)] == [PATHS[i] for i in (0, 9, 10, 24, -1)]
    assert paths[8:12] == PATHS[8:12]
    with pytest.raises(IndexError):
        paths[25]


def test_info_is_neither_needed_nor_unpickled(directory, tmp_path):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "sprung"),)

    (directory / "info").write_bytes(pickle.dumps(Trap()))
    assert list(PathList(directory)) == PATHS
    (directory / "info").unlink()
    assert list(PathList(directory)) == PATHS
    assert not (tmp_path / "sprung").exists()


def test_chunks_are_read_in_the_order_of_their_numbers(tmp_path):
    paths = [f"/p/{i}" for i in range(12)]
    write_path_list(tmp_path / "list.npz", paths, chunk_paths=1)
    assert list(PathList(tmp_path / "list.npz")) == paths


def test_relative_paths_are_written_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_path_list(Path("list.npz"), ["a.tiff"])
    assert list(PathList(Path("list.npz"))) == [str(tmp_path / "a.tiff")]


def test_reroot_moves_only_what_lies_below(directory):
    paths = list(PathList(directory, reroot=("/data/sets", "/mnt/new")))
    assert paths[0] == "/mnt/new/ö 0-LOC-2d_0_0.tiff"
    with pytest.raises(
        InputError, match="expected paths below /data/set, the OLD of --reroot OLD NEW, found others, such as"
    ):
        PathList(directory, reroot=("/data/set", "/mnt/new"))


def test_an_empty_list(tmp_path):
    assert write_path_list(tmp_path / "list.npz", []) == 0
    assert list(PathList(tmp_path / "list.npz")) == []
    assert same_paths(tmp_path / "list.npz", [])


def test_same_paths(directory, tmp_path):
    assert same_paths(directory, PATHS)
    assert not same_paths(directory, PATHS[::-1])
    assert not same_paths(directory, PATHS[:-1])
    assert not same_paths(tmp_path / "none", PATHS)


def test_a_list_is_written_once_and_another_replaces_it_only_where_allowed(tmp_path):
    directory = tmp_path / "list.npz"
    assert write_path_list_once(directory, PATHS)
    before = (directory / "0.npy").stat().st_mtime_ns
    assert not write_path_list_once(directory, PATHS)
    assert not write_path_list_once(directory, PATHS, overwrite=True)
    assert (directory / "0.npy").stat().st_mtime_ns == before
    with pytest.raises(InputError, match="--overwrite to replace it"):
        write_path_list_once(directory, PATHS[:1])
    assert list(PathList(directory)) == PATHS
    assert write_path_list_once(directory, PATHS[:1], overwrite=True)
    assert list(PathList(directory)) == PATHS[:1]


def test_problems_are_named(directory, tmp_path):
    with pytest.raises(InputError, match="expected a path list"):
        PathList(tmp_path / "none")
    with pytest.raises(InputError, match=r"0\.npy, 1\.npy"):
        PathList(tmp_path)
    (directory / "1.npy").unlink()
    with pytest.raises(InputError, match=r"no 1\.npy"):
        PathList(directory)
    np.save(directory / "1.npy", np.zeros(3))
    with pytest.raises(InputError, match="1-D array of strings"):
        PathList(directory)
    np.save(directory / "1.npy", np.array(["a", None], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match="only pickle can read"):
        PathList(directory)


def test_chunks_are_foreseen_as_they_will_be_written(tmp_path, monkeypatch):
    monkeypatch.setattr(pathlists, "CHUNK_PATHS", 3)
    for number, paths in enumerate(([], ["/a"], [f"/data/{'é' * n}.tiff" for n in range(8)])):
        name = f"list {number}.npz"
        pathlists.write_path_list(tmp_path / name, paths, 3)
        written = [note_output(path, tmp_path) for path in sorted((tmp_path / name).glob("*.npy"))]
        foreseen = pathlists.foresee_chunks(name, paths)
        assert [(o.name, o.size, o.digest) for o in foreseen] == [(o.name, o.size, o.digest) for o in written]


@pytest.mark.parametrize("harm", [Path.unlink, lambda info: info.write_bytes(b"x" + info.read_bytes()[1:])])
def test_the_part_that_only_dask_reads_is_mended_too(tmp_path, harm):
    directory = tmp_path / "list.npz"
    paths = [f"/data/{number}.tiff" for number in range(5)]
    assert write_path_list_once(directory, paths)
    info = (directory / "info").read_bytes()
    harm(directory / "info")
    assert write_path_list_once(directory, paths)
    assert (directory / "info").read_bytes() == info
    assert not write_path_list_once(directory, paths)


def test_a_list_that_dask_wrote_in_other_chunks_is_left_as_it_is(tmp_path):
    directory = tmp_path / "list.npz"
    paths = [f"/data/{number}.tiff" for number in range(5)]
    dask.array.to_npy_stack(directory, dask.array.from_array(np.array(paths), chunks=2))
    assert not write_path_list_once(directory, paths)
