"""Draw cubes at random from volumes too large to take whole, and save each as a small volume.

Reads:   volumes in SOURCES: a directory, a text file of one address or path a line, a csv file with the columns address
         and, if need be, name, level, channel, time, invert, padding, voxel_size; or one address or path by itself.
Writes:  OUTDIR/{volume}-ROI-{z}_{y}_{x}.nrrd, the cube that begins with that voxel of the volume, with its voxel size.
Example: python preprocess/sample_rois.py sources.csv work/rois --gb 2

Cubes are spread over each volume and never overlap. One is left out if less than --min-fraction of it is no padding,
which the coarsest level tells before anything is read. The budget is shared evenly: what a small volume cannot give,
the others do. The same seed gives the same cubes on any machine; a larger budget adds cubes to those that are there.
"""

from __future__ import annotations

import emcurate.start  # noqa: F401 - before all that takes its time to load

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from emcurate import cli, naming
from emcurate.addresses import Place
from emcurate.errors import InputError
from emcurate.files import make_output_directory
from emcurate.images.origins import VOLUME
from emcurate.outputs import Output, note_output
from emcurate.running.claims import describe_raw
from emcurate.running.jobs import Workers
from emcurate.running.ledger import Ledger
from emcurate.running.ledger_lines import DONE
from emcurate.running.report import Report
from emcurate.running.sources import Source
from emcurate.running.spelled_paths import path_as_text
from emcurate.volumes.corpus import find_volumes, fingerprint_sources, refuse_results_among
from emcurate.volumes.formats.nrrd import encode_box
from emcurate.volumes.layouts import invert
from emcurate.volumes.regions import (
    SPARE_CUBES,
    Survey,
    SurveyJob,
    choose_cubes,
    next_cubes,
    read_region,
    share,
    survey,
)
from emcurate.volumes.sampling import Region, as_settings
from emcurate.volumes.scratch import all_unpacked
from emcurate.volumes.sources import VolumeSource
from emcurate.volumes.views import View
from emcurate.volumes.volume import VOLUMES
from emcurate.writing import write_once

STAGE = "sample_rois"
SIZE = 256  # voxels a side: room for a patch of 224 along any axis
COUNT = 100  # cubes in all
MIN_FRACTION = 0.7  # of a cube that is no padding
PADDING = (0.0,)  # grey values that stand for nothing

# What the names of cubes have more than those of their volumes, at most.
MOST_ADDED = "-ROI-000000_000000_000000"


@dataclass(frozen=True)
class CubeJob:
    """One cube to save; its key is the name of the dataset that it becomes."""

    key: str
    survey: Survey
    region: Region
    file: Path
    min_fraction: float
    inverted: bool
    replace: bool

    @property
    def path(self) -> Place:
        return self.survey.volume.path


def save_cube(job: CubeJob) -> tuple[Output, bool] | None:
    """Write a cube; return what was written, and whether it was not there yet; None if it is mostly padding."""
    voxels = read_region(job.survey, job.region, job.min_fraction)
    if voxels is None:
        return None
    size = job.survey.volume.voxel_size_nm
    data = encode_box(invert(voxels) if job.inverted else voxels, size, job.region.start)
    written = write_once(job.file, data, overwrite=job.replace)
    return note_output(job.file, job.file.parent, data), written


def key_of(name: str) -> str | None:
    """Return the ledger's key of a cube by its file name, None if it is none."""
    stem, _, extension = name.rpartition(".")
    try:
        return naming.parse_region(stem).stem if extension == "nrrd" else None
    except naming.GrammarError:
        return None


