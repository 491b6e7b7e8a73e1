"""Shards: the bytes tarfile would write, read by other programs; members are found whatever tar or table say."""

import hashlib
import io
import os
import shutil
import subprocess
import tarfile
import threading
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import tifffile
import xxhash

from emcurate import naming
from emcurate.errors import InputError
from emcurate.images.origins import VOLUME, Origin
from emcurate.images.sections import encode_section
from emcurate.outputs import Output
from emcurate.patches import shards, tables
from emcurate.patches.cuts import Cut, write_cuts
from emcurate.patches.shards import (
    ShardWriter,
    dataset_of_shard,
    find_member,
    key_without_dots,
    read_member,
    shard_name,
)
from emcurate.writing import TakenError

RNG = np.random.default_rng(0)

# Plain, at the limit of a header's field and beyond it, as long as disks allow, not ASCII, and both.
NAMES = [
    "fly-LOC-0_0_0_0.tiff",
    "a" * 95 + ".tiff",
    "b" * 96 + ".tiff",
    "c" * 250 + ".tiff",
    "Zelle ö 細胞-LOC-2d-x y_0_224.tiff",
    "é" * 125 + ".tiff",
]
CONTENTS = {name: RNG.bytes(size) for name, size in zip(NAMES, (0, 1, 511, 512, 16_560, 1_200_000), strict=True)}


def write_shard(path, contents, **options):
    with ShardWriter(path, **options) as writer:
        offsets = [writer.add(name, data) for name, data in contents.items()]
    return offsets, writer


def member_path(shard, name):
    return f"{shard}/{name}"


def tar_of_python(path, contents, form=tarfile.PAX_FORMAT, mtime=0):
    with tarfile.open(path, "w", format=form) as tar:
        for name, data in contents.items():
            member = tarfile.TarInfo(name)
            member.size, member.mtime = len(data), mtime
            tar.addfile(member, io.BytesIO(data))


def need_tar():
    if shutil.which("tar") is None:
        pytest.skip("there is no tar here")


# -- writing -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("names", [[], NAMES[:1], NAMES])
def test_a_shard_has_the_very_bytes_that_tarfile_writes(tmp_path, names):
    contents = {name: CONTENTS[name] for name in names}
    write_shard(tmp_path / "own.tar", contents)
    tar_of_python(tmp_path / "other.tar", contents)
    assert (tmp_path / "own.tar").read_bytes() == (tmp_path / "other.tar").read_bytes()


def test_tar_lists_and_unpacks_a_shard(tmp_path):
    need_tar()
    write_shard(tmp_path / "x.tar", CONTENTS)
    listed = subprocess.run(
        ["tar", "--quoting-style=literal", "-tf", "x.tar"], cwd=tmp_path, capture_output=True, check=True
    )
    assert listed.stdout.decode().splitlines() == NAMES
    assert listed.stderr == b""
    (tmp_path / "out").mkdir()
    subprocess.run(["tar", "-xf", tmp_path / "x.tar", "-C", tmp_path / "out"], check=True)
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == CONTENTS


def test_offsets_are_where_the_bytes_of_members_begin(tmp_path):
    offsets, _ = write_shard(tmp_path / "x.tar", CONTENTS)
    whole = (tmp_path / "x.tar").read_bytes()
    for offset, data in zip(offsets, CONTENTS.values(), strict=True):
        assert whole[offset : offset + len(data)] == data
    with tarfile.open(tmp_path / "x.tar") as tar:
        assert [member.offset_data for member in tar] == offsets
        assert {(m.mtime, m.uid, m.gid, m.mode, m.uname, m.gname) for m in tar} == {(0, 0, 0, 0o644, "", "")}


def test_what_was_written_is_noted_as_for_any_output(tmp_path):
    _, writer = write_shard(tmp_path / "x.tar", CONTENTS)
    data, found = (tmp_path / "x.tar").read_bytes(), (tmp_path / "x.tar").stat()
    assert writer.output == Output("x.tar", len(data), found.st_mtime_ns, xxhash.xxh3_128_hexdigest(data))
    assert (writer.written, writer.count) == (True, len(CONTENTS))


