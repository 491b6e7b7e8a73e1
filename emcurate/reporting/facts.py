"""What a datasheet tells: of what, how, with what and under which licences results were made, and what became of it."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from emcurate.addresses import hide_secrets
from emcurate.patches.columns import as_scalar, count_rows
from emcurate.patches.exports.plan import LEFT_OUT
from emcurate.patches.parquet import open_parquet
from emcurate.reporting.inputs import Input
from emcurate.reporting.results import Made
from emcurate.running.ledger_file import LedgerFile
from emcurate.running.spelled_paths import path_as_text, path_of_text

COUNTED_AT_ONCE = 1 << 17  # rows


class Command(msgspec.Struct, frozen=True):
    """A command as it was typed, without the script, and the directory that it was typed in.

    Both are spelled as paths in a ledger are, since there may be bytes in them that are no text.
    """

    words: tuple[str, ...]
    directory: str

    def typed(self) -> list[str]:
        """Return the words as they were typed."""
        return list(map(path_of_text, self.words))


def note_command(argv: Sequence[str] | None) -> Command:
    """Return what a script was called with, `argv` or else what the shell gave it; what addresses hide is hidden."""
    words = map(hide_secrets, sys.argv[1:] if argv is None else argv)
    return Command(tuple(map(path_as_text, words)), path_as_text(Path.cwd()))


class DatasetFacts(msgspec.Struct):
    """What there is of one dataset.

    `outcomes` are numbers of patches; `pixel_sizes_nm` all that occur, rounded to a thousandth; `small` the patches
    that were left out for their size when it was cut, of which there is no row.
    """

    kinds: list[str] = []
    sources: int = 0
    patches: int = 0
    outcomes: dict[str, int] = {}
    pixel_sizes_nm: list[float] = []
    small: int = 0


class Facts(msgspec.Struct):
    """All that a datasheet tells beside its files.

    `based_on` are the datasheets of the results that these were made of.
    """

    tool: str
    versions: dict[str, str]
    commit: str | None
    commands: list[Command]
    parameters: dict[str, dict[str, Any]]
    licences: dict[str, str]
    inputs: list[Input]
    results: dict[str, dict[str, Made]]
    datasets: dict[str, DatasetFacts]
    reasons: dict[str, int]
    based_on: list[Input] = []

    @property
    def seeds(self) -> dict[str, int]:
        """The seed of each stage that has one."""
        return {stage: found["seed"] for stage, found in self.parameters.items() if found.get("seed") is not None}


def find_parameters(ledgers: Mapping[str, LedgerFile]) -> dict[str, dict[str, Any]]:
    """Return with which parameters each stage has run, as its ledger noted them."""
    headers = {stage: ledger.header for stage, ledger in ledgers.items()}
    return {stage: dict(header.parameters or {}) for stage, header in headers.items() if header is not None}


def count_patches(joined: Path) -> tuple[dict[str, DatasetFacts], dict[str, int]]:
    """Return what a table of all patches says of each dataset, and why how many patches were left out of an export."""
    datasets: dict[str, DatasetFacts] = defaultdict(DatasetFacts)
    reasons: dict[str, int] = defaultdict(int)
    sources: dict[str, set[str]] = defaultdict(set)
    sizes: dict[str, set[float]] = defaultdict(set)
    alike = ["dataset", "kind", "source", "pixel_size_y_nm", "pixel_size_x_nm", "outcome"]
    with open_parquet(joined) as parquet:
        for batch in parquet.iter_batches(COUNTED_AT_ONCE, columns=[*alike, "why"], use_threads=False):
            rows = pa.Table.from_batches([batch])
            # Of a million patches there are a few that differ in these.
            for (dataset, kind, source, *steps, outcome), number in count_rows(rows, alike):
                name = dataset or ""
                facts = datasets[name]
                facts.patches += number
                facts.outcomes[outcome] = facts.outcomes.get(outcome, 0) + number
                if kind and kind not in facts.kinds:
                    facts.kinds = sorted([*facts.kinds, kind])
                sources[name] |= {source} - {None}
                sizes[name] |= {*steps} - {None}
            left_out = rows.filter(pc.equal(rows["outcome"], as_scalar(LEFT_OUT)))
            for (why,), number in count_rows(left_out, ["why"]):
                reasons[why] += number
    for name, facts in datasets.items():
        facts.sources, facts.pixel_sizes_nm = len(sources[name]), sorted({round(size, 3) for size in sizes[name]})
    return dict(sorted(datasets.items())), dict(sorted(reasons.items()))


def add_small(datasets: Mapping[str, DatasetFacts], cropped: LedgerFile) -> None:
    """Enter how many patches crop_patches.py left out for their size, as far as it noted that."""
    for line in cropped.entries.values():
        if line.dataset in datasets:
            datasets[line.dataset].small += line.count_of("small")
