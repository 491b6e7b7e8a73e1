"""The -LOC- grammar: a file's name says which dataset and which place its pixels came from.

Everything before ``-LOC-`` is the dataset; what follows is the place. Names are parsed and formatted here
and nowhere else. All functions work on stems, that is on names without directory and extension.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

MARK = "-LOC-"
REGION_MARK = "-ROI-"
PLANES = ("xy", "xz", "yz")  # plane p is cut at a fixed index of axis p of a (z, y, x) volume

# A dataset's name at most, with that of an image in it: file systems take 255 bytes, and of these the names of results
# need up to 55, as in "-LOC-3d-ANISO-00000_00000_00000_zyx_1024x1024x1024.npy".
MOST_NAME_BYTES = 200

# What may stand before .gz, .bz2 or .xz and then counts as one extension with it: "scan.nii.gz" is "scan".
_COMPRESSIBLE = r"nii|mrc|map|rec|st|mrcs|ali|nrrd|tif|tiff"
_EXTENSION = re.compile(
    rf"(\.ome\.(tif|tiff|tf2|tf8|btf|zarr)|\.({_COMPRESSIBLE})\.(gz|bz2|xz)|\.[^.\s]+)$", re.IGNORECASE
)

# Numbers as they are written here, so that no place has two names: in ASCII, though other alphabets have digits too,
# and padded with zeros only where that is said. No place has more digits than these.
_NUMBER, _PADDED = "(0|[1-9][0-9]{0,17})", "[0-9]{1,18}"
_PATCH = re.compile(rf"(?P<section>.+)_(?P<y>{_NUMBER})_(?P<x>{_NUMBER})", re.DOTALL)
_VOLUME_PLACE = re.compile(rf"(?P<plane>[012])_(?P<index>{_PADDED})")
_REGION = re.compile(rf"(?P<dataset>.+){REGION_MARK}(?P<z>{_PADDED})_(?P<y>{_PADDED})_(?P<x>{_PADDED})", re.DOTALL)
_SUBVOLUME_PLACE = re.compile(
    rf"3d-(?P<kind>ISO|ANISO)-(?P<z>{_PADDED})_(?P<y>{_PADDED})_(?P<x>{_PADDED})_(?P<axes>[xyz]{{3}})"
    rf"(_(?P<depth>{_NUMBER})x(?P<height>{_NUMBER})x(?P<width>{_NUMBER}))?",
)


# Names of directories that say what is in them, not of what it is: such a directory bears the name of the one above.
_TELLS_NO_NAME = re.compile(
    r"slices?|raw|images?|imgs?|frames?|planes?|sections?|tiffs?|tifs?|pngs?|jpe?gs?|data|volumes?|videos?",
    re.IGNORECASE,
)


class GrammarError(ValueError):
    """A name that does not follow the grammar; `expected` and `found` say how."""

    def __init__(self, expected: str, found: str) -> None:
        super().__init__(f"expected {expected}, found {found}")
        self.expected = expected
        self.found = found


def strip_extension(filename: str) -> str:
    """Return a file's name without its extension; ``.nii.gz``, ``.ome.tif`` and the like count as one.

    >>> strip_extension("scan.v2.ome.tif"), strip_extension("brain.nii.gz"), strip_extension("plain")
    ('scan.v2', 'brain', 'plain')
    """
    stem = _EXTENSION.sub("", filename)
    return stem or filename


def name_of_directory(steps: Sequence[str]) -> str:
    """Return the name of the dataset in a directory, of which the names on the way to it are given: mostly the last.

    Of one called ``slices``, ``raw``, ``images`` and the like it is that of the directory above, so that those of two
    specimens differ.

    >>> name_of_directory(["corpus", "fly 1"]), name_of_directory(["corpus", "fly 2", "raw", "Slices"])
    ('fly 1', 'fly 2')
    >>> name_of_directory(["images", "raw"])
    'raw'
    """
    return next((name for name in reversed(steps) if not tells_no_name(name)), steps[-1])


def tells_no_name(directory: str) -> bool:
    """Return whether a directory's name says what is in it, not of what it is, such as ``slices``."""
    return _TELLS_NO_NAME.fullmatch(directory) is not None


def check_dataset_name(name: str) -> str:
    """Return `name` if it can name a dataset.

    Raises
    ------
    GrammarError
        If it is empty, or holds ``-LOC-`` or ends in ``-LOC``, which would make every name below it ambiguous; or if it
        is no UTF-8, which tables and lists of names cannot hold.
    """
    if not name or MARK in f"{name}-":
        raise GrammarError(f"a name without {MARK!r}, and not ending in {MARK[:-1]!r}", f"{name!r}")
    return check_utf8(name)


def check_utf8(name: str) -> str:
    """Return `name` if it is UTF-8, as tables and lists of names want it; raise `GrammarError` if it is not."""
    try:
        name.encode()
    except UnicodeEncodeError:
        raise GrammarError("a name in UTF-8", f"{name!r}, with bytes that are none") from None
    return name


def check_length(name: str) -> str:
    """Return `name` if the names of all results fit into what file systems take.

    Raises
    ------
    GrammarError
        If it is longer than `MOST_NAME_BYTES` in UTF-8.
    """
    length = len(name.encode())
    if length > MOST_NAME_BYTES:
        expected = f"a name of at most {MOST_NAME_BYTES} bytes, since the results' are longer"
        raise GrammarError(expected, f"{length} bytes")
    return name


def fold(name: str) -> str:
    """Return what names have in common that some disks take for one: those that differ in case or in composed letters.

    >>> fold("Cell é") == fold("cell e\\u0301"), fold("straße") == fold("strasse")
    (True, False)
    """
    return unicodedata.normalize("NFC", name).lower()


