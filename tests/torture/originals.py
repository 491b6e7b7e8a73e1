"""One small good file of each format that stages read, and where in it structures begin: what damage is done to.

A new format, such as a chunked one, gets a function here and a line in `make_originals`, its reader in `readers.py`.
"""

import bz2
import csv
import functools
import gzip
import io
import itertools
import json
import re
import struct
import tarfile
import tempfile
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import h5py
import mrcfile
import nibabel
import numpy as np
import pyarrow as pa
import tifffile
import zarr
from PIL import Image

from emcurate.images.origins import Origin
from emcurate.images.sections import encode_section
from emcurate.naming import ImageSection, VolumeSection
from emcurate.patches import labels
from emcurate.patches.cuts import Cut, write_cuts
from emcurate.patches.features import FEATURES_FILE, write_features
from tests.recorded_files import dm_bytes, dm_image, ser_bytes, write_ncem, write_velox
from tests.textures import make_texture
from tests.volumes.chunked_volumes import write_ome_zarr
from tests.volumes.n5_volumes import write_n5_array
from tests.volumes.precomputed_volumes import write_precomputed

VOXELS = make_texture((5, 48, 40))
PIXELS = VOXELS[0]

ZARR_CHUNKS = (4, 24, 24)

# Rows of the patches that a path list names, all of one section of the volume "vol".
PATCH_ROWS = (0, 32, 64)

# What is promised of damaged files that are taken all the same, as nothing in them tells.
SAME = "gives what the whole file gives, or is named"  # formats with a checksum over all of it
SAME_IF_CUT = "as SAME where it is cut off; flipped bits may give other pixels"  # formats that say how long they are
ANYTHING = "no more than that it ends as done or as named"


@dataclass(frozen=True)
class Original:
    """A good file of a format.

    `files` are it and what lies beside it, by name, in which ``CASE00`` stands for the name of the case; the first is
    the one to be damaged. `points` are where structures begin, in bytes.
    """

    format: str
    reader: str
    files: dict[str, bytes]
    points: tuple[int, ...] = ()
    promise: str = SAME_IF_CUT

    @property
    def data(self):
        return next(iter(self.files.values()))

    def with_data(self, data):
        """Return the files of a case, the first with other data."""
        first = next(iter(self.files))
        return {**self.files, first: data}


@dataclass
class _Collection:
    found: list = field(default_factory=list)

    def add(self, format, reader, name, data, points=(), promise=SAME_IF_CUT, **beside):
        files = {name: data, **{key.replace("__", "."): value for key, value in beside.items()}}
        self.found.append(Original(format, reader, files, tuple(sorted({*points})), promise))


@functools.lru_cache(maxsize=1)
def make_originals(root):
    """Return an `Original` of every format; path lists name patches in ``root/patches``."""
    made = _Collection()
    with tempfile.TemporaryDirectory() as directory:
        _add_tiffs(made)
        _add_images(made)
        _add_volumes(made, Path(directory))
        _add_chunked(made)
        _add_recorded(made, Path(directory))
        _add_videos(made, Path(directory))
        _add_patches(made, Path(directory))
        _add_lists(made, root)
    return made.found


def _tiff(array, **options):
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, array, **{"photometric": "minisblack", **options})
    return buffer.getvalue()


def _tiff_points(data):
    """Where the header, directories, values of tags and strips of a TIFF begin."""
    points = {4, 8}
    with tifffile.TiffFile(io.BytesIO(data)) as tiff:
        for page in tiff.pages:
            page = page.aspage()
            points |= {page.offset, page.offset + 2, *page.dataoffsets}
            points |= {tag.offset for tag in page.tags} | {tag.valueoffset for tag in page.tags}
            points |= {o + n for o, n in zip(page.dataoffsets, page.databytecounts, strict=True)}
    return points


TIFF_KINDS = {
    "plain": {},
    "tiled": {"tile": (16, 16)},
    "LZW": {"compression": "lzw", "rowsperstrip": 16},
    "zlib, predictor": {"compression": "zlib", "predictor": True},
    "BigTIFF": {"bigtiff": True, "metadata": None},
    "OME": {"ome": True},
}


