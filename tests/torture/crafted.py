"""Files made to do harm: sizes of 2^31, no numbers, lists without end, bombs, names of other files, pickles."""

import bz2
import gzip
import io
import json
import struct
import zipfile
import zlib

import numpy as np

from tests.torture.originals import PIXELS, VOXELS, _npy, image_bytes

BIG = 1 << 31
INFINITE, NAN = float("inf"), float("nan")


def make_crafted(reader, root):
    """Yield (what, files) of crafted cases for a reader; ``CASE00`` in names of files stands for that of the case."""
    makers = {
        "cross_section3d": (_stacks, _mrcs, _nrrds, _niftis),
        "mrc2byte": (_mrcs,),
        "cleanup2d": (_tiff_images, _images),
        "crop_patches": (_sections,),
        "vid2stack": (_videos,),
        "deduplicate": (_hashes,),
        "reconstruct3d": (_path_lists,),
        "train_nn": (_labels,),
        "trim_coco": (_cocos,),
        "trim_coco of a zip": (_zips,),
        "trim_siim": (_tables,),
        "classify_nn": (_weights,),
    }
    for maker in makers.get(reader, ()):
        yield from maker(root)


# TIFF: a writer of its own, which writes whatever it is told.

_FORMATS = {1: "B", 2: "s", 3: "H", 4: "I", 5: "II", 8: "h", 9: "i", 11: "f", 12: "d", 16: "Q"}


def tiff_bytes(tags, data=b"", after=0, big=False, pages=1):
    """Return a little-endian TIFF with these tags, {number: (type, values)}, whose pixels are `data`."""
    head, entry, pointer = (16, 20, "<Q") if big else (8, 12, "<I")
    count_format = "<Q" if big else "<H"
    ifd_bytes = struct.calcsize(count_format) + entry * len(tags) + struct.calcsize(pointer)
    room = 8 if big else 4
    ifd, values, at = b"", b"", head + ifd_bytes
    for number, (kind, content) in sorted(tags.items()):
        if kind == 2:
            packed, count = content, len(content)
        else:
            packed = struct.pack(f"<{_FORMATS[kind] * len(content)}", *np.ravel(content).tolist())
            count = len(content)
        if len(packed) > room:
            values, packed = values + packed, struct.pack(pointer, at + len(values))
        ifd += struct.pack("<HH", number, kind) + struct.pack(pointer, count) + packed.ljust(room, b"\0")
    start = head + ifd_bytes + len(values)
    ifd = ifd.replace(struct.pack("<I", 0xD00DF00D), struct.pack("<I", start))
    first = b"II+\0\x08\0\0\0" + struct.pack("<Q", 16) if big else b"II*\0" + struct.pack("<I", 8)
    return first + struct.pack(count_format, len(tags)) + ifd + struct.pack(pointer, after) + values + data


DATA = 0xD00DF00D  # replaced by where the pixels begin


def a_page(width=4, height=4, bits=8, **others):
    numbers = {"compression": 259, "photometric": 262, "samples": 277, "rows": 278, "description": 270, "offsets": 273}
    numbers |= {"counts": 279, "planar": 284, "predictor": 317, "subifds": 330, "sampleformat": 339, "tile": 322}
    numbers |= {"resolution": 282}
    tags = {256: (4, [width]), 257: (4, [height]), 258: (3, [bits]), 259: (3, [1]), 262: (3, [1]), 273: (4, [DATA])}
    tags |= {277: (3, [1]), 278: (4, [height]), 279: (4, [16])}
    for name, value in others.items():
        tags[numbers[name]] = value
    return {number: value for number, value in tags.items() if value is not None}


