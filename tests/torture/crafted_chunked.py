"""Zarr, N5 and HDF5 volumes that make no sense, or are made to do harm.

What lies in a directory store may also be a pipe, a link and the like: then a function that makes it at a path.
"""

import io
import json
import os
import struct
import zlib

import h5py
import numpy as np

from tests.torture.crafted_tiffs import BIG
from tests.torture.odd_entries import make_socket
from tests.torture.originals import VOXELS, make_ome_zarr, make_plain_n5, make_plain_zarr, make_precomputed

# Numbers of axes, sides of chunks and the like that no volume has.
ABSURD_SIDES = (
    *(
        [BIG, BIG, BIG],
        [1 << 62] * 3,
        [-5, -48, -40],
        [0, 48, 40],
        ["5", "48", "40"],
        [5.5, 48, 40],
        [float("nan")] * 3,
    ),
    *([float("inf")] * 3, [True, 48, 40], None, "x", [], [5], [5] * 33, [[5], [48], [40]], {"0": 5}, [10**400] * 3),
)

# A shard of all voxels, and its index: where each of its chunks begins and how long it is, and a checksum.
SHARD = (8, 48, 48)
SHARD_CHUNKS = 2 * 2 * 2
SHARD_INDEX_BYTES = 16 * SHARD_CHUNKS + 4


def _json(metadata):
    return json.dumps(metadata).encode()


def _changed(files, name, **changes):
    """Return the files of a store, with other values of some keys in one of JSON."""
    metadata = json.loads(files[name]) | changes
    return {**files, name: _json({key: value for key, value in metadata.items() if value != "left out"})}


def _entries():
    """Yield (what, function) of what may lie in the place of a chunk or of metadata."""
    yield "a pipe", os.mkfifo
    yield "a socket", make_socket
    yield "a link out", lambda path: path.symlink_to(path.parents[1] / "link.raw")
    yield "a link to a device", lambda path: path.symlink_to("/dev/zero")
    yield "a link to itself", lambda path: path.symlink_to(path.name)
    yield "a link to nothing", lambda path: path.symlink_to("nothing")
    yield "a link to a pipe", lambda path: path.symlink_to(path.parents[1] / "pipe")
    yield "a link to the directory above", lambda path: path.symlink_to("..")
    yield "a directory", lambda path: path.mkdir()
    yield "nobody's to read", _make_unreadable


def _make_unreadable(path):
    path.write_bytes(b"x")
    path.chmod(0)


def _in_place_of(files, names):
    """Yield (what, files) with an odd entry in the place of each of some files."""
    for name in names:
        for what, make in _entries():
            yield f"{what} as {name.partition('/')[2]}", {**files, name: make}
        rest = {key: value for key, value in files.items() if key != name}
        yield f"no {name.partition('/')[2]}", rest


# Zarr 2


