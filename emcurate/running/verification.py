"""Comparing results with the digests noted when they were written."""

from __future__ import annotations

import contextlib
from pathlib import Path

from msgspec.structs import replace

from emcurate.errors import InputError
from emcurate.outputs import holds
from emcurate.running.ledger_file import LEDGER_DIRECTORY, LedgerFile, ledger_path, take_altered
from emcurate.running.ledger_lines import SPOILT, read_outputs
from emcurate.running.report import Report


def verify(directory: Path, stage: str, report: Report) -> None:
    """Compare every file that a stage made in a directory with the digest noted when it was written.

    What differs is a failure, and is noted, so that the next run makes it again.

    Raises
    ------
    InputError
        If the directory knows nothing of the stage.
    """
    ledger = LedgerFile(ledger_path(directory, stage))
    if ledger.header is None:
        found = f"no {LEDGER_DIRECTORY}/{ledger.path.name}"
        raise InputError(directory, f"results of {stage}", found, "check the directory, or run the stage first")
    report.count("files verified", 0)
    if ledger.altered:
        take_altered()  # which would be a warning beside
        advice = "run the same command without --verify to make again what it does not tell of any more"
        report.fail(
            InputError(ledger.path, f"the lines that {stage} wrote", f"{ledger.describe_altered()} altered", advice)
        )
    spoilt = []
    for line in ledger.entries.values():
        outputs = read_outputs(line)
        coming = [output for output in outputs if not output.digest]
        if coming:
            wanted = f"{len(coming):,} more files of {line.input}, such as {coming[0].name}"
            advice = "run the same command without --verify to go on"
            report.fail(InputError(directory, wanted, "a run that was broken off", advice))
        noted = [output for output in outputs if output.digest]
        damaged = [output for output in noted if not holds(directory, output)]
        report.count("files verified", len(noted) - len(damaged))
        for output in damaged:
            path = directory / output.name
            found = (
                "other content" if path.is_file() else "another thing of that name" if path.exists() else "no such file"
            )
            advice = "run the same command without --verify to make it again"
            report.fail(InputError(path, f"the {output.size:,} bytes that {stage} wrote", found, advice))
        if damaged:
            spoilt.append(replace(line, state=SPOILT))
    with contextlib.suppress(OSError):  # an archive may be read-only
        ledger.append(spoilt)