def test_the_same_shard_again_is_left_alone_and_another_one_not_replaced(tmp_path):
    path = tmp_path / "x.tar"
    _, first = write_shard(path, CONTENTS)
    os.utime(path, ns=(1, 1))
    _, again = write_shard(path, CONTENTS)
    assert again.written is False
    assert again.output == first.output._replace(mtime_ns=1)
    other = CONTENTS | {NAMES[0]: b"new"}
    with pytest.raises(TakenError, match=r"x\.tar"):
        write_shard(path, other)
    assert path.stat().st_mtime_ns == 1
    _, replaced = write_shard(path, other, overwrite=True)
    assert replaced.written
    assert bytes(read_member(member_path(path, NAMES[0]))) == b"new"
    assert os.listdir(tmp_path) == ["x.tar"]


def test_a_shard_is_not_visible_before_it_is_complete(tmp_path):
    with pytest.raises(KeyboardInterrupt), ShardWriter(tmp_path / "x.tar") as writer:
        for name, data in CONTENTS.items():
            writer.add(name, data)
            assert not (tmp_path / "x.tar").exists()
            assert all(name.endswith(".partial") for name in os.listdir(tmp_path))
        raise KeyboardInterrupt
    assert os.listdir(tmp_path) == []


def test_a_directory_of_the_shards_name_and_names_with_directories_are_refused(tmp_path):
    (tmp_path / "x.tar").mkdir()
    with pytest.raises(InputError, match="a directory of that name"):
        ShardWriter(tmp_path / "x.tar")
    writer = ShardWriter(tmp_path / "y.tar")
    for name in ("a/b.tiff", "", "a\0b"):
        with pytest.raises(ValueError, match="without directories"):
            writer.add(name, b"")
    writer.discard()
    assert os.listdir(tmp_path) == ["x.tar"]


@pytest.mark.parametrize(("dataset", "number"), [("fly", 0), ("a-00001", 7), ("ö x.y", 123_456), ("x\n", 1)])
def test_a_shards_name_tells_its_dataset(dataset, number):
    assert dataset_of_shard(shard_name(dataset, number)) == dataset


@pytest.mark.parametrize("name", ["fly.tar", "fly-1.tar", "fly-00000.tiff", "-00000.tar", "fly-00000.tar.gz"])
def test_other_names_are_no_shards(name):
    assert dataset_of_shard(name) is None


@pytest.mark.parametrize("dataset", ["fly", "scan.v2.x"])
def test_webdataset_reads_shards_and_names_with_dots_with_the_function_for_them(tmp_path, dataset):
    webdataset = pytest.importorskip("webdataset")
    contents = {f"{dataset}-LOC-0_{i}_0_0.tiff": RNG.bytes(10) for i in range(5)}
    write_shard(tmp_path / "x.tar", contents)
    samples = webdataset.WebDataset(
        str(tmp_path / "x.tar"), shardshuffle=False, empty_check=False, rename_files=key_without_dots
    )
    found = {sample["__key__"]: sample["tiff"] for sample in samples}
    assert found == {key_without_dots(name).removesuffix(".tiff"): data for name, data in contents.items()}
    assert len(found) == 5


# -- reading -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
@pytest.mark.parametrize("mtime", [0, 1_700_000_000.25])
def test_members_of_pythons_tars_are_read(tmp_path, form, mtime):
    tar_of_python(tmp_path / "x.tar", CONTENTS, form, mtime)
    assert {name: bytes(read_member(member_path(tmp_path / "x.tar", name))) for name in NAMES} == CONTENTS


@pytest.mark.parametrize("form", ["gnu", "posix", "ustar", "v7"])
@pytest.mark.parametrize("what", ["names", "directory"])
def test_members_of_tars_by_the_command_are_read(tmp_path, form, what):
    need_tar()
    (tmp_path / "src").mkdir()
    # The older formats have room for ninety-nine letters, and ask nothing about what letters these are.
    names = NAMES if form in ("gnu", "posix") else [*NAMES[:1], "ö.tiff"]
    contents = {name: CONTENTS.get(name, b"x") for name in names}
    for name, data in contents.items():
        (tmp_path / "src" / name).write_bytes(data)
    subprocess.run(
        ["tar", f"--format={form}", "-C", tmp_path / "src", "-cf", tmp_path / "x.tar"]
        + (["--", *names] if what == "names" else ["."]),
        check=True,
    )
    assert {name: bytes(read_member(member_path(tmp_path / "x.tar", name))) for name in names} == contents


def test_of_two_members_of_one_name_the_last_counts_as_it_does_for_tar(tmp_path):
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        for data in (b"first", b"second"):
            member = tarfile.TarInfo("a.tiff")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    with tarfile.open(tmp_path / "x.tar") as tar:
        assert tar.extractfile("a.tiff").read() == b"second"
    assert bytes(read_member(member_path(tmp_path / "x.tar", "a.tiff"))) == b"second"


