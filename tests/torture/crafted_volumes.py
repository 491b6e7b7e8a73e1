"""MRC, NRRD and NIfTI files that make no sense, or are made to do harm."""

import bz2
import gzip
import struct

import numpy as np

from tests.torture.crafted_tiffs import BIG
from tests.torture.originals import VOXELS

INFINITE, NAN = float("inf"), float("nan")

# MRC


def mrc_bytes(changes, voxels=VOXELS.tobytes()):
    header = bytearray(1024)
    header[:16] = struct.pack("<4i", *VOXELS.shape[::-1], 0)
    header[28:40], header[40:52] = struct.pack("<3i", *VOXELS.shape[::-1]), struct.pack("<3f", 40, 40, 40)
    header[208:216] = b"MAP \x44\x44\0\0"
    for at, (code, *values) in changes.items():
        packed = struct.pack(f"<{code}", *values)
        header[at : at + len(packed)] = packed
    return bytes(header) + voxels


def make_mrcs(root):
    most = BIG - 1
    cases = {
        "2^31 a side": {0: ("3i", most, most, most)},
        "16 million a side": {0: ("3i", (1 << 24) - 1, (1 << 24) - 1, (1 << 24) - 1)},
        "negative sides": {0: ("3i", -4, -4, -4)},
        "no sides": {0: ("3i", 0, 0, 0)},
        "mode 77": {12: ("i", 77)},
        "mode 4": {12: ("i", 4)},
        "extended header of 2^31": {92: ("i", most)},
        "extended header of -2^31": {92: ("i", -BIG)},
        "no stamp": {208: ("8s", bytes(8))},
        "other stamp": {212: ("4s", b"\xff\xff\xff\xff")},
        "infinite cell": {40: ("3f", INFINITE, INFINITE, INFINITE)},
        "cell that is no number": {40: ("3f", NAN, NAN, NAN)},
        "intervals of -2^31": {28: ("3i", -BIG, -BIG, -BIG)},
        "extremes that are no numbers": {76: ("3f", NAN, NAN, NAN)},
        "10^6 labels": {220: ("i", 10**6)},
        "a stack of volumes": {88: ("i", 401), 36: ("i", 1)},
    }
    for what, changes in cases.items():
        data = mrc_bytes(changes)
        yield f"MRC: {what}", {"CASE00.mrc": data}
        yield f"MRC, gzip: {what}", {"CASE00.mrc.gz": gzip.compress(data, 1)}
        yield f"MRC, bzip2: {what}", {"CASE00.mrc.bz2": bz2.compress(data, 1)}
    floats = np.full(VOXELS.shape, NAN, "<f4").tobytes()
    yield "MRC: voxels that are no numbers", {"CASE00.mrc": mrc_bytes({12: ("i", 2)}, floats)}
    huge = np.full(VOXELS.shape, 3e38, "<f4")
    huge[0] = -3e38
    yield "MRC: voxels of 3e38", {"CASE00.mrc": mrc_bytes({12: ("i", 2)}, huge.tobytes())}
    yield "MRC, gzip: a bomb after the voxels", {"CASE00.mrc.gz": gzip.compress(mrc_bytes({}), 1) + _bomb()}
    yield "MRC, gzip: of the wrong name", {"CASE00.mrc": gzip.compress(mrc_bytes({}), 1)}
    yield "MRC, gzip: twice", {"CASE00.mrc.gz": gzip.compress(gzip.compress(mrc_bytes({})))}
    yield "MRC, bzip2: garbage after it", {"CASE00.mrc.bz2": bz2.compress(mrc_bytes({})) + b"garbage"}


def _bomb(size=1 << 30):
    """Return a gzip stream of zeros that unpacks to so many bytes."""
    piece = gzip.compress(bytes(1 << 24), 9)
    return piece * (size >> 24)


# NRRD


def nrrd_bytes(changes, data=VOXELS.tobytes(), more=""):
    fields = {"type": "uint8", "dimension": "3", "sizes": "40 48 5", "encoding": "raw", "endian": "little"} | changes
    lines = [f"{name}: {value}" for name, value in fields.items() if value is not None]
    return ("\n".join(["NRRD0004", *lines]) + f"\n{more}\n").encode() + data