def _tiff_cases():
    ome = "<?xml version='1.0'?><OME xmlns='http://www.openmicroscopy.org/Schemas/OME/2016-06'>{}</OME>"
    pixels = (
        "<Image><Pixels DimensionOrder='XYZCT' Type='uint8' SizeX='{}' SizeY='{}' SizeZ='{}' SizeC='1' SizeT='1'>{}"
    )
    pixels += "</Pixels></Image>"
    other = "<TiffData IFD='0' FirstZ='{}'><UUID FileName='{}'>urn:uuid:{}</UUID></TiffData>"
    yield "claims 2^31 x 2^31 pixels", tiff_bytes(a_page(BIG, BIG), bytes(16))
    yield "claims 2^31 x 2^31 deflated", tiff_bytes(a_page(BIG, BIG, compression=(3, [8])), zlib.compress(bytes(16)))
    yield (
        "claims 2^20 x 2^20 deflated",
        tiff_bytes(a_page(1 << 20, 1 << 20, compression=(3, [8])), zlib.compress(bytes(9))),
    )
    for bits in (0, 3, 77, 64, 65535):
        yield f"{bits} bits a sample", tiff_bytes(a_page(bits=bits), bytes(16))
    for samples in (0, 65535):
        yield f"{samples} samples a pixel", tiff_bytes(a_page(samples=(3, [samples])), bytes(16))
    yield "no width", tiff_bytes(a_page(0, 4), bytes(16))
    yield "negative width", tiff_bytes({**a_page(), 256: (9, [-4])}, bytes(16))
    yield "no rows a strip", tiff_bytes(a_page(rows=(4, [0])), bytes(16))
    yield (
        "tiles without width",
        tiff_bytes({**a_page(), 322: (4, [0]), 323: (4, [0]), 324: (4, [DATA]), 325: (4, [16])}),
    )
    yield (
        "tiles of 2^31",
        tiff_bytes({**a_page(), 322: (4, [BIG]), 323: (4, [BIG]), 324: (4, [DATA]), 325: (4, [16])}),
    )
    yield "compression 99", tiff_bytes(a_page(compression=(3, [99])), bytes(16))
    yield "predictor 77", tiff_bytes(a_page(compression=(3, [8]), predictor=(3, [77])), zlib.compress(bytes(16)))
    yield "sample format 77", tiff_bytes(a_page(sampleformat=(3, [77])), bytes(16))
    yield "no offsets", tiff_bytes(a_page(offsets=None), bytes(16))
    yield "no counts", tiff_bytes(a_page(counts=None), bytes(16))
    yield "a strip at 2^31", tiff_bytes(a_page(offsets=(4, [BIG])), bytes(16))
    yield "a resolution that is no number", tiff_bytes(a_page(resolution=(5, [(0, 0)])) | {}, bytes(16))
    yield "page list leads to itself", tiff_bytes(a_page(), bytes(16), after=8)
    yield "page list leads out", tiff_bytes(a_page(), bytes(16), after=BIG)
    yield "sub-pages lead round", tiff_bytes(a_page(subifds=(4, [8, 8, 8])), bytes(16))
    yield "page list leads round after 150 pages", chain_of_pages(150, back_to=120)
    yield "a million pages", chain_of_pages(1_000_000)
    yield "a big one of 200,000 pages", chain_of_pages(200_000)
    for claim in ("1000000", "-3", "99999999999999999999", "nan", "1e99"):
        text = f"ImageJ=1.11a\nimages={claim}\nslices={claim}\nspacing=nan\nunit=nm\n\0".encode()
        yield f"ImageJ of {claim} slices", tiff_bytes(a_page(description=(2, text)), bytes(16))
    for shape in ("[2147483648, 2147483648]", "[-1, -16]", "[NaN, 16]", "[]", '"x"', "[1e400]", "null"):
        text = f'{{"shape": {shape}}}\0'.encode()
        yield f"a described shape of {shape}", tiff_bytes(a_page(description=(2, text)), bytes(16))
    for sides in ((BIG, BIG, BIG), (-4, 4, 4), (4, 4, "NaN"), (4, 4, 10**6), ("", "", "")):
        text = ome.format(pixels.format(*sides, "<TiffData/>")).encode() + b"\0"
        yield f"OME of {sides}", tiff_bytes(a_page(description=(2, text)), bytes(16))
    for name in ("pipe", "../secret.tif", "/dev/zero", "missing.tif", ""):
        data = other.format(0, "CASE00.tif", 1) + other.format(1, name, 2)
        text = ome.format(pixels.format(4, 4, 2, data)).encode() + b"\0"
        yield f"OME set with {name!r}", tiff_bytes(a_page(description=(2, text)), bytes(16))
    lines = [f'<!ENTITY a{i} "{f"&a{i - 1};" * 10}">' for i in range(1, 12)]
    bomb = f"<?xml version='1.0'?><!DOCTYPE OME [<!ENTITY a0 'ha'>{''.join(lines)}]><OME>&a11;</OME>".encode() + b"\0"
    yield "OME with a bomb of entities", tiff_bytes(a_page(description=(2, bomb)), bytes(16))
    system = b"<!DOCTYPE OME [<!ENTITY x SYSTEM 'file:///etc/passwd'>]><OME>&x;</OME>\0"
    yield "OME that names a file", tiff_bytes(a_page(description=(2, system)), bytes(16))
    yield "scanimage", tiff_bytes(a_page(description=(2, b"state.configPath = 1\0")), bytes(16), after=8)
    yield (
        "a bomb",
        tiff_bytes(a_page(20_000, 20_000, compression=(3, [8]), counts=(4, [400_000])), _zeros_deflated()),
    )


