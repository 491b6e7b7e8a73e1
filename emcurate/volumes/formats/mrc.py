"""MRC: electron microscopy's own format, ``.mrc .map .rec .st .mrcs``, also compressed with gzip or bzip2.

The header is 1024 bytes (MRC2014, Cheng et al. 2015, doi 10.1016/j.jsb.2015.04.002; IMOD's use of it,
https://bio3d.colorado.edu/imod/doc/mrc_format.txt), then an extended header, then voxels. Only unsigned bytes are
written, under IMOD's stamp, so that every program reads them as unsigned.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from mrcfile.dtypes import HEADER_DTYPE

from emcurate.errors import InputError
from emcurate.files import open_regular
from emcurate.images.units import ANGSTROM_NM
from emcurate.volumes.layouts import (
    CHUNK_BYTES,
    COPY_AGAIN,
    FlatFile,
    Opened,
    PackedStream,
    Shape,
    check_side_lengths,
    checked_voxel_size,
    open_packed,
)

HEADER_BYTES = 1024

# Where in the header, in bytes from its start: words that the format's definition leaves to programs or that must be
# read before the byte order is known. Everything else goes by name, `mrcfile.dtypes.HEADER_DTYPE`.
IMOD_STAMP_BYTE = 152
IMOD_FLAGS_BYTE = 156
MACHINE_STAMP_BYTE = 212

# The word by which IMOD says that the next one holds its flags ("IMOD" read as little-endian), and bits of that one.
IMOD_STAMP = 1146047817
IMOD_SIGNED_FLAG = 1
IMOD_NEGATIVE_RMS_FLAG = 8  # says that the RMS was not computed

# First byte of the machine stamp by byte order, and the whole stamp as MRC2014 has it.
_BYTE_ORDERS = {0x44: "<", 0x11: ">"}
MACHINE_STAMPS = {"<": (0x44, 0x44, 0, 0), ">": (0x11, 0x11, 0, 0)}

MRC_VERSION = 20141  # year and version of the format's definition
LABELS = 10
LABEL_BYTES = 80

# A header read in the wrong byte order has an absurd mode or side. Modes go up to 101, and a side of 16 million voxels
# is beyond any microscope, while any side of 1 to 65,535 in the wrong order is at least 65,536 and most are far larger.
LARGEST_MODE = 127
SIDE_BELOW = 1 << 24

# Space groups of 1 volume are 0 (an image stack) and 1 to 230; MRC2014 adds 400 to mark a stack of volumes.
VOLUME_STACK_GROUPS = range(401, 630 + 1)

# Pixel type of each mode but 0; of 16, IMOD's RGB, it is that of a channel.
MODE_TYPES = {1: "i2", 2: "f4", 6: "u2", 12: "f2", 16: "u1"}
SHORT_MODE = 1
RGB_MODE = 16
RGB_CHANNELS = 3
UNREADABLE_MODES = {3: "complex 16-bit integers", 4: "complex 32-bit floats", 101: "4-bit integers"}

# Values of a byte: signed ones are below 128, unsigned ones below 256.
SIGNED_BYTE_END = 128
BYTE_VALUES = 256

GZIP_START = b"\x1f\x8b"
BZIP2_START = b"BZh"


@dataclass(frozen=True)
class MrcHeader:
    """What the header says of the voxels.

    `record` holds every field (`mrcfile.dtypes.HEADER_DTYPE`); `signed` and `reason` say how bytes of mode 0 are to
    be read and why. `shape` is (z, y, x); `data_offset` in bytes, of the decompressed file.
    """

    path: Path
    record: npt.NDArray[Any]
    byte_order: str
    shape: Shape
    mode: int
    signed: bool
    reason: str

    @property
    def data_offset(self) -> int:
        return HEADER_BYTES + int(self.record["nsymbt"])

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of the voxels, in the file's byte order."""
        if self.mode == 0:
            return np.dtype(np.int8 if self.signed else np.uint8)
        return np.dtype(self.byte_order + MODE_TYPES[self.mode])

    @property
    def channels(self) -> int:
        """Values a voxel, 0 where a voxel is one value."""
        return RGB_CHANNELS if self.mode == RGB_MODE else 0

    @property
    def data_bytes(self) -> int:
        """The bytes of all voxels; programs may append others."""
        return math.prod(self.shape) * max(self.channels, 1) * self.dtype.itemsize

    @property
    def type_name(self) -> str:
        """What the voxels are, for a message."""
        return "RGB" if self.mode == RGB_MODE else self.dtype.name


def open_voxels(path: Path) -> Opened:
    """Open an MRC file; read its header only."""
    header = read_header(path)
    compression = compression_of(path)
    if compression is not None:
        packed = PackedStream(
            path, compression, header.shape, header.dtype, skip=header.data_offset, channels=header.channels
        )
        return Opened(packed.check_plausible(), voxel_size(header.record))
    flat = FlatFile(path, header.shape, header.dtype, (header.data_offset,), header.channels)
    return Opened(flat.check_complete(), voxel_size(header.record))