def run(
    sources: Place,
    outdir: Path,
    *,
    size: int = SIZE,
    count: int = COUNT,
    gb: float | None = None,
    seed: int = 0,
    min_fraction: float = MIN_FRACTION,
    padding: Sequence[float] = PADDING,
    invert: bool = False,
    view: View = View(),
    overwrite: bool = False,
    prune: bool = False,
    workers: Workers = Workers(),
) -> Report:
    """Draw cubes from every volume of `sources`; see the module's docstring."""
    report = Report(STAGE)
    refuse_results_among(sources, outdir)
    corpus = find_volumes(sources, report, exclude=[outdir], view=replace(view, inverted=invert))
    if not corpus.sources and not report.failures and isinstance(sources, Path):
        raise InputError(sources, "volumes", describe_raw(sources), "name a directory of volumes, or a list of them")
    make_output_directory(outdir)
    parameters = {"size": size, "seed": seed, "min_fraction": min_fraction}
    ledger = Ledger(outdir, STAGE, parameters, product=VOLUMES, owner_of=key_of)
    fingerprints = fingerprint_sources(corpus.sources, report)
    for source in corpus.sources:
        try:
            naming.check_length(f"{source.name}{MOST_ADDED}")
        except naming.GrammarError as error:
            report.fail(InputError(source.path, error.expected, error.found, "give it a shorter name"))
            fingerprints.pop(source.name, None)
    of_name = {source.name: source for source in corpus.sources if source.name in fingerprints}
    jobs = [
        SurveyJob(source, size, seed, min_fraction, source.padding or tuple(padding), count + SPARE_CUBES, gb)
        for source in of_name.values()
    ]
    surveys = [found for _, found in workers.run(survey, jobs, report, unit="volume")]
    surveys.sort(key=lambda found: list(of_name).index(found.volume.name))
    shares = share(surveys, count, gb)
    made = {key: line.made_anything for key, line in ledger.entries.items() if line.state == DONE}
    cubes = {
        key: (found.volume.name, region)
        for found in surveys
        for key, region in choose_cubes(found, shares[found.volume.name], made).items()
    }
    of_volume = {found.volume.name: found for found in surveys}
    described = {key: describe(of_name[name], fingerprints[name], of_volume[name]) for key, (name, _) in cubes.items()}
    plan = ledger.plan(described, report, root=sources, named=corpus.named, overwrite=overwrite, prune=prune)
    # What is known of cubes already: noted with a file, or, as padding, without.
    accepted = Counter(dict.fromkeys(shares, 0))
    accepted.update(cubes[key][0] for key in plan.done if ledger.outputs_of(key))
    report.count("cubes written", 0)
    report.count("cubes already done", accepted.total())
    packed = [
        found.volume
        for found in surveys
        if found.volume.sequential and accepted[found.volume.name] < shares[found.volume.name]
    ]
    with all_unpacked(packed, outdir, report, workers) as ready:
        copies = {volume.name: volume for volume in ready}
        waiting = [
            key for key in plan.todo if cubes[key][0] in copies or not of_volume[cubes[key][0]].volume.sequential
        ]
        while todo := next_cubes(waiting, cubes, shares, accepted):
            waiting = [key for key in waiting if key not in set(todo)]
            jobs_of_round = []
            for key in todo:
                name, region = cubes[key]
                found = replace(of_volume[name], volume=copies.get(name, of_volume[name].volume))
                inverted = of_name[name].view.inverted
                jobs_of_round.append(
                    CubeJob(key, found, region, outdir / f"{key}.nrrd", min_fraction, inverted, ledger.replaces(key))
                )
            for job, saved in workers.run(save_cube, jobs_of_round, report, unit="cube"):
                ledger.finish(job.key, [] if saved is None else [saved[0]], details(job))
                accepted[job.survey.volume.name] += saved is not None
                report.count("cubes left out as padding" if saved is None else "cubes written")
    for name, found in of_volume.items():
        if accepted[name] < shares[name] or not shares[name]:
            report.note(
                f"{found.volume.path}: {accepted[name]:,} cubes; {len(found.regions):,} seemed to be no padding"
            )
    if gb is None and sum(shares.values()) < count:
        report.note(
            f"{sum(shares.values()):,} cubes of the {count:,} wanted: there are no more of {size} voxels a side"
        )
    return report


def describe(source: VolumeSource, fingerprint: str, found: Survey) -> Source:
    """Return a cube as the ledger sees it: a part of its volume."""
    settings = {**source.settings(), "padding": as_settings(found.padding), "voxel_size": found.volume.voxel_size_nm}
    return Source(source.path, fingerprint, source.name, settings=settings, is_part=True, is_read_on=True)


def details(job: CubeJob) -> dict[str, Any]:
    """Return what later stages want to know of a cube."""
    source = path_as_text(job.survey.volume.path)
    region = {"source": source, "dataset": job.survey.volume.name, "start": list(job.region.start)}
    return {"kind": VOLUME, "region_of": region}


def check_arguments(parser: argparse.ArgumentParser, arguments: dict[str, Any]) -> None:
    """End the program if the arguments do not fit together."""
    if arguments["count"] is None:
        arguments["count"] = COUNT
    elif arguments["gb"] is not None:
        parser.error("argument --gb: expected no --count, which is a budget too")


def build_parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    parser = cli.make_parser(__doc__, "sample_rois.py")
    parser.add_argument(
        "sources", type=cli.existing_volumes, metavar="SOURCES", help="directory or list of volumes, or one of them"
    )
    parser.add_argument("outdir", type=cli.output_directory, metavar="OUTDIR", help="directory for the cubes")
    parser.add_argument(
        "--size", type=cli.positive_int, default=SIZE, metavar="VOXELS", help="side of a cube (default: %(default)s)"
    )
    budget = parser.add_argument_group("budget", "of all sources, which share it evenly")
    budget.add_argument("--count", type=cli.positive_int, metavar="N", help=f"cubes in all (default: {COUNT})")
    budget.add_argument("--gb", type=cli.positive_float, metavar="G", help="gigabytes in all (10^9 bytes of voxels)")
    parser.add_argument(
        "--seed", type=cli.natural_int, default=0, metavar="N", help="what is drawn (default: %(default)s)"
    )
    parser.add_argument(
        "--min-fraction",
        type=cli.fraction,
        default=MIN_FRACTION,
        metavar="PART",
        help="of a cube that must be no padding (default: %(default)s)",
    )
    parser.add_argument(
        "--padding",
        nargs="+",
        type=float,
        default=PADDING,
        metavar="VALUE",
        help="grey values that stand for nothing, where a list says no others of a volume (default: 0), beside NaN",
    )
    parser.add_argument(
        "--invert", action="store_true", help="exchange black and white, as a list may say of one volume"
    )
    cli.add_view_flags(parser)
    cli.add_ledger_flags(parser, "outdir")
    parser.set_defaults(check_arguments=check_arguments)
    cli.add_job_flags(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the script; return its exit status."""
    return cli.run_stage(run, build_parser(), argv)


if __name__ == "__main__":
    sys.exit(main())
