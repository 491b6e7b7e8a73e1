"""Cut every volume of a directory into sections: grey uint8 TIFFs along its planes xy (0), xz (1) and yz (2).

Reads:   volumes in VOLDIR: TIFF stacks, MRC (.mrc .map .rec .st .mrcs, also .gz .bz2), NRRD, NIfTI, HDF5, OME-Zarr, N5,
         precomputed, DM3, DM4, SER, EMD, and each sub-directory of equally sized 2D slices, taken in natural order; or
         those on servers and elsewhere that VOLDIR, a text or csv file, names a line each.
Writes:  SAVEDIR/{volume}-LOC-{plane}_{index}.tiff, the index padded with zeros so that names sort by place; with
         --pixel-size, rows and columns are brought to it, and indices stay those of the volume.
Example: python raw/cross_section3d.py corpus/volumes work/cross_section3d
"""

from __future__ import annotations

import emcurate.start  # noqa: F401 - before all that takes its time to load

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from emcurate import cli
from emcurate.addresses import Place
from emcurate.errors import InputError
from emcurate.files import make_output_directory
from emcurate.images.resampling import Scale
from emcurate.images.sections import encode_section
from emcurate.outputs import Output
from emcurate.running.jobs import Workers
from emcurate.running.ledger import Ledger
from emcurate.running.report import Report
from emcurate.running.sources import Source
from emcurate.volumes.corpus import fingerprint_sources, refuse_results_among
from emcurate.volumes.cut_settings import HowToCut
from emcurate.volumes.scratch import make_batches
from emcurate.volumes.section_source import OpenJob, find_volumes_to_cut, open_volume_to_cut
from emcurate.volumes.sections import choose_planes, dataset_of, divide, find_plane_factors, wanted_boxes
from emcurate.volumes.slabs import NotesBeside, Slab, describe_volume, ready_to_cut, suits_threads
from emcurate.writing import TakenError, write_files

STAGE = "cross_section3d"


@dataclass(frozen=True)
class CutJob:
    """Some sections to write."""

    slab: Slab
    savedir: Path
    replace: bool

    @property
    def path(self) -> Place:
        return self.slab.volume.path


def cut_sections(job: CutJob) -> tuple[list[Output], int]:
    """Write the sections of a job; return all of them and how many were not there yet."""
    files = ((f"{section.stem}.tiff", encode_section(pixels)) for section, pixels in job.slab.sections())
    try:
        return write_files(job.savedir, files, overwrite=job.replace)
    except TakenError as error:
        # Named after the volume, not the section: else every job of it would add a line of its own.
        expected = f"no sections of {job.slab.volume.name} in {job.savedir}, or the ones this run would write"
        raise InputError(job.path, expected, "others of the same name", error.advice) from None


def run(
    voldir: Place,
    savedir: Path,
    *,
    sections: HowToCut = HowToCut(),
    scale: Scale = Scale(),
    prefer: str | None = None,
    overwrite: bool = False,
    prune: bool = False,
    workers: Workers = Workers(),
) -> Report:
    """Cut every volume of `voldir`; see the module's docstring."""
    report = Report(STAGE)
    refuse_results_among(voldir, savedir)
    corpus = find_volumes_to_cut(voldir, savedir, report, sections, scale, prefer)
    make_output_directory(savedir)
    notes = NotesBeside()
    volumes = {source.name: source for source in corpus.sources}
    said_of_all = {"axes": sections.axes, "voxel_size": None}
    sources = {
        name: Source(
            volumes[name].path, found, name, settings={**said_of_all, **volumes[name].settings()}, is_read_on=True
        )
        for name, found in fingerprint_sources(corpus.sources, report).items()
    }
    parameters = {"spacing": sections.spacing, "anisotropy": sections.anisotropy, **asdict(sections.rescale)}
    parameters |= scale.settings
    ledger = Ledger(savedir, STAGE, parameters, product="sections", owner_of=dataset_of)
    plan = ledger.plan(sources, report, root=voldir, named=corpus.named, overwrite=overwrite, prune=prune)
    report.count("sections written", 0)
    report.count("volumes already done", len(plan.done))
    opening = [OpenJob(volumes[key], sections, scale) for key in plan.todo]
    opened = {volume.name: volume for _, volume in workers.run(open_volume_to_cut, opening, report, unit="volume")}
    for batch in make_batches(opened[key] for key in plan.todo if key in opened):
        planes = {volume.path: choose_planes(volume, sections.axes, sections.anisotropy, report) for volume in batch}
        made: dict[str, list[tuple[list[Output], int]]] = {}
        wanted = {volume.path: wanted_boxes(volume, planes[volume.path], sections.spacing) for volume in batch}
        with ready_to_cut(batch, planes, sections.rescale, savedir, report, workers, wanted=wanted) as ready:
            limits = {volume.name: found for volume, found in ready}
            factors = {volume.path: find_plane_factors(volume, planes[volume.path], scale) for volume in batch}
            jobs = [
                CutJob(
                    Slab(volume, plane, indices, found, factors[volume.path][plane]),
                    savedir,
                    ledger.replaces(volume.name),
                )
                for volume, found in ready
                if found is not None
                for plane, indices in divide(volume, planes[volume.path], sections.spacing)
            ]
            in_threads = suits_threads([volume for volume, _ in ready])
            missing = Counter(job.slab.volume.name for job in jobs)
            for job, cut in workers.run(cut_sections, jobs, report, unit="slab", in_threads=in_threads):
                made.setdefault(job.slab.volume.name, []).append(cut)
                missing[job.slab.volume.name] -= 1
        for volume, _ in ready:
            if missing[volume.name]:
                continue
            slabs = made.pop(volume.name, [])
            outputs = sorted(output for outputs, _ in slabs for output in outputs)
            written = sum(written for _, written in slabs)
            ledger.finish(volume.name, outputs, describe_volume(volume, limits[volume.name], notes, scale))
            report.count("sections written", written)
            if written < len(outputs):
                report.count("sections already there", len(outputs) - written)
            report.count("volumes cut")
    return report


def build_parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    parser = cli.make_parser(__doc__, "cross_section3d.py")
    cli.add_volumes_argument(parser)
    parser.add_argument("savedir", type=cli.output_directory, metavar="SAVEDIR", help="directory for the sections")
    cli.add_section_flags(parser, "sections")
    cli.add_scale_flags(parser)
    cli.add_prefer_flag(parser)
    cli.add_ledger_flags(parser, "savedir")
    cli.add_job_flags(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the script; return its exit status."""
    return cli.run_stage(run, build_parser(), argv)


if __name__ == "__main__":
    sys.exit(main())
