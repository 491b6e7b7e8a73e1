"""Checking that the same inputs give the same results: against a datasheet, before a run and after it."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from emcurate.errors import InputError
from emcurate.files import describe_content, is_there, make_output_directory
from emcurate.partials import partial_path
from emcurate.reporting.facts import Facts
from emcurate.reporting.inputs import digest_inputs, is_address
from emcurate.reporting.provenance import find_commit, find_versions
from emcurate.reporting.results import Made, digest_results, read_ledgers_of
from emcurate.running.jobs import Workers
from emcurate.running.report import Report
from emcurate.running.spelled_paths import path_of_text


def check_inputs(facts: Facts, report: Report, workers: Workers) -> bool:
    """Report every input that is not what it was; return whether all are."""
    now = digest_inputs([each.path for each in facts.inputs], [], report, workers)
    same = True
    for before, after in zip(facts.inputs, now, strict=True):
        path = Path(path_of_text(before.path))
        if is_address(before.path) or not before.sha256:
            report.warn(f"{before.path}: its content was not read when the datasheet was written, and is not compared")
        elif not is_there(path):
            same = False
            report.fail(InputError(path, "an input of the run", "nothing there", "bring it back"))
        elif after.sha256 != before.sha256:
            same = False
            expected, found = (
                f"the {before.size:,} bytes of SHA-256 {before.sha256}",
                f"{after.size:,} of {after.sha256}",
            )
            report.fail(InputError(path, expected, found, "bring back the input that the datasheet tells of"))
        else:
            report.count("inputs as they were")
    return same


def warn_of_other_versions(facts: Facts, report: Report) -> None:
    """Warn of versions that are not those of the run: results may differ by them."""
    now = {**find_versions(), "commit": find_commit() or "unknown"}
    before = {**facts.versions, "commit": facts.commit or "unknown"}
    for name in sorted(before.keys() | now.keys()):
        if before.get(name) != now.get(name):
            report.warn(f"{name} was {before.get(name, 'not there')}, and is {now.get(name, 'not there')}")


@contextlib.contextmanager
def scratch_directory(wanted: Path | None, beside: Path) -> Iterator[Path]:
    """Give an empty directory: the one that is wanted, which stays, or else one beside another, which is removed.

    Raises
    ------
    InputError
        If the wanted one is not empty, or none can be made.
    """
    if wanted is not None:
        make_output_directory(wanted)
        if any(wanted.iterdir()):
            raise InputError(wanted, "an empty directory", describe_content(wanted), "name another --out")
        yield wanted
        return
    scratch = partial_path(make_output_directory(beside.parent))
    try:
        yield make_output_directory(scratch)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def compare_results(facts: Facts, out: Path, stages: Mapping[str, Path], report: Report, advice: str) -> None:
    """Report every stage and dataset of which another run has made something else."""
    made = digest_results(out, read_ledgers_of(stages))
    for stage in dict.fromkeys([*facts.results, *made]):
        before, after = facts.results.get(stage, {}), made.get(stage, {})
        for dataset in sorted(before.keys() | after.keys()):
            if before.get(dataset) == after.get(dataset):
                report.count("datasets of a stage with the same bytes")
            else:
                expected = _describe(before.get(dataset), f"of {stage}, as the datasheet tells")
                found = _describe(after.get(dataset), "other ones" if dataset in before and dataset in after else "")
                report.fail(InputError(f"{stage}: {dataset}", expected, found, advice))


def _describe(made: Made | None, words: str) -> str:
    return f"{made.files:,} files, {made.size:,} bytes, {words}".rstrip(", ") if made else "nothing"