def _zarr_2_cases():
    plain = make_plain_zarr(2)
    array = "CASE00.zarr/.zarray"
    chunk = "CASE00.zarr/0.0.0"
    for sides in ABSURD_SIDES:
        yield f"shape {str(sides)[:40]}", _changed(plain, array, shape=sides)
        yield f"chunks {str(sides)[:40]}", _changed(plain, array, chunks=sides)
    for kind in (
        "|O",
        "<U1000000",
        "|V8",
        [["a", "|O"]],
        [["a", "|u1", [BIG]]],
        "<M8[ns]",
        "<c16",
        "|b1",
        ">u2",
        "",
        3,
    ):
        yield f"type {str(kind)[:40]}", _changed(plain, array, dtype=kind)
    for codec in (
        {"id": "pickle"},
        {"id": "nonsense"},
        {"id": "blosc", "cname": "x"},
        {},
        [],
        "zlib",
        {"id": "zlib", "level": 99},
    ):
        yield f"compressor {codec}", _changed(plain, array, compressor=codec)
        yield f"filter {codec}", _changed(plain, array, filters=[codec])
    for value in ("NaN", "x" * 1000, {"a": 1}, [1], 1e400, -1, BIG, None, True):
        yield f"fill {str(value)[:20]}", _changed(plain, array, fill_value=value)
    for separator in ("../", "/", "", "..", "\0", None, 7):
        yield f"separator {separator!r}", _changed(plain, array, dimension_separator=separator)
    for changes in (
        {"zarr_format": 99},
        {"zarr_format": "left out"},
        {"order": "Z"},
        {"shape": "left out"},
        {"chunks": "left out"},
    ):
        yield str(changes), _changed(plain, array, **changes)
    yield "kvstore", _changed(plain, array, kvstore="file:///etc/", driver="json", path="file:///etc/passwd")
    yield "16 MB of metadata", {**plain, array: b" " * (1 << 24) + plain[array]}
    yield "metadata twice", {**plain, array: plain[array] + plain[array]}
    yield (
        "a chunk that unpacks to a gigabyte",
        {**_changed(plain, array, compressor={"id": "zlib", "level": 1}), chunk: packed_zeros(1 << 30)},
    )
    yield (
        "a chunk of 2^29 bytes",
        {
            **_changed(
                plain, array, shape=[512, 1024, 1024], chunks=[512, 1024, 1024], compressor={"id": "zlib", "level": 1}
            ),
            chunk: packed_zeros(1 << 29),
        },
    )
    yield from _in_place_of(plain, (array, chunk))


