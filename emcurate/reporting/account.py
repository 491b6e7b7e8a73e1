"""The account of every patch that curate.py writes into OUT when the stages have ended."""

from __future__ import annotations

from pathlib import Path

from emcurate.outputs import note_output
from emcurate.patches.joined import JOINED_NAME, Results, write_joined
from emcurate.reporting.datasheet import DATASHEET, SHEET
from emcurate.running.ledger import Ledger
from emcurate.running.report import Report
from emcurate.running.sources import Source

COUNTED = "patches accounted for"


def open_ledger(out: Path, stage: str, *, among_inputs: bool = False) -> Ledger:
    """Return what a directory of all stages' results knows of what lies directly in it."""
    return Ledger(out, stage, {}, product="account", owner_of=owner_of, among_inputs=among_inputs)


def owner_of(name: str) -> str | None:
    """Return the ledger's key of what lies directly in OUT: its own name; None if it is none of this project's."""
    return {JOINED_NAME: JOINED_NAME, DATASHEET: DATASHEET, SHEET: DATASHEET}.get(name)


def write_account(ledger: Ledger, results: Results, report: Report, *, overwrite: bool = False) -> None:
    """Write `patches.parquet` into a ledger's directory, unless it is there and the stages' results are as they were.

    Raises
    ------
    InputError
        If a file of a stage is damaged, or another file of that name is there.
    """
    path = ledger.directory / JOINED_NAME
    source = Source(ledger.directory, results.digest(), JOINED_NAME, owner=Path(JOINED_NAME), is_renewed=True)
    plan = ledger.plan({JOINED_NAME: source}, report, root=ledger.directory, overwrite=overwrite)
    if plan.done:
        report.count(COUNTED, ledger.entries[JOINED_NAME].count_of("patches"))
        return
    count = write_joined(path, results, overwrite=ledger.replaces(JOINED_NAME))
    ledger.finish(JOINED_NAME, [note_output(path, ledger.directory)], {"patches": count})
    report.count(COUNTED, count)