def _zeros_deflated():
    return zlib.compress(bytes(400_000_000), 1)[:400_000].ljust(400_000, b"\0")


def chain_of_pages(pages, back_to=None):
    """Return a TIFF of many pages of one pixel each, one after another; the last may lead back."""
    page = np.dtype([("count", "<u2"), ("tags", "V48"), ("next", "<u4")])
    tags = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in ((256, 1), (257, 1), (273, 8), (279, 1)))
    chain = np.zeros(pages, page)
    chain["count"], chain["tags"] = 4, np.void(tags)
    starts = 12 + np.arange(pages) * page.itemsize
    chain["next"][:-1] = starts[1:]
    chain["next"][-1] = 0 if back_to is None else starts[back_to]
    return b"II*\0" + struct.pack("<I", 12) + bytes(4) + chain.tobytes()


def _stacks(root):
    for what, data in _tiff_cases():
        yield f"TIFF: {what}", {"CASE00.tif": data}
    for kind in ("zeros", "none"):
        yield (
            f"slices: {kind}",
            {"CASE00/0.png": b"" if kind == "none" else bytes(100), "CASE00/1.png": image_bytes(PIXELS, "PNG")},
        )


def _tiff_images(root):
    for what, data in _tiff_cases():
        yield f"TIFF: {what}", {"CASE00.tif": data}


def _sections(root):
    for what, data in _tiff_cases():
        yield f"TIFF: {what}", {"CASE00-LOC-2d.tiff": data}


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


def _mrcs(root):
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


def _nrrds(root):
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


def _niftis(root):
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


# 2D images


def png_chunk(kind, data):
    """Return a chunk of a PNG with its checksum."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_bytes(width=4, height=4, bits=8, colour=0, extra=b"", rows=None, method=0, interlaced=0):
    head = struct.pack(">IIBBBBB", width, height, bits, colour, method, method, interlaced)
    data = zlib.compress(bytes(5 * 4) if rows is None else rows)
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", head) + extra + png_chunk(b"IDAT", data) + png_chunk(b"IEND", b"")


def _images(root):
    flood = zlib.compress(bytes(200_000_000), 9)
    cases = {
        "2^31 a side": png_bytes(BIG - 1, BIG - 1),
        "2^32 a side": png_bytes((1 << 32) - 1, (1 << 32) - 1),
        "no sides": png_bytes(0, 0),
        "60,000 a side": png_bytes(60_000, 60_000),
        **{f"{bits} bits": png_bytes(bits=bits) for bits in (0, 3, 77, 255)},
        **{f"colour type {colour}": png_bytes(colour=colour) for colour in (1, 5, 77)},
        "deep colour of 2^20 a side": png_bytes(1 << 20, 1 << 20, 16, 2),
        "compression method 7": png_bytes(method=7),
        "interlacing 7": png_bytes(interlaced=7),
        "a bomb of text": png_bytes(extra=png_chunk(b"zTXt", b"Comment\0\0" + flood)),
        "a bomb of a profile": png_bytes(extra=png_chunk(b"iCCP", b"x\0\0" + flood)),
        "a million frames": png_bytes(extra=png_chunk(b"acTL", struct.pack(">II", 10**6, 0))),
        "too many rows": png_bytes(rows=bytes(50_000_000)),
        "a chunk of 2^31": b"\x89PNG\r\n\x1a\n" + struct.pack(">I", BIG - 1) + b"IHDR" + bytes(30),
        "a palette of none": png_bytes(colour=3, extra=png_chunk(b"PLTE", b"")),
    }
    for what, data in cases.items():
        yield f"PNG: {what}", {"CASE00.png": data}
    jpeg = image_bytes(PIXELS, "JPEG")
    frame = jpeg.index(b"\xff\xc0")
    huge = jpeg[: frame + 5] + struct.pack(">HH", 65500, 65500) + jpeg[frame + 9 :]
    yield "JPEG: 65,500 a side", {"CASE00.jpg": huge}
    yield "JPEG: no sides", {"CASE00.jpg": jpeg[: frame + 5] + bytes(4) + jpeg[frame + 9 :]}
    yield "JPEG: a comment without end", {"CASE00.jpg": jpeg[:2] + b"\xff\xfe\xff\xff" + b"x" * 100}
    yield "BMP: 2^31 a side", {"CASE00.bmp": b"BM" + struct.pack("<IHHIIiiHH", 100, 0, 0, 54, 40, BIG - 1, -BIG, 1, 8)}
    gif = image_bytes(PIXELS, "GIF")
    block = gif[gif.index(b",") : -1]
    yield "GIF: 20,000 frames", {"CASE00.gif": gif[:-1] + block * 20_000 + b";"}
    yield "PGM: 10^9 a side", {"CASE00.pgm": b"P5 999999999 999999999 255\n" + bytes(100)}
    yield "PGM: deep, 10^9 a side", {"CASE00.pgm": b"P5 999999999 999999999 65535\n" + bytes(100)}
    yield "PGM: deep text of letters", {"CASE00.pgm": b"P2 2 2 65535\n1 x 3 99999999\n"}
    yield "TGA: 65,535 a side", {"CASE00.tga": struct.pack("<BBBHHBHHHHBB", 0, 0, 3, 0, 0, 0, 0, 0, 65535, 65535, 8, 0)}
    yield (
        "EPS called PNG",
        {"CASE00.png": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"},
    )
    yield "text", {"CASE00.png": b"<script>alert(1)</script>", "CASE00b.tif": b"=HYPERLINK(1)"}


def _videos(root):
    riff = b"RIFF" + struct.pack("<I", BIG) + b"AVI LIST" + struct.pack("<I", BIG) + b"hdrlavih" + struct.pack("<I", 56)
    yield "AVI: of nothing", {"CASE00.avi": b"RIFF\0\0\0\0AVI "}
    yield "AVI: 2^31 frames", {"CASE00.avi": riff + struct.pack("<14I", *[BIG] * 14)}
    yield "MP4: a box of no size", {"CASE00.mp4": bytes(4) + b"ftypisom" + bytes(4) + b"moov" + bytes(100)}
    yield "MP4: boxes in boxes", {"CASE00.mp4": b"\0\0\0\x10ftypisom\0\0\0\0" + b"\0\0\xff\xffmoov" * 5000}
    yield "MKV: text", {"CASE00.mkv": b"<html>" * 100}


# Arrays and lists


class Payload:
    """What pickle would run; a file beside the test tells if it did."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (exec, (f"open({str(self.path)!r}, 'w').close()",))