def test_links_and_directories_in_a_tar_are_no_members(tmp_path):
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        for name, kind in (("a.tiff", tarfile.SYMTYPE), ("b.tiff", tarfile.LNKTYPE), ("c.tiff", tarfile.DIRTYPE)):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "/etc/passwd"
            tar.addfile(member)
    for name in ("a.tiff", "b.tiff", "c.tiff"):
        with pytest.raises(InputError, match="no such member among its 0"):
            read_member(member_path(tmp_path / "x.tar", name))


def test_a_directory_called_like_a_shard_is_a_directory(tmp_path):
    (tmp_path / "x.tar").mkdir()
    assert find_member(member_path(tmp_path / "x.tar", "a.tiff")) is None
    assert find_member(str(tmp_path / "a.tiff")) is None


def test_the_start_of_a_member_is_read_alone(tmp_path):
    write_shard(tmp_path / "x.tar", CONTENTS)
    for name, data in CONTENTS.items():
        start, size = find_member(member_path(tmp_path / "x.tar", name)).read_start(100)
        assert (bytes(start), size) == (data[:100], len(data))


# -- tables ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def tabled(tmp_path):
    """Two shards of a dataset with a table beside them, and the patches' contents by path."""
    contents, cuts = {}, []
    for number in range(2):
        section = naming.VolumeSection("fly ö", 0, number)
        names = [f"{section.stem}_0_{x}.tiff" for x in range(0, 60, 10)]
        patches = {name: encode_section(RNG.integers(0, 256, (10, 10), np.uint8)) for name in names}
        offsets, writer = write_shard(tmp_path / shard_name("fly ö", number), patches)
        contents |= {member_path(writer.path, name): data for name, data in patches.items()}
        places = np.array([(0, x, 10, 10) for x in range(0, 60, 10)], np.int32)
        hashes = np.zeros((6, 8), np.uint8)
        cuts.append(Cut(section, places, hashes, writer.path.name, np.array(offsets)))
    settings = {"crop_size": 10, "hash_size": 8, "hash": "dhash"}
    write_cuts(tmp_path / "fly ö_patches.parquet", cuts, lambda stem: Origin(VOLUME), settings)
    return tmp_path, contents


def change_offsets(directory, change):
    path = directory / "fly ö_patches.parquet"
    table = tables.read_table(path)
    column = table.schema.get_field_index("offset")
    offsets = table["offset"].to_numpy()
    changed = table.set_column(column, tables.SCHEMA.field("offset"), [change(offsets.copy())])
    pq.write_table(changed.replace_schema_metadata(table.schema.metadata), path)


@pytest.fixture
def scans(monkeypatch):
    """The names of the shards whose headers were all read."""
    scanned = []
    scan = shards.Shard._scan
    monkeypatch.setattr(shards.Shard, "_scan", lambda self: scanned.append(Path(self.path).name) or scan(self))
    return scanned


def read_all(contents):
    return {path: bytes(read_member(path)) for path in contents}


def test_with_a_table_no_shard_is_searched(tabled, scans):
    _, contents = tabled
    assert read_all(contents) == contents
    assert scans == []


@pytest.mark.parametrize(
    "change",
    [
        lambda offsets: offsets[::-1],
        lambda offsets: np.roll(offsets, 1),
        lambda offsets: offsets - 512,
        lambda offsets: offsets + 1,
        lambda offsets: np.zeros_like(offsets),
        lambda offsets: np.full_like(offsets, 1 << 62),
        lambda offsets: np.full_like(offsets, -1),
    ],
)
def test_a_table_that_lies_costs_a_search_and_nothing_else(tabled, scans, change):
    directory, contents = tabled
    change_offsets(directory, change)
    assert read_all(contents) == contents
    assert sorted(scans) == ["fly ö-00000.tar", "fly ö-00001.tar"]


@pytest.mark.parametrize("content", [None, b"", b"no parquet", b"PAR1" * 9])
def test_a_table_that_is_gone_or_damaged_costs_a_search_and_nothing_else(tabled, scans, content):
    directory, contents = tabled
    table = directory / "fly ö_patches.parquet"
    if content is None:
        table.unlink()
    else:
        table.write_bytes(content)
    assert read_all(contents) == contents
    assert len(scans) == 2


def test_a_table_without_offsets_is_as_good_as_none(tabled):
    directory, contents = tabled
    path = directory / "fly ö_patches.parquet"
    table = tables.read_table(path)
    cleared = table.set_column(table.schema.get_field_index("offset"), "offset", [[None] * len(table)])
    pq.write_table(cleared.cast(tables.SCHEMA).replace_schema_metadata(table.schema.metadata), path)
    assert read_all(contents) == contents


