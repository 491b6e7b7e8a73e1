"""Turn every 2D image of a directory into a section: a grey uint8 TIFF.

Reads:   images (tif, png, jpg, bmp, webp, gif, jp2, ...) in IMDIR and in its sub-directories, one level deep.
         A sub-directory is a group: its images belong to one dataset, named after the directory.
Writes:  SAVEDIR/{image}-LOC-2d.tiff, or SAVEDIR/{group}-LOC-2d-{image}.tiff for an image of a group.
Example: python raw/cleanup2d.py corpus/images work/sections
"""

from __future__ import annotations

import emcurate.start  # noqa: F401 - before all that takes its time to load

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from emcurate import cli, naming
from emcurate.errors import InputError, describe_os_error
from emcurate.files import (
    Output,
    describe_kinds,
    fingerprint,
    is_directory,
    make_output_directory,
    refuse_same_directory,
    write_files,
)
from emcurate.images.pixels import Limits, Rescale, convert, find_limits
from emcurate.images.reading import IMAGE_SUFFIXES, read_image
from emcurate.images.sections import encode_section
from emcurate.running.claims import describe_raw, list_raw, refuse_bad_names, refuse_odd_files
from emcurate.running.jobs import Workers
from emcurate.running.ledger import Ledger, Source
from emcurate.running.report import Report

STAGE = "cleanup2d"


@dataclass(frozen=True)
class ImageJob:
    """One image to convert; its key is its section's name."""

    key: str
    path: Path
    savedir: Path
    rescale: Rescale
    replace: bool


def find_images(imdir: Path, report: Report) -> dict[Path, naming.ImageSection]:
    """List the images of a directory and of the groups in it, with the sections they become; what is not is named."""
    found: dict[Path, naming.ImageSection] = {}
    ignored: list[Path] = []

    def take(entry: Path, group: Path | None) -> None:
        stem = naming.strip_extension(entry.name)
        if not entry.name.lower().endswith(IMAGE_SUFFIXES):
            ignored.append(entry)
        else:
            found[entry] = naming.ImageSection(stem) if group is None else naming.ImageSection(group.name, stem)

    for entry in list_raw(imdir, report):
        if not is_directory(entry):
            take(entry, None)
            continue
        try:
            for image in list_raw(entry, report):
                if not is_directory(image):
                    take(image, entry)
        except OSError as error:
            report.fail(describe_os_error(error, entry))
    if ignored:
        report.note(f"left alone, not images by their extension: {describe_kinds(ignored)}")
    return found


def claim_names(path: Path, section: naming.ImageSection) -> list[tuple[str, Path]]:
    """Return the names an image would take: its dataset's, alone or for its group directory, and its own in there."""
    if section.image is None:
        return [(section.dataset, path)]
    return [(section.dataset, path.parent), (f"{section.dataset}/{section.image}", path)]


def key_of(name: str) -> str | None:
    """Return the section that a file of this name is, None if it is none."""
    return name.removesuffix(".tiff") if name.endswith(".tiff") and naming.MARK in name else None


def convert_image(job: ImageJob) -> tuple[bool, Output, Limits]:
    """Write one image's section; return whether it was not there yet, what it is, and its grey limits."""
    image = read_image(job.path)
    limits = find_limits(image, job.rescale, job.path)
    pixels = convert(image, limits)
    files = [(f"{job.key}.tiff", encode_section(pixels))]
    (output,), written = write_files(job.savedir, files, overwrite=job.replace)
    return bool(written), output, limits


def run(
    imdir: Path,
    savedir: Path,
    *,
    rescale: Rescale = Rescale(),
    overwrite: bool = False,
    prune: bool = False,
    workers: Workers = Workers(),
) -> Report:
    """Convert every image of `imdir`; see the module's docstring."""
    report = Report(STAGE)
    refuse_same_directory(imdir, savedir)
    workers.warm_up()
    images = find_images(imdir, report)
    if not images and not report.failures:
        expected = f"images ({', '.join(suffix[1:] for suffix in IMAGE_SUFFIXES[:9])}, ...)"
        advice = "name the directory that holds the images or their group directories"
        raise InputError(imdir, expected, describe_raw(imdir), advice)
    make_output_directory(savedir)
    claims = {path: claim_names(path, section) for path, section in images.items()}
    sources = {
        images[path].stem: Source(
            path,
            fingerprint(path),
            images[path].dataset,
            owner=path if images[path].image is None else path.parent,
        )
        for path in refuse_odd_files(refuse_bad_names(claims, report), report)
    }
    ledger = Ledger(savedir, STAGE, asdict(rescale), product="sections", owner_of=key_of)
    plan = ledger.plan(sources, report, root=imdir, overwrite=overwrite, prune=prune)
    report.count("sections written", 0)
    report.count("already done", len(plan.done))
    todo = [ImageJob(key, sources[key].path, savedir, rescale, ledger.replaces(key)) for key in plan.todo]
    for job, (written, output, limits) in workers.run(convert_image, todo, report, unit="image"):
        ledger.finish(job.key, [output], {"kind": "2d", "limits": (limits.low, limits.high)})
        report.count("sections written" if written else "already done")
    return report


def build_parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    parser = cli.make_parser(__doc__, "cleanup2d.py")
    parser.add_argument("imdir", type=cli.existing_directory, metavar="IMDIR", help="directory of 2D images")
    parser.add_argument("savedir", type=cli.output_directory, metavar="SAVEDIR", help="directory for the sections")
    cli.add_rescale_flags(parser)
    cli.add_ledger_flags(parser, "savedir")
    cli.add_job_flags(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the script; return its exit status."""
    return cli.run_stage(run, build_parser(), argv)


if __name__ == "__main__":
    sys.exit(main())