def pickled(root):
    """Return the bytes of a pickle that makes ``root/ran`` when it is read."""
    import pickle

    return pickle.dumps(Payload(root / "ran"))


def npy_with_header(text, data=b"", version=1):
    """Return an ``.npy`` file with a header of this text."""
    size = struct.pack("<H" if version == 1 else "<I", len(text) + 1)
    return b"\x93NUMPY" + bytes([version, 0]) + size + text.encode("latin1") + b"\n" + data


def make_npys(root):
    """Yield (what, bytes) of ``.npy`` files that make no sense, or hold pickles that make ``root/ran``."""
    buffer = io.BytesIO()
    np.save(buffer, np.array([Payload(root / "ran")], object), allow_pickle=True)
    yield "Python objects", buffer.getvalue()
    yield "a pickle", pickled(root)
    texts = [
        "{'descr': '|O', 'fortran_order': False, 'shape': (3,)}",
        "{'descr': '<U60', 'fortran_order': False, 'shape': (1099511627776,)}",
        "{'descr': '<U536870911', 'fortran_order': False, 'shape': (3,)}",
        "{'descr': '<U0', 'fortran_order': False, 'shape': (3,)}",
        "{'descr': '|b1', 'fortran_order': False, 'shape': (-8, -8)}",
        "{'descr': '|b1', 'fortran_order': False, 'shape': (0, 0)}",
        "{'descr': '|b1', 'fortran_order': False, 'shape': (65536, 65536)}",
        "{'descr': '|b1', 'fortran_order': True, 'shape': ()}",
        "{'descr': [('a', '|O')], 'fortran_order': False, 'shape': (8, 8)}",
        "{'descr': '<f8', 'fortran_order': 'x', 'shape': (8, 8)}",
        "{'descr': 'nonsense', 'fortran_order': False, 'shape': (8, 8)}",
        "{'descr': '|b1', 'fortran_order': False, 'shape': (8.5, 8)}",
        "{'descr': '|b1', 'fortran_order': False, 'shape': (1" + "0" * 40 + ",)}",
        "{'descr': '|b1', 'fortran_order': False}",
        "{'descr': ",
        "(" * 200,
        "[" * 5000,
        "__import__('os').abort()",
        "{1: 2}",
        "'x'",
        "",
        "\t\n  x",
        "{'descr': '<M8[ns]', 'fortran_order': False, 'shape': (8, 8)}",
    ]
    for text in texts:
        for version in (1, 2):
            yield f"version {version}, {text[:60]}", npy_with_header(text, bytes(600), version)
    yield "version 9", b"\x93NUMPY\x09\0\x10\0" + bytes(100)
    archive = io.BytesIO()
    np.savez(archive, a=np.zeros(3))
    yield "an archive", archive.getvalue()
    yield "a cut-off archive", archive.getvalue()[:50]
    yield "64-bit numbers", _npy(np.zeros((8, 8)))


