"""The checksums of a PNG, which libraries pass over where the pixels are: flipped bits there give other pixels."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

from emcurate.errors import InputError
from emcurate.files import open_regular

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"

# A chunk is its length, its kind, its data, and the checksum of the last two (PNG, third edition, section 5.3).
_HEAD = struct.Struct(">I4s")
_CHECKSUM = struct.Struct(">I")
_LAST_CHUNK = b"IEND"
_READ_BYTES = 1 << 20

_COPY_AGAIN = "copy it again"


def check_png(path: Path, content: bytes | None = None) -> None:
    """Raise `InputError` unless every chunk of a PNG, up to the one that ends it, is whole by its checksum."""
    with open_regular(path) if content is None else io.BytesIO(content) as file:
        file.seek(len(PNG_SIGNATURE))
        while len(head := file.read(_HEAD.size)) == _HEAD.size:
            length, kind = _HEAD.unpack(head)
            checksum = zlib.crc32(kind)
            while length and (piece := file.read(min(length, _READ_BYTES))):
                checksum = zlib.crc32(piece, checksum)
                length -= len(piece)
            stored = file.read(_CHECKSUM.size)
            if len(stored) < _CHECKSUM.size:
                break
            if stored != _CHECKSUM.pack(checksum):
                name = ascii(kind.decode("latin-1"))[1:-1]
                found = f"damaged data, whose checksum is another ({name} chunk)"
                raise InputError(path, "a complete image", found, _COPY_AGAIN)
            if kind == _LAST_CHUNK:
                return
    raise InputError(path, "a complete image", "one that is cut off before its end", _COPY_AGAIN)
