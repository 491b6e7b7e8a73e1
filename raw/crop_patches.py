"""Cut sections into square patches and hash each of them.

Reads:   sections IMDIR/{section}.tiff, as cleanup2d.py and cross_section3d.py write them.
Writes:  PATCHDIR/{section}_{y}_{x}.tiff, the patch whose top-left pixel is row y, column x of the section, and
         PATCHDIR/{section}_{y}_{x}.npy, its hash (--hash), a (hash_size, hash_size) boolean array.
Example: python raw/crop_patches.py work/sections work/patches

The grid starts at the top-left corner and has max(1, round(side / crop_size)) patches a side: a remainder under half
a patch is dropped, and the last patch of a row or column may be smaller than the others.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emcurate import cli, naming
from emcurate.errors import InputError
from emcurate.files import (
    Output,
    describe_content,
    list_files,
    make_output_directory,
    note_output,
    npy_bytes,
    refuse_same_directory,
    write_once,
)
from emcurate.images.sections import encode_section, read_section
from emcurate.patches.grid import iter_grid
from emcurate.patches.hashing import HASHES, WAVELET_HASH
from emcurate.patches.section_hashes import hash_section
from emcurate.running.claims import Notes
from emcurate.running.jobs import Workers
from emcurate.running.ledger import Ledger, Source
from emcurate.running.report import Report

STAGE = "crop_patches"
CROP_SIZE = 224  # pixels a side, what ImageNet networks take and CEM500K published
HASH_SIZE = 8  # bits a side
SECTION_SUFFIXES = (".tiff", ".tif")
FILES_PER_PATCH = 2  # the patch and its hash


@dataclass(frozen=True)
class SectionJob:
    """One section to cut; its key is its name."""

    key: str
    path: Path
    patchdir: Path
    crop_size: int
    hash_size: int
    hash: str
    replace: bool


def cut_section(job: SectionJob) -> tuple[list[Output], int]:
    """Write the patches and hashes of one section; return all of them and how many were not there yet."""
    section = read_section(job.path)
    stem = naming.parse_section(job.path.stem)
    outputs, written = [], 0
    hashes = hash_section(section, job.crop_size, job.hash_size, job.hash)
    for (rows, columns), bits in zip(iter_grid(*section.shape, job.crop_size), hashes, strict=True):
        patch = section[rows, columns]
        name = naming.Patch(stem, rows.start, columns.start).stem
        for extension, data in (("tiff", encode_section(patch)), ("npy", npy_bytes(bits))):
            path = job.patchdir / f"{name}.{extension}"
            written += write_once(path, data, overwrite=job.replace)
            outputs.append(note_output(path, job.patchdir, data))
    return outputs, written


def section_of(name: str) -> str | None:
    """Return the section that a file of this name is a patch or a hash of, None if it is neither."""
    stem, _, extension = name.rpartition(".")
    return stem.rsplit("_", 2)[0] if extension in ("tiff", "npy") and naming.MARK in stem else None


def list_sections(imdir: Path, report: Report) -> dict[str, tuple[Path, naming.Section]]:
    """Return the sections of a directory by stem; files whose names do not parse are reported."""
    sections: dict[str, tuple[Path, naming.Section]] = {}
    for path in list_files(imdir, SECTION_SUFFIXES):
        try:
            sections[path.stem] = path, naming.parse_section(path.stem)
        except naming.GrammarError:
            report.fail(
                InputError(
                    path,
                    f"a section's name such as 'name{naming.MARK}2d.tiff'",
                    f"{path.name!r}",
                    "make sections with raw/cleanup2d.py or raw/cross_section3d.py first",
                )
            )
    return sections


def run(
    imdir: Path,
    patchdir: Path,
    *,
    crop_size: int = CROP_SIZE,
    hash_size: int = HASH_SIZE,
    hash: str = HASHES[0],
    overwrite: bool = False,
    prune: bool = False,
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
    notes = Notes(imdir)
    sources = {
        stem: Source(
            path,
            notes.fingerprint(path),
            section.dataset,
            owner=imdir,
            is_part=isinstance(section, naming.VolumeSection),
        )
        for stem, (path, section) in sections.items()
    }
    parameters = {"crop_size": crop_size, "hash_size": hash_size, "hash": hash}
    ledger = Ledger(patchdir, STAGE, parameters, product="patches", owner_of=section_of)
    plan = ledger.plan(sources, report, root=imdir, overwrite=overwrite, prune=prune)
    report.count("sections cut", 0)
    report.count("patches", sum(len(ledger.outputs_of(stem)) for stem in plan.done) // FILES_PER_PATCH)
    report.count("files written", 0)
    report.count("sections already done", len(plan.done))
    jobs = [
        SectionJob(stem, sources[stem].path, patchdir, crop_size, hash_size, hash, ledger.replaces(stem))
        for stem in plan.todo
    ]
    for job, (outputs, written) in workers.run(cut_section, jobs, report, unit="section"):
        ledger.finish(job.key, outputs)
        report.count("sections cut")
        report.count("patches", len(outputs) // FILES_PER_PATCH)
        report.count("files written", written)
    return report


def check_arguments(parser: argparse.ArgumentParser, arguments: dict[str, Any]) -> None:
    """End the program if the arguments do not fit together."""
    size = arguments["hash_size"]
    if arguments["hash"] == WAVELET_HASH and size & (size - 1):
        parser.error(f"argument --hash_size: expected a power of 2 for --hash {WAVELET_HASH}, found {size}")


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
    parser.add_argument(
        "--hash",
        choices=HASHES,
        default=HASHES[0],
        help="which of imagehash's hashes: difference, perceptual, average or wavelet (default: %(default)s)",
    )
    cli.add_ledger_flags(parser, "patchdir")
    parser.set_defaults(check_arguments=check_arguments)
    cli.add_job_flags(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the script; return its exit status."""
    return cli.run_stage(run, build_parser(), argv)


if __name__ == "__main__":
    sys.exit(main())
