"""Turn every 2D image of a directory into a section: a grey uint8 TIFF.

Reads:   images (tif, png, jpg, bmp, webp, gif, jp2, ...) in IMDIR and in its sub-directories, one level deep.
         A sub-directory is a group: its images belong to one dataset, named after the directory, or after the one
         above if it is called raw, images, slices or the like.
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
    fingerprint,
    is_directory,
    make_output_directory,
    refuse_same_directory,
    write_files,
)
from emcurate.images.pixels import Limits, Rescale, convert, find_limits
from emcurate.images.reading import IMAGE_SUFFIXES, read_image
from emcurate.images.sections import encode_section
from emcurate.running.claims import describe_raw, list_raw, name_directory, refuse_bad_names, refuse_odd_files
from emcurate.running.doubles import settle_doubles
from emcurate.running.jobs import Workers
from emcurate.running.ledger import Ledger, Source
from emcurate.running.report import Report
from emcurate.running.unread import Unread
from emcurate.volumes.containers import VIDEO_SUFFIXES
from emcurate.volumes.formats import DIRECTORY_READERS, VOLUME_SUFFIXES

STAGE = "cleanup2d"

# Where what is no image belongs.
VOLUME_LIKE = (*VOLUME_SUFFIXES, *DIRECTORY_READERS)
ELSEWHERE = {
    "give its directory to raw/cross_section3d.py": VOLUME_LIKE,
    "give its directory to preprocess/vid2stack.py": VIDEO_SUFFIXES,
}


@dataclass(frozen=True)
class ImageJob:
    """One image to convert; its key is its section's name."""

    key: str
    path: Path
    savedir: Path
    rescale: Rescale
    replace: bool


def find_images(imdir: Path, prefer: str | None, report: Report) -> dict[Path, naming.ImageSection]:
    """List the images of a directory and of the groups in it, with the sections they become; what is not is noted."""
    unread = Unread("an image", is_image, ELSEWHERE, report, is_one=lambda path: path.suffix.lower() in VOLUME_LIKE)
    found: dict[Path, naming.ImageSection] = {}
    for entry in list_raw(imdir, report):
        if is_directory(entry) and not unread.is_one(entry):
            try:
                found |= find_group(entry, unread)
            except OSError as error:
                report.fail(describe_os_error(error, entry))
        elif is_image(entry):
            found[entry] = naming.ImageSection(naming.strip_extension(entry.name))
        else:
            unread.note(entry)
    return {path: found[path] for path in settle_doubles(found, prefer, report)}


def find_group(entry: Path, unread: Unread) -> dict[Path, naming.ImageSection]:
    """List the images in a sub-directory, or if there are none those in what bears its name, such as its ``raw``."""
    entries = list_raw(entry, unread.report)
    images = [path for path in entries if is_image(path)]
    if not images:
        inside = [path for path in entries if is_directory(path) and naming.tells_no_name(path.name)]
        images = [path for group in inside for path in list_raw(group, unread.report) if is_image(path)]
    reason = "deeper than one sub-directory"
    unread.note_below(entry, reason, lambda path: f"name {path.parent.parent} itself, or move it up", set(images))
    return {
        path: naming.ImageSection(name_directory(path.parent), naming.strip_extension(path.name)) for path in images
    }


def is_image(path: Path) -> bool:
    """Return whether a path is an image by its extension."""
    return path.name.lower().endswith(IMAGE_SUFFIXES) and not is_directory(path)


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
    prefer: str | None = None,
    overwrite: bool = False,
    prune: bool = False,
    workers: Workers = Workers(),
) -> Report:
    """Convert every image of `imdir`; see the module's docstring."""
    report = Report(STAGE)
    refuse_same_directory(imdir, savedir)
    workers.warm_up()
    images = find_images(imdir, prefer, report)
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
    cli.add_prefer_flag(parser)
    cli.add_rescale_flags(parser)
    cli.add_ledger_flags(parser, "savedir")
    cli.add_job_flags(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the script; return its exit status."""
    return cli.run_stage(run, build_parser(), argv)


if __name__ == "__main__":
    sys.exit(main())