def _add_tiffs(made):
    for kind, options in TIFF_KINDS.items():
        for reader, array in (("cross_section3d", VOXELS), ("cleanup2d", PIXELS)):
            name = "CASE00.ome.tif" if kind == "OME" else "CASE00.tif"
            data = _tiff(array, **options)
            made.add(f"TIFF, {kind}", reader, name, data, _tiff_points(data))
    data = _tiff(VOXELS, imagej=True, resolution=(10, 10), metadata={"spacing": 0.1, "unit": "um"})
    made.add("TIFF, ImageJ", "cross_section3d", "CASE00.tif", data, _tiff_points(data))
    data = encode_section(PIXELS)
    made.add("sections", "crop_patches", "CASE00-LOC-2d.tiff", data, _tiff_points(data))
    slices = {f"CASE00/{z}.png": image_bytes(VOXELS[z], "PNG") for z in range(4)}
    made.found.append(Original("slices", "cross_section3d", slices, _png_points(slices["CASE00/0.png"]), SAME))


def image_bytes(array, kind, **options):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, kind, **options)
    return buffer.getvalue()


def _png_points(data):
    points, place = {8}, 8
    while place + 8 <= len(data):
        place += 12 + int.from_bytes(data[place : place + 4], "big")
        points |= {place, place - 4}
    return points


def _jpeg_points(data):
    return {match.start() for match in re.finditer(rb"\xff[\xc0-\xfe]", data)}


def _add_images(made):
    colours = np.stack([PIXELS, PIXELS[::-1], PIXELS.T.reshape(PIXELS.shape)], axis=-1)
    deep = colours.astype(np.uint16) * 257
    kinds = {
        "PNG": image_bytes(PIXELS, "PNG"),
        "PNG, 16 bits": image_bytes(PIXELS.astype(np.uint16) * 257, "PNG"),
        "PNG, palette": _image_of_palette(),
        "PNG, 16-bit colour": cv2.imencode(".png", deep)[1].tobytes(),
    }
    for kind, data in kinds.items():
        made.add(kind, "cleanup2d", "CASE00.png", data, _png_points(data), SAME)
    data = image_bytes(colours, "JPEG", quality=80)
    made.add("JPEG", "cleanup2d", "CASE00.jpg", data, _jpeg_points(data))
    for kind, suffix in (("BMP", "bmp"), ("GIF", "gif"), ("WEBP", "webp"), ("JPEG2000", "jp2"), ("PPM", "pgm")):
        made.add(kind, "cleanup2d", f"CASE00.{suffix}", image_bytes(PIXELS, kind), promise=ANYTHING)
    deep_grey = b"P5\n40 48\n65535\n" + PIXELS.astype(">u2").tobytes()
    made.add("PGM, 16 bits", "cleanup2d", "CASE00.pgm", deep_grey, [3, 9, 15])


def _image_of_palette():
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).convert("P").save(buffer, "PNG")
    return buffer.getvalue()


def _gzip_points(data):
    return {2, 3, 4, 8, 9, 10, len(data) - 8, len(data) - 4}