def compression_of(path: Path) -> str | None:
    """Return 'gzip', 'bz2' or None, by the file's first bytes: suffixes of maps are often wrong about it."""
    with open_regular(path) as file:
        start = file.read(max(len(GZIP_START), len(BZIP2_START)))
    if start.startswith(GZIP_START):
        return "gzip"
    return "bz2" if start.startswith(BZIP2_START) else None


def read_header(path: Path) -> MrcHeader:
    """Read and check the header of an MRC file, compressed or not.

    Raises
    ------
    InputError
        If the file is no MRC file, is cut off in its header, or holds voxels of a type that cannot be used.
    """
    compression = compression_of(path)
    if compression is None:
        with open_regular(path) as file:
            data = file.read(HEADER_BYTES)
    else:
        with open_packed(path, compression) as stream:
            data = stream.read(HEADER_BYTES)
    if len(data) < HEADER_BYTES:
        raise InputError(path, f"an MRC header of {HEADER_BYTES:,} bytes", f"{len(data):,} bytes", COPY_AGAIN)
    byte_order = _find_byte_order(path, data)
    record = np.frombuffer(data, HEADER_DTYPE.newbyteorder(byte_order))[0]
    mode = int(record["mode"])
    if mode not in (0, *MODE_TYPES):
        known = ", ".join(str(known) for known in (0, *MODE_TYPES))
        what = f" ({UNREADABLE_MODES[mode]})" if mode in UNREADABLE_MODES else ""
        raise InputError(path, f"MRC mode {known}", f"mode {mode}{what}", "convert it, for instance with newstack")
    if int(record["nsymbt"]) < 0:
        raise InputError(
            path, "an extended header of at least 0 bytes", f"{int(record['nsymbt'])}", "check how it was written"
        )
    shape = check_side_lengths(path, (record["nz"], record["ny"], record["nx"]))
    _refuse_stack_of_volumes(path, record)
    signed, reason = judge_signed(record, byte_order) if mode == 0 else (mode == SHORT_MODE, f"mode {mode}")
    return MrcHeader(path, record, byte_order, shape, mode, signed, reason)


def copy_extended_header(header: MrcHeader, file: BinaryIO) -> None:
    """Write the bytes between the header and the voxels to another file."""
    compression = compression_of(header.path)
    opened: Any = open_regular(header.path) if compression is None else open_packed(header.path, compression)
    with opened as stream:
        stream.read(HEADER_BYTES)
        left = header.data_offset - HEADER_BYTES
        while left and (piece := stream.read(min(CHUNK_BYTES, left))):  # its length is what the header claims
            file.write(piece)
            left -= len(piece)


def judge_signed(record: npt.NDArray[Any], byte_order: str) -> tuple[bool, str]:
    """Judge whether the bytes of a mode 0 file are signed, and say why.

    IMOD's stamp decides where there is one; else the minimum and maximum of the header, which a file's writer took
    from the values as it meant them.
    """
    if _word(record, IMOD_STAMP_BYTE, byte_order) == IMOD_STAMP:
        signed = bool(_word(record, IMOD_FLAGS_BYTE, byte_order) & IMOD_SIGNED_FLAG)
        return signed, f"IMOD stamp with the signed bit {'set' if signed else 'clear'}"
    low, high = float(record["dmin"]), float(record["dmax"])
    header = f"no IMOD stamp, header minimum {low:g} and maximum {high:g}"
    if low < 0 and high < SIGNED_BYTE_END:
        return True, f"{header}: only signed bytes are negative"
    if low >= 0 and high >= SIGNED_BYTE_END:
        return False, f"{header}: only unsigned bytes reach 128"
    if low < 0 and high >= SIGNED_BYTE_END:
        signed = -low > high - SIGNED_BYTE_END
        return signed, f"{header}: contradictory, {'the minimum' if signed else 'the maximum'} is further out"
    return False, f"{header}: nothing speaks for signed bytes"


def voxel_size(record: npt.NDArray[Any]) -> tuple[float, float, float] | None:
    """Return the voxel size (z, y, x) in nm: the cell's side over its sampling intervals, as mrcfile and ITK do.

    ``mapc mapr maps``, by which crystallographic maps permute their axes, are not applied.
    """
    z, y, x = (
        float(record["cella"][axis]) / int(record[f"m{axis}"]) * ANGSTROM_NM if record[f"m{axis}"] > 0 else 0.0
        for axis in "zyx"
    )
    return checked_voxel_size((z, y, x))


