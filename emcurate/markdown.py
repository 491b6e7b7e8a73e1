"""Texts and tables in Markdown, for what people read of what a run did."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence


def escape(text: object) -> str:
    """Return a text from a file so that it is only text in Markdown, in a table too."""
    plain = html.escape(" ".join(str(text).split()))
    return "".join(f"\\{letter}" if letter in "\\`*_[]|!" else letter for letter in plain)


def make_table(header: Sequence[object], rows: Iterable[Sequence[object]]) -> list[str]:
    """Return the lines of a table in Markdown; numbers are to the right."""
    rows = [list(row) for row in rows]
    first = rows[0] if rows else header
    rules = ["---:" if isinstance(cell, int) else "---" for cell in first]
    cells = [[f"{cell:,}" if isinstance(cell, int) else escape(cell) for cell in row] for row in [header, *rows]]
    return ["| " + " | ".join(row) + " |" for row in [cells[0], rules, *cells[1:]]]