# -- what can be wrong -------------------------------------------------------------------------------------------------


def test_a_shard_replaced_under_a_running_process_is_read_anew(tabled):
    _, contents = tabled
    assert read_all(contents) == contents
    path = next(iter(contents))
    shard = Path(path).parent
    new = {Path(p).name: data[::-1] for p, data in contents.items() if Path(p).parent == shard}
    # Of the same size, in another order, so that only its time tells, and the table's offsets are of another member.
    write_shard(shard, dict(reversed(new.items())), overwrite=True)
    for name, data in new.items():
        assert bytes(read_member(member_path(shard, name))) == data
    shard.unlink()
    with pytest.raises(InputError, match="no such shard"):
        read_member(path)


def test_a_member_that_was_overwritten_in_its_place_is_not_taken_for_another(tabled):
    _, contents = tabled
    assert read_all(contents) == contents
    path, other = list(contents)[:2]
    shard = Path(path).parent
    state, data = shard.stat(), shard.read_bytes()
    with open(shard, "r+b") as file:
        file.write(data.replace(b"0_0_0_0.tiff", b"0_0_0_1.tiff"))
    os.utime(shard, ns=(state.st_atime_ns, state.st_mtime_ns))
    with pytest.raises(InputError, match=r"ö-00000\.tar"):
        read_member(path)
    assert not find_member(path).exists()
    assert bytes(read_member(other)) == contents[other]


@pytest.mark.parametrize("keep", [0, 1, 511, 512, 1024, 1535, 1536, 1811, 1812, 2048, 3000, 3584, 4000])
def test_of_a_shard_that_is_cut_off_what_is_there_is_read_and_the_rest_named(tmp_path, keep, tabled):
    _, contents = tabled
    for table in (True, False):
        if not table:
            (tmp_path / "fly ö_patches.parquet").unlink()
        for shard in {Path(path).parent for path in contents}:
            os.truncate(shard, keep)
        # Three blocks of headers, since the name is not ASCII, and a patch of 176 + 100 bytes filled up to a block.
        for path, data in contents.items():
            number = int(path.rpartition("_")[2].removesuffix(".tiff")) // 10
            if number * 2048 + 1536 + len(data) <= keep:
                assert bytes(read_member(path)) == data
                continue
            with pytest.raises(InputError) as error:
                read_member(path)
            assert error.value.path in (path, str(Path(path).parent))
            assert "copy it again" in str(error.value)
            assert not find_member(path).exists()


def test_a_shard_that_is_cut_off_while_it_is_read_gives_no_half_member(tmp_path):
    write_shard(tmp_path / "x.tar", CONTENTS)
    member = find_member(member_path(tmp_path / "x.tar", NAMES[-1]))
    assert bytes(member.read()) == CONTENTS[NAMES[-1]]
    os.truncate(tmp_path / "x.tar", (tmp_path / "x.tar").stat().st_size - 20_000)
    with pytest.raises(InputError, match="copy it again"):
        member.read()


@pytest.mark.parametrize("number", range(3))
def test_a_damaged_header_loses_its_member_and_is_told_of_those_behind(tmp_path, number):
    contents = {f"{letter}.tiff": letter.encode() * 10 for letter in "abc"}
    write_shard(tmp_path / "x.tar", contents)
    with open(tmp_path / "x.tar", "r+b") as file:
        file.seek(number * 1024 + 130)
        file.write(b"\xff")
    for place, (name, data) in enumerate(contents.items()):
        path = member_path(tmp_path / "x.tar", name)
        if place < number:
            assert bytes(read_member(path)) == data
        else:
            with pytest.raises(InputError, match="copy it again"):
                read_member(path)


def test_what_is_no_tar_is_said_to_be_none(tmp_path):
    path = tmp_path / "x.tar"
    for content, found in (
        (b"", "an empty file"),
        (b"II*\0" + bytes(1000), "data of another kind"),
        (RNG.bytes(5000), "data of another kind"),
    ):
        path.write_bytes(content)
        with pytest.raises(InputError, match="an uncompressed tar of patches") as error:
            read_member(member_path(path, "a.tiff"))
        assert error.value.found.startswith(found)
    with tarfile.open(tmp_path / "x.tar.gz", "w:gz") as tar:
        tar.add(__file__, "a.tiff")
    (tmp_path / "x.tar.gz").rename(path)
    with pytest.raises(InputError, match="an uncompressed tar"):
        read_member(member_path(path, "a.tiff"))


