"""NRRD: ``.nrrd`` with its data after the header, ``.nhdr`` with its data in a file beside it; raw, gzip or bzip2."""

from __future__ import annotations

import contextlib
import math
import re
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, BinaryIO

import nrrd
import numpy as np
import numpy.typing as npt

from emcurate.errors import DAMAGE, DataWarning, InputError, describe_damage
from emcurate.files import check_regular, is_there, leads_into, open_regular
from emcurate.images.units import MILLIMETRE_NM, nanometres_per
from emcurate.volumes.layouts import (
    FlatFile,
    Opened,
    PackedStream,
    check_side_lengths,
    checked_voxel_size,
    describe_shape,
)

# Everything the format calls a type, by numpy's name.
_TYPES = {
    **dict.fromkeys(("signed char", "int8", "int8_t"), "i1"),
    **dict.fromkeys(("uchar", "unsigned char", "uint8", "uint8_t"), "u1"),
    **dict.fromkeys(("short", "short int", "signed short", "signed short int", "int16", "int16_t"), "i2"),
    **dict.fromkeys(("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"), "u2"),
    **dict.fromkeys(("int", "signed int", "int32", "int32_t"), "i4"),
    **dict.fromkeys(("uint", "unsigned int", "uint32", "uint32_t"), "u4"),
    **dict.fromkeys(("longlong", "long long", "long long int", "signed long long", "int64", "int64_t"), "i8"),
    **dict.fromkeys(("signed long long int",), "i8"),
    **dict.fromkeys(("ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t"), "u8"),
    "float": "f4",
    "double": "f8",
}
_COMPRESSIONS = {"raw": None, "gzip": "gzip", "gz": "gzip", "bzip2": "bz2", "bz2": "bz2"}

# The kinds of axis that are colours, in small letters since the format takes either, and the samples each has.
_COLOUR_KINDS = {"rgb-color": 3, "3-color": 3, "rgba-color": 4, "4-color": 4}
# What is written into the kinds of a file that holds colours and does not say so, by the samples.
_KIND_TO_WRITE = {3: "RGB-color", 4: "RGBA-color"}
_UNKNOWN_KINDS = ("", "???", "none")
# What ITK says of everything that has several samples a voxel, colours too.
_OF_ITK = "vector"

# A list of data files ends the header. It is looked for first: pynrrd takes the names for fields.
_FILE_LIST = re.compile(r"data ?file: *LIST")

# A megabyte of header is more than any program writes; without an end, voxels would be read as lines of it.
MOST_HEADER_BYTES = 1 << 20

_SAVE_PLAIN = "save it as an ordinary .nrrd, raw or gzip"


def open_voxels(path: Path) -> Opened:
    """Open an NRRD file; read its header only."""
    header, header_bytes = _read_header(path)
    # The format counts axes from the fastest, so the last is z. A fastest axis of colours comes before x.
    sizes = [int(size) for size in reversed(header["sizes"])]
    dtype = _find_dtype(path, header)
    channels = sizes.pop() if len(sizes) == 4 and _are_colours(path, header, sizes[-1], dtype) else 0
    if len(sizes) != 3:
        raise _refuse_axes(path, header, sizes)
    shape = check_side_lengths(path, tuple(sizes))
    data_path = data_file(path, header) or path
    start = 0 if data_path != path else header_bytes
    start = _skip_lines(data_path, start, int(_field(header, "line skip", 0)))
    skip = int(_field(header, "byte skip", 0))
    voxel_bytes = math.prod(shape) * max(channels, 1) * dtype.itemsize
    compression = _find_compression(path, header)
    if skip < (-1 if compression is None else 0):
        raise InputError(path, "a byte skip of at least 0 (or of -1 for raw data)", str(skip), _SAVE_PLAIN)
    size = _voxel_size(header, first_axis=1 if channels else 0)
    if compression is None:
        offset = data_path.stat().st_size - voxel_bytes if skip == -1 else start + skip
        flat = FlatFile(data_path, shape, dtype, (max(offset, start),), channels)
        return Opened(flat.check_complete(), size)
    packed = PackedStream(data_path, compression, shape, dtype, start, skip, channels)
    return Opened(packed.check_plausible(), size)


def data_file(path: Path, header: dict[str, Any] | None = None) -> Path | None:
    """Return the file beside a header that holds its data, or None if the data follow the header.

    A header may name any file on this computer, and headers come from strangers. Only a plain file in the header's
    directory or below it is read, wherever a link of that name leads; or beside the header that a link leads to.
    """
    header = _read_header(path)[0] if header is None else header
    name = _field(header, "data file", None)
    if name is None:
        return None
    name = str(name)
    if "%" in name:
        raise InputError(path, "one data file", f"data spread over many ({name})", _SAVE_PLAIN)
    steps = PurePosixPath(name.replace("\\", "/"))
    if steps.is_absolute() or PureWindowsPath(name).drive or ".." in steps.parts:
        raise InputError(
            path,
            "a data file in the header's own directory",
            f"data file: {name}",
            "put the data file beside the header and name it there without a directory",
        )
    found = path.parent / steps
    if not is_there(found):
        raise InputError(path, f"its data file {name} beside it", "no such file", "copy both files together")
    if not leads_into(found, path.parent, path.resolve().parent):
        link = f"data file: {name}, a link to {found.resolve()}"
        raise InputError(path, "a data file in the header's own directory", link, "put the file itself there")
    try:
        return check_regular(found)
    except InputError as error:
        raise InputError(path, f"its data file {name} beside it", error.found, "copy both files together") from None


