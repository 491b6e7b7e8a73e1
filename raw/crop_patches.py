"""Cut sections into square patches and hash each of them.

Reads:   sections IMDIR/{section}.tiff, as cleanup2d.py and cross_section3d.py write them.
Writes:  PATCHDIR/{section}_{y}_{x}.tiff, the patch whose top-left pixel is row y, column x of the section, and
         PATCHDIR/{section}_{y}_{x}.npy, its difference hash: a (hash_size, hash_size) boolean array.
Example: python raw/crop_patches.py work/sections work/patches

The grid starts at the top-left corner and has max(1, round(side / crop_size)) patches a side: a remainder under half
a patch is dropped, and the last patch of a row or column may be smaller than the others.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from emcurate import cli, naming
from emcurate.errors import InputError
from emcurate.files import (
    describe_content,
    fingerprint,
    list_files,
    make_output_directory,
    npy_bytes,
    refuse_same_directory,
    write_once,
)
from emcurate.images.sections import read_section, write_section
from emcurate.patches.datasets import list_by_section
from emcurate.patches.hashing import compute_dhash
from emcurate.running.jobs import Workers
from emcurate.running.ledger import Entry, Ledger
from emcurate.running.report import Report

STAGE = "crop_patches"
CROP_SIZE = 224  # pixels a side, what ImageNet networks take and CEM500K published
HASH_SIZE = 8  # bits a side
SECTION_SUFFIXES = (".tiff", ".tif")
FILES_PER_PATCH = 2  # the patch and its hash


@dataclass(frozen=True)
class SectionJob:
    """One section to cut; `earlier` are the files of an earlier cut, which the new one replaces."""

    path: Path
    patchdir: Path
    crop_size: int
    hash_size: int
    overwrite: bool
    earlier: frozenset[str] = frozenset()


def iter_grid(height: int, width: int, crop_size: int) -> Iterator[tuple[slice, slice]]:
    """Yield the rows and columns of each patch of a section, row by row; sizes in pixels."""
    for rows in _cut_side(height, crop_size):
        for columns in _cut_side(width, crop_size):
            yield rows, columns


def cut_section(job: SectionJob) -> tuple[int, int]:
    """Write the patches and hashes of one section; return how many patches it has and how many files were new."""
    section = read_section(job.path)
    stem = naming.parse_section(job.path.stem)
    names, written = set(), 0
    for rows, columns in iter_grid(*section.shape, job.crop_size):
        patch = section[rows, columns]
        name = naming.Patch(stem, rows.start, columns.start).stem
        bits = compute_dhash(patch, job.crop_size, job.hash_size)
        written += write_section(job.patchdir / f"{name}.tiff", patch, overwrite=job.overwrite)
        written += write_once(job.patchdir / f"{name}.npy", npy_bytes(bits), overwrite=job.overwrite)
        names |= {f"{name}.tiff", f"{name}.npy"}
    for name in job.earlier - names:
        (job.patchdir / name).unlink(missing_ok=True)
    return len(names) // FILES_PER_PATCH, written


def list_sections(imdir: Path, report: Report) -> dict[str, Path]:
    """Return the sections of a directory by stem; files whose names do not parse are reported."""
    sections: dict[str, Path] = {}
    for path in list_files(imdir, SECTION_SUFFIXES):
        try:
            naming.parse_section(path.stem)
        except naming.GrammarError:
            report.fail(
                InputError(
                    path,
                    f"a section's name such as 'name{naming.MARK}2d.tiff'",
                    f"{path.name!r}",
                    "make sections with raw/cleanup2d.py or raw/cross_section3d.py first",
                )
            )
            continue
        sections[path.stem] = path
    return sections


def run(
    imdir: Path,
    patchdir: Path,
    *,
    crop_size: int = CROP_SIZE,
    hash_size: int = HASH_SIZE,
    overwrite: bool = False,
    workers: Workers = Workers(),
) -> Report:
    """Cut every section of `imdir`; see the module's docstring."""
    report = Report(STAGE)
    refuse_same_directory(imdir, patchdir)
    sections = list_sections(imdir, report)
    if not sections and not report.failures:
        raise InputError(
            imdir, "sections (.tiff)", describe_content(imdir), "run raw/cleanup2d.py or raw/cross_section3d.py first"
        )
    make_output_directory(patchdir)
    ledger = Ledger(patchdir, STAGE)
    parameters = {"crop_size": crop_size, "hash_size": hash_size}
    fingerprints = {stem: fingerprint(path) for stem, path in sections.items()}
    files = list_by_section(patchdir)
    plan = ledger.plan(fingerprints, parameters, {stem: len(names) for stem, names in files.items()})
    if not overwrite:
        ledger.refuse_other_parameters(plan, parameters)
    report.count("sections cut", 0)
    report.count("patches", sum(ledger.entries[stem].outputs for stem in plan.done) // FILES_PER_PATCH)
    report.count("files written", 0)
    report.count("sections already done", len(plan.done))
    jobs = [
        SectionJob(
            sections[stem], patchdir, crop_size, hash_size, overwrite, frozenset(files[stem] if overwrite else ())
        )
        for stem in (*plan.new, *plan.stale)
    ]
    for job, (patches, written) in workers.run(cut_section, jobs, report, unit="section"):
        stem = job.path.stem
        ledger.record(stem, Entry(fingerprints[stem], parameters, patches * FILES_PER_PATCH))
        report.count("sections cut")
        report.count("patches", patches)
        report.count("files written", written)
    return report


def build_parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    parser = cli.make_parser(__doc__, "crop_patches.py")
    parser.add_argument("imdir", type=cli.existing_directory, metavar="IMDIR", help="directory of sections")
    parser.add_argument("patchdir", type=cli.output_directory, metavar="PATCHDIR", help="directory for the patches")
    parser.add_argument(
        "-cs",
        "--crop_size",
        "--crop-size",
        type=cli.positive_int,
        default=CROP_SIZE,
        metavar="PIXELS",
        help="side of a patch (default: %(default)s)",
    )
    parser.add_argument(
        "-hs",
        "--hash_size",
        "--hash-size",
        type=cli.hash_side,
        default=HASH_SIZE,
        metavar="BITS",
        help="side of the hash (default: %(default)s)",
    )
    cli.add_overwrite_flag(parser)
    cli.add_job_flags(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the script; return its exit status."""
    return cli.run_stage(run, build_parser(), argv)


def _cut_side(length: int, crop_size: int) -> list[slice]:
    # Python's round: a half goes to the even count, so 560 pixels at 224 are two patches.
    count = max(1, round(length / crop_size))
    return [slice(i * crop_size, min((i + 1) * crop_size, length)) for i in range(count)]


if __name__ == "__main__":
    sys.exit(main())
