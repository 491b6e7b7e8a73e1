"""Unpacking zip archives that nobody should trust, and names that must stay inside a directory."""

import os
import random
import stat
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from emcurate.errors import InputError
from emcurate.fetching.archives import (
    DamagedArchiveError,
    Limits,
    Unpacked,
    extract_entry,
    find_damage,
    open_zip,
    same_as_entry,
    unpack_zip,
)
from emcurate.fetching.safe_names import EscapeError, check_relative, join_inside
from emcurate.partials import partial_path

PLENTY = Limits(1 << 30)


def make_zip(path, entries, method=zipfile.ZIP_DEFLATED):
    """Write (name or ZipInfo, data) pairs as a zip archive."""
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in entries:
            archive.writestr(name, data)
    return path


def entry(name, mode):
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    return info


def tree(directory):
    return {str(p.relative_to(directory)): p.read_bytes() for p in directory.rglob("*") if p.is_file()}


@pytest.fixture
def out(tmp_path):
    directory = tmp_path / "out"
    directory.mkdir()
    return directory


CONTENT = {"a.txt": b"one", "d/b.txt": b"two" * 1000, "d/e/c": b"", "ö/naïve name.jpg": b"three"}


def test_unpacks_and_finds_all_in_place_next_time(tmp_path, out):
    archive = make_zip(tmp_path / "a.zip", [*CONTENT.items(), ("empty/", b"")])
    files = [out / name for name in CONTENT]
    assert unpack_zip(archive, out, PLENTY) == Unpacked(files, written=4)
    assert tree(out) == CONTENT
    (out / "a.txt").unlink()
    (out / "d" / "b.txt").write_bytes(b"two")
    with pytest.raises(InputError, match=r"b\.txt: expected no such file, or the one of a\.zip"):
        unpack_zip(archive, out, PLENTY)
    assert not (out / "a.txt").exists()  # refused before anything is written
    assert unpack_zip(archive, out, PLENTY, overwrite=True) == Unpacked(files, written=2, present=2)
    assert tree(out) == CONTENT
    assert unpack_zip(archive, out, PLENTY) == Unpacked(files, present=4)


def test_what_a_killed_run_left_is_swept_away(tmp_path, out):
    finished = subprocess.Popen([sys.executable, "-c", ""])
    finished.wait()
    (out / "d").mkdir()
    mine = partial_path(out / "d")
    left = mine.with_name(mine.name.replace(f"-{os.getpid()}-", f"-{finished.pid}-"))
    for path in (mine, left):
        path.write_bytes(b"half")
    unpack_zip(make_zip(tmp_path / "a.zip", CONTENT.items()), out, PLENTY)
    assert tree(out) == {**CONTENT, f"d/{mine.name}": b"half"}


def test_other_files_of_the_user_stay(tmp_path, out):
    (out / "mine").write_bytes(b"mine")
    unpack_zip(make_zip(tmp_path / "a.zip", CONTENT.items()), out, PLENTY, overwrite=True)
    assert tree(out) == {**CONTENT, "mine": b"mine"}


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (("../evil", b"x"), "'../evil', which leads out"),
        (("d/../../evil", b"x"), "which leads out"),
        (("/evil", b"x"), "'/evil', an absolute path"),
        (("C:/evil", b"x"), "an absolute path"),
        (("d\\..\\..\\evil", b"x"), "with a backslash"),
        (("../evil/", b""), "which leads out"),
        (("d//evil", b"x"), "which is no file name"),
        (("bad\x01name", b"x"), "a control character"),
        ((entry("evil", stat.S_IFLNK | 0o777), b"/etc/hosts"), "'evil', a link"),
        ((entry("evil", stat.S_IFIFO | 0o666), b""), "'evil', a special file"),
        (("a.txt", b"again"), "'a.txt' twice"),
        (("a.txt/below", b"x"), "'a.txt/below', below a file"),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_refuses_before_anything_is_written(tmp_path, out, bad, message):
    archive = make_zip(tmp_path / "a.zip", [*CONTENT.items(), bad])
    with pytest.raises(InputError) as refused:
        unpack_zip(archive, out, PLENTY)
    assert message in str(refused.value)
    assert str(archive) in str(refused.value)
    assert list(out.iterdir()) == []
    assert {p.name for p in tmp_path.iterdir()} == {"a.zip", "out"}


def test_link_in_the_output_is_not_written_through(tmp_path, out):
    outside = tmp_path / "outside"
    outside.mkdir()
    (out / "d").symlink_to(outside)
    with pytest.raises(InputError, match="which a link leads out of"):
        unpack_zip(make_zip(tmp_path / "a.zip", CONTENT.items()), out, PLENTY)
    assert list(outside.iterdir()) == []
    assert not (out / "a.txt").exists()


def test_output_itself_may_be_a_link(tmp_path, out):
    (tmp_path / "way").symlink_to(out)
    unpack_zip(make_zip(tmp_path / "a.zip", CONTENT.items()), tmp_path / "way", PLENTY)
    assert tree(out) == CONTENT