def _hashes(root):
    from emcurate.images.sections import encode_section

    beside = {"CASE00-LOC-2d_0_0.tiff": encode_section(PIXELS[:32, :32])}
    for what, data in make_npys(root):
        yield f"hash: {what}", {"CASE00-LOC-2d_0_0.npy": data, **beside}
    for shape in ((0, 0), (0, 8), (8,), (8, 8, 8), (1, 1), (3, 5), (200, 200)):
        yield f"hash of {shape}", {"CASE00-LOC-2d_0_0.npy": _npy(np.zeros(shape, bool)), **beside}


def _path_lists(root):
    for what, data in make_npys(root):
        yield f"path list: {what}", {"0.npy": data}
    for paths in (["/dev/zero"], [str(root / "pipe")], ["\n"], ["a\0b"], [""], ["x" * 5000], ["vol-LOC-0_2_0_0.tiff"]):
        yield f"path list of {paths[0][:20]!r}", {"0.npy": _npy(np.array(paths))}
        members = [f"{path}.tar/vol-LOC-0_2_0_0.tiff" for path in paths]
        yield f"path list of shards {paths[0][:20]!r}", {"0.npy": _npy(np.array(members))}
        tiffs = [f"{path}/vol-LOC-0_2_{y}_0.tiff" for path in paths for y in range(3)]
        yield f"path list of patches in {paths[0][:20]!r}", {"0.npy": _npy(np.array(tiffs))}
    surrogate = np.frombuffer(np.array(["abc"]).tobytes().replace(b"b\0\0\0", b"\x00\xdc\0\0"), "<U3")
    yield "path list of a lone surrogate", {"0.npy": _npy(surrogate)}
    beyond = np.frombuffer(b"\xff\xff\xff\x7f" * 3, "<U3")
    yield "path list of no letters", {"0.npy": _npy(beyond)}
    good = _npy(np.array(["/a/vol-LOC-0_2_0_0.tiff"]))
    yield "path list with a chunk missing", {"0.npy": good, "2.npy": good}
    yield "path list with a chunk of number 10^20", {f"{10**20}.npy": good}
    yield "path list with 00.npy", {"0.npy": good, "00.npy": good}
    yield "path list with ².npy", {"0.npy": good, "².npy": good}
    yield "path list whose info is a payload", {"0.npy": good, "info": pickled(root)}
    yield "path list of places of 40 digits", {"0.npy": _npy(np.array([f"/vol-LOC-0_2_{'9' * 40}_0.tiff"]))}
    yield "path list of a section of 40 digits", {"0.npy": _npy(np.array([f"/vol-LOC-0_{'9' * 40}_0_0.tiff"]))}


def _labels(root):
    for what, data in make_npys(root):
        yield f"labels: {what}", {"labels.npy": data}
    for words in (["=HYPERLINK(1)"] * 3, ["none"] * 2, ["<script>"] * 3, ["\n"] * 3):
        yield f"labels of {words[0]!r}", {"labels.npy": _npy(np.array(words))}


