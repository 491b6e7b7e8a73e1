"""Lists of volumes: what may stand in them, and what is said of lines that make no sense."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile

from emcurate.addresses import Address
from emcurate.errors import InputError
from emcurate.running.ledger import Ledger
from emcurate.running.report import Report
from emcurate.volumes.corpus import find_volumes
from emcurate.volumes.sources import read_sources
from emcurate.volumes.views import View
from emcurate.volumes.volume import open_volume
from tests.volumes.chunked_volumes import write_ome_zarr

VOXELS = np.random.default_rng(10).integers(0, 256, (11, 20, 27)).astype(np.uint8)


@pytest.fixture
def report():
    return Report("test")


def write_list(tmp_path, text, name="volumes.txt"):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_a_list_has_an_address_or_a_path_a_line_and_comments(tmp_path, report):
    text = "\ufeff# mine\n\n  https://h/a.zarr  # the first\r\n/data/b.tif\nc.h5::/em#1\nprecomputed://gs://b/fly/em\n"
    found = read_sources(write_list(tmp_path, text), View(level=1), report)
    assert [source.name for source in found] == ["a", "b", "c", "fly"]
    assert [str(source.path) for source in found][1:3] == ["/data/b.tif", f"{tmp_path}/c.h5::/em#1"]
    assert {source.view for source in found} == {View(level=1)} and not report.failures


def test_a_table_says_more_of_each(tmp_path, report):
    text = (
        "address,name,level,channel,time,invert,padding,voxel_size\n"
        'https://h/a.zarr,cell,2,1,0,yes,0 255,"30 8 8"\n'
        "b.tif,,,,,no,,\n"
        "# https://h/c.zarr,,,,,,,\n"
    )
    first, second = read_sources(write_list(tmp_path, text, "a.csv"), View(level=1), report)
    assert (first.name, first.view) == ("cell", View(2, 1, 0, True))
    assert (first.padding, first.voxel_size_nm) == ((0.0, 255.0), (30.0, 8.0, 8.0))
    assert (second.name, second.view, second.padding) == ("b", View(level=1), ())
    view, said = {"level": 2, "channel": 1, "time": 0, "inverted": True}, {"padding": [0.0, 255.0]}
    assert first.settings() == {**view, **said, "voxel_size": (30.0, 8.0, 8.0)}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("ftp://h/a,,,", "found ftp://"),
        ("https://h/a,b/c,,", "a name without slashes"),
        ("https://h/a,,x,", "a whole number as level, found 'x'"),
        ("https://h/a,,-1,", "a whole number as level"),
        ("https://h/a,,,maybe", "yes or no as invert, found maybe"),
        (",name,1,", "an address or a path, found none"),
    ],
)
def test_a_line_that_makes_no_sense_is_named_and_the_others_are_read(tmp_path, report, line, said):
    path = write_list(tmp_path, f"address,name,level,invert\n{line}\nhttps://h/good,,,\n", "a.csv")
    assert [source.name for source in read_sources(path, View(), report)] == ["good"]
    (failure,) = report.failures
    assert failure.startswith(f"{path}, line 2: expected") and said in failure


def test_a_password_in_a_list_is_not_told(tmp_path, report):
    text = "https://user:WORD@h/a.zarr?k=WORD\nhttps://user:WORD@h/a.zarr?k=WORD\nhttps://user:WORD@h:WORD/a\n"
    found = read_sources(write_list(tmp_path, text), View(), report)
    assert len(found) == 1 and len(report.failures) == 2
    assert "WORD" not in repr(report.failures) + repr(found)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.txt", b"\xff\xfe\x00"),
        ("a.txt", b""),
        ("a.txt", b"# nothing\n"),
        ("a.txt", b"a\0b"),
        ("a.txt", b"A page\n\n| of text | that is no list |\n"),
        ("a.csv", b"path,name\nx,y\n"),
        ("a.csv", b"address,nmae\nx,y\n"),
        ("a.csv", b"address,address\nx,y\n"),
        ("a.csv", b'address\n"' + b"x" * 200_000),
    ],
)
def test_what_is_no_list_is_refused(tmp_path, report, name, text):
    with pytest.raises(InputError):
        read_sources(write_list(tmp_path, text, name), View(), report)


def test_of_a_list_only_volumes_that_are_there_and_no_results_are_taken(tmp_path, report):
    tifffile.imwrite(tmp_path / "made.tif", VOXELS)
    tifffile.imwrite(tmp_path / "b.tif", VOXELS)
    (tmp_path / "c.xyz").write_text("")
    with open(tmp_path / "made.tif", "rb"):
        ledger = Ledger(tmp_path, "some_stage", {}, product="sections", owner_of=lambda name: None)
    note_as_made(ledger, tmp_path, "made.tif")
    path = write_list(tmp_path, "made.tif\nb.tif\nc.xyz\nnothing.tif\nb.tif\n")
    corpus = find_volumes(path, report)
    assert [source.name for source in corpus.sources] == ["b"]
    said = "\n".join(report.failures)
    for words in ("a result of a stage", "another kind of file", "nothing of that name", "b.tif again"):
        assert words in said
    assert corpus.named == {str(tmp_path / name) for name in ("made.tif", "b.tif", "c.xyz", "nothing.tif")}


def note_as_made(ledger, directory, name):
    from emcurate.outputs import note_output
    from emcurate.running.sources import Source

    plan = ledger.plan({name: Source(directory / "x", "1", "x")}, Report("some_stage"), root=directory)
    assert plan.todo
    ledger.finish(name, [note_output(directory / name, directory)])
    ledger.note()


def test_two_sources_of_one_name_are_refused_and_both_named(tmp_path, report):
    write_ome_zarr(tmp_path / "a.zarr", VOXELS)
    tifffile.imwrite(tmp_path / "A.tif", VOXELS)
    path = write_list(tmp_path, "a.zarr\nA.tif\nhttps://h/x/a.zarr?token=1\n")
    assert find_volumes(path, report).sources == []
    assert len(report.failures) == 3
    assert all("https://h/x/a.zarr" in failure and "token" not in failure for failure in report.failures)


def test_one_volume_may_be_named_alone(tmp_path, report):
    tifffile.imwrite(tmp_path / "b.tif", VOXELS)
    write_ome_zarr(tmp_path / "a.zarr" / "em", VOXELS)
    for place, name in ((tmp_path / "b.tif", "b"), (tmp_path / "a.zarr::/em", "a"), (tmp_path / "a.zarr", "a")):
        (source,) = find_volumes(place, report).sources
        assert source.name == name
        np.testing.assert_array_equal(source.open().read(), VOXELS)


@pytest.mark.parametrize("dtype", ["|u1", "<u2", "<i2", "<f4", "|b1"])
def test_inverted_voxels_have_black_and_white_exchanged(tmp_path, dtype):
    array = (VOXELS > 99) if dtype == "|b1" else (VOXELS.astype(dtype) - (100 if dtype == "<i2" else 0))
    write_ome_zarr(tmp_path / "a.zarr", array.astype(dtype))
    found = open_volume(tmp_path / "a.zarr", view=View(inverted=True)).read()
    kind = np.dtype(dtype).kind
    lowest_and_highest = 1 if kind == "b" else 0 if kind == "f" else int(np.iinfo(dtype).min) + int(np.iinfo(dtype).max)
    np.testing.assert_array_equal(found.astype(np.float64), lowest_and_highest - array.astype(np.float64))


def test_choices_that_a_format_does_not_have_are_refused(tmp_path):
    tifffile.imwrite(tmp_path / "b.tif", VOXELS)
    assert open_volume(tmp_path / "b.tif", view=View(level=0, channel=0, time=0)).shape == VOXELS.shape
    for view, said in (
        (View(level=1), "one resolution only"),
        (View(channel=1), "one only"),
        (View(time=1), "one only"),
    ):
        with pytest.raises(InputError, match=said):
            open_volume(tmp_path / "b.tif", view=view)


def test_the_public_volumes_of_the_docs_can_be_read_as_a_list(root, report):
    """None of them is fetched."""
    sources = read_sources(root / "docs" / "public_volumes.csv", View(), report)
    assert len(sources) >= 5 and not report.failures
    assert all(isinstance(source.path, Address) for source in sources)
    assert len({source.name for source in sources}) == len(sources)