def test_bomb_by_size(tmp_path, out):
    archive = make_zip(tmp_path / "a.zip", [("a", b"12345"), ("b", b"123456")])
    with pytest.raises(InputError, match="expected at most 10 bytes when unpacked, found 11; raise the limit"):
        unpack_zip(archive, out, Limits(10))
    assert list(out.iterdir()) == []
    assert unpack_zip(archive, out, Limits(11)).written == 2


def test_bomb_by_ratio(tmp_path, out):
    archive = make_zip(tmp_path / "a.zip", [("zeros", bytes(101 << 20))])
    with pytest.raises(InputError, match="expected at most 100 bytes out of each byte of the archive"):
        unpack_zip(archive, out, PLENTY)
    assert list(out.iterdir()) == []
    stored = make_zip(tmp_path / "b.zip", [("zeros", bytes(101 << 20))], zipfile.ZIP_STORED)
    assert unpack_zip(stored, out, PLENTY).written == 1


def test_entry_that_is_larger_than_it_says(tmp_path, out):
    archive = make_zip(tmp_path / "a.zip", [("a", bytes(5000))])
    data = bytearray(archive.read_bytes())
    central = data.rindex(b"PK\x01\x02")
    data[central + 24 : central + 28] = struct.pack("<I", 10)  # the size in the directory
    archive.write_bytes(data)
    with pytest.raises(InputError, match="expected a readable a, found"):
        unpack_zip(archive, out, PLENTY)
    assert list(out.iterdir()) == []


def test_damaged_entry_never_appears(tmp_path, out):
    archive = make_zip(tmp_path / "a.zip", CONTENT.items(), zipfile.ZIP_STORED)
    data = bytearray(archive.read_bytes())
    data[data.index(b"twotwo")] = ord("T")
    archive.write_bytes(data)
    with pytest.raises(InputError, match=r"expected a readable d/b\.txt, found Bad CRC-32"):
        unpack_zip(archive, out, PLENTY)
    assert tree(out) == {"a.txt": b"one"}


def test_encrypted_entry(tmp_path, out):
    archive = make_zip(tmp_path / "a.zip", [("a", b"x")])
    data = bytearray(archive.read_bytes())
    data[data.rindex(b"PK\x01\x02") + 8] |= 1
    archive.write_bytes(data)
    with pytest.raises(InputError, match="'a', encrypted"):
        unpack_zip(archive, out, PLENTY)


@pytest.mark.parametrize(("data", "found"), [(b"", "not a zip"), (b"hello", "not a zip"), (None, "no such file")])
def test_no_archive(tmp_path, out, data, found):
    path = tmp_path / "a.zip"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(InputError, match=found):
        unpack_zip(path, out, PLENTY)


def test_truncated_archive(tmp_path, out):
    archive = make_zip(tmp_path / "a.zip", CONTENT.items())
    archive.write_bytes(archive.read_bytes()[:-30])
    with pytest.raises(InputError, match="expected a complete zip archive"):
        unpack_zip(archive, out, PLENTY)


def test_file_in_the_way(tmp_path, out):
    (out / "d").write_bytes(b"mine")
    with pytest.raises(InputError, match="a file in the way"):
        unpack_zip(make_zip(tmp_path / "a.zip", CONTENT.items()), out, PLENTY)
    assert (out / "d").read_bytes() == b"mine"


def test_same_as_entry_looks_at_content(tmp_path):
    archive = make_zip(tmp_path / "a.zip", [("a", b"123")])
    with open_zip(archive) as opened:
        info = opened.getinfo("a")
    file = tmp_path / "f"
    for data, same in ((b"123", True), (b"124", False), (b"12", False)):
        file.write_bytes(data)
        assert same_as_entry(file, info) is same
    assert not same_as_entry(tmp_path / "none", info)


@pytest.mark.parametrize("name", ["a", "a/b.jpg", "ö ä.jpg", "..a", "a..b/c", ".hidden"])
def test_good_names(tmp_path, name):
    assert check_relative(name) == name
    assert join_inside(tmp_path, name) == tmp_path / name


@pytest.mark.parametrize(
    "name", ["", "/", "/a", "..", "a/..", "a/../b", "./a", "a/", "a//b", "C:a", "c:\\a", "a\\b", "a\nb"]
)
def test_bad_names(tmp_path, name):
    with pytest.raises(EscapeError):
        check_relative(name)
    with pytest.raises(EscapeError):
        join_inside(tmp_path, name)


def test_links_are_judged_by_where_they_lead(tmp_path):
    inside, outside = tmp_path / "in", tmp_path / "out"
    for directory in (inside, outside, inside / "real"):
        directory.mkdir()
    (inside / "fine").symlink_to("real")
    (inside / "evil").symlink_to(outside)
    (inside / "up").symlink_to("../out")
    assert join_inside(inside, "fine/a") == Path(inside, "fine", "a")
    for name in ("evil/a", "up/a", "evil"):
        with pytest.raises(EscapeError):
            join_inside(inside, name)


