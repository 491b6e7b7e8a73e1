"""What a file is by its first bytes, for a message where another kind was expected."""

from __future__ import annotations

# What files that are taken for others begin with, white space and a byte-order mark left out.
_MARKS = {
    b"{": "JSON",
    b"[": "JSON",
    b"PK\x03\x04": "a zip archive or an Excel workbook",
    b"\x1f\x8b": "a file packed with gzip",
    b"PAR1": "a Parquet table",
    b"<": "a web page or XML",
    b"\xff\xfe": "text in UTF-16",
    b"\xfe\xff": "text in UTF-16",
}
_BOM = b"\xef\xbb\xbf"
HEAD_BYTES = 4096


def name_kind(head: bytes) -> str | None:
    """Return what the first `HEAD_BYTES` bytes of a file show it to be; None where they show nothing.

    >>> name_kind(b' {"images": []}')
    'JSON'
    >>> name_kind(b"image_name,target")
    """
    start = head.removeprefix(_BOM).lstrip()
    kind = next((kind for mark, kind in _MARKS.items() if start.startswith(mark)), None)
    return "binary data" if kind is None and b"\0" in head else kind