def _add_volumes(made, directory):
    with mrcfile.new(directory / "v.mrc") as mrc:
        mrc.set_data(VOXELS.astype(np.int16))
        mrc.voxel_size = 40.0
    data = (directory / "v.mrc").read_bytes()
    points = [*range(0, 56, 4), 92, 152, 156, 208, 212, 216, 220, 1024, len(data) // 2]
    packed, packed2 = gzip.compress(data, mtime=0), bz2.compress(data)
    for reader in ("cross_section3d", "mrc2byte"):
        made.add("MRC", reader, "CASE00.mrc", data, points)
        made.add("MRC, gzip", reader, "CASE00.mrc.gz", packed, _gzip_points(packed), SAME)
        made.add("MRC, bzip2", reader, "CASE00.mrc.bz2", packed2, [4, 10, 14], SAME)

    fields = 'type: uint8\ndimension: 3\nsizes: 40 48 5\nspacings: 4 4 4\nspace units: "nm" "nm" "nm"\n'
    head = f"NRRD0004\n{fields}encoding: raw\n\n".encode()
    voxels, stream = VOXELS.tobytes(), gzip.compress(VOXELS.tobytes(), mtime=0)
    lines = [match.end() for match in re.finditer(b"\n", head)]
    made.add("NRRD, raw", "cross_section3d", "CASE00.nrrd", head + voxels, lines)
    head = head.replace(b"raw", b"gzip")
    made.add("NRRD, gzip", "cross_section3d", "CASE00.nrrd", head + stream, [*lines, len(head + stream) - 8])
    head = head.replace(b"gzip\n", b"raw\ndata file: CASE00.raw\n")
    made.add("NRRD, detached header", "cross_section3d", "CASE00.nhdr", head, lines, CASE00__raw=voxels)
    made.add("NRRD, detached data", "cross_section3d", "CASE00.raw", voxels, lines, CASE00__nhdr=head)

    nibabel.save(nibabel.Nifti1Image(np.ascontiguousarray(VOXELS.T), np.eye(4)), directory / "v.nii")
    data = (directory / "v.nii").read_bytes()
    points = [4, 40, *range(42, 56, 2), 70, 72, 76, 108, 112, 116, 123, 252, 254, 344, 348, 352, len(data) // 2]
    made.add("NIfTI", "cross_section3d", "CASE00.nii", data, points)
    packed = gzip.compress(data, mtime=0)
    made.add("NIfTI, gzip", "cross_section3d", "CASE00.nii.gz", packed, _gzip_points(packed), SAME)


def make_plain_zarr(version, **options):
    """Return the files of a Zarr array that zarr-python wrote, its first its metadata."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "CASE00.zarr")
        zarr.create_array(path, data=VOXELS, chunks=ZARR_CHUNKS, zarr_format=version, **options)
        return _files_of(path, ".zarray" if version == 2 else "zarr.json")


def make_ome_zarr(version):
    """Return the files of an OME-Zarr directory of two levels, its first the metadata of the image."""
    with tempfile.TemporaryDirectory() as directory:
        path = write_ome_zarr(Path(directory, "CASE00.zarr"), VOXELS, version=version, chunks=ZARR_CHUNKS)
        return _files_of(path, ".zattrs" if version == "0.4" else "zarr.json")


def make_plain_n5():
    """Return the files of an N5 array, its first its metadata."""
    with tempfile.TemporaryDirectory() as directory:
        return _files_of(write_n5_array(Path(directory, "CASE00.n5"), VOXELS), "attributes.json")


def make_precomputed(packed=False):
    """Return the files of a Neuroglancer volume of one level, its first its info."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "CASE00.precomputed")
        return _files_of(write_precomputed(path, [VOXELS], [(8, 8, 40)], packed=packed), "info")


def _files_of(directory, first):
    names = sorted(path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file())
    return {f"{directory.name}/{name}": (directory / name).read_bytes() for name in [first, *names]}


def _with_first(files, end):
    """Return files by name, the first one whose name ends so before all others."""
    first = next(name for name in files if name.endswith(end))
    return {first: files[first], **files}


def _add_chunked(made):
    ome = {version: make_ome_zarr(version) for version in ("0.4", "0.5")}
    parts = {
        "OME-Zarr 0.4, image": (ome["0.4"], ".zattrs"),
        "OME-Zarr 0.4, array": (ome["0.4"], "s0/.zarray"),
        "OME-Zarr 0.4, chunks": (ome["0.4"], "s0/0.0.0"),
        "OME-Zarr 0.5, image": (ome["0.5"], ".zarr/zarr.json"),
        "OME-Zarr 0.5, array": (ome["0.5"], "s0/zarr.json"),
        "OME-Zarr 0.5, chunks": (ome["0.5"], "s0/c/0/0/0"),
        "Zarr 2, plain": (make_plain_zarr(2, compressors=None), "0.0.0"),
        "Zarr 3, shards": (make_plain_zarr(3, shards=(8, 48, 48)), "c/0/0/0"),
        "N5, attributes": (make_plain_n5(), "attributes.json"),
        "N5, blocks": (make_plain_n5(), "/0/0/0"),
        "precomputed, info": (make_precomputed(), "info"),
        "precomputed, chunks": (make_precomputed(), "/0-16_0-8_0-4"),
        "precomputed, packed chunks": (make_precomputed(packed=True), "/0-16_0-8_0-4.gz"),
    }
    for kind, (files, end) in parts.items():
        files = _with_first(files, end)
        data = next(iter(files.values()))
        signs = {match.start() for match in re.finditer(rb"[\[\]{}:]", data)} if data[:1] == b"{" else set()
        points = {*signs, 2, 4, 8, 12, 16, len(data) - 4, len(data) - 20}
        made.found.append(Original(kind, "cross_section3d", files, tuple(sorted(points))))
    for kind, options in (("contiguous", {}), ("chunks", {"chunks": ZARR_CHUNKS, "compression": "gzip"})):
        buffer = io.BytesIO()
        with h5py.File(buffer, "w") as file:
            file.create_dataset("volumes/raw", data=VOXELS, **options).attrs["resolution"] = [40.0, 4.0, 4.0]
        data = buffer.getvalue()
        points = {match.start() for match in re.finditer(rb"\x89HDF|TREE|SNOD|HEAP|OHDR|volumes|raw", data)}
        made.add(f"HDF5, {kind}", "cross_section3d", "CASE00.h5", data, {*points, 8, 13, 24, 40, 96})


def _add_recorded(made, directory):
    """Files of DigitalMicrograph, TIA, Velox and openNCEM."""
    for reader, array in (("cleanup2d", PIXELS), ("cross_section3d", VOXELS)):
        planes = array.reshape(-1, *PIXELS.shape)
        for version in (3, 4):
            data = dm_bytes(dm_image(array, [(4, "nm")] * array.ndim), version=version)
            points = [0, 4, 8, 12, 16, *(match.start() for match in re.finditer(rb"%%%%|Data|Dimensions|Units", data))]
            made.add(f"DM{version}", reader, f"CASE00.dm{version}", data, points)
        data = ser_bytes(planes)
        made.add("SER", reader, "CASE00.ser", data, [*range(0, 90, 2), len(data) // 2])
        for kind, write in (("Velox", write_velox), ("openNCEM", write_ncem)):
            write(directory / "a.emd", *([planes] if kind == "Velox" else [array, [4] * array.ndim]))
            data = (directory / "a.emd").read_bytes()
            points = [match.start() for match in re.finditer(rb"TREE|SNOD|HEAP|OHDR", data)]
            made.add(f"EMD, {kind}", reader, "CASE00.emd", data, points, ANYTHING)


def _riff_points(data):
    names = rb"RIFF|LIST|hdrl|avih|strh|strf|movi|00dc|idx1|JUNK"
    points = sorted(match.start() for match in re.finditer(names, data))
    return {*points, *((first + second) // 2 for first, second in itertools.pairwise(points))}


def _box_points(data):
    return {
        match.start() - 4 for match in re.finditer(rb"ftyp|free|mdat|moov|mvhd|trak|mdia|stbl|stsd|stsz|stco", data)
    }


def _add_videos(made, directory):
    for suffix, code, points in (("avi", "MJPG", _riff_points), ("mp4", "mp4v", _box_points)):
        path = directory / f"film.{suffix}"
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*code), 5, (64, 48))
        for frame in make_texture((8, 48, 64)):
            writer.write(np.repeat(frame[..., None], 3, axis=-1))
        writer.release()
        data = path.read_bytes()
        made.add(suffix.upper(), "vid2stack", f"CASE00.{suffix}", data, points(data))


def npy_bytes(array):
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


NPY_POINTS = (6, 8, 10, 11, 20, 60, 127, 128)


def _add_patches(made, directory):
    grey = PIXELS[:32, :32]
    bits = np.indices((8, 8)).sum(axis=0) % 2 == 0
    patch = {"CASE00-LOC-2d_0_0.tiff": encode_section(grey)}
    hashes = {"CASE00-LOC-2d_0_0.npy": npy_bytes(bits), **patch}
    made.found.append(Original("NPY, hashes", "deduplicate", hashes, NPY_POINTS, ANYTHING))

    places = np.array([(0, 0, 32, 32), (0, 32, 32, 32)], np.int32)
    some = [Cut(ImageSection("CASE00"), places, np.arange(16, dtype=np.uint8).reshape(2, 8))]
    settings = {"crop_size": 32, "hash_size": 8, "hash": "dhash"}
    write_cuts(directory / "t.parquet", some, lambda stem: Origin("2d"), settings)
    data = (directory / "t.parquet").read_bytes()
    points = [4, len(data) - 8, len(data) - 4, len(data) - 8 - struct.unpack("<I", data[-8:-4])[0]]
    made.add("Parquet, tables", "deduplicate", "CASE00_patches.parquet", data, points, ANYTHING)

    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for y in PATCH_ROWS:
            member = tarfile.TarInfo(f"{VolumeSection('vol', 0, 2).stem}_{y}_0.tiff")
            member.size = len(encode_section(grey))
            tar.addfile(member, io.BytesIO(encode_section(grey)))
    data = buffer.getvalue()
    blocks = [block for block in range(0, len(data), 512) if data[block : block + 3] == b"vol"]
    inside = [start + at for start in blocks for at in (100, 124, 136, 148, 156, 257, 512)]
    made.add("tar, shards", "reconstruct3d of a shard", "vol-00000.tar", data, [*blocks, *inside], ANYTHING)


def _features(names):
    numbers = np.random.default_rng(0).normal(size=(len(names), 8)).astype(np.float16)
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / FEATURES_FILE
        write_features(path, pa.array(names), 8, numbers.__getitem__, {"model": "classifier"}, overwrite=False)
        return path.read_bytes()


def _add_lists(made, root):
    paths = np.array([f"{root}/patches/vol-LOC-0_2_{y}_0.tiff" for y in PATCH_ROWS])
    made.add("NPY, path lists", "reconstruct3d", "0.npy", npy_bytes(paths), NPY_POINTS, ANYTHING)
    words = np.full(len(PATCH_ROWS), labels.NONE, labels.DTYPE)
    made.add("NPY, labels", "train_nn", "labels.npy", npy_bytes(words), NPY_POINTS, ANYTHING)
    line = {"time": "2026-01-02T03:04:05+00:00", "annotator": "a", "action": "label", "index": 0, "path": "/x.tiff"}
    text = "".join(json.dumps({**line, "label": word, "previous": "none"}) + "\n" for word in ("informative", "none"))
    made.add("log of labels", "the labelling session", "labels.log.jsonl", text.encode(), [20, 60, 100], ANYTHING)
    made.add("weights", "classify_nn", "w.pth", _weights(), (), ANYTHING)
    data = _features([Path(path).stem for path in paths])
    points = [4, len(data) - 8, len(data) - 4, len(data) - 8 - struct.unpack("<I", data[-8:-4])[0]]
    made.add("Parquet, features", "select_diverse", "features.parquet", data, points, ANYTHING)
    card = {"weights_sha256": "0" * 64, "input": {"image_size": 224, "mean": [0.1] * 3, "std": [0.2] * 3}}
    card["threshold"] = 0.5
    text = json.dumps(card).encode()
    made.add("card", "classify_nn", "w.json", text, [1, 20, 90, 120], ANYTHING, w__pth=_weights())
    coco = {
        "images": [{"id": i, "file_name": f"{i}.png", "width": 8, "height": 6} for i in range(1, 9)],
        "annotations": [{"id": i, "image_id": i, "category_id": 3 if i % 2 else 1} for i in range(1, 9)],
        "categories": [{"id": 1, "name": "person"}, {"id": 3, "name": "car"}],
    }
    text = json.dumps(coco).encode()
    brackets = [match.start() for match in re.finditer(rb"[\[\]{}]", text)]
    made.add("COCO", "trim_coco", "instances.json", text, brackets, ANYTHING)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for i in range(1, 9):
            archive.writestr(zipfile.ZipInfo(f"{i}.png"), image_bytes(PIXELS[i:, :i], "PNG"))
    data = buffer.getvalue()
    records = [match.start() for match in re.finditer(rb"PK..", data)]
    made.add("zip", "trim_coco of a zip", "images.zip", data, records, SAME, instances__json=text)
    rows = [["image_name", "patient_id", "sex", "benign_malignant", "target"]]
    rows += [[f"ISIC_{i}", f"IP_{i % 5}", "male", "malignant" if i % 3 else "benign", i % 2] for i in range(40)]
    table = io.StringIO()
    csv.writer(table, lineterminator="\n").writerows(rows)
    text = table.getvalue().encode()
    made.add("csv", "trim_siim", "metadata.csv", text, [match.end() for match in re.finditer(b"\n", text)], ANYTHING)


def _weights():
    import torch

    buffer = io.BytesIO()
    torch.save({"conv1.weight": torch.zeros(4, 3)}, buffer)
    return buffer.getvalue()
