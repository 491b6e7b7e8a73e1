"""Rows of a csv file with their text exactly as it stands, so that chosen rows can be written back unchanged.

A csv library would turn 45 into 45.0, an empty cell into nan, and quotes into other quotes. Here fields are only
looked at; what is written is the row's own text.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from emcurate.contents import is_formula
from emcurate.errors import InputError
from emcurate.trimming.kinds import HEAD_BYTES, name_kind

_BOM = "\ufeff"

# A field of a metadata file is short; the csv module refuses one of more than 128 KiB, a sign of a lost quote.
_UNBALANCED = "check the quotes"
_ADVICE = "name the metadata csv itself; if it is in there, unpack it or save it as csv in UTF-8"


@dataclass(frozen=True)
class Table:
    """The rows of a csv file.

    `header` names the columns; `fields[i]` are row i's cells and `texts[i]` is its text, line end included;
    `head` is the header's text.
    """

    path: Path
    header: Sequence[str]
    head: str
    fields: Sequence[Sequence[str]]
    texts: Sequence[str]

    def column(self, name: str) -> list[str]:
        """Return a column's cells as they stand.

        Raises
        ------
        InputError
            If there is no such column.
        """
        if name not in self.header:
            raise InputError(
                self.path, f"a column {name}", f"the columns {', '.join(self.header)}", "name the metadata file itself"
            )
        at = self.header.index(name)
        return [cells[at] for cells in self.fields]

    def find_formulas(self, rows: Iterable[int]) -> list[str]:
        """Return the cells of some rows, and of the header, that a spreadsheet would take for a formula and run."""
        chosen = (self.fields[row] for row in rows)
        return [cell for cells in (self.header, *chosen) for cell in cells if is_formula(cell)]

    def choose(self, rows: Iterable[int]) -> bytes:
        """Return a csv file of the header and some rows, in the order given, byte for byte as they were read."""
        return "".join([self.head, *(self.texts[row] for row in rows)]).encode("utf-8", "surrogateescape")


def read_table(path: Path) -> Table:
    """Read a csv file; blank lines are skipped, and bytes that are no UTF-8 come back as they were.

    Raises
    ------
    InputError
        If it is empty, no csv, or a row has another number of cells than the header.
    """
    _refuse_other_kinds(path)
    with open(path, encoding="utf-8", errors="surrogateescape", newline="") as file:
        records = _records(file, path)
        head, header, _ = next(records, ("", [], 0))
        if not header:
            raise InputError(path, "a csv file with a header", "an empty file", "copy or download it again")
        fields, texts = [], []
        for text, cells, line in records:
            if len(cells) != len(header):
                raise InputError(
                    path, f"{len(header)} cells in the row ending at line {line:,}", f"{len(cells)}", _UNBALANCED
                )
            fields.append(cells)
            texts.append(text)
    line_end = head[len(head.rstrip("\r\n")) :] or "\n"
    if texts and not texts[-1].endswith(("\r", "\n")):
        texts[-1] += line_end  # it was the last row, and may not stay it
    return Table(path, header, head, fields, texts)


def _refuse_other_kinds(path: Path) -> None:
    """Raise `InputError` where a file's first bytes tell that it is no csv file, with what it is."""
    with open(path, "rb") as file:
        kind = name_kind(file.read(HEAD_BYTES))
    if kind is not None:
        raise InputError(path, "a csv file with a header", kind, _ADVICE)


def _records(lines: Iterable[str], path: Path) -> Iterator[tuple[str, list[str], int]]:
    """Yield each record's text, cells and last line's number; a record may span lines within quotes."""
    taken: list[str] = []

    def tap() -> Iterator[str]:
        for number, line in enumerate(lines):
            taken.append(line)
            # The csv module knows no byte-order mark: a quote after one would not be a quote.
            yield line if number else line.removeprefix(_BOM)

    reader = csv.reader(tap(), strict=True)
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise InputError(path, "a csv file", f"{error} in line {reader.line_num:,}", _UNBALANCED) from None
        text = "".join(taken)
        taken.clear()
        if cells:
            yield text, cells, reader.line_num
