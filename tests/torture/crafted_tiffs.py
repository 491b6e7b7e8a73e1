"""TIFFs that make no sense, or are made to do harm, by a writer that writes whatever it is told."""

import struct
import zlib

import numpy as np

from tests.torture.originals import PIXELS, image_bytes

BIG = 1 << 31

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
    yield "more than a million pages", chain_of_pages((1 << 20) + 1)
    yield "5,000 pages", chain_of_pages(5_000)
    yield "5,000 pages, of which the last is another", _another_at_the_end(chain_of_pages(5_000))
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


def _another_at_the_end(chain):
    """Return a chain of pages whose last page claims 2^31 rows."""
    rows = chain.rindex(struct.pack("<HHII", 257, 4, 1, 1))
    return chain[:rows] + struct.pack("<HHII", 257, 4, 1, BIG) + chain[rows + 12 :]


def make_stacks(root):
    for what, data in _tiff_cases():
        yield f"TIFF: {what}", {"CASE00.tif": data}
    for kind in ("zeros", "none"):
        yield (
            f"slices: {kind}",
            {"CASE00/0.png": b"" if kind == "none" else bytes(100), "CASE00/1.png": image_bytes(PIXELS, "PNG")},
        )


def make_tiff_images(root):
    for what, data in _tiff_cases():
        yield f"TIFF: {what}", {"CASE00.tif": data}


def make_sections(root):
    for what, data in _tiff_cases():
        yield f"TIFF: {what}", {"CASE00-LOC-2d.tiff": data}