PACKINGS = {
    "deflated": zipfile.ZIP_DEFLATED,
    "bzip2": zipfile.ZIP_BZIP2,
    "LZMA": zipfile.ZIP_LZMA,
    "stored": zipfile.ZIP_STORED,
}


@pytest.mark.parametrize("packing", PACKINGS)
def test_damage_in_any_packing_is_named_with_the_right_advice(tmp_path, out, packing):
    text = b"".join(b"%d," % (i * i) for i in range(3000))
    archive = make_zip(tmp_path / "a.zip", [("a.txt", b"one"), ("b.txt", text)], PACKINGS[packing])
    whole = archive.read_bytes()
    with zipfile.ZipFile(archive) as opened:
        start = opened.getinfo("b.txt").header_offset + 30 + len("b.txt")
        length = opened.getinfo("b.txt").compress_size
    # The first bytes tell how it is packed, such as how much memory LZMA takes; the others are the text.
    harmless = 0
    for place in (*range(12), *range(12, length, max(1, length // 60))):
        for bit in (1, 128):
            data = bytearray(whole)
            data[start + place] ^= bit
            archive.write_bytes(data)
            damage = find_damage(archive, PLENTY)
            if damage is None:  # a bit of no use, such as those after a stream's end
                harmless += 1
                unpack_zip(archive, tmp_path, PLENTY, overwrite=True)
                assert (tmp_path / "b.txt").read_bytes() == text
                continue
            assert "a.zip: expected a readable b.txt, found" in str(damage)
            assert str(damage).endswith("delete it and fetch it again")
            with pytest.raises(DamagedArchiveError):
                unpack_zip(archive, out, PLENTY)
            assert not (out / "b.txt").exists()
    assert harmless < 12
    archive.write_bytes(whole)
    assert find_damage(archive, PLENTY) is None
    unpack_zip(archive, out, PLENTY)
    assert (out / "b.txt").read_bytes() == text


@pytest.mark.parametrize("seed", range(3))
def test_no_damage_anywhere_in_an_archive_ends_in_a_traceback(tmp_path, seed):
    generator = random.Random(seed)
    archive = make_zip(tmp_path / "a.zip", CONTENT.items(), generator.choice(list(PACKINGS.values())))
    whole = archive.read_bytes()
    for number in range(150):
        data = bytearray(whole)
        for _ in range(generator.randint(1, 3)):
            data[generator.randrange(len(data))] = generator.randrange(256)
        archive.write_bytes(data[: generator.randrange(len(data))] if number % 10 == 0 else data)
        directory = tmp_path / f"{number}"
        directory.mkdir()
        try:
            unpack_zip(archive, directory, PLENTY)
        except InputError:
            continue
        # What is not noticed has changed no content: a name, a time, a comment.
        assert sorted(tree(directory).values()) == sorted(CONTENT.values())


def encrypt_flag(archive):
    """Set the bits that say an archive's first entry is encrypted."""
    data = bytearray(archive.read_bytes())
    data[data.index(b"PK\x03\x04") + 6] |= 1
    data[data.rindex(b"PK\x01\x02") + 8] |= 1
    archive.write_bytes(data)


def test_an_encrypted_archive_is_no_damaged_one(tmp_path, out):
    archive = make_zip(tmp_path / "a.zip", [("a", b"x")])
    encrypt_flag(archive)
    assert find_damage(archive, PLENTY) is None
    with pytest.raises(InputError, match="'a', encrypted; unpack it with its password, and name the directory"):
        unpack_zip(archive, out, PLENTY)
    with open_zip(archive) as opened, pytest.raises(InputError, match="an encrypted one; unpack it with its password"):
        extract_entry(archive, opened, opened.getinfo("a"), out / "a")
    assert list(out.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("d/" * 1500 + "a", "at most 100 directories in each other, found 1,500, 'd/d/"),
        ("d/" * 1500, "at most 100 directories in each other"),
        ("x" * 300, "a name of at most 255 bytes, found 300"),
        ("é" * 150 + ".jpg", "a name of at most 255 bytes, found 304"),
        (f"{'x' * 250}/" * 20 + "a", "a path of at most 4,095 bytes"),
    ],
)
def test_names_that_no_system_takes_are_refused_before_anything_is_written(tmp_path, out, name, message):
    archive = make_zip(tmp_path / "a.zip", [("fine", b"x"), (name, b"")])
    with pytest.raises(InputError, match=message):
        unpack_zip(archive, out, PLENTY)
    assert list(out.iterdir()) == []


def test_100_directories_in_each_other_are_fine(tmp_path, out):
    name = "d/" * 100 + "a"
    unpack_zip(make_zip(tmp_path / "a.zip", [(name, b"x")]), out, PLENTY)
    assert tree(out) == {name: b"x"}
