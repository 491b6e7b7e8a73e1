"""Volumes made to do harm, or that nobody can make sense of: refused in words, at once, and nothing else is opened."""

import json
import os
import resource
import struct
from importlib import import_module

import h5py
import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image

from emcurate.errors import InputError
from emcurate.images.tiff_directories import MOST_PAGES
from emcurate.volumes.volume import open_volume
from tests.textures import make_texture
from tests.torture.crafted_tiffs import a_page, chain_of_pages, tiff_bytes
from tests.torture.crafted_volumes import INFINITE, NAN, nifti_bytes, nrrd_bytes
from tests.torture.odd_entries import make_socket

VOXELS = make_texture((5, 48, 40))


def refusal(path, data):
    path.write_bytes(data)
    with pytest.raises(InputError) as caught:
        open_volume(path).read()
    assert str(caught.value).startswith(f"{path}: expected ")
    return str(caught.value)


# TIFF


@pytest.mark.parametrize(
    ("tags", "pixels"),
    [
        *((a_page(bits=bits), bytes(16)) for bits in (0, 77, 65535)),
        (a_page(0, 4), bytes(16)),
        (a_page(1 << 31, 1 << 31), bytes(16)),
        (a_page(samples=(3, [0])), bytes(16)),
        (a_page(sampleformat=(3, [77])), bytes(16)),
        (a_page(offsets=None), bytes(16)),
        ({**a_page(), 256: (9, [-4])}, bytes(16)),
    ],
)
def test_tiff_whose_numbers_make_no_sense(tmp_path, tags, pixels):
    refusal(tmp_path / "v.tif", tiff_bytes(tags, pixels))


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("data", "message"),
    [
        (tiff_bytes(a_page(), bytes(16), after=8), "a list of pages that ends, found one that leads back to itself"),
        (chain_of_pages(150, back_to=120), "a list of pages that ends, found one that leads back to itself"),
        (
            tiff_bytes(a_page(), bytes(16), after=1 << 31),
            "more than 1 pages, found that the list of pages breaks off",
        ),
        (chain_of_pages(MOST_PAGES + 1), f"at most {MOST_PAGES:,} pages, found more"),
    ],
)
def test_tiff_whose_list_of_pages_has_no_end(tmp_path, data, message):
    assert message in refusal(tmp_path / "v.tif", data)


def test_tiff_with_as_many_pages_as_are_taken_is_followed(tmp_path):
    path = tmp_path / "v.tif"
    path.write_bytes(chain_of_pages(1500))
    assert open_volume(path).shape == (1500, 1, 1)


def ome(names):
    planes = "".join(
        f"<TiffData IFD='0' FirstZ='{z}'><UUID FileName='{name}'>urn:uuid:{z}</UUID></TiffData>"
        for z, name in enumerate(names)
    )
    size = f"SizeX='4' SizeY='4' SizeZ='{len(names)}' SizeC='1' SizeT='1'"
    pixels = f"<Image><Pixels DimensionOrder='XYZCT' Type='uint8' {size}>{planes}</Pixels></Image>"
    schema = "http://www.openmicroscopy.org/Schemas/OME/2016-06"
    text = f"<?xml version='1.0'?><OME xmlns='{schema}'>{pixels}</OME>\0".encode()
    return tiff_bytes(a_page(description=(2, text)), bytes(16))


@pytest.mark.timeout(20)  # a pipe would never answer
@pytest.mark.parametrize("name", ["pipe.tif", "../secret.tif", "/dev/zero", "{}/secret.tif", "missing.tif", ""])
def test_no_other_file_is_opened_because_an_ome_description_names_it(tmp_path, monkeypatch, name):
    tifffile.imwrite(tmp_path / "secret.tif", VOXELS[0])
    inner = tmp_path / "inner"
    inner.mkdir()
    os.mkfifo(inner / "pipe.tif")
    opened = []
    handle = tifffile.tifffile.FileHandle
    monkeypatch.setattr(tifffile.tifffile, "FileHandle", lambda file, **k: opened.append(file) or handle(file, **k))
    found = refusal(inner / "v.tif", ome(["v.tif", name.format(tmp_path)]))
    assert "a stack in one file, found one spread over several OME-TIFF files" in found
    assert opened == [inner / "v.tif"]


def test_an_ome_file_that_was_renamed_is_read(tmp_path):
    tifffile.imwrite(tmp_path / "a.ome.tif", VOXELS, ome=True)
    (tmp_path / "a.ome.tif").rename(tmp_path / "b.ome.tif")
    np.testing.assert_array_equal(open_volume(tmp_path / "b.ome.tif").read(), VOXELS)


# NIfTI


