"""Read COCO annotation files: which image shows which categories, and the records of chosen images as they stand.

A full file has 450 MB, nearly all of it outlines. The parser walks over those without making Python objects of them, on
a memory-mapped file, so that what stays in memory is a few numbers an annotation.
"""

from __future__ import annotations

import mmap
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from emcurate.errors import InputError
from emcurate.fetching.safe_names import EscapeError, check_relative
from emcurate.trimming.kinds import HEAD_BYTES, name_kind

Value = TypeVar("Value")

_BOM = b"\xef\xbb\xbf"
_EXPECTED = "COCO annotations: an object with the lists images, annotations and categories"
_ADVICE = "name an instances_….json or stuff_….json, unpacked; download it again if it is one"
_PLAIN_NAME = re.compile(r"\w[\w.-]*")  # what nearly every file name is, and surely harmless
_SHOWN = 3  # examples in a message
_MOST_KEYS_SHOWN = 8
_MOST_RECORD_SHOWN = 60  # bytes


@dataclass(frozen=True)
class Image:
    """An image of an annotation file: its name below the image directory, and what is known of it.

    `url` is where it can be fetched, `size` its width and height in pixels, `licence` the number of its licence.
    """

    file_name: str
    url: str | None = None
    size: tuple[int, int] | None = None
    licence: int | None = None


@dataclass
class AnnotationSet:
    """What one or several annotation files say together.

    `labels` gives each annotated image's category ids in the order in which they are first seen; the images are in the
    order in which they first appear among the annotations. `licences` gives the name and the address of each licence
    by its number. `oddities` are remarks for the user.
    """

    images: dict[int, Image] = field(default_factory=dict)
    categories: dict[int, str] = field(default_factory=dict)
    labels: dict[int, list[int]] = field(default_factory=dict)
    licences: dict[int, str] = field(default_factory=dict)
    oddities: list[str] = field(default_factory=list)

    def count_images(self) -> dict[int, int]:
        """Return how many images show each category."""
        counts = dict.fromkeys(sorted(self.categories), 0)
        for present in self.labels.values():
            for category in present:
                counts[category] = counts.get(category, 0) + 1
        return counts


# gc=False: these hold no cycles, and hundreds of thousands of them would keep the collector busy.
class _Image(msgspec.Struct, gc=False):
    id: int
    file_name: str
    coco_url: str | None = None
    # Only told of, or compared with: whatever else may stand here is no reason to refuse the file.
    width: Any = None
    height: Any = None
    license: Any = None

    def describe(self) -> Image:
        """Return what of it is of use."""
        size = (self.width, self.height) if _is_length(self.width) and _is_length(self.height) else None
        return Image(self.file_name, self.coco_url, size, self.license if type(self.license) is int else None)


class _Annotation(msgspec.Struct, gc=False):
    image_id: int
    category_id: int


class _Category(msgspec.Struct, gc=False):
    id: int
    name: str


class _Content(msgspec.Struct, gc=False):
    images: list[_Image]
    annotations: list[_Annotation]
    categories: list[_Category] | None = None
    licenses: Any = None


class _Records(msgspec.Struct, gc=False):
    images: list[msgspec.Raw]
    annotations: list[msgspec.Raw]
    categories: list[msgspec.Raw] = []
    licenses: msgspec.Raw = msgspec.Raw(b"[]")
    info: msgspec.Raw = msgspec.Raw(b"{}")


class _Id(msgspec.Struct, gc=False):
    id: int


class _Owner(msgspec.Struct, gc=False):
    image_id: int
    id: int | None = None


_ID, _OWNER = msgspec.json.Decoder(_Id), msgspec.json.Decoder(_Owner)
_WHOLE = msgspec.json.Decoder(dict[str, Any])