@dataclass(frozen=True, order=True)
class ImageSection:
    """A section made from a 2D image; `image` is set where the image belongs to a group directory."""

    dataset: str
    image: str | None = None

    @property
    def stem(self) -> str:
        return f"{self.dataset}{MARK}2d" + ("" if self.image is None else f"-{self.image}")


@dataclass(frozen=True, order=True)
class VolumeSection:
    """A section cut from a volume at `index` of axis `plane`; `width` is the digits the index is padded to."""

    dataset: str
    plane: int
    index: int
    width: int = 1

    @property
    def stem(self) -> str:
        return f"{self.dataset}{MARK}{self.plane}_{self.index:0{self.width}d}"


Section = ImageSection | VolumeSection


@dataclass(frozen=True, order=True)
class Patch:
    """A patch whose top-left corner is at row `y`, column `x` of its section, in pixels."""

    section: Section
    y: int
    x: int

    @property
    def stem(self) -> str:
        return f"{self.section.stem}_{self.y}_{self.x}"

    @property
    def dataset(self) -> str:
        return self.section.dataset


@dataclass(frozen=True, order=True)
class Subvolume:
    """A box cut from a volume: its start voxel (z, y, x) and the order in which its axes are stored.

    `widths` are the digits each start coordinate is padded to, so that names sort by place. `extent` is the box's sides
    (z, y, x), given where another box starts at the same voxel.
    """

    dataset: str
    isotropic: bool
    start: tuple[int, int, int]
    axes: str = "zyx"
    widths: tuple[int, int, int] = (1, 1, 1)
    extent: tuple[int, int, int] | None = None

    @property
    def stem(self) -> str:
        kind = "ISO" if self.isotropic else "ANISO"
        place = "_".join(f"{at:0{width}d}" for at, width in zip(self.start, self.widths, strict=True))
        extent = "" if self.extent is None else "_" + "x".join(map(str, self.extent))
        return f"{self.dataset}{MARK}3d-{kind}-{place}_{self.axes}{extent}"


@dataclass(frozen=True, order=True)
class Region:
    """A box cut from a volume that became a volume of its own, and so a dataset: the voxel (z, y, x) it begins with.

    `widths` are the digits each coordinate is padded to, so that names sort by place.
    """

    dataset: str
    start: tuple[int, int, int]
    widths: tuple[int, int, int] = (1, 1, 1)

    @property
    def stem(self) -> str:
        place = "_".join(f"{at:0{width}d}" for at, width in zip(self.start, self.widths, strict=True))
        return f"{self.dataset}{REGION_MARK}{place}"


def parse_region(name: str) -> Region:
    """Parse the name of a dataset that is a region of another.

    >>> parse_region("fly-ROI-000_0256_1024").start
    (0, 256, 1024)
    """
    match = _REGION.fullmatch(name)
    if match is None:
        raise GrammarError(f"a region's name such as 'name{REGION_MARK}000_256_512'", f"{name!r}")
    texts = match["z"], match["y"], match["x"]
    return Region(
        match["dataset"],
        (int(texts[0]), int(texts[1]), int(texts[2])),
        (len(texts[0]), len(texts[1]), len(texts[2])),
    )


def parse_section(stem: str) -> Section:
    """Parse a section's stem.

    >>> parse_section("fly-LOC-0_0042")
    VolumeSection(dataset='fly', plane=0, index=42, width=4)
    >>> parse_section("grids-LOC-2d-a 1").image
    'a 1'
    """
    dataset, place = _split(stem)
    if place == "2d":
        return ImageSection(dataset)
    if place.startswith("2d-") and len(place) > len("2d-"):
        return ImageSection(dataset, place.removeprefix("2d-"))
    match = _VOLUME_PLACE.fullmatch(place)
    if match is None:
        raise GrammarError(f"a section name such as 'name{MARK}2d' or 'name{MARK}0_042'", f"{stem!r}")
    return VolumeSection(dataset, int(match["plane"]), int(match["index"]), len(match["index"]))


def parse_patch(stem: str) -> Patch:
    """Parse a patch's stem, which is also its hash's.

    >>> parse_patch("fly-LOC-0_042_224_0").y
    224
    """
    match = _PATCH.fullmatch(stem)
    if match is None:
        raise GrammarError("a patch name ending in _{y}_{x}", f"{stem!r}")
    return Patch(parse_section(match["section"]), int(match["y"]), int(match["x"]))


def parse_subvolume(stem: str) -> Subvolume:
    """Parse a subvolume's stem.

    >>> parse_subvolume("fly-LOC-3d-ISO-000_012_224_zyx").start
    (0, 12, 224)
    """
    dataset, place = _split(stem)
    match = _SUBVOLUME_PLACE.fullmatch(place)
    if match is None or sorted(match["axes"]) != ["x", "y", "z"]:
        raise GrammarError(f"a subvolume name such as 'name{MARK}3d-ISO-000_012_224_zyx'", f"{stem!r}")
    texts = match["z"], match["y"], match["x"]
    return Subvolume(
        dataset,
        match["kind"] == "ISO",
        (int(texts[0]), int(texts[1]), int(texts[2])),
        match["axes"],
        (len(texts[0]), len(texts[1]), len(texts[2])),
        None if match["depth"] is None else (int(match["depth"]), int(match["height"]), int(match["width"])),
    )


def index_width(size: int) -> int:
    """Return the digits of the largest index of an axis of `size`: 250 slices end at 249, three digits."""
    return len(str(max(size - 1, 0)))


def _split(stem: str) -> tuple[str, str]:
    dataset, mark, place = stem.partition(MARK)
    if not mark or not dataset:
        raise GrammarError(f"a name with a dataset before {MARK!r}", f"{stem!r}")
    return dataset, place