@pytest.mark.parametrize(
    ("at", "values"),
    [
        *((70, ("h", number)) for number in (0, 1, 77, -1)),
        *((108, ("f", value)) for value in (INFINITE, -INFINITE, NAN, 3e38, -1)),
        *((40, ("h", number)) for number in (-1, 0, 1, 100)),
        (42, ("3h", -40, -48, -5)),
        (42, ("3h", 32767, 32767, 32767)),
    ],
)
def test_nifti_whose_numbers_make_no_sense(tmp_path, at, values):
    refusal(tmp_path / "v.nii", nifti_bytes({at: values}))


@pytest.mark.parametrize("units", [7, 63, 255])
def test_nifti_of_unknown_units(tmp_path, units):
    assert "a NIfTI header" in refusal(tmp_path / "v.nii", nifti_bytes({123: ("B", units)}))


# NRRD


def test_a_link_beside_an_nrrd_header_is_not_followed_out(tmp_path):
    inner = tmp_path / "inner"
    inner.mkdir()
    (tmp_path / "secret.raw").write_bytes(VOXELS.tobytes())
    (inner / "v.raw").symlink_to(tmp_path / "secret.raw")
    found = refusal(inner / "v.nhdr", nrrd_bytes({"data file": "v.raw"}, b""))
    assert f"found data file: v.raw, a link to {tmp_path / 'secret.raw'}; put the file itself there" in found
    (inner / "way").symlink_to(tmp_path)
    assert "a link to" in refusal(inner / "v.nhdr", nrrd_bytes({"data file": "way/secret.raw"}, b""))


def test_links_to_a_header_and_to_the_data_beside_it_are_followed(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk" / "v.raw").write_bytes(VOXELS.tobytes())
    (tmp_path / "disk" / "v.nhdr").write_bytes(nrrd_bytes({"data file": "v.raw"}, b""))
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for name in ("v.raw", "v.nhdr"):
        (corpus / name).symlink_to(tmp_path / "disk" / name)
    np.testing.assert_array_equal(open_volume(corpus / "v.nhdr").read(), VOXELS)
    (tmp_path / "way").symlink_to(corpus)
    np.testing.assert_array_equal(open_volume(tmp_path / "way" / "v.nhdr").read(), VOXELS)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("kind", ["pipe", "socket", "device", "loop", "directory"])
def test_data_of_an_nrrd_header_that_are_no_file(tmp_path, kind):
    path = tmp_path / "v.raw"
    match kind:
        case "pipe":
            os.mkfifo(path)
        case "socket":
            make_socket(path)
        case "device":
            path.symlink_to("/dev/zero")
        case "loop":
            path.symlink_to("v.raw")
        case "directory":
            path.mkdir()
    assert "v.raw" in refusal(tmp_path / "v.nhdr", nrrd_bytes({"data file": "v.raw"}, b""))


@pytest.mark.timeout(20)
def test_nrrd_that_skips_lines_without_end_is_not_read_through(tmp_path, monkeypatch):
    path = tmp_path / "v.nrrd"
    with open(path, "wb") as file:
        file.write(nrrd_bytes({"line skip": "5"}, b"\n" * 4))
        file.truncate(1 << 40)  # a terabyte of voxels without another line
    with pytest.raises(InputError, match="5 lines to skip, as line skip says, found 4 lines in the first 1,048,576"):
        open_volume(path)


# Many pages, few open files


@pytest.mark.parametrize("kind", ["strips apart", "compressed", "slices", "OME"])
def test_a_stack_of_1500_slices_takes_few_open_files(tmp_path, kind):
    voxels = np.arange(1500 * 6 * 5, dtype=np.uint32).astype(np.uint8).reshape(1500, 6, 5)
    path = tmp_path / "v.tif"
    match kind:
        case "strips apart":
            with tifffile.TiffWriter(path) as writer:
                for plane in voxels:
                    writer.write(plane, photometric="minisblack", metadata=None, contiguous=False)
        case "compressed":
            tifffile.imwrite(path, voxels, photometric="minisblack", compression="zlib")
        case "OME":
            tifffile.imwrite(path, voxels, photometric="minisblack", ome=True)
        case "slices":
            path = tmp_path / "v"
            path.mkdir()
            for z, plane in enumerate(voxels):
                Image.fromarray(plane).save(path / f"{z}.bmp")
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 20, before[1]))
        np.testing.assert_array_equal(open_volume(path).read(), voxels)
        np.testing.assert_array_equal(open_volume(path).read(slice(3, 1400, 7), slice(1, 3)), voxels[3:1400:7, 1:3])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


# What lies in a directory