def packed_zeros(size, gzipped=False):
    """Return a stream of deflate, as zlib or gzip frames it, of so many zeros, a multiple of 2^20."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    # After a full flush the next piece is packed like the one before.
    piece = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    stream = piece * (size >> 20) + packer.flush()
    if gzipped:
        checksum = 0
        for _ in range(size >> 20):
            checksum = zlib.crc32(bytes(1 << 20), checksum)
        return b"\x1f\x8b\x08" + bytes(6) + b"\xff" + stream + struct.pack("<2I", checksum, size & 0xFFFFFFFF)
    return b"\x78\xda" + stream + struct.pack(">2H", size % 65521, 1)  # Adler's sum of zeros


# OME-Zarr


def _ome_cases():
    for version in ("0.4", "0.5"):
        files = make_ome_zarr(version)
        name = "CASE00.zarr/.zattrs" if version == "0.4" else "CASE00.zarr/zarr.json"
        for what, change in _ome_changes():
            metadata = json.loads(files[name])
            attributes = metadata if version == "0.4" else metadata["attributes"]["ome"]
            change(attributes)
            yield f"{version}: {what}", {**files, name: _json(metadata)}
        for text in (
            b"",
            b"{",
            b"[]",
            b"3",
            b"null",
            b'{"multiscales": 3}',
            b"[" * 100_000,
            b"\xff\xfe",
            b'{"a":' * 5000,
        ):
            yield f"{version}: {text[:20]!r}", {**files, name: text}
        yield from ((f"{version}: {what}", found) for what, found in _in_place_of(files, (name,)))


def _ome_changes():
    def dataset(**changes):
        return lambda attributes: attributes["multiscales"][0]["datasets"][0].update(changes)

    def image(**changes):
        return lambda attributes: attributes["multiscales"][0].update(changes)

    names = (
        "../CASE00.zarr/s0",
        "..",
        ".",
        "",
        "/etc",
        "file:///etc/passwd",
        "http://127.0.0.1:9/x",
        "s3://x/y",
        "a\0b",
    )
    names += (
        "s0/" * 5000,
        "x" * 5000,
        "\\\\host\\x",
        "C:\\x",
        "s0|zip:",
        "s0::/x",
        "link.raw",
        3,
        None,
        ["s0"],
        {"s0": 1},
    )
    for name in names:
        yield f"path {str(name)[:30]!r}", dataset(path=name)
    for scale in (
        [float("nan")] * 3,
        [float("inf")] * 3,
        [-1, -1, -1],
        [0, 0, 0],
        [1e308] * 3,
        ["x"] * 3,
        [1],
        [],
        None,
        3,
    ):
        yield f"scale {str(scale)[:30]}", dataset(coordinateTransformations=[{"type": "scale", "scale": scale}])
    for axes in (
        [],
        ["z", "z", "x"],
        ["z", "y"],
        [{"name": 3}] * 3,
        [{}] * 3,
        "zyx",
        [None] * 3,
        [{"name": "z" * 10**5}] * 3,
        7,
    ):
        yield f"axes {str(axes)[:40]}", image(axes=axes)
    for unit in ("furlong", 3, ["nm"], "nanometer" * 1000):
        yield f"unit {str(unit)[:20]}", image(axes=[{"name": axis, "unit": unit} for axis in "zyx"])
    yield "no datasets", image(datasets=[])
    yield "10^5 datasets", lambda attributes: attributes["multiscales"][0]["datasets"].extend([{"path": "s0"}] * 10**5)
    yield "transformations of no kind", dataset(coordinateTransformations=[{}, None, 3])
    yield "a path of scales", dataset(coordinateTransformations=[{"type": "scale", "path": "/etc/passwd"}])
    yield "bioformats2raw", lambda attributes: attributes.update({"bioformats2raw.layout": 3, "multiscales": None})
    yield (
        "a plate",
        lambda attributes: attributes.update({"plate": {"wells": [{"path": "../.."}]}, "multiscales": None}),
    )


# Zarr 3


def _zarr_3_cases():
    plain, name = make_plain_zarr(3), "CASE00.zarr/zarr.json"
    sharded = make_plain_zarr(3, shards=SHARD)
    chunk = next(file for file in plain if "/c/" in file)
    shard = next(file for file in sharded if "/c/" in file)
    for sides in ABSURD_SIDES:
        yield f"shape {str(sides)[:40]}", _changed(plain, name, shape=sides)
        grid = {"name": "regular", "configuration": {"chunk_shape": sides}}
        yield f"chunks {str(sides)[:40]}", _changed(plain, name, chunk_grid=grid)
        codecs = json.loads(sharded[name])["codecs"]
        codecs[0]["configuration"]["chunk_shape"] = sides
        yield f"chunks of shards {str(sides)[:40]}", _changed(sharded, name, codecs=codecs)
        yield f"names of axes {str(sides)[:40]}", _changed(plain, name, dimension_names=sides)
    for kind in ("object", "string", "r8", "complex64", "bool", "uint9", "", 3, None, {"name": "struct"}):
        yield f"type {kind}", _changed(plain, name, data_type=kind)
    for codecs in (
        [],
        [{"name": "nonsense"}],
        "x",
        None,
        [3],
        [{"name": "bytes"}] * 3,
        [{"name": "transpose", "configuration": {"order": [0, 0, 0]}}],
    ):
        yield f"codecs {str(codecs)[:40]}", _changed(plain, name, codecs=codecs)
    for key in (
        {"name": "v2", "configuration": {"separator": "../"}},
        {"name": "default", "configuration": {"separator": "/../"}},
        {"name": "x"},
        None,
    ):
        yield f"keys of chunks {str(key)[:60]}", _changed(plain, name, chunk_key_encoding=key)
    for value in ("NaN", "0xffffffffffff", 1e400, -1, 256, None, [1], True):
        yield f"fill {value}", _changed(plain, name, fill_value=value)
    others = ({"node_type": "x"}, {"node_type": "group"}, {"zarr_format": 4}, {"storage_transformers": [{"name": "x"}]})
    others += (
        {"extension": {"must_understand": True}},
        {"kvstore": "file:///etc/"},
        {"attributes": [3]},
        {"chunk_grid": 3},
    )
    for changes in others:
        yield str(changes), _changed(plain, name, **changes)
    data = sharded[shard][:-SHARD_INDEX_BYTES]
    for what, place in (
        ("2^63", (1 << 63, 1 << 63)),
        ("-2", ((1 << 64) - 2, 5)),
        ("all", (0, len(data))),
        ("2^40", (0, 1 << 40)),
    ):
        index = struct.pack("<2Q", *place) * SHARD_CHUNKS
        yield f"index of a shard says {what}", {**sharded, shard: data + index + struct.pack("<I", _crc32c(index))}
    yield (
        "a chunk that unpacks to a gigabyte",
        {
            **_changed(plain, name, codecs=[{"name": "bytes"}, {"name": "gzip", "configuration": {"level": 1}}]),
            chunk: packed_zeros(1 << 30, gzipped=True),
        },
    )
    yield from _in_place_of(plain, (name, chunk))
    yield from _in_place_of(sharded, (shard,))


def _crc32c(data):
    """Return the checksum at the end of a shard's index (RFC 3720, appendix B.4)."""
    register = 0xFFFFFFFF
    for byte in data:
        register ^= byte
        for _ in range(8):
            register = register >> 1 ^ (0x82F63B78 if register & 1 else 0)
    return register ^ 0xFFFFFFFF