def make_header(shape: Shape, voxel_size_nm: tuple[float, float, float] | None) -> npt.NDArray[Any]:
    """Return a new header for unsigned bytes, but for their statistics; without a voxel size, its cell is 0."""
    record = np.zeros((), HEADER_DTYPE)
    depth, height, width = shape
    for axis, side, size in zip("zyx", shape, voxel_size_nm or (0.0, 0.0, 0.0), strict=True):
        record[f"m{axis}"] = side
        record["cella"][axis] = size * side / ANGSTROM_NM
    record["nz"], record["ny"], record["nx"] = depth, height, width
    record["mapc"], record["mapr"], record["maps"] = 1, 2, 3
    record["cellb"] = (90, 90, 90)
    record["ispg"] = 1
    record["nversion"] = MRC_VERSION
    return record


def encode_byte_header(
    record: npt.NDArray[Any], byte_order: str, histogram: npt.NDArray[np.int64], label: str
) -> bytes:
    """Return the bytes of a header that describes unsigned bytes under IMOD's stamp.

    Parameters
    ----------
    record : HEADER_DTYPE
        The header to go by. Cell, origin, labels and everything else that is not about the pixel type is kept.
    byte_order : {'<', '>'}
        That of `record`, which is kept too.
    histogram : (256,) int array
        How many voxels have each value; the statistics come from it.
    label : str
        Added to the labels. Where all ten are used it takes the place of the last.
    """
    data = bytearray(record.tobytes())
    flags = 0
    if _word(record, IMOD_STAMP_BYTE, byte_order) == IMOD_STAMP:
        flags = _word(record, IMOD_FLAGS_BYTE, byte_order) & ~(IMOD_SIGNED_FLAG | IMOD_NEGATIVE_RMS_FLAG)
    np.frombuffer(data, f"{byte_order}i4", 2, IMOD_STAMP_BYTE)[:] = IMOD_STAMP, flags
    changed = np.frombuffer(data, HEADER_DTYPE.newbyteorder(byte_order))
    values = np.arange(BYTE_VALUES)
    count = int(histogram.sum())
    mean = float(histogram @ values) / count
    used = np.flatnonzero(histogram)
    changed["mode"] = 0
    changed["dmin"], changed["dmax"], changed["dmean"] = used[0], used[-1], mean
    changed["rms"] = np.sqrt(float(histogram @ (values - mean) ** 2) / count)
    changed["map"] = b"MAP "
    changed["machst"] = [MACHINE_STAMPS[byte_order]]
    full = int(np.clip(changed["nlabl"][0], 0, LABELS))
    changed["label"][0, min(full, LABELS - 1)] = label.encode("ascii", "replace")[:LABEL_BYTES].ljust(LABEL_BYTES)
    changed["nlabl"] = min(full + 1, LABELS)
    return bytes(data)


def write_stack(
    path: Path,
    planes: Iterable[npt.NDArray[np.uint8]],
    voxel_size_nm: tuple[float, float, float] | None,
    label: str,
) -> int:
    """Write (y, x) uint8 planes as they come; return how many there were. Without any, no file is made."""
    depth, histogram, plane_shape = 0, np.zeros(BYTE_VALUES, np.int64), (0, 0)
    with contextlib.ExitStack() as stack:
        file: Any = None
        for plane in planes:
            if file is None:
                file = stack.enter_context(open(path, "wb"))
                file.write(bytes(HEADER_BYTES))
                plane_shape = plane.shape
            file.write(np.ascontiguousarray(plane).data)
            histogram += np.bincount(plane.ravel(), minlength=BYTE_VALUES)
            depth += 1
        if file is not None:
            record = make_header((depth, *plane_shape), voxel_size_nm)
            file.seek(0)
            file.write(encode_byte_header(record, "<", histogram, label))
    return depth


def _find_byte_order(path: Path, data: bytes) -> str:
    stamped = _BYTE_ORDERS.get(data[MACHINE_STAMP_BYTE])
    # Files from before the stamp existed, and careless writers: the order in which the header makes sense.
    for order in [stamped] if stamped else ["<", ">"]:
        record = np.frombuffer(data, HEADER_DTYPE.newbyteorder(order))[0]
        mode, sides = int(record["mode"]), [int(record[name]) for name in ("nx", "ny", "nz")]
        if 0 <= mode <= LARGEST_MODE and min(sides) >= 0 and max(sides) < SIDE_BELOW:
            return order
    raise InputError(
        path, "an MRC header", f"{HEADER_BYTES:,} bytes that make no sense as one", "check what the file is"
    )


def _refuse_stack_of_volumes(path: Path, record: npt.NDArray[Any]) -> None:
    # Of mz sections each.
    depth, sections = int(record["mz"]), int(record["nz"])
    if int(record["ispg"]) in VOLUME_STACK_GROUPS and 0 < depth < sections:
        raise InputError(
            path, "one volume", f"a stack of {sections // depth} volumes of {depth} sections", "save them one by one"
        )


def _word(record: npt.NDArray[Any], byte: int, byte_order: str) -> int:
    return int(np.frombuffer(record.tobytes(), np.dtype(f"{byte_order}i4"), count=1, offset=byte)[0])
