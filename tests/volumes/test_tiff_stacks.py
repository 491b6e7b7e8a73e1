"""TIFF stacks of many pages, and of pages that are not all alike: what tifffile reads of each, or a refusal."""

import struct

import numpy as np
import pytest
import tifffile

from emcurate.errors import InputError
from emcurate.images.reading import read_image
from emcurate.images.tiff_directories import read_directories
from emcurate.volumes.formats import tiff as tiff_format
from emcurate.volumes.layouts import FlatFile
from emcurate.volumes.volume import open_volume
from tests.textures import make_texture
from tests.torture.crafted_tiffs import a_page, chain_of_pages, tiff_bytes

VOXELS = make_texture((20, 32, 48))
ODD = 10  # none of the pages that tifffile compares
PLAIN = {"photometric": "minisblack", "metadata": None, "contiguous": False}


def write_pages(path, planes, **options):
    """Write planes as pages that stand apart, each with the options of its own that it may come with."""
    with tifffile.TiffWriter(path, bigtiff=options.pop("bigtiff", False), byteorder=options.pop("byteorder", "<")) as w:
        for plane in planes:
            pixels, own = plane if isinstance(plane, tuple) else (plane, {})
            w.write(pixels, **{**PLAIN, **options, **own})
    return path


def with_odd(pixels, **own):
    planes = list(VOXELS)
    planes[ODD] = (pixels, own)
    return planes


KINDS = [
    {},
    {"bigtiff": True},
    {"byteorder": ">"},
    {"bigtiff": True, "byteorder": ">"},
    {"rowsperstrip": 5},
    {"tile": (16, 16)},
    {"compression": "zlib", "rowsperstrip": 8},
    {"compression": "lzw", "predictor": True},
    {"compression": "lzw", "tile": (16, 32), "bigtiff": True, "byteorder": ">"},
]


@pytest.mark.parametrize("options", KINDS, ids=str)
@pytest.mark.parametrize("dtype", ["u1", "u2"])
def test_a_stack_is_read_as_tifffile_reads_it_whatever_its_pages_are_like(tmp_path, options, dtype):
    path = write_pages(tmp_path / "v.tif", VOXELS.astype(dtype) * (1 if dtype == "u1" else 200), **options)
    volume = open_volume(path)
    np.testing.assert_array_equal(volume.read(), tifffile.imread(path))
    assert isinstance(volume.voxels, FlatFile) == (not {"compression", "tile"} & options.keys())


@pytest.mark.parametrize("options", [*KINDS, {"shaped": True}, {"ome": True}, {"imagej": True}], ids=str)
def test_directories_say_what_tifffile_finds_page_by_page(tmp_path, options):
    path = tmp_path / "v.tif"
    if options.keys() & {"shaped", "ome", "imagej"}:
        own = {key: value for key, value in options.items() if key != "shaped"}
        tifffile.imwrite(path, VOXELS, compression="zlib", metadata={"axes": "ZYX"}, **own)
    else:
        write_pages(path, VOXELS, **options)
    with tifffile.TiffFile(path) as tiff:
        found = read_directories(path, tiff.tiff)
        pages = [page.aspage() for page in tiff.pages]
    assert found.offsets.tolist() == [page.offset for page in pages]
    ends = [max(o + n for o, n in zip(p.dataoffsets, p.databytecounts, strict=True)) for p in pages]
    assert found.ends.tolist() == ends
    for page, start, end in zip(pages, found.starts, found.ends, strict=True):
        # Strips without a gap begin where the first does, and are as long together as all of them.
        assert start in (-1, page.dataoffsets[0])
        assert start < 0 or end - start == sum(page.databytecounts)
    assert found.are_alike()
    assert found.is_simple


@pytest.mark.parametrize("first", [{}, {"compression": "zlib"}], ids=["flat", "compressed"])
@pytest.mark.parametrize(
    "odd",
    [
        {"compression": "lzw"},
        {"compression": "zlib", "predictor": True},
        {"tile": (32, 48)},
        {"subfiletype": 1},
    ],
    ids=str,
)
def test_one_page_that_is_stored_otherwise_is_read_as_what_it_is(tmp_path, first, odd):
    path = write_pages(tmp_path / "v.tif", with_odd(VOXELS[ODD], **odd), **first)
    np.testing.assert_array_equal(open_volume(path).read(), VOXELS)


@pytest.mark.parametrize("first", [{}, {"compression": "zlib"}], ids=["flat", "compressed"])
def test_one_page_in_which_white_is_zero_is_turned(tmp_path, first):
    path = write_pages(tmp_path / "v.tif", with_odd(255 - VOXELS[ODD], photometric="miniswhite"), **first)
    np.testing.assert_array_equal(open_volume(path).read(), VOXELS)


@pytest.mark.parametrize("first", [{}, {"compression": "zlib"}], ids=["flat", "compressed"])
@pytest.mark.parametrize(
    "pixels",
    [VOXELS[ODD].astype("u2"), VOXELS[ODD, :16].astype("u2"), VOXELS[ODD].view("i1"), VOXELS[ODD, :16], VOXELS[ODD].T],
    ids=["uint16", "as many bytes", "int8", "half", "turned"],
)
def test_one_page_of_another_size_or_type_is_refused(tmp_path, first, pixels):
    path = write_pages(tmp_path / "v.tif", with_odd(pixels), **first)
    with pytest.raises(InputError, match=r"v\.tif: expected "):
        open_volume(path).read()