# N5


def make_nested(path):
    """Make directories in directories, 700 deep."""
    path.mkdir()
    path.joinpath(*["d"] * 700).mkdir(parents=True)


def _n5_cases():
    files, name = make_plain_n5(), "CASE00.n5/attributes.json"
    block = "CASE00.n5/0/0/0"
    for sides in ABSURD_SIDES:
        yield f"dimensions {str(sides)[:40]}", _changed(files, name, dimensions=sides)
        yield f"blocks {str(sides)[:40]}", _changed(files, name, blockSize=sides)
    for kind in ("object", "uint9", "string", "float64", "", 3, None, ["uint8"], "<U1000000"):
        yield f"type {kind}", _changed(files, name, dataType=kind)
    for codec in (
        {"type": "x"},
        {"type": "blosc"},
        {"type": "gzip", "level": 99},
        {},
        "gzip",
        None,
        {"type": "java", "class": "x"},
    ):
        yield f"compression {codec}", _changed(files, name, compression=codec)
    for sizes in (
        {"dimensions": [1]},
        {"dimensions": ["x"] * 3, "unit": "nm"},
        {"unit": 3},
        {"dimensions": [float("nan")] * 3, "unit": "nm"},
        {"dimensions": [-1] * 3, "unit": "nm"},
        [1, 2],
        "x",
    ):
        yield f"pixelResolution {sizes}", _changed(files, name, pixelResolution=sizes)
    for transform in (
        {},
        {"axes": "zyx"},
        {"axes": ["z"] * 3, "scale": [1] * 3, "units": ["nm"] * 3},
        {"axes": None},
        3,
    ):
        yield f"transform {transform}", _changed(files, name, transform=transform)
    for factors in ([0, 0, 0], ["x"] * 3, [1], 3, {}):
        changes = {"downsamplingFactors": factors, "pixelResolution": {"dimensions": [1, 1, 1], "unit": "nm"}}
        yield f"downsamplingFactors {factors}", _changed(files, name, **changes)
    for text in (b"", b"{", b"[]", b"3", b"null", b"[" * 100_000, b"\xff\xfe"):
        yield f"attributes {text[:20]!r}", {**files, name: text}
    heads = {"of no axes": (">2H", 0, 0), "of 65,535 axes": (">2H", 0, 65535), "of an object": (">HI", 2, BIG)}
    heads |= {"of variable length": (">2H4I", 1, 3, 4, 8, 16, BIG), "of mode 77": (">2H3I", 77, 3, 4, 8, 16)}
    heads |= {"of 2^31 a side": (">2H3I", 0, 3, BIG, BIG, BIG), "of no side": (">2H3I", 0, 3, 0, 8, 16)}
    for what, numbers in heads.items():
        yield f"a block {what}", {**files, block: struct.pack(*numbers) + files[block][16:]}
    yield (
        "a block that unpacks to a gigabyte",
        {**files, block: files[block][:16] + packed_zeros(1 << 30, gzipped=True)},
    )
    yield "directories without end", {"CASE00.n5": make_nested}
    yield "no array", {"CASE00.n5/attributes.json": b"{}", "CASE00.n5/a/attributes.json": b'{"dimensions": []}'}
    yield "arrays in arrays", {**files, "CASE00.n5/0/attributes.json": files[name]}
    yield from _in_place_of(files, (name, block))


