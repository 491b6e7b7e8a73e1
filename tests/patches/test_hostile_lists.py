"""Path lists, hashes and tables made to do harm, or damaged: named, and the others go on."""

import os
from importlib import import_module

import numpy as np
import pytest

from emcurate.contents import read_npy
from emcurate.errors import InputError
from emcurate.images.sections import encode_section
from emcurate.patches.hashing import read_hash
from emcurate.patches.pathlists import PathList
from emcurate.patches.selection import Selection
from tests.torture.children import give_up_override
from tests.torture.crafted_lists import make_npys, npy_with_header
from tests.torture.odd_entries import make_socket

GREY = np.random.default_rng(5).integers(0, 256, (32, 32), dtype=np.uint8)
BITS = np.indices((8, 8)).sum(axis=0) % 2 == 0


@pytest.mark.timeout(60)
def test_arrays_that_make_no_sense_are_refused_in_one_line(tmp_path):
    path = tmp_path / "a.npy"
    for what, data in make_npys(tmp_path):
        path.write_bytes(data)
        try:
            array = read_npy(path)
        except InputError as error:
            assert str(error).startswith(f"{path}: expected ") and "\n" not in str(error), what
        else:
            assert array.dtype.kind in "biufUM", what
        with pytest.raises(InputError):
            read_hash(path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.timeout(20)
def test_arrays_that_are_no_files_are_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe.npy")
    make_socket(tmp_path / "socket.npy")
    (tmp_path / "device.npy").symlink_to("/dev/zero")
    (tmp_path / "loop.npy").symlink_to("loop.npy")
    for path in tmp_path.iterdir():
        for read in (read_npy, read_hash):
            with pytest.raises(InputError, match=path.name):
                read(path)


@pytest.mark.timeout(20)
def test_a_path_list_of_pipes_is_refused(tmp_path):
    (tmp_path / "list.npz").mkdir()
    os.mkfifo(tmp_path / "list.npz" / "0.npy")
    with pytest.raises(InputError, match="found a pipe"):
        PathList(tmp_path / "list.npz")


def write_list(directory, text, letters):
    directory.mkdir()
    header = f"{{'descr': '<U{letters}', 'fortran_order': False, 'shape': ({len(text) // 4 // letters},)}}"
    (directory / "0.npy").write_bytes(npy_with_header(header, text))
    return directory


@pytest.mark.parametrize(
    ("letters", "accepted"),
    [
        ([97, 0x10FFFF, 98], True),
        ([97, 0x110000, 98], False),
        ([97, 0x7FFFFFFF, 98], False),
        ([97, 0xD800, 98], False),
        ([97, 0xDFFF, 98], False),
        ([97, 0xDC80, 0xDCFF], True),  # bytes that are no UTF-8, as Linux has them in names
        ([97, 0, 98], False),
        ([97, 0, 0], True),
    ],
)
def test_letters_that_no_path_has(tmp_path, letters, accepted):
    paths = PathList(write_list(tmp_path / "l.npz", np.array([97, 98, 99, *letters], "<u4").tobytes(), 3))
    readers = [list, lambda paths: paths[1], lambda paths: [chunk.tolist() for chunk in paths.chunks()]]
    if accepted:
        assert paths[1] == "".join(map(chr, letters)).rstrip("\0")
        assert [read(paths) is not None for read in readers] == [True, True, True]
        return
    for read in readers:
        with pytest.raises(InputError, match="found letters that no path has in path 1"):
            read(PathList(tmp_path / "l.npz"))


def test_names_that_are_no_utf8_cannot_be_selected(tmp_path):
    name = "a\udcff-LOC-2d_0_0.tiff"
    text = np.array([name]).tobytes()
    with pytest.raises(InputError, match="paths in UTF-8"):
        Selection(write_list(tmp_path / "l.npz", text, len(name)))


@pytest.mark.parametrize("name", ["00.npy", "².npy", "0 (copy).npy"])
def test_files_of_other_names_are_no_chunks(tmp_path, name):
    directory = write_list(tmp_path / "l.npz", np.array(["abc"]).tobytes(), 3)
    (directory / name).write_bytes((directory / "0.npy").read_bytes())
    assert list(PathList(directory)) == ["abc"]


def test_a_chunk_of_a_huge_number_takes_no_memory(tmp_path):
    directory = write_list(tmp_path / "l.npz", np.array(["abc"]).tobytes(), 3)
    (directory / f"{10**12}.npy").write_bytes(b"")
    with pytest.raises(InputError, match=r"found no 1\.npy"):
        PathList(directory)


# deduplicate


def write_patch(directory, name, array=BITS):
    (directory / f"{name}_0_0.tiff").write_bytes(encode_section(GREY))
    np.save(directory / f"{name}_0_0.npy", array)


def deduplicate(patches, out):
    return import_module("deduplicated.deduplicate").main([str(patches), str(out), "-p", "1"])


@pytest.mark.parametrize("shape", [(0, 0), (1, 1), (3, 3)])
def test_one_odd_hash_costs_no_other_dataset(tmp_path, capsys, shape):
    patches = tmp_path / "patches"
    patches.mkdir()
    write_patch(patches, "good-LOC-2d")
    write_patch(patches, "odd-LOC-2d", np.zeros(shape, bool))
    assert deduplicate(patches, tmp_path / "out") == 1
    failed = capsys.readouterr().err.partition("Failed:")[2]
    assert ("odd-LOC-2d_0_0.npy: expected a square" if shape != (3, 3) else "hashes of 9 bits in odd") in failed
    assert (tmp_path / "out" / "good_exemplars.npy").exists()
    assert not (tmp_path / "out" / "odd_exemplars.npy").exists()


def test_one_flipped_byte_costs_one_patch(tmp_path, capsys):
    patches = tmp_path / "patches"
    patches.mkdir()
    for number in range(20):
        write_patch(patches, f"set-LOC-0_{number:02d}", np.random.default_rng(number).random((8, 8)) < 0.5)
    path = patches / "set-LOC-0_07_0_0.npy"
    data = bytearray(path.read_bytes())
    data[data.index(b"8, 8")] = ord("7")
    path.write_bytes(data)
    assert deduplicate(patches, tmp_path / "out") == 1
    failed = capsys.readouterr().err.partition("Failed:")[2].strip()
    assert failed.startswith(f"{path}: expected") and "\n" not in failed
    assert len((tmp_path / "out" / "set_groups.csv").read_text().splitlines()) == 1 + 19


@pytest.mark.timeout(60)
def test_tables_that_are_no_files_cost_no_other_dataset(tmp_path, capsys):
    patches = tmp_path / "patches"
    patches.mkdir()
    write_patch(patches, "good-LOC-2d")
    write_patch(patches, "pipe-LOC-2d")
    os.mkfifo(patches / "pipe_patches.parquet")
    (patches / "device_patches.parquet").symlink_to("/dev/zero")
    (patches / "loop_patches.parquet").symlink_to("loop_patches.parquet")
    assert deduplicate(patches, tmp_path / "out") == 1
    failed = capsys.readouterr().err.partition("Failed:")[2]
    for name in ("pipe", "device", "loop"):
        assert f"{name}_patches.parquet: expected" in failed
    # Not from its other files either: the table would have had the last word.
    assert [path.name for path in (tmp_path / "out").glob("*_exemplars.npy")] == ["good_exemplars.npy"]


# crop_patches


def test_a_section_that_must_not_be_read_or_has_no_utf8_costs_no_other(tmp_path, capsys):
    sections = tmp_path / "sections"
    sections.mkdir()
    for name in ("good", "locked", "odd\udcff"):
        (sections / f"{name}-LOC-2d.tiff").write_bytes(encode_section(GREY))
    (sections / "locked-LOC-2d.tiff").chmod(0)
    child = os.fork()
    if not child:
        give_up_override()
        main = import_module("raw.crop_patches").main
        try:
            status = main([str(sections), str(tmp_path / "out"), "-cs", "32", "-p", "1"])
        except BaseException:  # noqa: BLE001 - a child must end here
            status = 99
        os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
    assert {path.name for path in (tmp_path / "out").glob("*.tiff")} == {"good-LOC-2d_0_0.tiff"}