def read_annotations(paths: Sequence[Path]) -> AnnotationSet:
    """Read annotation files and merge them by image, in the order given.

    Annotations count whatever their `iscrowd`. Images without annotations are known but have no labels.

    Raises
    ------
    InputError
        If a file is no COCO annotation file of objects or stuff, or the files contradict each other.
    """
    merged = AnnotationSet()
    for path in paths:
        content = _decode(path, _Content)
        _merge_images(merged, content.images, path)
        _merge_categories(merged, content.categories, path)
        for number, licence in _name_licences(content.licenses).items():
            merged.licences.setdefault(number, licence)
        unknown = _merge_labels(merged, content.annotations)
        if unknown:
            merged.oddities.append(
                f"{path}: {_some(unknown, 'image')} that annotations name but the images list lacks; left out"
            )
    names = {image.file_name for image in merged.images.values()}
    if len(names) < len(merged.images):
        lost = len(merged.images) - len(names)
        raise InputError(
            paths[0], "a file name of its own for each image", f"{lost:,} repeated", "correct the images list"
        )
    nameless = sorted({c for present in merged.labels.values() for c in present} - merged.categories.keys())
    if nameless and merged.categories:
        merged.oddities.append(
            f"{_some(nameless, 'category')} without an entry in the categories list; known by id only"
        )
    return merged


def select_records(paths: Sequence[Path], image_ids: Collection[int]) -> tuple[bytes, list[str]]:
    """Return a COCO JSON with the records of some images just as they stand in the files, and remarks for the user.

    Images come in the order of `image_ids`, annotations in the order of the files. Annotations without an id of their
    own, which happens when files are merged, get a new one.
    """
    wanted = dict.fromkeys(image_ids)
    images: dict[int, bytes] = {}
    categories: dict[int, bytes] = {}
    annotations: list[bytes] = []
    renumber: list[tuple[Path, msgspec.Raw]] = []
    taken: dict[int, bytes] = {}
    licenses, info = b"[]", b"{}"
    for path in paths:
        records = _decode(path, _Records)
        for raw in records.images:
            images.setdefault(_decode_record(path, _ID, raw).id, bytes(raw))
        for raw in records.categories:
            categories.setdefault(_decode_record(path, _ID, raw).id, bytes(raw))
        for raw in records.annotations:
            about = _decode_record(path, _OWNER, raw)
            if about.image_id not in wanted:
                continue
            text = bytes(raw)
            if about.id is None or taken.get(about.id, text) != text:
                renumber.append((path, raw))
            elif about.id not in taken:
                taken[about.id] = text
                annotations.append(text)
        licenses = bytes(records.licenses) if licenses == b"[]" else licenses
        info = bytes(records.info) if info == b"{}" else info
    free = max(taken, default=0) + 1
    for number, (path, raw) in enumerate(renumber, start=free):
        annotation = _decode_record(path, _WHOLE, raw)
        annotations.append(msgspec.json.encode({**annotation, "id": number}))
    oddities = []
    if renumber:
        oddities.append(f"{len(renumber):,} annotations had no id or one that another has; they got new ones")
    parts = {
        "info": info,
        "licenses": licenses,
        "images": _join(images[i] for i in wanted),
        "annotations": _join(annotations),
        "categories": _join(categories[i] for i in sorted(categories)),
    }
    return b"{" + b",\n".join(b'"%s": %s' % (key.encode(), value) for key, value in parts.items()) + b"}\n", oddities


def _join(records: Iterable[bytes]) -> bytes:
    return b"[" + b",\n".join(records) + b"]"


def _decode(path: Path, kind: type[Value]) -> Value:
    """Decode a JSON file as `kind`; what `kind` does not name is skipped."""
    with open(path, "rb") as file:
        if not path.stat().st_size:
            raise InputError(path, _EXPECTED, "an empty file (0 bytes)", "copy or download it again")
        # Mapped rather than read: the pages stay the system's, which can drop them when memory is short. Never
        # closed by hand, since raw records point into it; it goes when the last of them does.
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    start = len(_BOM) if mapped[: len(_BOM)] == _BOM else 0
    data = memoryview(mapped)[start:]
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.ValidationError as error:
        found = _describe(data, str(error))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        other = name_kind(bytes(data[:HEAD_BYTES]))
        broken = f"no complete JSON ({str(error).rstrip('.')})"
        found = broken if other is None or other == "JSON" else other
    raise InputError(path, _EXPECTED, found, _ADVICE)


