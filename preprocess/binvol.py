"""Bin every volume of a directory: fewer, larger voxels, each the mean of the block that it covers.

Reads:   volumes in VOLDIR, whatever raw/cross_section3d.py reads.
Writes:  OUTDIR/{volume}.tif, with its new voxel size; .nrrd or .mrc with --format.
Example: python preprocess/binvol.py corpus/volumes work/binned --factor 2

With --pixel-size, blocks may end within voxels, which then count by the part of them that lies in the block; sections
that are thicker already keep their thickness. What is less than a new voxel at the far edges is dropped. uint8, int16,
uint16 and float32 stay what they are; int8 becomes int16, bits grey of 0 to 255, other types float32.
"""

from __future__ import annotations

import emcurate.start  # noqa: F401 - before all that takes its time to load

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emcurate import cli
from emcurate.addresses import Place
from emcurate.files import make_output_directory
from emcurate.images.origins import VOLUME
from emcurate.images.resampling import Scale
from emcurate.outputs import Output, note_output
from emcurate.partials import partial_path
from emcurate.running.jobs import Workers
from emcurate.running.ledger import Ledger
from emcurate.running.report import Report
from emcurate.running.sources import Source
from emcurate.volumes.binning import Binning, binned_shape, binned_size, binned_type, iter_binned_planes
from emcurate.volumes.corpus import fingerprint_sources, refuse_results_among
from emcurate.volumes.cut_settings import HowToCut, VoxelSize
from emcurate.volumes.formats import FORMATS, write_stack
from emcurate.volumes.layouts import describe_shape
from emcurate.volumes.section_source import find_volumes_to_cut
from emcurate.volumes.slabs import NotesBeside
from emcurate.volumes.sources import VolumeSource
from emcurate.volumes.views import View
from emcurate.volumes.volume import VOLUMES
from emcurate.writing import move_once

STAGE = "binvol"
FACTOR = 2  # voxels a side of a block


@dataclass(frozen=True)
class BinJob:
    """One volume to bin."""

    source: VolumeSource
    binned: Path
    format: str
    binning: Binning
    replace: bool

    @property
    def path(self) -> Place:
        return self.source.path

    @property
    def key(self) -> str:
        """The volume's key in the ledger: the name of what it becomes."""
        return self.binned.name


def bin_volume(job: BinJob) -> tuple[bool, Output, str]:
    """Write one volume's means; return whether they were not there yet, what they are, and what was done."""
    volume = job.source.open()
    factors = job.binning.factors(volume)
    size, shape = binned_size(volume, factors), binned_shape(volume, factors)
    expected_bytes = shape[0] * shape[1] * shape[2] * binned_type(volume.dtype).itemsize
    label = f"emcurate {STAGE}: means of {' x '.join(f'{factor:g}' for factor in factors)} voxels (z, y, x)"
    partial = partial_path(job.binned.parent)
    try:
        write_stack(partial, iter_binned_planes(volume, factors), job.format, size, label, expected_bytes)
        written = move_once(partial, job.binned, overwrite=job.replace)
    finally:
        partial.unlink(missing_ok=True)
    of = "unknown size" if size is None else " x ".join(f"{side:g}" for side in size) + " nm"
    said = f"{volume.name}: {describe_shape(volume.shape)} voxels to {describe_shape(shape)} of {of} (z, y, x)"
    return written, note_output(job.binned, job.binned.parent), said


def run(
    voldir: Place,
    outdir: Path,
    *,
    factor: Sequence[int] | None = None,
    pixel_size: float | None = None,
    format: str = FORMATS[0],
    voxel_size: Sequence[float] | None = None,
    voxel_sizes: tuple[tuple[str, VoxelSize], ...] = (),
    view: View = View(),
    prefer: str | None = None,
    overwrite: bool = False,
    prune: bool = False,
    workers: Workers = Workers(),
) -> Report:
    """Bin every volume of `voldir`; see the module's docstring."""
    report = Report(STAGE)
    refuse_results_among(voldir, outdir)
    size = None if voxel_size is None else (voxel_size[0], voxel_size[1], voxel_size[2])
    z, y, x = factor if factor and len(factor) == 3 else 3 * [factor[0] if factor else FACTOR]
    binning = Binning(pixel_size_nm=pixel_size) if pixel_size else Binning((z, y, x))
    said = HowToCut(voxel_size=size, view=view, voxel_sizes=voxel_sizes)
    corpus = find_volumes_to_cut(voldir, outdir, report, said, Scale(pixel_size), prefer)
    make_output_directory(outdir)
    notes = NotesBeside()
    volumes = {f"{source.name}.{format}": source for source in corpus.sources}
    fingerprints = fingerprint_sources(corpus.sources, report)
    sources = {
        key: Source(source.path, fingerprints[source.name], key, settings=source.settings(), is_read_on=True)
        for key, source in volumes.items()
        if source.name in fingerprints
    }
    how: dict[str, Any] = {"pixel_size": pixel_size} if pixel_size else {"factor": [z, y, x]}
    ledger = Ledger(outdir, STAGE, {"format": format, **how}, product=VOLUMES, owner_of=lambda name: name)
    plan = ledger.plan(sources, report, root=voldir, named=corpus.named, overwrite=overwrite, prune=prune)
    report.count("volumes binned", 0)
    report.count("already done", len(plan.done))
    todo = [BinJob(volumes[key], outdir / key, format, binning, ledger.replaces(key)) for key in plan.todo]
    for job, (written, output, words) in workers.run(bin_volume, todo, report, unit="volume"):
        made = notes.origin(job.path)
        ledger.finish(job.key, [output], {"kind": VOLUME if made is None else made.details.get("kind", VOLUME)})
        report.count("volumes binned" if written else "already there")
        report.note(words)
    return report


def check_arguments(parser: argparse.ArgumentParser, arguments: dict[str, Any]) -> None:
    """End the program if the arguments do not fit together."""
    factor = arguments["factor"]
    if factor and len(factor) not in (1, 3):
        parser.error(f"argument --factor: expected one number, or three for z, y and x, found {len(factor)}")


def build_parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    parser = cli.make_parser(__doc__, "binvol.py")
    cli.add_volumes_argument(parser)
    parser.add_argument("outdir", type=cli.output_directory, metavar="OUTDIR", help="directory for the binned volumes")
    how = parser.add_mutually_exclusive_group()
    how.add_argument(
        "--factor",
        nargs="+",
        type=cli.positive_int,
        metavar="N",
        help=f"voxels a side of a block, or three numbers for z, y and x (default: {FACTOR})",
    )
    how.add_argument("--pixel-size", type=cli.positive_float, metavar="NM", help="side of the new voxels in nm")
    parser.add_argument(
        "--format", choices=FORMATS, default=FORMATS[0], help="format of the volumes (default: %(default)s, for ImageJ)"
    )
    cli.add_voxel_size_flag(parser)
    cli.add_view_flags(parser)
    cli.add_prefer_flag(parser)
    cli.add_ledger_flags(parser, "outdir")
    parser.set_defaults(check_arguments=check_arguments)
    cli.add_job_flags(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the script; return its exit status."""
    return cli.run_stage(run, build_parser(), argv)


if __name__ == "__main__":
    sys.exit(main())
