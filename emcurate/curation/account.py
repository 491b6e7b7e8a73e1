"""What a run of curate.py leaves beside the stages' results: the table of all patches, datasheets, the report."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from emcurate.cli import Arguments
from emcurate.curation.plan import CLASSIFIER, DECISIONS, KINDS, directories_in, find_decisions
from emcurate.errors import InputError
from emcurate.patches.joined import Results
from emcurate.patches.selected import SELECTED_FILE
from emcurate.reporting.account import open_ledger, write_account
from emcurate.reporting.datasheet import Run, write_datasheets
from emcurate.reporting.inputs import list_beside
from emcurate.reporting.page import ReportedRun, StageRun
from emcurate.reporting.whole import write_report
from emcurate.running.jobs import Workers
from emcurate.running.report import Report

# What may be run beside, of which the account tells: into directories of these names.
SELECTION = "select_diverse"
BESIDE = ("embed", SELECTION)

# Pictures that stages draw, for the report: their titles, and where they are in OUT.
SHEETS = {
    "Patches that are near-duplicates of another set's": "deduplicate/leaks.png",
    "Pairs of patches that are only just near-duplicates": "deduplicate/preview.png",
    "How well the classifier tells patches apart (ROC)": "train_nn/patch_quality_nn_roc_curve.png",
    "What the classifier got wrong": "train_nn/patch_quality_nn_mistakes.png",
    "What the measures left out and kept": "filter_measures/measures_filtered.png",
    "What was selected of clusters": f"{SELECTION}/diverse_clusters.png",
}


def give_account(a: Arguments, report: Report) -> bool:
    """Write the table of all patches and the datasheets, as far as the stages have come; return whether there is one.

    What is wrong with them stops nothing.
    """
    accounted = False
    selected = a.out / SELECTION / SELECTED_FILE
    results = Results((a.out / "crop_patches",), a.out / "deduplicate", find_decisions(a)[0], selected)
    if results.files():
        among_inputs = any(getattr(a, kind) == a.out for kind in KINDS)
        try:
            ledger = open_ledger(a.out, report.stage, among_inputs=among_inputs)
            write_account(ledger, results, report, overwrite=bool(a.stage_overwrite))
            accounted = True
            this = Run(
                report.stage, "curate.py", a.command, directories_in(a.out), list_read(a), a.licences,
                contents=not a.no_input_digests,
            )  # fmt: skip
            write_datasheets(ledger, this, report, workers_of(a), overwrite=bool(a.stage_overwrite))
        except InputError as error:
            report.fail(error)
    return accounted


def list_read(a: Arguments) -> tuple[Path, ...]:
    """Return what stages have read beside images, volumes and videos."""
    against = [Path(a.stage_against).absolute()] if a.stage_against else []
    return (*list_beside(a.labels, a.weights), *against)


def draw_report(a: Arguments, ran: list[StageRun], report: Report) -> None:
    """Write the report of this run beside the table of all patches; what is wrong with it stops nothing."""
    exemplars = a.out / "deduplicate" / "deduplicated_fpaths.npz"
    decided, kept = find_decisions(a)
    selected = a.out / SELECTION / "diverse_fpaths.npz"
    command = shlex.join(["python", "curate.py", *a.command.typed()])
    this = ReportedRun(a.out, command, ran, report.failures)
    try:
        page = write_report(this, exemplars, kept, selected, decided, SHEETS)
    except InputError as error:
        report.fail(error)
    else:
        if page is not None:
            report.note(f"look at {page}")


def lacks_judge(a: Arguments, ran: Sequence[StageRun]) -> bool:
    """Return whether the classifier has judged nothing, for want of any: the published one was not to be had."""
    was_run = any(stage.stage == "classify_nn" for stage in ran)
    return was_run and not (a.labels or a.weights) and not (a.out / DECISIONS[CLASSIFIER]).exists()


def workers_of(a: Arguments) -> Workers:
    """Return who does what this script does itself."""
    return Workers(int(a.stage_processes)) if getattr(a, "stage_processes", None) else Workers()
