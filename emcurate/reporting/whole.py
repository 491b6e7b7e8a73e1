"""The report of a run, from what lies in its directory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from emcurate import __version__
from emcurate.outputs import digest_bytes, digest_file
from emcurate.patches.decided import read_threshold
from emcurate.patches.joined import JOINED_NAME
from emcurate.reporting.advice import advise
from emcurate.reporting.page import REPORT_NAME, ReportedRun, is_report, write_page
from emcurate.reporting.summary import summarize


def write_report(
    run: ReportedRun, exemplars: Path, kept: Path, selected: Path, decided: Path, sheets: Mapping[str, str]
) -> Path | None:
    """Write the report of a run; return where it is, None if no patch has been cut yet.

    Parameters
    ----------
    run : ReportedRun
        What was done; `sheets`, `lists` and `next_steps` of it are filled in here.
    exemplars, kept, selected : Path
        The path lists of the exemplars, of the informative patches and of those selected, there or not.
    decided : Path
        The table of what was decided of patches, there or not.
    sheets : mapping of str to str
        Titles of pictures that stages draw, and where they are below the run's directory, if they are.

    Raises
    ------
    InputError
        If the table of all patches is damaged, or another file bears the report's name.
    """
    table = run.out / JOINED_NAME
    if not table.is_file():
        return None
    # A run that found nothing to do has nothing to tell: what the run before said of times and warnings stays.
    words = [__version__, run.out.name, *run.failures]
    state = digest_bytes("\n".join([digest_file(table), *words]).encode(errors="surrogateescape"))
    if is_report(run.out / REPORT_NAME, state):
        return run.out / REPORT_NAME
    summary = summarize(table)
    drawn = {title: run.out / name for title, name in sheets.items() if (run.out / name).is_file()}
    steps = advise(summary, exemplars, kept, selected, has_failed=bool(run.failures))
    threshold = read_threshold(decided) if decided.is_file() and summary.scores.any() else None
    return write_page(
        replace(run, state=state, sheets=drawn, lists=[exemplars, kept], next_steps=steps), summary, threshold
    )