def _cocos(root):
    one = {"id": 1, "file_name": "1.png", "width": 8, "height": 6}
    mark = {"id": 1, "image_id": 1, "category_id": 3}
    texts = [
        "[" * 100_000,
        '{"a":' * 100_000,
        json.dumps({"images": [], "annotations": [], "categories": []}),
        json.dumps({"images": [one], "annotations": [{**mark, "image_id": 10**30}], "categories": []}),
        json.dumps({"images": [{**one, "id": -1}], "annotations": [{**mark, "image_id": -1}]}),
        json.dumps({"images": [one], "annotations": [mark], "categories": [{"id": 3, "name": "=HYPERLINK(1)"}]}),
        json.dumps({"images": [{**one, "file_name": "x" * 300}], "annotations": [mark]}),
        json.dumps({"images": [{**one, "file_name": "a\nb"}], "annotations": [mark]}),
        json.dumps({"images": [{**one, "file_name": "\ud800.png"}], "annotations": [mark]}),
        '{"images": NaN, "annotations": []}',
        '{"images": [{"id": 1e400, "file_name": "a"}], "annotations": []}',
        "\ufeff{}",
        "null",
    ]
    for text in texts:
        yield f"COCO: {text[:60]}", {"instances.json": text.encode("utf-8", "surrogatepass")}
    yield "COCO: UTF-16", {"instances.json": "{}".encode("utf-16")}
    yield "COCO: bytes", {"instances.json": bytes(range(256))}


def _zips(root):
    coco = {
        "images": [{"id": i, "file_name": f"{i}.png", "width": 8, "height": 6} for i in range(1, 9)],
        "annotations": [{"id": i, "image_id": i, "category_id": 3 if i % 2 else 1} for i in range(1, 9)],
    }
    instances = json.dumps(coco).encode()

    def files(entries, edit=lambda data: data):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data, mode in entries:
                info = zipfile.ZipInfo(name)
                info.external_attr = mode << 16
                archive.writestr(info, data)
        return {"images.zip": edit(buffer.getvalue()), "instances.json": instances}

    usual = [(f"{i}.png", b"x" * i, 0o100644) for i in range(1, 9)]
    yield "zip: names that lead out", files([("../1.png", b"x", 0), ("/2.png", b"x", 0), *usual[2:]])
    yield "zip: a link", files([("1.png", b"/etc/passwd", 0o120777), *usual[1:]])
    yield "zip: a bomb", files([("1.png", bytes(300 << 20), 0), *usual[1:]])
    yield (
        "zip: encrypted",
        files(usual, lambda data: data.replace(b"PK\x01\x02\x14\0\x14\0\0\0", b"PK\x01\x02\x14\0\x14\0\1\0")),
    )
    yield "zip: method 99", files(usual, lambda data: data.replace(b"\x14\0\0\0\x08\0", b"\x14\0\0\0\x63\0"))
    yield "zip: nothing in it", files([])


def _tables(root):
    head = "image_name,patient_id,sex,benign_malignant,target\n"
    row = "ISIC_{0},IP_1,male,{1},0\n"
    rows = "".join(row.format(i, "malignant" if i % 3 else "benign") for i in range(40))
    texts = {
        "a field of 10^6 letters": head + rows.replace("IP_1", "x" * 1_000_000, 1),
        "a quote without end": head + rows.replace("IP_1", '"IP_1', 1),
        "NUL": head + rows.replace("male", "ma\0le", 1),
        "formulas": head + rows.replace("male", "=HYPERLINK(1)", 1),
        "no header": rows,
        "a column twice": head.replace("sex", "target") + rows,
        "carriage returns": (head + rows).replace("\n", "\r"),
        "rows of other lengths": head + rows.replace("male,", "", 1),
        "nothing": "",
        "a header": head,
        "lines of nothing": head + "\n" * 1000 + rows,
        "U+2028": head + rows.replace("male", "ma\u2028le\u0085", 1),
        "names that lead out": head + rows.replace("ISIC_0,", "../../x,", 1),
        "one name": head + rows.replace("ISIC_1,", "ISIC_2,", 1),
    }
    for what, text in texts.items():
        yield f"csv: {what}", {"metadata.csv": text.encode()}
    yield "csv: UTF-16", {"metadata.csv": (head + rows).encode("utf-16")}
    yield "csv: bytes", {"metadata.csv": head.encode() + bytes(range(256)) * 4}


def _weights(root):
    import pickle

    yield "weights: a payload", {"w.pth": pickled(root)}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", pickled(root))
        archive.writestr("archive/version", "3\n")
    yield "weights: a payload in an archive", {"w.pth": buffer.getvalue()}
    yield "weights: a pickle of numbers", {"w.pth": pickle.dumps({"a": [1, 2]})}
    for text in (
        "[]",
        "{}",
        '{"input": []}',
        "[" * 100_000,
        '{"weights_sha256": 1, "input": {"image_size": 1e400}}',
        "NaN",
    ):
        yield f"card: {text[:40]}", {"w.pth": b"x", "w.json": text.encode()}
