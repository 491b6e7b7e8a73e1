"""Contact sheets: many patches on one picture, in titled groups, so that a person can look at what a stage decided.

Example
-------
::

    draw_contact_sheet(
        savedir / "duplicates.png",
        "Groups of near-duplicates",
        [Group("1 of 12: fly", [Tile(exemplar, "exemplar", KEPT), Tile(duplicate, "distance 3", DROPPED)])],
    )
"""

from __future__ import annotations

import bisect
import functools
import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageColor, ImageDraw, ImageFont

from emcurate.errors import InputError
from emcurate.images.pixels import Rescale, to_uint8
from emcurate.images.reading import DRAWN_BY_US, DRAWN_KEY, read_image
from emcurate.pictures.figures import BLUE, ORANGE
from emcurate.pictures.png import encode_png
from emcurate.writing import write_bytes

# Pixels. A tile of 160 shows a 224-pixel patch well enough to judge; twelve columns still fit a wide screen.
TILE_PIXELS = 160
COLUMNS = 8
FRAME_PIXELS = 4
GAP_PIXELS = 10
MARGIN_PIXELS = 16
FONT_PIXELS = 13
TITLE_FONT_PIXELS = 22
GROUP_FONT_PIXELS = 16
LINE_PIXELS = 17

# A sheet of more tiles is too large to open and look at; what is left out is said on it.
TILES_AT_MOST = 400

Colour = tuple[int, int, int]
Reader = Callable[[Path], npt.NDArray[Any]]  # of the pixels at a path, grey of any type
BACKGROUND: Colour = (255, 255, 255)
TEXT: Colour = (32, 32, 32)
FAINT: Colour = (150, 150, 150)
EMPTY: Colour = (214, 226, 240)  # no grey, so that it cannot be taken for a part of the patch


@dataclass(frozen=True)
class Mark:
    """What a tile's frame says: a colour, and the word written on the tile, since colour alone is no sign."""

    word: str
    colour: Colour


def _mark(word: str, colour: str) -> Mark:
    red, green, blue = ImageColor.getrgb(colour)[:3]
    return Mark(word, (red, green, blue))


KEPT = _mark("kept", BLUE)
DROPPED = _mark("dropped", ORANGE)
INFORMATIVE = _mark("informative", BLUE)
UNINFORMATIVE = _mark("uninformative", ORANGE)


@dataclass(frozen=True)
class Tile:
    """One patch of a sheet.

    Parameters
    ----------
    patch : Path or (height, width) uint8 array
        A path is read when the sheet is drawn; what cannot be read becomes a crossed-out tile.
    caption : str
        Lines written below; what is too long for the tile is cut in the middle, where names differ least.
    mark : Mark, optional
        Frame and word.
    """

    patch: Path | npt.NDArray[np.uint8]
    caption: str = ""
    mark: Mark | None = None


@dataclass(frozen=True)
class Group:
    """Tiles that belong together, under a title; a group without tiles says so."""

    title: str
    tiles: Sequence[Tile]


def draw_contact_sheet(
    destination: Path,
    title: str,
    groups: Sequence[Group],
    *,
    columns: int = COLUMNS,
    tile_pixels: int = TILE_PIXELS,
    read: Reader = read_image,
) -> None:
    """Draw groups of patches as a PNG and write it atomically, replacing an earlier one.

    Parameters
    ----------
    destination : Path
        The ``.png`` to write; its directory must exist.
    title : str
        Written at the top; say what is shown and how it was chosen.
    groups : sequence of Group
        Drawn one below the other. Beyond `TILES_AT_MOST` tiles the rest is left out, and the sheet says so.
    columns : int
        Tiles a row at most; a sheet whose groups are all narrower is narrower too.
    tile_pixels : int
        Side of a tile; a patch is scaled to it with its proportions kept.
    read : function
        Reads what `Tile.patch` names; image files by default.
    """
    write_bytes(destination, encode_contact_sheet(title, groups, columns=columns, tile_pixels=tile_pixels, read=read))


