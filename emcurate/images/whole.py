"""Whether a file from elsewhere, which is handed on as it is, is the whole image that it should be."""

from __future__ import annotations

import os
from pathlib import Path

from PIL import ExifTags, Image, UnidentifiedImageError

from emcurate.errors import DAMAGE, InputError, describe_damage
from emcurate.files import open_regular
from emcurate.images.reading import check_plausible

_AGAIN = "run the same command again, or open it in a browser to see what is there"

# No others are tried: Pillow hands PostScript, for one, to another program, and nobody knows who made the file.
_FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "JPEG2000")

# Orientations by which a viewer turns an image on its side; some lists give the size after that, some before.
_LYING = (5, 6, 7, 8)

# What files end with that have an end mark, and within how many bytes of it: some cameras add a few bytes of their own.
_ENDS = {"JPEG": b"\xff\xd9", "MPO": b"\xff\xd9", "PNG": b"IEND"}
_END_WITHIN_BYTES = 4096


def check_whole_image(
    path: Path, size: tuple[int, int] | None = None, *, subject: str | None = None, to_its_end: bool = False
) -> None:
    """Decode an image to see that it is one, all of it, and of the size that is expected.

    Parameters
    ----------
    path : Path
    size : (width, height), optional
        In pixels, where it is known.
    subject : str, optional
        What to call it in the error, such as its address.
    to_its_end : bool
        Also look for the mark that its format ends with. Decoders do not miss it if all pixels are there, so that a
        file can lack its last bytes; for where nothing else tells how long it is.

    Raises
    ------
    InputError
        If it is no image, damaged, cut off, or of another size.
    """
    subject = str(path) if subject is None else subject
    expected = "an image" if size is None else f"an image of {size[0]:,} × {size[1]:,} pixels (width × height)"
    length = path.stat().st_size
    if not length:
        raise InputError(subject, expected, "an empty file (0 bytes)", _AGAIN)
    try:
        with Image.open(path, formats=_FORMATS) as image:
            check_plausible(path, image.width * image.height * len(image.getbands()))
            found, kind = image.size, image.format or ""
            fits = size in (None, found)
            if not fits and size == found[::-1]:
                fits = image.getexif().get(ExifTags.Base.Orientation) in _LYING
            if fits:
                image.load()
    except InputError as error:
        raise InputError(subject, expected, error.found, _AGAIN) from None
    except UnidentifiedImageError:
        with open_regular(path) as file:
            head = file.read(16)
        raise InputError(subject, expected, f"{length:,} bytes of another kind, {head!r}…", _AGAIN) from None
    except DAMAGE as error:
        raise describe_damage(error, subject, expected, _AGAIN) from None
    if not fits:
        raise InputError(subject, expected, f"one of {found[0]:,} × {found[1]:,}", _AGAIN)
    if to_its_end and kind in _ENDS and _ENDS[kind] not in _last_bytes(path):
        raise InputError(subject, expected, f"one without the end of its {kind} file", _AGAIN)


def _last_bytes(path: Path) -> bytes:
    with open_regular(path) as file:
        file.seek(-min(_END_WITHIN_BYTES, path.stat().st_size), os.SEEK_END)
        return file.read()
