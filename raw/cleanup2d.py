"""Turn every 2D image of a directory into a section: a grey uint8 TIFF.

Reads:   images (tif, png, jpg, bmp, webp, gif, jp2, dm3, dm4, ser, emd, ...) in IMDIR and in its sub-directories, one
         level deep.
         A sub-directory is a group: its images belong to one dataset, named after the directory, or after the one
         above if it is called raw, images, slices or the like.
Writes:  SAVEDIR/{image}-LOC-2d.tiff, or SAVEDIR/{group}-LOC-2d-{image}.tiff for an image of a group.
Example: python raw/cleanup2d.py corpus/images work/cleanup2d

The size of a pixel is read from the microscope's tags or its text file beside the image, from ImageJ, OME or the
resolution, and kept for the table of patches. An info bar below the scan is cropped only if asked for: --crop-bar.
"""

from __future__ import annotations

import emcurate.start  # noqa: F401 - before all that takes its time to load

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emcurate import cli, naming
from emcurate.corpora.images import claim_names, find_images
from emcurate.errors import InputError
from emcurate.files import make_output_directory, refuse_same_directory
from emcurate.images.calibration import (
    AUTO,
    Calibration,
    describe_bars,
    describe_calibrations,
)
from emcurate.images.cleaning import Cleaning, plan_section
from emcurate.images.pixels import Rescale, convert, find_limits
from emcurate.images.reading import IMAGE_SUFFIXES, read_image
from emcurate.images.resampling import Scale, resample
from emcurate.images.sections import encode_section
from emcurate.outputs import Output, fingerprint
from emcurate.running.claims import describe_raw, refuse_bad_names, refuse_odd_files
from emcurate.running.jobs import Workers
from emcurate.running.ledger import Ledger
from emcurate.running.report import Report
from emcurate.running.sources import Source
from emcurate.writing import write_files

STAGE = "cleanup2d"


@dataclass(frozen=True)
class ImageJob:
    """One image to convert; its key is its section's name."""

    key: str
    path: Path
    sidecar: Path | None
    savedir: Path
    how: Cleaning
    replace: bool


@dataclass(frozen=True)
class Converted:
    """What came of an image; `written` says whether its section was not there yet, `bar` how many rows were cropped."""

    written: bool
    output: Output
    details: dict[str, Any]
    calibration: Calibration
    bar: int


def key_of(name: str) -> str | None:
    """Return the section that a file of this name is, None if it is none."""
    return name.removesuffix(".tiff") if name.endswith(".tiff") and naming.MARK in name else None


def convert_image(job: ImageJob) -> Converted:
    """Write one image's section."""
    image, how = read_image(job.path), job.how
    plan = plan_section(job.path, (image.shape[0], image.shape[1]), job.sidecar, how)
    image, size = image[: plan.rows], plan.calibration.size_nm
    limits = find_limits(image, how.rescale, job.path)
    pixels = resample(convert(image, limits), plan.factors)
    files = [(f"{job.key}.tiff", encode_section(pixels))]
    (output,), written = write_files(job.savedir, files, overwrite=job.replace)
    details: dict[str, Any] = {"kind": "2d", "limits": (limits.low, limits.high)}
    if size is not None:
        new = how.scale.pixel_size_nm
        details["voxel_size_nm"] = (None, *(size if new is None else (new, new)))
    return Converted(bool(written), output, details, plan.calibration, plan.bar)


def run(
    imdir: Path,
    savedir: Path,
    *,
    rescale: Rescale = Rescale(),
    prefer: str | None = None,
    crop_bar: str | int | None = None,
    image_pixel_size: Sequence[float] | None = None,
    scale: Scale = Scale(),
    overwrite: bool = False,
    prune: bool = False,
    workers: Workers = Workers(),
) -> Report:
    """Convert every image of `imdir`; see the module's docstring."""
    report = Report(STAGE)
    refuse_same_directory(imdir, savedir)
    workers.warm_up()
    given_size = None if image_pixel_size is None else (image_pixel_size[0], image_pixel_size[1])
    images, sidecars = find_images(imdir, prefer, report)
    if not images and not report.failures:
        expected = f"images ({', '.join(suffix[1:] for suffix in IMAGE_SUFFIXES[:9])}, ...)"
        advice = "name the directory that holds the images or their group directories"
        raise InputError(imdir, expected, describe_raw(imdir), advice)
    make_output_directory(savedir)
    claims = {path: claim_names(path, section) for path, section in images.items()}
    sources = {
        images[path].stem: Source(
            path,
            "; ".join(map(fingerprint, filter(None, (path, sidecars.get(path))))),
            images[path].dataset,
            settings={} if given_size is None else {"pixel_size": given_size},
            owner=path if images[path].image is None else path.parent,
            is_read_on=True,
        )
        for path in refuse_odd_files(refuse_bad_names(claims, report), report)
    }
    how = Cleaning(rescale, crop_bar, given_size, scale)
    ledger = Ledger(savedir, STAGE, how.parameters, product="sections", owner_of=key_of)
    plan = ledger.plan(sources, report, root=imdir, overwrite=overwrite, prune=prune)
    report.count("sections written", 0)
    report.count("already done", len(plan.done))
    todo = [
        ImageJob(key, sources[key].path, sidecars.get(sources[key].path), savedir, how, ledger.replaces(key))
        for key in plan.todo
    ]
    converted: dict[Path, Converted] = {}
    for job, made in workers.run(convert_image, todo, report, unit="image"):
        ledger.finish(job.key, [made.output], made.details)
        report.count("sections written" if made.written else "already done")
        if made.bar:
            report.count("info bars cropped")
        converted[job.path] = made
    report.notes += describe_calibrations({path: made.calibration for path, made in converted.items()})
    report.notes += describe_bars({path: (made.calibration, made.bar) for path, made in converted.items()}, crop_bar)
    return report


def info_bar(text: str) -> str | int | None:
    """Return what --crop-bar says: `AUTO`, a number of rows, or None."""
    return {"none": None, AUTO: AUTO}[text] if text in ("none", AUTO) else cli.positive_int(text)


def build_parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    parser = cli.make_parser(__doc__, "cleanup2d.py")
    parser.add_argument("imdir", type=cli.existing_directory, metavar="IMDIR", help="directory of 2D images")
    parser.add_argument("savedir", type=cli.output_directory, metavar="SAVEDIR", help="directory for the sections")
    cli.add_prefer_flag(parser)
    cli.add_rescale_flags(parser)
    parser.add_argument(
        "--crop-bar",
        type=info_bar,
        metavar="auto|PIXELS|none",
        help="leave out the info bar at the bottom: where the metadata tell how many rows were scanned, or so many "
        "rows of every image (default: none)",
    )
    parser.add_argument(
        "--image-pixel-size",
        nargs=2,
        type=cli.positive_float,
        metavar=("Y", "X"),
        help="pixel size in nm of every image, instead of what the files say",
    )
    cli.add_scale_flags(parser)
    cli.add_ledger_flags(parser, "savedir")
    cli.add_job_flags(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the script; return its exit status."""
    return cli.run_stage(run, build_parser(), argv)


if __name__ == "__main__":
    sys.exit(main())
