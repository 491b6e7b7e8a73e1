"""The measures of the patches of a list: from the tables beside them, or else from their pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from emcurate.errors import InputError, describe_os_error
from emcurate.patches.listing import Listing
from emcurate.patches.measures import MEASURES, measure_patch
from emcurate.patches.reading import read_patch
from emcurate.patches.tables import measures_of, round_as_tables
from emcurate.running.jobs import Workers
from emcurate.running.report import Report

# Patches read and measured in a job: a fraction of a second.
MEASURED_AT_ONCE = 500

# What to ask tables for, to be handed to `read_measures`.
COLUMNS = ("dataset", *MEASURES)


@dataclass(frozen=True)
class MeasureJob:
    """Some patches to measure; `rows` are theirs in a listing."""

    rows: npt.NDArray[np.int64]
    paths: tuple[str, ...]

    @property
    def path(self) -> str:
        """The first of them, which stands for all in messages."""
        return self.paths[0]


def read_measures(listing: Listing, report: Report, workers: Workers) -> npt.NDArray[np.float64]:
    """Return the measures of listed patches, (n, 5) float64; of those that cannot be read, which are reported, NaN.

    Parameters
    ----------
    listing : Listing
        Made with `COLUMNS`.
    report : Report
    workers : Workers
    """
    found = measures_of(listing.table)
    assert found is not None
    unknown = np.flatnonzero(np.isnan(found[:, 0]))
    jobs = [
        MeasureJob(rows, tuple(map(listing.path, rows.tolist())))
        for rows in np.split(unknown, range(MEASURED_AT_ONCE, len(unknown), MEASURED_AT_ONCE))
        if len(rows)
    ]
    if len(unknown):
        report.note(f"{len(unknown):,} patches without measures in a table were read and measured")
    for job, (measures, problems) in workers.run(measure_some, jobs, report, unit="chunk"):
        found[job.rows] = measures
        report.fail_all(problems)
    return found


def measure_some(job: MeasureJob) -> tuple[npt.NDArray[np.float64], list[str]]:
    """Return the measures of some patches, and why others cannot be read."""
    found, problems = np.full((len(job.paths), len(MEASURES)), np.nan), []
    for row, path in enumerate(job.paths):
        try:
            found[row] = list(measure_patch(read_patch(path)).values())
        except InputError as error:
            problems.append(str(error))
        except OSError as error:
            problems.append(str(describe_os_error(error, path)))
    return round_as_tables(found), problems
