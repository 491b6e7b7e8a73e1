"""Small pictures of patches, as the page holds them: inside itself, so that it is one file."""

from __future__ import annotations

import base64
import io
from collections.abc import Collection
from pathlib import Path

from emcurate.errors import InputError
from emcurate.patches.list_names import patch_name
from emcurate.patches.pathlists import PathList
from emcurate.patches.reading import read_patch

# Pixels of a side at most: enough to tell membranes from resin. WebP of this quality takes 2 to 5 KB of each.
SIDE = 120
QUALITY = 70

# Of a picture that stages have drawn.
SHEET_WIDTH, SHEET_HEIGHT = 1100, 1600
SHEET_QUALITY = 60


class Thumbnails:
    """Pictures of patches by their names, of those that lie on disk; each is read once.

    Parameters
    ----------
    lists : collection of Path
        Path lists that say where patches are.
    wanted : collection of str
        The names of those that will be asked for.
    """

    def __init__(self, lists: Collection[Path], wanted: Collection[str]) -> None:
        self._wanted = set(wanted)
        self._places: dict[str, str] = {}
        for directory in lists:
            if directory.is_dir():
                self._look_for(directory)

    def picture(self, name: str) -> str | None:
        """Return a patch's picture as a data address; None where it is no file, or none that can be read."""
        path = self._places.get(name)
        if path is None:
            return None
        try:
            return encode_pixels(path)
        except (InputError, OSError):
            return None

    def _look_for(self, directory: Path) -> None:
        try:
            for chunk in PathList(directory).chunks():
                for path in chunk.tolist():
                    name = patch_name(path).removesuffix(".tiff")
                    if name in self._wanted:
                        self._places.setdefault(name, path)
        except InputError:
            return  # the stage that reads the list says what is wrong with it


def encode_pixels(path: str) -> str:
    """Return a patch, made smaller where it is large, as a data address."""
    from PIL import Image

    image = Image.fromarray(read_patch(path))
    image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    return _address(image, QUALITY)


def encode_sheet(path: Path) -> str | None:
    """Return a picture that a stage has drawn, made smaller where it is large; None where it cannot be read."""
    from PIL import Image

    try:
        with Image.open(path, formats=["PNG"]) as opened:
            image = opened.convert("RGB")
    except (OSError, ValueError, Image.DecompressionBombError):
        return None
    if image.height > SHEET_HEIGHT * image.width / SHEET_WIDTH:
        image = image.crop((0, 0, image.width, round(SHEET_HEIGHT * image.width / SHEET_WIDTH)))
    image.thumbnail((SHEET_WIDTH, SHEET_HEIGHT), Image.Resampling.LANCZOS)
    return _address(image, SHEET_QUALITY)


def _address(image: object, quality: int) -> str:
    from PIL import WebPImagePlugin  # noqa: F401 - Pillow loads the plugins of all formats if this one is not there

    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=quality, method=4)  # type: ignore[attr-defined]
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
