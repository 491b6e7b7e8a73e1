"""The account of every patch that curate.py writes into OUT when the stages have ended."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from emcurate.files import digest_bytes, note_output, taken_by_other
from emcurate.patches.joined import JOINED_NAME, Results, write_joined
from emcurate.running.claims import Notes
from emcurate.running.ledger import Ledger, Source
from emcurate.running.report import Report

COUNTED = "patches accounted for"


def open_ledger(out: Path, stage: str, *, among_inputs: bool = False) -> Ledger:
    """Return what a directory of all stages' results knows of what lies directly in it."""
    return Ledger(out, stage, {}, product="account", owner_of=owner_of, among_inputs=among_inputs)


def owner_of(name: str) -> str | None:
    """Return the ledger's key of what lies directly in OUT: its own name; None if it is none of this project's."""
    return name if name == JOINED_NAME else None


def write_account(ledger: Ledger, results: Results, report: Report, *, overwrite: bool = False) -> None:
    """Write `patches.parquet` into a ledger's directory, unless it is there and the stages' results are as they were.

    Raises
    ------
    InputError
        If a file of a stage is damaged, or another file of that name is there.
    """
    files = results.files()
    path = ledger.directory / JOINED_NAME
    state = digest_bytes("\n".join(f"{file.name} {digest}" for file, digest in digest_files(files).items()).encode())
    source = Source(ledger.directory, state, JOINED_NAME, is_renewed=True)
    plan = ledger.plan({JOINED_NAME: source}, report, root=ledger.directory, overwrite=overwrite)
    if plan.done:
        report.count(COUNTED, ledger.details_of(JOINED_NAME)["patches"])
        return
    if path.exists() and not ledger.replaces(JOINED_NAME):
        raise taken_by_other(path, "the table this run would write")
    count = write_joined(path, results)
    ledger.finish(JOINED_NAME, [note_output(path, ledger.directory)], {"patches": count})
    report.count(COUNTED, count)


def digest_files(files: list[Path]) -> dict[Path, str]:
    """Return the digest of each of several files' contents; as noted by the stages that made them, where it is."""
    by_directory: dict[Path, list[Path]] = defaultdict(list)
    for file in files:
        by_directory[file.parent].append(file)
    digests: dict[Path, str] = {}
    for directory, some in by_directory.items():
        # Notes on a million patches are in the same ledger: only those on files like these are kept.
        endings = {file.name[file.name.rindex("_") :] for file in some}
        for ending in sorted(endings):
            notes = Notes(directory, ending)
            digests |= {file: notes.fingerprint(file) for file in some if file.name.endswith(ending)}
    return digests
