"""2D images of other formats than TIFF, and videos, that make no sense, or are made to do harm."""

import struct
import zlib

from tests.torture.crafted_tiffs import BIG
from tests.torture.originals import PIXELS, image_bytes


def png_chunk(kind, data):
    """Return a chunk of a PNG with its checksum."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_bytes(width=4, height=4, bits=8, colour=0, extra=b"", rows=None, method=0, interlaced=0):
    head = struct.pack(">IIBBBBB", width, height, bits, colour, method, method, interlaced)
    data = zlib.compress(bytes(5 * 4) if rows is None else rows)
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", head) + extra + png_chunk(b"IDAT", data) + png_chunk(b"IEND", b"")


def make_images(root):
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


def make_videos(root):
    riff = b"RIFF" + struct.pack("<I", BIG) + b"AVI LIST" + struct.pack("<I", BIG) + b"hdrlavih" + struct.pack("<I", 56)
    yield "AVI: of nothing", {"CASE00.avi": b"RIFF\0\0\0\0AVI "}
    yield "AVI: 2^31 frames", {"CASE00.avi": riff + struct.pack("<14I", *[BIG] * 14)}
    yield "MP4: a box of no size", {"CASE00.mp4": bytes(4) + b"ftypisom" + bytes(4) + b"moov" + bytes(100)}
    yield "MP4: boxes in boxes", {"CASE00.mp4": b"\0\0\0\x10ftypisom\0\0\0\0" + b"\0\0\xff\xffmoov" * 5000}
    yield "MKV: text", {"CASE00.mkv": b"<html>" * 100}