def test_strips_of_one_page_that_do_not_follow_one_another_are_not_read_as_if_they_did(tmp_path):
    path = write_pages(tmp_path / "v.tif", VOXELS, rowsperstrip=16)
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[ODD].aspage()
        where, strips = page.tags["StripOffsets"].valueoffset, page.dataoffsets
    data = bytearray(path.read_bytes())
    data[where : where + 8] = struct.pack("<2I", *strips[::-1])
    path.write_bytes(data)
    expected = VOXELS.copy()
    expected[ODD] = np.concatenate([VOXELS[ODD, 16:], VOXELS[ODD, :16]])
    np.testing.assert_array_equal(tifffile.TiffFile(path).pages[ODD].aspage().asarray(), expected[ODD])
    np.testing.assert_array_equal(open_volume(path).read(), expected)


@pytest.mark.parametrize("options", [{}, {"compression": "zlib"}], ids=["flat", "compressed"])
def test_a_page_whose_pixels_lie_beyond_the_file_is_refused(tmp_path, options):
    path = write_pages(tmp_path / "v.tif", VOXELS, **options)
    with tifffile.TiffFile(path) as tiff:
        where = tiff.pages[ODD].aspage().tags["StripOffsets"].valueoffset
    data = bytearray(path.read_bytes())
    data[where : where + 4] = struct.pack("<I", len(data) - 4)
    path.write_bytes(data)
    with pytest.raises(InputError, match="pixel data that goes on after its"):
        open_volume(path)


@pytest.mark.parametrize("options", [{"rowsperstrip": 8}, {"tile": (16, 16)}], ids=str)
@pytest.mark.parametrize("page", [0, ODD])
def test_strips_that_are_not_listed_are_not_read_as_black(tmp_path, options, page):
    found = r"a TIFF file with all . strips or tiles of a page, found 3"
    for planes, read in ((VOXELS, lambda path: open_volume(path).read()), (VOXELS[:1], read_image)):
        path = write_pages(tmp_path / "v.tif", planes, compression="zlib", **options)
        with tifffile.TiffFile(path) as tiff:
            tags = tiff.pages[min(page, len(planes) - 1)].aspage().tags
        data = bytearray(path.read_bytes())
        for number in (273, 279) if "rowsperstrip" in options else (324, 325):
            count = tags[number].offset + 4
            data[count : count + 4] = struct.pack("<I", 3)  # of 4 strips, or 6 tiles
        path.write_bytes(data)
        with pytest.raises(InputError, match=found):
            read(path)


@pytest.mark.parametrize("how", ["apart", "compressed", "shaped"])
def test_opening_a_stack_does_not_make_an_object_of_each_page(tmp_path, monkeypatch, how):
    path = tmp_path / "v.tif"
    planes = np.arange(1500 * 6 * 5).astype(np.uint8).reshape(1500, 6, 5)
    if how == "shaped":
        tifffile.imwrite(path, planes, photometric="minisblack", compression="zlib")
    else:
        write_pages(path, planes, **({"compression": "zlib"} if how == "compressed" else {}))
    made = []
    for name in ("TiffPage", "TiffFrame"):
        before = getattr(tifffile.tifffile, name).__init__
        monkeypatch.setattr(
            f"tifffile.tifffile.{name}.__init__", lambda *a, before=before, **k: made.append(1) or before(*a, **k)
        )
    assert open_volume(path).shape == planes.shape
    assert len(made) < 10


def test_pages_that_tifffile_must_look_at_one_by_one_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(tiff_format, "MOST_LISTED_PAGES", 15)
    tifffile.imwrite(tmp_path / "a.tif", VOXELS[:15], imagej=True, compression="zlib", metadata={"axes": "ZYX"})
    assert open_volume(tmp_path / "a.tif").shape == (15, 32, 48)
    tifffile.imwrite(tmp_path / "b.tif", VOXELS[:16], imagej=True, compression="zlib", metadata={"axes": "ZYX"})
    with pytest.raises(InputError, match="at most 15 pages that differ or are described, found more"):
        open_volume(tmp_path / "b.tif")
    write_pages(tmp_path / "c.tif", VOXELS)
    assert open_volume(tmp_path / "c.tif").shape == VOXELS.shape


def test_a_list_of_strips_that_many_pages_share_is_not_read_for_each(tmp_path):
    # 2,000 pages that all name one list of 20,000 strips.
    count, strips = 2000, 20_000
    page = a_page(1, strips, rows=(4, [1]))
    data = bytearray(tiff_bytes(page))
    entries = len(page)
    directory = bytes(data[8 : 10 + 12 * entries])
    lists = 8 + (len(directory) + 4) * count
    for tag in (273, 279):
        old = struct.pack(
            "<HHII", tag, 4, 1, struct.unpack_from("<I", directory, directory.index(struct.pack("<HH", tag, 4)) + 8)[0]
        )
        directory = directory.replace(old, struct.pack("<HHII", tag, 4, strips, lists))
    chain = b"".join(
        directory + struct.pack("<I", 0 if z == count - 1 else 8 + (len(directory) + 4) * (z + 1)) for z in range(count)
    )
    (tmp_path / "v.tif").write_bytes(b"II*\0\x08\0\0\0" + chain + struct.pack("<I", 1) * strips)
    with pytest.raises(
        InputError, match=r"lists of strips that fit into its .* bytes, found ones that many pages share"
    ):
        open_volume(tmp_path / "v.tif")


def test_a_file_without_pages_is_named(tmp_path):
    (tmp_path / "v.tif").write_bytes(b"II*\0" + bytes(4))
    with pytest.raises(InputError, match="a TIFF stack, found no image in it"):
        open_volume(tmp_path / "v.tif")


def test_a_stack_that_changes_while_it_is_read_is_followed_anew(tmp_path):
    path = tmp_path / "v.tif"
    path.write_bytes(chain_of_pages(5))
    assert open_volume(path).shape == (5, 1, 1)
    path.write_bytes(chain_of_pages(7))
    assert open_volume(path).shape == (7, 1, 1)
