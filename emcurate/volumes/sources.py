"""Sources: which volumes are meant, one by one: a line of a list, or a file, directory or address by itself."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from emcurate import naming
from emcurate.addresses import Address, Place, parse_address
from emcurate.errors import InputError
from emcurate.files import is_there, open_regular
from emcurate.running.report import Report
from emcurate.volumes.formats import file_of
from emcurate.volumes.layouts import SizeNm
from emcurate.volumes.views import View
from emcurate.volumes.volume import Volume, dataset_name, open_volume

# A line of a hundred letters each for a hundred thousand volumes.
MOST_LIST_BYTES = 1 << 24

TABLE_SUFFIXES = (".csv", ".tsv")
_COMMENT = "#"

CHECK_LIST = "name a directory of volumes, or a list of them"

# The columns of a table of sources: where a volume lies, and what may be said of it.
ADDRESS = "address"
COLUMNS = (ADDRESS, "name", "level", "channel", "time", "invert", "padding", "voxel_size")
_YES, _NO = ("yes", "true", "1", "y"), ("no", "false", "0", "n", "")


@dataclass(frozen=True)
class VolumeSource:
    """A volume that is meant, and what of it.

    Parameters
    ----------
    path : Path or Address
    name : str
        The dataset's.
    view : View
    voxel_size_nm : (z, y, x), optional
        What was said of it, instead of what it says.
    padding : tuple of float
        Grey values that stand for nothing.
    """

    path: Place
    name: str
    view: View = field(default_factory=View)
    voxel_size_nm: SizeNm | None = None
    padding: tuple[float, ...] = ()

    def open(self) -> Volume:
        """Open it, under its name; see `open_volume`."""
        return replace(open_volume(self.path, self.voxel_size_nm, self.view), name=self.name)

    def settings(self) -> dict[str, Any]:
        """Return what was said of it alone, as a ledger keeps it."""
        said: dict[str, Any] = self.view.settings()
        if self.voxel_size_nm is not None:
            said["voxel_size"] = self.voxel_size_nm
        return {**said, **({"padding": list(self.padding)} if self.padding else {})}


def make_source(place: Place, view: View = View()) -> VolumeSource:
    """Return a volume that is named by itself."""
    return VolumeSource(place, dataset_name(place), view)


def read_sources(path: Path, view: View, report: Report) -> list[VolumeSource]:
    """Return the volumes that a list names, in its order; lines that name none are reported.

    Parameters
    ----------
    path : Path
        A text file of one address or path a line, or a csv file (or tsv) of `COLUMNS`. Paths are relative to it.
        Empty lines, and what follows a #, count for nothing.
    view : View
        What is read of volumes of which the list does not say it.
    report : Report

    Raises
    ------
    InputError
        If it is no such list, or an empty one.
    """
    with open_regular(path) as file:
        data = file.read(MOST_LIST_BYTES + 1)
    expected = "a text file of one address a line"
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(path, expected, "bytes that are no text", CHECK_LIST) from None
    if len(data) > MOST_LIST_BYTES or "\0" in text:
        raise InputError(path, expected, "something larger, or no text", CHECK_LIST)
    rows = _read_table(path, text) if path.suffix.lower() in TABLE_SUFFIXES else _read_lines(text)
    found: dict[Place, VolumeSource] = {}
    wrong: list[InputError] = []
    for number, row in rows:
        try:
            source = _read_row(path, row, view)
            if source.path in found:
                raise naming.GrammarError("each volume once", f"{source.path} again")
        except naming.GrammarError as error:
            advice = "correct the line; README.md tells what may stand there"
            wrong.append(InputError(f"{path}, line {number}", error.expected, error.found, advice))
            continue
        found[source.path] = source
    if found and not any(map(_is_somewhere, found)):
        raise InputError(path, expected, "text of which no line is an address, or a path where anything is", CHECK_LIST)
    if not found and not wrong:
        raise InputError(path, expected, "none in it", "write the addresses of volumes into it")
    report.fail_all(wrong)
    return list(found.values())


def _is_somewhere(place: Place) -> bool:
    return isinstance(place, Address) or is_there(file_of(place))


def _read_lines(text: str) -> Iterator[tuple[int, Mapping[str, str]]]:
    for number, line in enumerate(text.splitlines(), 1):
        # In an address a # is no comment, unless something separates it.
        said = "" if line.lstrip().startswith(_COMMENT) else line.partition(f" {_COMMENT}")[0].strip()
        if said:
            yield number, {ADDRESS: said}


def _read_table(path: Path, text: str) -> Iterator[tuple[int, Mapping[str, str]]]:
    reader = csv.reader(io.StringIO(text), delimiter="\t" if path.suffix.lower() == ".tsv" else ",")
    header: list[str] = []
    try:
        for row in reader:
            cells = [cell.strip() for cell in row]
            if not any(cells) or cells[0].startswith(_COMMENT):
                continue
            if not header:
                header = [cell.lower() for cell in cells]
                if ADDRESS not in header or set(header) - set(COLUMNS) or len(set(header)) < len(header):
                    expected = f"columns {ADDRESS} and, if need be, {', '.join(COLUMNS[1:])}"
                    raise InputError(path, expected, ", ".join(header), "name the columns so in its first line")
                continue
            yield reader.line_num, dict(zip(header, cells, strict=False))
    except csv.Error as error:
        raise InputError(path, "a csv file of sources", f"none ({error})", "write it again") from None


def _read_row(path: Path, row: Mapping[str, str], view: View) -> VolumeSource:
    place = parse_address(row[ADDRESS])
    if place is None:
        if not row[ADDRESS]:
            raise naming.GrammarError("an address or a path", "none")
        found: Place = path.parent / Path(row[ADDRESS]).expanduser()
    else:
        found = place
    source = make_source(found, view)
    chosen = {name: _read_number(name, row[name]) for name in ("level", "channel", "time") if row.get(name)}
    if row.get("invert", "").lower() not in (*_YES, *_NO):
        raise naming.GrammarError("yes or no as invert", row["invert"])
    if row.get("invert", "").lower() in _YES:
        chosen["inverted"] = True
    name = row.get("name") or source.name
    if name in (".", "..") or any(letter in name for letter in "/\\\0\n\r"):
        raise naming.GrammarError("a name without slashes", repr(name))
    size = _read_floats("voxel_size", row.get("voxel_size", ""))
    if size and (len(size) != 3 or min(size) <= 0):
        raise naming.GrammarError("a voxel_size of three lengths in nm, z y x", row["voxel_size"])
    return replace(
        source,
        name=name,
        view=replace(view, **chosen),
        voxel_size_nm=(size[0], size[1], size[2]) if size else None,
        padding=_read_floats("padding", row.get("padding", "")),
    )


def _read_number(name: str, text: str) -> Any:
    if not text.isascii() or not text.isdecimal():
        raise naming.GrammarError(f"a whole number as {name}", repr(text))
    return int(text)


def _read_floats(name: str, text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.replace(";", " ").split())
    except ValueError:
        raise naming.GrammarError(f"numbers as {name}, with spaces between them", repr(text)) from None