# Neuroglancer's precomputed format


def _precomputed_cases():
    files, name = make_precomputed(), "CASE00.precomputed/info"
    chunk = "CASE00.precomputed/8_8_40/0-16_0-8_0-4"
    packed = make_precomputed(packed=True)

    def scale(**changes):
        info = json.loads(files[name])
        info["scales"][0].update(changes)
        return {**files, name: _json(info)}

    for sides in ABSURD_SIDES:
        yield f"size {str(sides)[:40]}", scale(size=sides)
        yield f"chunks {str(sides)[:40]}", scale(chunk_sizes=[sides])
        yield f"offset {str(sides)[:40]}", scale(voxel_offset=sides)
        yield f"resolution {str(sides)[:40]}", scale(resolution=sides)
    for key in (
        "../x",
        "/etc",
        "file:///etc",
        "",
        ".",
        "a\0b",
        "x" * 5000,
        "x/" * 3000,
        3,
        None,
        ["8_8_40"],
        "8_8_40?a",
        "link.raw",
    ):
        yield f"key {str(key)[:30]!r}", scale(key=key)
    for encoding in ("raw", "jpeg", "png", "compressed_segmentation", "nonsense", 3, None):
        yield f"encoding {encoding}", scale(encoding=encoding, compressed_segmentation_block_size=[0, 0, 0])
    spec = {"@type": "neuroglancer_uint64_sharded_v1", "hash": "identity", "preshift_bits": 0, "minishard_bits": 0}
    for bits in (0, 64, -1, 1 << 31, "x"):
        yield f"{bits} bits of shards", scale(sharding={**spec, "shard_bits": bits, "minishard_bits": bits})
    changes = [{"num_channels": number} for number in (0, -1, BIG, "x", None, 2)]
    changes += [{"data_type": kind} for kind in ("object", "uint9", "", 3, None, "float64")]
    changes += [{"scales": scales} for scales in ([], [{}], [None], "x", {}, None)]
    changes += [{"type": "segmentation"}, {"@type": "other"}, {"mesh": "../.."}]
    for change in changes:
        yield str(change), _changed(files, name, **change)
    for text in (b"", b"{", b"[]", b"null", b"[" * 100_000, b"\xff\xfe"):
        yield f"info {text[:20]!r}", {**files, name: text}
    yield "a packed chunk that unpacks to a gigabyte", {**packed, f"{chunk}.gz": packed_zeros(1 << 30, gzipped=True)}
    yield from _in_place_of(files, (name, chunk))
    yield from _in_place_of(packed, (f"{chunk}.gz",))


# HDF5


def _hdf5(fill):
    """Return the bytes of an HDF5 file that a function fills."""
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        fill(file)
    return buffer.getvalue()


