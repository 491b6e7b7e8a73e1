"""The dataset card of a trimmed set: a README.md as the Hugging Face Hub reads it, for whoever gets the set.

It tells what is known and nothing else: where the set comes from, how it was drawn, how large it is, whose the images
are. The same set gives the same card.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from emcurate import __version__
from emcurate.files import read_regular
from emcurate.markdown import make_table
from emcurate.outputs import digest_bytes
from emcurate.running.report import Report
from emcurate.running.sources import Source
from emcurate.trimming.part import Part

CARD_NAME = "README.md"

# By this an earlier card is known, whatever became of the ledger.
_MARK = "<!-- Written by emcurate"

# The hub's classes of sizes, in rows.
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
_LARGER = "n>1M"


def make_card(stage: str, title: str, about: Mapping[str, object], sections: Mapping[str, Iterable[str]]) -> bytes:
    """Return a dataset card.

    Parameters
    ----------
    stage : str
        Which script made the set.
    title : str
        The set's name.
    about : mapping
        What the hub reads: keys of its dataset card metadata, with JSON values.
    sections : mapping of str to iterable of str
        The lines below each heading, in Markdown; `escape` what comes from a file.
    """
    # JSON is YAML, which saves a library and every question of quoting.
    head = [f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in {"pretty_name": title, **about}.items()]
    notice = f"{_MARK} {__version__}, {stage}. A later run writes it anew, unless you remove this line. -->"
    text = ["---", *head, "---", notice, "", f"# {title}"]
    for heading, lines in sections.items():
        text += ["", f"## {heading}", "", *lines]
    return "\n".join([*text, ""]).encode("utf-8", "replace")


def name_size(rows: int) -> str:
    """Return the hub's class of a set of so many rows."""
    return next((name for limit, name in _SIZES if rows < limit), _LARGER)


def make_count_table(what: str, counts: Mapping[str, int]) -> list[str]:
    """Return the lines of a table of how many images each of some things has, the most frequent first."""
    rows: list[tuple[str, int]] = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return make_table([what, "images"], rows)


def write_card(stage: str, output: Path, card: bytes, report: Report) -> None:
    """Write a set's card where there is none or one of ours; a README.md of somebody's own is never replaced."""
    path = output / CARD_NAME
    if not _is_ours(path, card):
        report.warn(f"{path}: another README.md is there, so no dataset card was written; move it away to get one")
        return
    # A part of its own, since it tells of all others; it costs nothing to make anew.
    part = Part(output, stage, Source(path, digest_bytes(card), "card"), {path.name}, report, renew=True)
    part.write(path.name, card, replace=True)
    part.finish()


def _is_ours(path: Path, card: bytes) -> bool:
    """Return whether nothing is there, or a card of ours, be it cut off or zeros: one without its notice is not."""
    if not path.is_file():
        return not os.path.lexists(path)
    there = read_regular(path)
    return _MARK.encode() in there or card.startswith(there) or not there.strip(b"\0")