def encode_contact_sheet(
    title: str,
    groups: Sequence[Group],
    *,
    columns: int = COLUMNS,
    tile_pixels: int = TILE_PIXELS,
    read: Reader = read_image,
) -> bytes:
    """Return a contact sheet as the bytes of a PNG; see `draw_contact_sheet`."""
    sheet = render_contact_sheet(title, groups, columns=columns, tile_pixels=tile_pixels, read=read)
    return encode_png(np.asarray(sheet), {DRAWN_KEY: DRAWN_BY_US})


def render_contact_sheet(
    title: str,
    groups: Sequence[Group],
    *,
    columns: int = COLUMNS,
    tile_pixels: int = TILE_PIXELS,
    read: Reader = read_image,
) -> Image.Image:
    """Return a contact sheet as an RGB image; see `draw_contact_sheet`."""
    groups, left_out = _limit(groups)
    widest = max((len(group.tiles) for group in groups), default=1)
    columns = max(1, min(columns, widest))
    cell = tile_pixels + 2 * FRAME_PIXELS + GAP_PIXELS
    width = 2 * MARGIN_PIXELS + columns * cell - GAP_PIXELS
    headings = [printable(title)] + ([f"{left_out:,} more tiles are not shown"] if left_out else [])
    # A narrow sheet must still have room for what is written above it.
    texts = [(h, TITLE_FONT_PIXELS) for h in headings] + [(g.title, GROUP_FONT_PIXELS) for g in groups]
    width = max([width] + [_text_width(text, _font(size)) + 2 * MARGIN_PIXELS for text, size in texts])
    lines = [_caption_lines(group) for group in groups]
    heights = [
        _GROUP_HEADING + (-(-len(group.tiles) // columns) * (cell + n * LINE_PIXELS) or LINE_PIXELS + GAP_PIXELS)
        for group, n in zip(groups, lines, strict=True)
    ]
    height = 2 * MARGIN_PIXELS + len(headings) * _TITLE_HEIGHT + sum(heights)
    sheet = Image.new("RGB", (width, height), BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    top = MARGIN_PIXELS
    for heading in headings:
        draw.text((MARGIN_PIXELS, top), heading, fill=TEXT, font=_font(TITLE_FONT_PIXELS))
        top += _TITLE_HEIGHT
    for group, group_height, n in zip(groups, heights, lines, strict=True):
        draw.text((MARGIN_PIXELS, top + GAP_PIXELS), group.title, fill=TEXT, font=_font(GROUP_FONT_PIXELS))
        if not group.tiles:
            draw.text((MARGIN_PIXELS, top + _GROUP_HEADING), "none", fill=FAINT, font=_font(FONT_PIXELS))
        for index, tile in enumerate(group.tiles):
            row, column = divmod(index, columns)
            left = MARGIN_PIXELS + column * cell
            image = _patch_image(tile.patch, read)
            _draw_tile(sheet, tile, image, left, top + _GROUP_HEADING + row * (cell + n * LINE_PIXELS), tile_pixels)
        top += group_height
    return sheet


_TITLE_HEIGHT = TITLE_FONT_PIXELS + GAP_PIXELS
_GROUP_HEADING = GROUP_FONT_PIXELS + 2 * GAP_PIXELS


def _limit(groups: Sequence[Group]) -> tuple[list[Group], int]:
    room, kept, left_out = TILES_AT_MOST, [], 0
    for group in groups:
        tiles = group.tiles[:room]
        left_out += len(group.tiles) - len(tiles)
        room -= len(tiles)
        if tiles or not group.tiles:
            kept.append(Group(printable(group.title), tiles))
    return kept, left_out


def _caption_lines(group: Group) -> int:
    return max((tile.caption.count("\n") + 1 for tile in group.tiles if tile.caption), default=0)


def _draw_tile(
    sheet: Image.Image, tile: Tile, image: Image.Image | None, left: int, top: int, tile_pixels: int
) -> None:
    draw = ImageDraw.Draw(sheet)
    side = tile_pixels + 2 * FRAME_PIXELS
    colour = tile.mark.colour if tile.mark else FAINT
    thickness = FRAME_PIXELS if tile.mark else 1
    draw.rectangle((left, top, left + side - 1, top + side - 1), fill=EMPTY, outline=colour, width=thickness)
    inner = left + FRAME_PIXELS, top + FRAME_PIXELS
    if image is None:
        far = inner[0] + tile_pixels - 1, inner[1] + tile_pixels - 1
        draw.line((*inner, *far), fill=FAINT, width=2)
        draw.line((inner[0], far[1], far[0], inner[1]), fill=FAINT, width=2)
        _draw_badge(draw, "cannot be read", TEXT, inner[0], inner[1] + tile_pixels // 2, tile_pixels)
    else:
        fitted = _fit(image, tile_pixels)
        # Centred, so that a narrow patch at a section's edge is seen to be one.
        sheet.paste(
            fitted, (inner[0] + (tile_pixels - fitted.width) // 2, inner[1] + (tile_pixels - fitted.height) // 2)
        )
    if tile.mark:
        _draw_badge(draw, tile.mark.word, tile.mark.colour, *inner, tile_pixels)
    for number, line in enumerate(tile.caption.split("\n")):
        text = _shorten(printable(line), _font(FONT_PIXELS), side)
        draw.text((left, top + side + 1 + number * LINE_PIXELS), text, fill=TEXT, font=_font(FONT_PIXELS))


def _draw_badge(draw: ImageDraw.ImageDraw, word: str, colour: Colour, left: int, top: int, room: int) -> None:
    font = _font(FONT_PIXELS)
    text = _shorten(word, font, room - 8)
    box = (left, top, left + _text_width(text, font) + 7, top + LINE_PIXELS)
    draw.rectangle(box, fill=colour)
    # Black on light colours, white on dark ones; the weights are the eye's for red, green and blue.
    bright = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2] > 150
    draw.text((left + 4, top + 1), text, fill=(0, 0, 0) if bright else (255, 255, 255), font=font)


def _patch_image(patch: Path | npt.NDArray[np.uint8], read: Reader) -> Image.Image | None:
    if not isinstance(patch, Path):
        return Image.fromarray(patch)
    try:
        return Image.fromarray(to_uint8(read(patch), Rescale(), patch))
    except (InputError, OSError):
        return None


def _fit(image: Image.Image, side: int) -> Image.Image:
    scale = side / max(image.size)
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    return image.resize(size, Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.BICUBIC)


def printable(text: str) -> str:
    r"""Return a text with a mark for each letter that cannot be drawn, such as the ends of lines that names may hold.

    >>> printable("fly\u2028wing\r")
    'fly\ufffdwing\ufffd'
    """
    return text if text.isprintable() else "".join(c if c.isprintable() else _NO_LETTER for c in text)


_NO_LETTER = "\ufffd"


def _shorten(text: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    if _text_width(text, font) <= width:
        return text

    def shortened(kept: int) -> str:
        # More of the end than of the start: a patch's place stands at the end of its name.
        start = kept // 3
        return f"{text[:start]}…{text[len(text) - (kept - start) :]}"

    # The more letters, the wider; of two or more the most that fit.
    counts = range(2, len(text))
    fitting = bisect.bisect_right(counts, width, key=lambda kept: _text_width(shortened(kept), font))
    return shortened(counts[fitting - 1]) if fitting else "…"


def _text_width(text: str, font: ImageFont.FreeTypeFont) -> int:
    return int(np.ceil(font.getlength(text)))


@functools.cache
def _font(pixels: int) -> ImageFont.FreeTypeFont:
    # Matplotlib brings this font along; it has the letters of most languages that file names are written in. It lies
    # beside its code, which takes a quarter of a second to load.
    found = importlib.util.find_spec("matplotlib")
    if found is None or found.origin is None:
        raise ImportError("matplotlib, whose font pictures are written in")
    font = Path(found.origin).parent / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"
    return ImageFont.truetype(str(font), pixels)
