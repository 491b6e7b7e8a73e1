"""The closing table: what became of the patches of each dataset, and what each stage took and wrote."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from emcurate.corpora.foresight import Foreseen
from emcurate.patches.columns import count_rows
from emcurate.patches.joined import CUT, DUPLICATE, INFORMATIVE, JOINED_NAME, PASSED_OVER, SELECTED, UNINFORMATIVE
from emcurate.patches.parquet import open_parquet
from emcurate.patches.table_updates import TABLE_KEY
from emcurate.reporting.page import StageRun
from emcurate.running.ledger_file import LedgerFile, ledger_path
from emcurate.running.ledger_lines import DONE, read_outputs

# Datasets with a line of their own, the largest ones; the others are counted together.
DATASETS_SHOWN = 40

# Letters of a dataset's name before it is cut short.
NAME_LETTERS = 32

MEGABYTE = 1e6


@dataclass
class Counts:
    """How many of a dataset's patches became what, beside its sections and subvolumes: the columns of the table."""

    sections: int = 0
    patches: int = 0
    left_out_small: int = 0
    duplicates: int = 0
    exemplars: int = 0
    uninformative: int = 0
    informative: int = 0
    subvolumes: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(*(one + two for one, two in zip(astuple(self), astuple(other), strict=True)))


HEADINGS = [item.name.replace("_", " ") for item in fields(Counts)]


def count_datasets(out: Path, cropped: tuple[Path, str], subvolumes: tuple[Path, str]) -> dict[str, Counts]:
    """Return what is known of the patches of each dataset, by name.

    Parameters
    ----------
    out : Path
        The directory of the table of all patches, which need not be there.
    cropped, subvolumes : (Path, str)
        The directory of patches, and of subvolumes, and the stage that makes them.
    """
    found: dict[str, Counts] = defaultdict(Counts)
    # Of a dataset of which a part could not be cut the rest is there, and no note of a whole table.
    partly: set[str] = set()
    for key, line in LedgerFile(ledger_path(*cropped)).entries.items():
        if key.endswith(TABLE_KEY):
            counts = found[key.removesuffix(TABLE_KEY)]
            counts.sections = line.count_of("sections")
            counts.patches = line.count_of("patches")
            counts.left_out_small = line.count_of("small")
            if line.state != DONE:
                partly.add(key.removesuffix(TABLE_KEY))
    for dataset, _, _ in _list_sections(out / JOINED_NAME, partly):
        found[dataset].sections += 1
    for dataset, outcome, kept, number in _count_outcomes(out / JOINED_NAME):
        counts = found[dataset]
        if dataset in partly:
            counts.patches += number
        if outcome == DUPLICATE:
            counts.duplicates += number
        elif outcome != CUT:
            counts.exemplars += number
        # A selection may also be made of exemplars that nobody has judged.
        if outcome == INFORMATIVE or (outcome in (SELECTED, PASSED_OVER) and kept):
            counts.informative += number
        if outcome == UNINFORMATIVE:
            counts.uninformative += number
    for line in LedgerFile(ledger_path(*subvolumes)).entries.values():
        found[line.dataset].subvolumes = (
            line.count_of("subvolumes") if "subvolumes" in line.details else len(read_outputs(line))
        )
    return dict(sorted(found.items()))


def _count_outcomes(table: Path) -> Iterator[tuple[str, str, bool | None, int]]:
    """Yield the datasets of a table of all patches with each outcome, if kept, and how many have it, by pieces."""
    if not table.is_file():
        return
    by = ["dataset", "outcome", "kept"]
    with open_parquet(table) as file:
        for group in range(file.num_row_groups):
            rows = file.read_row_group(group, columns=by, use_threads=False)
            for (dataset, outcome, kept), number in count_rows(rows, by):
                yield dataset, outcome, kept, number


def _list_sections(table: Path, datasets: Collection[str]) -> set[tuple[str, int | None, int | None]]:
    """Return dataset, plane and index of each section of which a table of all patches has any."""
    if not datasets or not table.is_file():
        return set()
    sections: set[tuple[str, int | None, int | None]] = set()
    by = ["dataset", "plane", "index"]
    with open_parquet(table) as file:
        for group in range(file.num_row_groups):
            sections |= {section for section, _ in count_rows(file.read_row_group(group, columns=by), by)}
    return {section for section in sections if section[0] in datasets}


def format_datasets(counts: Mapping[str, Counts]) -> list[str]:
    """Return a table with a line a dataset, the largest ones, and one of all."""
    if not counts:
        return []
    rows = dict(counts)
    if len(rows) > DATASETS_SHOWN:
        largest = set(sorted(counts, key=lambda name: (-counts[name].patches, name))[:DATASETS_SHOWN])
        rest = [some for name, some in counts.items() if name not in largest]
        rows = {name: some for name, some in counts.items() if name in largest}
        rows[f"{len(rest):,} more datasets"] = sum(rest, Counts())
    if len(counts) > 1:
        rows["all"] = sum(counts.values(), Counts())
    return format_table(["dataset", *HEADINGS], [[name, *astuple(some)] for name, some in rows.items()])


def format_foreseen(inputs: Sequence[Foreseen]) -> list[str]:
    """Return a table with a line an input: what it is, and what would come of it."""
    headings = ["dataset", "size", "type", "pixel nm", "planes", "sections", "patches", "left out small", "megabytes"]
    rows: list[list[str | int]] = [
        [
            *(one.dataset, one.size, one.dtype, one.pixel_size, one.planes, one.sections, one.patches, one.small),
            f"{(one.section_bytes + one.patch_bytes) / MEGABYTE:,.1f}",
        ]
        for one in inputs
    ]
    # With where it lies last, as long as that may be.
    lines = format_table(headings, rows)
    return [f"{line}  {path}" for line, path in zip(lines, ["input", *(one.path for one in inputs)], strict=True)]


def format_stages(ran: Iterable[StageRun], directories: Mapping[str, Path]) -> list[str]:
    """Return a table with a line a stage: the seconds it took in this run, and the megabytes that its results have."""
    seconds: dict[str, float] = defaultdict(float)
    for run in ran:
        seconds[run.stage] += run.seconds
    rows = [
        [stage, f"{took:,.1f}", f"{_count_bytes(directories[stage], stage) / MEGABYTE:,.1f}"]
        for stage, took in seconds.items()
    ]
    return format_table(["stage", "seconds", "megabytes"], rows)


def _count_bytes(directory: Path, stage: str) -> int:
    lines = LedgerFile(ledger_path(directory, stage)).entries.values()
    return sum(output.size for line in lines for output in read_outputs(line))


def format_table(headings: Sequence[str], rows: Sequence[Sequence[str | int]]) -> list[str]:
    """Return a table as lines of text, its first column of names.

    >>> print("\\n".join(format_table(["name", "patches"], [["fly", 1234], ["wing", 5]])))
    name  patches
    fly     1,234
    wing        5
    """
    cells = [[_cut_short(str(row[0])), *(f"{n:,}" if isinstance(n, int) else n for n in row[1:])] for row in rows]
    widths = [max(map(len, column)) for column in zip(headings, *cells, strict=True)]
    return [
        "  ".join(cell.rjust(width) if at else cell.ljust(width) for at, (cell, width) in enumerate(line)).rstrip()
        for line in (list(zip(row, widths, strict=True)) for row in [list(headings), *cells])
    ]


def _cut_short(name: str) -> str:
    return name if len(name) <= NAME_LETTERS else f"{name[: NAME_LETTERS - 1]}…"