@pytest.mark.timeout(60)
def test_entries_that_are_no_files_are_named_and_the_good_volume_is_cut(tmp_path, capsys):
    volumes = tmp_path / "volumes"
    volumes.mkdir()
    tifffile.imwrite(volumes / "good.tif", VOXELS, photometric="minisblack")
    for suffix in ("mrc", "nrrd", "nii", "tif", "nhdr", "mrc.gz"):
        os.mkfifo(volumes / f"pipe.{suffix}")
    make_socket(volumes / "socket.mrc")
    (volumes / "device.mrc").symlink_to("/dev/zero")
    (volumes / "loop.mrc").symlink_to("loop.mrc")
    (volumes / "nowhere.mrc").symlink_to("nowhere")
    (volumes / "slices").mkdir()
    os.mkfifo(volumes / "slices" / "0.png")
    Image.fromarray(VOXELS[0]).save(volumes / "slices" / "1.png")
    (volumes / "loops").mkdir()
    (volumes / "loops" / "0.png").symlink_to("0.png")
    Image.fromarray(VOXELS[0]).save(volumes / "loops" / "1.png")
    assert import_module("raw.cross_section3d").main([str(volumes), str(tmp_path / "out"), "-p", "1"]) == 1
    failed = capsys.readouterr().err.partition("Failed:")[2]
    odd = [path for path in volumes.iterdir() if path.name not in ("good.tif", "slices", "loops")]
    for path in [*odd, volumes / "slices" / "0.png", volumes / "loops" / "0.png"]:
        assert f"  {path}: expected " in failed
    assert {path.name.partition("-")[0] for path in (tmp_path / "out").glob("*.tiff")} == {"good"}


def test_a_header_of_2_to_the_31_takes_no_memory(tmp_path):
    import tracemalloc

    most = (1 << 31) - 1
    header = bytearray(1024)
    header[:16] = struct.pack("<4i", 1 << 20, 1 << 20, 1 << 20, 0)
    tracemalloc.start()
    refusal(tmp_path / "v.mrc", bytes(header) + bytes(100))
    refusal(tmp_path / "v.nrrd", nrrd_bytes({"sizes": f"{most} {most} {most}"}))
    refusal(tmp_path / "v.tif", tiff_bytes(a_page(most, most, compression=(3, [8])), bytes(16)))
    assert tracemalloc.get_traced_memory()[1] < 1 << 24
    tracemalloc.stop()


# Chunked formats


def change_json(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize("version", [2, 3])
def test_the_size_of_a_zarr_array_is_believed_only_as_far_as_its_chunks_are_there(tmp_path, version):
    zarr.create_array(tmp_path / "v.zarr", data=VOXELS, chunks=(4, 24, 24), zarr_format=version)
    file = tmp_path / "v.zarr" / (".zarray" if version == 2 else "zarr.json")
    change_json(file, shape=[1 << 31, 1 << 31, 40])
    with pytest.raises(InputError, match="at least one in 1,000 of its"):
        open_volume(tmp_path / "v.zarr")


def test_a_chunk_that_would_fill_memory_is_not_decoded(tmp_path):
    zarr.create_array(tmp_path / "v.zarr", data=VOXELS, chunks=(4, 24, 24), zarr_format=2)
    change_json(tmp_path / "v.zarr" / ".zarray", shape=[4000, 1000, 1000], chunks=[4000, 1000, 1000])
    with pytest.raises(InputError, match="chunks of at most 2,147,483,648 bytes"):
        open_volume(tmp_path / "v.zarr")
    with h5py.File(tmp_path / "v.h5", "w") as file:
        file.create_dataset("raw", (4000, 1000, 1000), "u1", chunks=(3000, 1000, 1000), compression="gzip")
    with pytest.raises(InputError, match="chunks of at most 2,147,483,648 bytes"):
        open_volume(tmp_path / "v.h5")


def test_hdf5_voxels_in_one_piece_that_are_not_in_the_file_are_refused(tmp_path):
    with h5py.File(tmp_path / "v.h5", "w") as file:
        file.create_dataset("raw", (1 << 10, 1 << 31, 1), "u1")
    with pytest.raises(InputError, match="bytes of voxels in /raw"):
        open_volume(tmp_path / "v.h5")


def test_metadata_that_fill_memory_are_not_read(tmp_path):
    zarr.create_array(tmp_path / "v.zarr", data=VOXELS, chunks=(4, 24, 24), zarr_format=2)
    file = tmp_path / "v.zarr" / ".zarray"
    file.write_bytes(b" " * (1 << 24) + file.read_bytes())
    with pytest.raises(InputError, match="at most 16,777,216 bytes of metadata"):
        open_volume(tmp_path / "v.zarr")