def _decode_record(path: Path, decoder: msgspec.json.Decoder[Value], raw: msgspec.Raw) -> Value:
    """Decode a record of a JSON file whose ends have been found, but whose text nobody has looked at yet."""
    try:
        return decoder.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        start = bytes(raw)[:_MOST_RECORD_SHOWN]
        raise InputError(path, _EXPECTED, f"a record that is none ({error}): {start!r}", _ADVICE) from None


def _describe(data: memoryview, complaint: str) -> str:
    """Say in a few words what kind of JSON this is instead."""
    try:
        content = msgspec.json.decode(data, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError):
        return "JSON that is no object (a list of results?)"
    missing = {"images", "annotations"} - content.keys()
    if missing:
        keys = ", ".join(list(content)[:_MOST_KEYS_SHOWN]) or "nothing"
        return f"an object of {keys}, without {' and '.join(sorted(missing))}"
    try:
        first = msgspec.json.decode(content["annotations"], type=list[dict[str, msgspec.Raw]])[:1]
    except (msgspec.DecodeError, UnicodeDecodeError):
        first = []
    if first and "category_id" not in first[0]:
        return f"annotations of {', '.join(list(first[0])[:_MOST_KEYS_SHOWN])}, without category_id"
    return complaint


def _is_length(value: object) -> bool:
    return type(value) is int and value > 0


def _name_licences(listed: object) -> dict[int, str]:
    """Return the licences of a file, which may list none or anything, as ``name (address)`` by number."""
    found = {}
    for licence in listed if isinstance(listed, list) else []:
        if isinstance(licence, dict) and type(licence.get("id")) is int and isinstance(licence.get("name"), str):
            url = licence.get("url")
            found[licence["id"]] = f"{licence['name']} ({url})" if isinstance(url, str) and url else licence["name"]
    return found


def _merge_images(merged: AnnotationSet, images: list[_Image], path: Path) -> None:
    repeated = 0
    known = dict(merged.images)
    for image in images:
        if not _PLAIN_NAME.fullmatch(image.file_name):
            try:
                check_relative(image.file_name)
            except EscapeError as error:
                raise InputError(
                    path, "file names inside the image directory", str(error), "do not trust this file"
                ) from None
        before = merged.images.get(image.id)
        if before is None:
            merged.images[image.id] = image.describe()
        elif before.file_name != image.file_name:
            raise InputError(
                path,
                "an id of its own for each image",
                f"image id {image.id} for {before.file_name} and {image.file_name}",
                "correct the ids, or merge only files about the same images",
            )
        elif image.id not in known:
            repeated += 1
    if repeated:
        merged.oddities.append(f"{path}: {repeated:,} images are listed twice")


def _merge_categories(merged: AnnotationSet, categories: list[_Category] | None, path: Path) -> None:
    if not categories:
        merged.oddities.append(f"{path}: no categories list; categories are known by id only")
    for category in categories or []:
        before = merged.categories.setdefault(category.id, category.name)
        if before != category.name:
            raise InputError(
                path,
                "one name for each category id",
                f"category {category.id} called {before!r} and {category.name!r}",
                "merge only files of one numbering",
            )


def _merge_labels(merged: AnnotationSet, annotations: list[_Annotation]) -> list[int]:
    """Add the annotations' categories to their images' labels; return the ids of images nobody knows."""
    labels, images = merged.labels, merged.images
    unknown: dict[int, None] = {}
    for annotation in annotations:
        image_id, category_id = annotation.image_id, annotation.category_id
        present = labels.get(image_id)
        if present is None:
            if image_id in images:
                labels[image_id] = [category_id]
            else:
                unknown[image_id] = None
        elif category_id not in present:
            present.append(category_id)
    return list(unknown)


def _some(ids: Sequence[int], noun: str) -> str:
    shown = ", ".join(str(i) for i in ids[:_SHOWN]) + (", …" if len(ids) > _SHOWN else "")
    plural = {"image": "images", "category": "categories"}[noun]
    return f"{len(ids):,} {noun if len(ids) == 1 else plural} ({shown})"
