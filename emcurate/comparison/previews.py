"""A preview of deduplication: what several distances would give, in numbers and in a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from emcurate.comparison.sheets import draw_sheets, show_trials
from emcurate.files import make_output_directory
from emcurate.outputs import Output
from emcurate.patches.covering import Comparison
from emcurate.patches.duplicates import Cover
from emcurate.patches.preview import Trial, spell_trials
from emcurate.running.ledger import Ledger
from emcurate.running.sources import Source

# It is no result of deduplication: it has a ledger of its own.
PREVIEW_STAGE, PREVIEW = "preview", "preview.png"

ALL = "/"  # the ledger's key of what is made of all datasets


def look_ahead(comparison: Comparison, savedir: Path, distances: Sequence[int]) -> None:
    """Say in the report what several distances would give, and draw pairs at the border; nothing else is written."""
    report, patchdir = comparison.report, comparison.patchdir
    parameters = {"distances": distances, **comparison.parameters}
    make_output_directory(savedir)
    ledger = Ledger(savedir, PREVIEW_STAGE, parameters, product="preview", owner_of={PREVIEW: ALL}.get, one_root=True)
    sources = {ALL: Source(patchdir, comparison.state, ALL)}
    plan = ledger.plan(sources, report, root=patchdir, renew=True)
    report.count("patches", 0)
    if plan.done:
        details = ledger.details_of(ALL)
        report.count("patches", details["patches"])
        report.notes += details["lines"]
        report.notes += [f"look at pairs at the border: {savedir / output.name}" for output in ledger.outputs_of(ALL)]
        return
    trials = {distance: Trial(distance) for distance in distances}
    covers = {distance: Cover(distance, comparison.workers.cores) for distance in distances}
    for some in comparison.read(comparison.datasets):
        report.count("patches", sum(len(read.words) for _, read in some))
        for distance, trial in trials.items():
            trial.add(comparison.cover([pair for pair in some if distance < pair[1].side ** 2], covers[distance]))
    lines = spell_trials([trial for trial in trials.values() if trial.patches])
    report.notes += lines
    written: dict[str, list[Output]] = {ALL: []}
    sheet = show_trials(savedir / PREVIEW, patchdir, [trial for trial in trials.values() if trial.pairs])
    undrawn = draw_sheets([(ALL, sheet)] if sheet.rows else [], written, (), ledger, report, comparison.workers)
    if not (undrawn or report.failures):
        ledger.finish(ALL, written[ALL], {"lines": lines, "patches": report.counts["patches"]})
