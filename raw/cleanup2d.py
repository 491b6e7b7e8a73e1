"""Turn every 2D image of a directory into a section: a grey uint8 TIFF.

Reads:   images (tif, png, jpg, bmp, webp, gif, jp2, ...) in IMDIR and in its sub-directories, one level deep.
         A sub-directory is a group: its images belong to one dataset, named after the directory.
Writes:  SAVEDIR/{image}-LOC-2d.tiff, or SAVEDIR/{group}-LOC-2d-{image}.tiff for an image of a group.
Example: python raw/cleanup2d.py corpus/images work/sections
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from emcurate import cli, naming
from emcurate.errors import InputError
from emcurate.files import (
    describe_content,
    describe_kinds,
    fingerprint,
    list_entries,
    list_files,
    make_output_directory,
    refuse_same_directory,
)
from emcurate.images.pixels import Rescale, to_uint8
from emcurate.images.reading import IMAGE_SUFFIXES, read_image
from emcurate.images.sections import write_section
from emcurate.running.claims import refuse_bad_names
from emcurate.running.jobs import Workers
from emcurate.running.ledger import Entry, Ledger
from emcurate.running.report import Report

STAGE = "cleanup2d"


@dataclass(frozen=True)
class ImageJob:
    """One image to convert."""

    path: Path
    section: Path
    rescale: Rescale
    overwrite: bool


def find_images(imdir: Path, savedir: Path) -> dict[Path, naming.ImageSection]:
    """List the images of a directory and of its sub-directories, `savedir` left out, with the sections they become."""
    found = {path: naming.ImageSection(naming.strip_extension(path.name)) for path in _list_images(imdir)}
    for group in list_entries(imdir):
        if group.is_dir() and group != savedir:
            for path in _list_images(group):
                found[path] = naming.ImageSection(group.name, naming.strip_extension(path.name))
    return found


def list_ignored(imdir: Path, savedir: Path) -> list[Path]:
    """List the files, in a directory and its sub-directories, that are no images by their extension."""
    directories = [imdir, *(entry for entry in list_entries(imdir) if entry.is_dir() and entry != savedir)]
    return [
        path
        for directory in directories
        for path in list_entries(directory)
        if path.is_file() and not path.name.lower().endswith(IMAGE_SUFFIXES)
    ]


def claim_names(path: Path, section: naming.ImageSection) -> list[tuple[str, Path]]:
    """Return the names an image would take: its dataset's, alone or for its group directory, and its own in there."""
    if section.image is None:
        return [(section.dataset, path)]
    return [(section.dataset, path.parent), (f"{section.dataset}/{section.image}", path)]


def convert_image(job: ImageJob) -> bool:
    """Write one image's section; return whether it was not there yet."""
    pixels = to_uint8(read_image(job.path), job.rescale, job.path)
    return write_section(job.section, pixels, overwrite=job.overwrite)


def run(
    imdir: Path,
    savedir: Path,
    *,
    rescale: Rescale = Rescale(),
    overwrite: bool = False,
    workers: Workers = Workers(),
) -> Report:
    """Convert every image of `imdir`; see the module's docstring."""
    report = Report(STAGE)
    refuse_same_directory(imdir, savedir)
    images = find_images(imdir, savedir)
    if not images:
        raise InputError(
            imdir,
            f"images ({', '.join(suffix[1:] for suffix in IMAGE_SUFFIXES[:9])}, ...)",
            describe_content(imdir),
            "name the directory that holds the images or their group directories",
        )
    if ignored := list_ignored(imdir, savedir):
        report.note(f"left alone, not images by their extension: {describe_kinds(ignored)}")
    make_output_directory(savedir)
    ledger = Ledger(savedir, STAGE)
    parameters: dict[str, Any] = asdict(rescale)
    claims = {path: claim_names(path, section) for path, section in images.items()}
    jobs = {
        str(path.relative_to(imdir)): ImageJob(path, savedir / f"{images[path].stem}.tiff", rescale, overwrite)
        for path in refuse_bad_names(claims, report)
    }
    fingerprints = {key: fingerprint(job.path) for key, job in jobs.items()}
    present = Counter(key for key, job in jobs.items() if job.section.exists())
    plan = ledger.plan(fingerprints, parameters, present)
    if not overwrite:
        ledger.refuse_other_parameters(plan, parameters)
    report.count("sections written", 0)
    report.count("already done", len(plan.done))
    todo = [jobs[key] for key in [*plan.new, *plan.stale]]
    for job, written in workers.run(convert_image, todo, report, unit="image"):
        key = str(job.path.relative_to(imdir))
        ledger.record(key, Entry(fingerprints[key], parameters, outputs=1))
        report.count("sections written" if written else "already done")
    return report


def build_parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    parser = cli.make_parser(__doc__, "cleanup2d.py")
    parser.add_argument("imdir", type=cli.existing_directory, metavar="IMDIR", help="directory of 2D images")
    parser.add_argument("savedir", type=cli.output_directory, metavar="SAVEDIR", help="directory for the sections")
    cli.add_rescale_flags(parser)
    cli.add_overwrite_flag(parser)
    cli.add_job_flags(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the script; return its exit status."""
    return cli.run_stage(run, build_parser(), argv)


def _list_images(directory: Path) -> list[Path]:
    return list_files(directory, IMAGE_SUFFIXES)


if __name__ == "__main__":
    sys.exit(main())