def _hdf5_cases(root):
    def dataset(name="raw", shape=VOXELS.shape, dtype=np.uint8, **options):
        return lambda file: file.create_dataset(name, shape, dtype, **options)

    def virtual(source):
        def fill(file):
            layout = h5py.VirtualLayout(VOXELS.shape, np.uint8)
            layout[:] = h5py.VirtualSource(source, "raw", VOXELS.shape)
            file.create_virtual_dataset("raw", layout)

        return fill

    def soft(target):
        return lambda file: file.__setitem__("volumes/raw", h5py.SoftLink(target))

    def links_round(file):
        file["a"], file["b"] = h5py.SoftLink("/b"), h5py.SoftLink("/a")
        file["volumes/raw"] = h5py.SoftLink("/volumes/raw")
        group = file.create_group("g")
        group["g"], group["h"] = group, file["/"]

    def many_groups(file):
        for number in range(20_000):
            file.create_group(f"g{number}")

    def deep(file):
        group = file
        for _ in range(3000):
            group = group.create_group("g")

    def attributes(**values):
        return lambda file: file.create_dataset("raw", data=VOXELS).attrs.update(values)

    def imaris(file):
        file.create_dataset("DataSet/ResolutionLevel 0/TimePoint 0/Channel 0/Data", data=VOXELS)
        file.create_group("DataSetInfo/Image").attrs.update({"X": "99999999999", "Y": "-1", "Z": "nan", "Unit": "x"})

    def bomb(file):
        file.create_dataset("raw", (256, 1024, 1024), np.uint8, chunks=(256, 1024, 1024), compression="gzip")[0] = 0

    secret = str(root / "secret.raw")
    for name in (secret, "pipe", "/dev/zero", "nothing", "CASE00.h5"):
        yield f"storage in {name[-12:]}", _hdf5(dataset(external=[(name, 0, VOXELS.size)]))
        yield f"virtual, of {name[-12:]}", _hdf5(virtual(name))
        yield (
            f"a link into {name[-12:]}",
            _hdf5(lambda file, n=name: file.__setitem__("volumes", h5py.ExternalLink(n, "/x"))),
        )
    yield "virtual, of itself", _hdf5(virtual("."))
    for target in ("/volumes/raw", "/nothing", "..", "x" * 10_000):
        yield f"a soft link to {target[:20]}", _hdf5(soft(target))
    yield "links that lead round", _hdf5(links_round)
    yield "20,000 groups", _hdf5(many_groups)
    yield "groups 3,000 deep", _hdf5(deep)
    yield "claims 2^31 a side in one piece", _hdf5(dataset(shape=(1 << 20, BIG - 1, 1)))
    yield "claims 2^31 a side in chunks", _hdf5(dataset(shape=(BIG, BIG, BIG), chunks=(8, 8, 8)))
    yield "no sides", _hdf5(dataset(shape=(0, 5, 5), chunks=(1, 1, 1), maxshape=(None, 5, 5)))
    yield "chunks of 2^31", _hdf5(dataset(shape=(2, BIG - 1, 1), chunks=(1, BIG - 1, 1)))
    yield "a chunk of 2^28 zeros", _hdf5(bomb)
    yield "objects", _hdf5(dataset(dtype=h5py.ref_dtype))
    yield "text of any length", _hdf5(dataset(dtype=h5py.string_dtype()))
    yield "columns", _hdf5(dataset(dtype=[("a", "u1"), ("b", "f8")]))
    yield "arrays of arrays", _hdf5(dataset(dtype=np.dtype(("u1", (3,)))))
    yield "enum", _hdf5(dataset(dtype=h5py.enum_dtype({"a": 1}, "u1")))
    yield "a type of its own", _hdf5(lambda file: file.__setitem__("raw", np.dtype("f8")))
    for value in (float("nan"), [float("inf")] * 3, [-1, -1, -1], "x" * 1000, np.zeros((3, 3)), [1e308] * 3, [1, 2]):
        yield f"resolution {str(value)[:20]}", _hdf5(attributes(resolution=value, element_size_um=value))
    yield "Imaris of no sense", _hdf5(imaris)
    yield "a user block", b"#!/bin/sh\n".ljust(512, b"\0") + _hdf5(dataset())
    yield "text", b"\x89HDF\r\n\x1a\n" + b"x" * 2000


def make_chunked(root):
    """Yield (what, files) of volumes of all chunked formats."""
    for kind, cases in (
        ("Zarr 2", _zarr_2_cases()),
        ("OME-Zarr", _ome_cases()),
        ("Zarr 3", _zarr_3_cases()),
        ("N5", _n5_cases()),
        ("precomputed", _precomputed_cases()),
    ):
        for what, files in cases:
            yield f"{kind}: {what}", files
    for what, data in _hdf5_cases(root):
        yield f"HDF5: {what}", {"CASE00.h5": data}