def write_stack(
    path: Path,
    planes: Iterable[npt.NDArray[Any]],
    voxel_size_nm: tuple[float, float, float] | None,
) -> int:
    """Write (y, x) planes of uint8, int16, uint16 or float32 raw as they come; return how many there were.

    Without any, no file is made.
    """
    depth, plane_shape, dtype = 0, (0, 0), np.dtype(np.uint8)
    with contextlib.ExitStack() as stack:
        file: Any = None
        for plane in planes:
            if file is None:
                file = stack.enter_context(open(path, "wb"))
                plane_shape, dtype = plane.shape, plane.dtype
                file.write(_format_header(0, plane_shape, voxel_size_nm, dtype))
            file.write(np.ascontiguousarray(plane, dtype.newbyteorder("<")).data)
            depth += 1
        if file is not None:
            file.seek(0)
            file.write(_format_header(depth, plane_shape, voxel_size_nm, dtype))
    return depth


def encode_box(
    voxels: npt.NDArray[Any], voxel_size_nm: tuple[float, float, float] | None, start: tuple[int, int, int]
) -> bytes:
    """Return (z, y, x) voxels of any type of number as the bytes of a file, with where they begin in another volume."""
    values = voxels.astype(np.uint8) if voxels.dtype.kind == "b" else voxels
    if values.dtype == np.float16:
        values = values.astype(np.float32)  # NRRD has no such type
    little = np.ascontiguousarray(values.astype(values.dtype.newbyteorder("<"), copy=False))
    header = _format_header(len(little), little.shape[1:], voxel_size_nm, values.dtype, start)
    return header + little.tobytes()


def _format_header(
    depth: int,
    plane_shape: tuple[int, ...],
    voxel_size_nm: tuple[float, float, float] | None,
    dtype: np.dtype[Any] = np.dtype(np.uint8),
    start: tuple[int, int, int] | None = None,
) -> bytes:
    """Return a header whose length does not depend on the depth; `start` is the first voxel's place in a larger one."""
    height, width = plane_shape
    kind = {"float32": "float", "float64": "double"}.get(dtype.name, dtype.name)
    lines = ["NRRD0004", f"type: {kind}", "dimension: 3", f"sizes: {width} {height} {depth:>10}", "encoding: raw"]
    if dtype.itemsize > 1:
        lines.append("endian: little")
    if voxel_size_nm is not None:
        z, y, x = voxel_size_nm
        lines += [
            "space dimension: 3",
            f"space directions: ({x!r},0,0) (0,{y!r},0) (0,0,{z!r})",
            'space units: "nm" "nm" "nm"',
        ]
        if start is not None:
            lines.append(f"space origin: ({start[2] * x!r},{start[1] * y!r},{start[0] * z!r})")
    return "\n".join([*lines, "", ""]).encode("ascii")


def _read_header(path: Path) -> tuple[dict[str, Any], int]:
    """Return the header's fields and its length in bytes."""
    with open_regular(path) as file:
        if not file.read(4) == b"NRRD":
            raise InputError(path, "an NRRD file", "a file that does not start with NRRD", "check what the file is")
        file.seek(0)
        lines = list(_header_lines(path, file))
        length = file.tell()
    if any(_FILE_LIST.match(line) for line in lines):
        raise InputError(path, "one data file", "data spread over a list of files", _SAVE_PLAIN)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            header = nrrd.read_header(lines)
    except (*DAMAGE, nrrd.NRRDError) as error:
        raise describe_damage(error, path, "an NRRD header", _SAVE_PLAIN) from None
    missing = [name for name in ("sizes", "type", "encoding") if name not in header]
    if missing:
        raise InputError(path, "an NRRD header", f"one without {', '.join(missing)}", "copy it again")
    return dict(header), length


def _find_dtype(path: Path, header: dict[str, Any]) -> np.dtype[Any]:
    name = str(header["type"])
    if name not in _TYPES:
        raise InputError(path, "voxels of a number type", f"type: {name}", _SAVE_PLAIN)
    dtype = np.dtype(_TYPES[name])
    if dtype.itemsize == 1:
        return dtype
    endian = header.get("endian")
    if endian not in ("little", "big"):
        raise InputError(path, "endian: little or big in the header", f"{endian}", _SAVE_PLAIN)
    return dtype.newbyteorder("<" if endian == "little" else ">")


def _fastest_kind(header: dict[str, Any]) -> str:
    """Return what the header says the fastest axis is, such as ``list`` or ``RGB-color``; "" where it does not."""
    return next(iter(header.get("kinds") or ()), "")