def test_missing_shards_members_and_pipes_are_named(tmp_path):
    write_shard(tmp_path / "x.tar", CONTENTS)
    with pytest.raises(InputError, match=r"x\.tar/b\.tiff: .* no such member among its 6"):
        read_member(member_path(tmp_path / "x.tar", "b.tiff"))
    with pytest.raises(InputError, match=r"y\.tar/b\.tiff: .* no such shard; .* --reroot"):
        read_member(member_path(tmp_path / "y.tar", "b.tiff"))
    with pytest.raises(InputError, match=r"z\.tar"):
        read_member(member_path(tmp_path / "x.tar" / "z.tar", "b.tiff"))
    os.mkfifo(tmp_path / "p.tar")
    with pytest.raises(InputError, match="a pipe"):
        read_member(member_path(tmp_path / "p.tar", "b.tiff"))
    with pytest.raises(InputError, match="a member of a shard"):
        read_member(str(tmp_path / "x.tiff"))


def test_a_size_below_zero_is_no_way_to_go_round_in_a_circle(tmp_path):
    contents = {"a.tiff": b"a", "b.tiff": b"b"}
    write_shard(tmp_path / "x.tar", contents)
    with open(tmp_path / "x.tar", "r+b") as file:
        file.seek(1024)
        block = bytearray(file.read(512))
        # Behind the second member's header, which is a block, this leads to the header again.
        block[124:136] = tarfile.itn(-512, 12, tarfile.GNU_FORMAT)
        block[148:156] = b" " * 8
        block[148:156] = b"%06o\0 " % sum(block)
        file.seek(1024)
        file.write(block)
    assert bytes(read_member(member_path(tmp_path / "x.tar", "a.tiff"))) == b"a"
    with pytest.raises(InputError, match="cut off or damaged after 1 members"):
        read_member(member_path(tmp_path / "x.tar", "b.tiff"))


# -- many --------------------------------------------------------------------------------------------------------------


def test_only_so_many_shards_are_kept_open(tmp_path):
    for number in range(shards.SHARDS_KEPT + 10):
        write_shard(tmp_path / shard_name("a", number), {"a.tiff": bytes([number])})
    for _ in range(2):
        for number in range(shards.SHARDS_KEPT + 10):
            assert read_member(member_path(tmp_path / shard_name("a", number), "a.tiff"))[0] == number
    open_files = Path("/proc/self/fd")
    if open_files.is_dir():
        targets = [link.readlink() for link in open_files.iterdir() if link.is_symlink()]
        assert sum(tmp_path in target.parents for target in targets) == shards.SHARDS_KEPT


def test_threads_that_read_replaced_and_forgotten_shards_get_one_whole_state_or_the_other(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "SHARDS_KEPT", 2)
    paths = [tmp_path / shard_name("a", number) for number in range(4)]
    names = [f"{i}.tiff" for i in range(20)]

    def content(shard, name, state):
        return hashlib.sha256(f"{shard.name} {name} {state}".encode()).digest() * 40

    def write(state):
        for path in paths:
            write_shard(path, {name: content(path, name, state) for name in names}, overwrite=True)

    write(0)
    wrong, stop = [], threading.Event()

    def read(seed):
        random = np.random.default_rng(seed)
        while not stop.is_set():
            path, name = paths[random.integers(len(paths))], names[random.integers(len(names))]
            try:
                data = bytes(read_member(member_path(path, name)))
            except (InputError, OSError, ValueError) as error:
                wrong.append(error)
                return
            if data not in {content(path, name, state) for state in range(8)}:
                wrong.append(data)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for state in range(1, 8):
        write(state)
    stop.set()
    for thread in threads:
        thread.join()
    assert wrong == []
    for path in paths:
        assert bytes(read_member(member_path(path, "0.tiff"))) == content(path, "0.tiff", 7)


def test_patches_can_be_read_at_their_offsets_by_any_program(tabled):
    directory, contents = tabled
    rows = tables.read_table(directory / "fly ö_patches.parquet").to_pylist()
    assert len(rows) == len(contents)
    for row in rows:
        with open(directory / row["shard"], "rb") as file:
            file.seek(row["offset"])
            pixels = tifffile.imread(io.BytesIO(file.read(512)))
        expected = tifffile.imread(io.BytesIO(contents[f"{directory / row['shard']}/{row['patch']}.tiff"]))
        np.testing.assert_array_equal(pixels, expected)