def make_nrrds(root):
    cases = [
        *({"sizes": sizes} for sizes in (f"{BIG} {BIG} {BIG}", "-40 -48 5", "nan 48 5", "0 0 0", "1e3 4 5", "", "40")),
        *({"sizes": "9" * 40 + " 1 1"}, {"dimension": "1000000000"}, {"dimension": "-3"}, {"dimension": "x"}),
        *({"type": "block", "block size": "4"}, {"type": "uint77"}, {"type": None}, {"encoding": None}),
        *({"encoding": "zstd"}, {"encoding": "ascii"}, {"encoding": "gzip"}, {"encoding": "bzip2"}),
        *({"line skip": skip} for skip in ("1000000000000", "-1", "x", "9" * 30, "3")),
        *({"byte skip": skip} for skip in ("9" * 30, "-2", "-1", "x", "1000000")),
        *({"spacings": steps} for steps in ("nan nan nan", "inf inf inf", "-1 -1 -1", "1", "x y z", "1 1 1 1")),
        *(
            {"space directions": way}
            for way in ("(1,0,0) (0,1,0)", "none none none", "(x", "(1e400,0,0) (0,1,0) (0,0,1)")
        ),
        *({"space": "left", "space directions": "(1,0,0) (0,1,0) (0,0,1)"}, {"space units": '"nm'}),
        *({"data file": name} for name in ("pipe", "socket", "/dev/zero", "../secret.raw", "link.raw", ".", "", "\0")),
        *(
            {"data file": name}
            for name in ("loop", "slice%03d.raw 1 1000000 1", "LIST\na\nb", "/etc/passwd", "x" * 300)
        ),
        *({"": "x"}, {"a" * 10000: "b"}, {"endian": "middle", "type": "short"}, {"kinds": "x"}, {"thicknesses": "x"}),
    ]
    for changes in cases:
        suffix = "nhdr" if "data file" in changes else "nrrd"
        yield f"NRRD: {str(changes)[:60]}", {f"CASE00.{suffix}": nrrd_bytes(changes)}
    yield (
        "NRRD: a line skip over 2^25 empty lines",
        {"CASE00.nrrd": nrrd_bytes({"line skip": str(1 << 25)}, b"\n" * (1 << 25))},
    )
    yield "NRRD: 10^5 fields", {"CASE00.nrrd": nrrd_bytes({}, more="".join(f"f{i}:={i}\n" for i in range(100_000)))}
    yield "NRRD: a field twice", {"CASE00.nrrd": nrrd_bytes({}, more="sizes: 1 2 3\n")}
    yield "NRRD: no colon", {"CASE00.nrrd": nrrd_bytes({}, more="hello\n")}
    yield "NRRD: bytes", {"CASE00.nrrd": b"NRRD" + bytes(range(256)) * 10}
    claims = {"encoding": "gzip", "sizes": "100000 100000 100"}
    yield "NRRD, gzip: claims 10^12 of a bomb", {"CASE00.nrrd": nrrd_bytes(claims, _bomb(1 << 26))}
    yield (
        "NRRD, gzip: a bomb",
        {"CASE00.nrrd": nrrd_bytes({"encoding": "gzip"}, gzip.compress(VOXELS.tobytes()) + _bomb())},
    )


# NIfTI


def nifti_bytes(changes, voxels=VOXELS.tobytes()):
    header = bytearray(352)
    header[:4], header[344:348] = struct.pack("<i", 348), b"n+1\0"
    header[40:56] = struct.pack("<8h", 3, *VOXELS.shape[::-1], 1, 1, 1, 1)
    header[70:74], header[76:108] = struct.pack("<2h", 2, 8), struct.pack("<8f", *[1] * 8)
    header[108:112], header[123] = struct.pack("<f", 352), 2
    for at, (code, *values) in changes.items():
        packed = struct.pack(f"<{code}", *values)
        header[at : at + len(packed)] = packed
    return bytes(header) + voxels


def make_niftis(root):
    cases = {
        **{f"type {number}": {70: ("h", number)} for number in (0, 1, 77, 32, 128, 1536, -1)},
        **{f"units {number}": {123: ("B", number)} for number in (0, 7, 63, 255)},
        **{f"offset {value}": {108: ("f", value)} for value in (INFINITE, -INFINITE, NAN, 3e38, -1, 0, 100)},
        **{f"{number} axes": {40: ("h", number)} for number in (-1, 0, 1, 7, 8, 100)},
        "32,767 a side": {42: ("7h", *[32767] * 7)},
        "negative sides": {42: ("3h", -40, -48, -5)},
        "no sides": {42: ("3h", 0, 0, 0)},
        "steps that are no numbers": {76: ("8f", *[NAN] * 8)},
        "infinite slope": {112: ("2f", INFINITE, INFINITE)},
        "slope that is no number": {112: ("2f", NAN, NAN)},
        "slope of 1e38": {112: ("2f", 1e38, 1e38)},
        "other size": {0: ("i", 77)},
        "big-endian by mistake": {0: (">i", 348)} if False else {0: ("i", 0x5C010000)},
        "other magic": {344: ("4s", b"ni1\0")},
        "no magic": {344: ("4s", bytes(4))},
        "77 bits": {72: ("h", 77)},
        "form 9999": {252: ("2h", 9999, 9999)},
    }
    for what, changes in cases.items():
        yield f"NIfTI: {what}", {"CASE00.nii": nifti_bytes(changes)}
        yield f"NIfTI, gzip: {what}", {"CASE00.nii.gz": gzip.compress(nifti_bytes(changes), 1)}
    second = struct.pack("<i", 540) + b"n+2\0\r\n\x1a\n" + struct.pack("<hh8q", 2, 8, 3, *[1 << 62] * 7)
    yield "NIfTI-2: 2^62 a side", {"CASE00.nii": second.ljust(544, b"\0") + bytes(100)}
    second = struct.pack("<i", 540) + b"n+2\0\r\n\x1a\n" + struct.pack("<hh8q", 2, 8, -(1 << 62), *[4] * 7)
    yield "NIfTI-2: -2^62 axes", {"CASE00.nii": second.ljust(544, b"\0") + bytes(100)}