def _are_colours(path: Path, header: dict[str, Any], samples: int, dtype: np.dtype[Any]) -> bool:
    """Return whether the samples along the fastest of four axes are colours, by its kind.

    Where the header gives none, 3 or 4 samples of 8 or 16 unsigned bits are: pynrrd writes no kinds by itself. So are
    those that ITK calls a vector, with a warning: they may be channels of another sort.
    """
    kind = _fastest_kind(header).lower()
    if kind not in (*_UNKNOWN_KINDS, _OF_ITK):
        return _COLOUR_KINDS.get(kind) == samples
    may_be = samples in _COLOUR_KINDS.values() and dtype.kind == "u" and dtype.itemsize <= 2
    if may_be and kind == _OF_ITK:
        message = f"{path}: the {samples} samples of each voxel, a vector by its kind, are taken for colours"
        warnings.warn(message, DataWarning, stacklevel=2)
    return may_be


def _refuse_axes(path: Path, header: dict[str, Any], sizes: list[int]) -> InputError:
    """Return the error of a file of other axes than z, y and x; `sizes` are those of all, the fastest last."""
    kind = _fastest_kind(header)
    if kind.lower() == "complex":
        return InputError(path, "voxels that are one number", "complex numbers", "convert them (say, to magnitudes)")
    found = f"{len(sizes)} axes, {describe_shape(tuple(sizes))}"
    if kind.lower() not in _UNKNOWN_KINDS:
        found += f", the fastest of kind {kind}"
    advice = "save one volume a file"
    if len(sizes) == 4 and sizes[-1] in _KIND_TO_WRITE:
        advice += f", or colours with {_KIND_TO_WRITE[sizes[-1]]} as the first of its kinds"
    return InputError(path, "a volume of 3 axes", found, advice)


def _find_compression(path: Path, header: dict[str, Any]) -> str | None:
    encoding = str(header["encoding"]).lower()
    if encoding not in _COMPRESSIONS:
        raise InputError(path, "encoding raw, gzip or bzip2", repr(encoding), _SAVE_PLAIN)
    return _COMPRESSIONS[encoding]


def _header_lines(path: Path, file: BinaryIO) -> Iterator[str]:
    """Yield the lines of a header up to the empty one that ends it, which is read too, or to the end of the file.

    The format asks for ASCII and pynrrd drops everything else, which would make metres of µm. What programs write is
    UTF-8 or Latin-1.
    """
    while line := file.readline(MOST_HEADER_BYTES):
        if file.tell() > MOST_HEADER_BYTES:
            raise InputError(path, "an NRRD header", f"no end of it in {MOST_HEADER_BYTES:,} bytes", _SAVE_PLAIN)
        if not line.rstrip():
            return
        try:
            yield line.decode("utf-8")
        except UnicodeDecodeError:
            yield line.decode("latin-1")


def _skip_lines(path: Path, start: int, lines: int) -> int:
    """Return where in a file the line begins before which there are so many others, from `start` on."""
    if lines == 0:
        return start
    if lines < 0:
        raise InputError(path, "a line skip of at least 0", str(lines), _SAVE_PLAIN)
    with open_regular(path) as file:
        file.seek(start)
        # No more of it: voxels may go on for gigabytes with an end of a line here and there, or without any.
        text = file.read(MOST_HEADER_BYTES)
    if (found := text.count(b"\n")) < lines:
        where = f" in the first {MOST_HEADER_BYTES:,} bytes" if len(text) == MOST_HEADER_BYTES else ""
        raise InputError(path, f"{lines:,} lines to skip, as line skip says", f"{found:,} lines{where}", _SAVE_PLAIN)
    return start + sum(map(len, text.split(b"\n", lines)[:-1])) + lines


def _voxel_size(header: dict[str, Any], first_axis: int) -> tuple[float, float, float] | None:
    """Return the voxel size (z, y, x) in nm from the lengths of the axes' directions, or their spacings."""
    directions = header.get("space directions")
    units = header.get("space units")
    if directions is not None:
        steps = [np.nan if row is None else float(np.linalg.norm(row)) for row in directions]
    elif header.get("spacings") is not None:
        steps = [float(step) for step in header["spacings"]]
        # Without a space, each axis has a unit of its own.
        units = units if units is not None else _per_axis(header.get("units"), first_axis)
    else:
        return None
    x, y, z = (steps[first_axis : first_axis + 3] + [np.nan] * 3)[:3]
    if units is None:
        # ITK and 3D Slicer write millimetres and no unit. Steps of exactly 1 are what a file says that knows nothing.
        scale = None if (z, y, x) == (1, 1, 1) else MILLIMETRE_NM
    else:
        known = {nanometres_per(str(unit)) for unit in list(units)[:3]}
        scale = known.pop() if len(known) == 1 else None
    return None if scale is None else checked_voxel_size((z * scale, y * scale, x * scale))


def _per_axis(units: Any, first_axis: int) -> Any:
    return None if units is None else list(units)[first_axis : first_axis + 3]


def _field(header: dict[str, Any], name: str, default: Any) -> Any:
    """Return a field that may be spelt with or without its space."""
    return header.get(name, header.get(name.replace(" ", ""), default))
