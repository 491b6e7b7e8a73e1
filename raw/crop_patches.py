"""Cut sections into square patches and hash each of them.

Reads:   sections IMDIR/{section}.tiff, as cleanup2d.py and cross_section3d.py write them.
Writes:  PATCHDIR/{section}_{y}_{x}.tiff, the patch whose top-left pixel is row y, column x of the section, and
         PATCHDIR/{section}_{y}_{x}.npy, its hash (--hash), a (hash_size, hash_size) boolean array;
         PATCHDIR/{dataset}_patches.parquet, a table with a row a patch: its place, size, hash and origin.
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
from emcurate.files import check_regular, describe_content, list_entries, make_output_directory, refuse_same_directory
from emcurate.images.sections import read_section
from emcurate.patches.cutting import FILES_PER_PATCH, Cutting, Written, cut_section
from emcurate.patches.hashing import HASHES, WAVELET_HASH
from emcurate.patches.table_updates import TableUpdates, add_tables, table_key
from emcurate.patches.tables import IMAGE, TABLE_SUFFIX, VOLUME, Origin
from emcurate.running.claims import Notes
from emcurate.running.jobs import Workers
from emcurate.running.ledger import Ledger, Source
from emcurate.running.report import Report

STAGE = "crop_patches"
CROP_SIZE = 224  # pixels a side, what ImageNet networks take and CEM500K published
HASH_SIZE = 8  # bits a side
SECTION_SUFFIXES = (".tiff", ".tif")


@dataclass(frozen=True)
class SectionJob:
    """One section to cut; its key is its name."""

    key: str
    path: Path
    how: Cutting
    replace: bool


def cut_file(job: SectionJob) -> Written:
    """Cut one section's file."""
    return cut_section(read_section(job.path), naming.parse_section(job.key), job.how, replace=job.replace)


def key_of(name: str) -> str | None:
    """Return the ledger's key of a result by its file name, None if it is none."""
    if name.endswith(TABLE_SUFFIX):
        return table_key(name.removesuffix(TABLE_SUFFIX))
    stem, _, extension = name.rpartition(".")
    return stem.rsplit("_", 2)[0] if extension in ("tiff", "npy") and naming.MARK in stem else None


def trace_origin(path: Path, section: naming.Section, notes: Notes) -> Origin:
    """Return where a section came from, as far as its directory knows."""
    kind = VOLUME if isinstance(section, naming.VolumeSection) else IMAGE
    line = notes.origin(path)
    if line is None:
        return Origin(kind)
    size, limits = line.details.get("voxel_size_nm"), line.details.get("limits")
    return Origin(
        line.details.get("kind", kind),
        line.source,
        line.fingerprint,
        size and (size[0], size[1], size[2]),
        limits and (limits[0], limits[1]),
    )


def list_sections(imdir: Path, report: Report) -> dict[str, tuple[Path, naming.Section]]:
    """Return the sections of a directory by stem; files whose names do not parse are reported."""
    sections: dict[str, tuple[Path, naming.Section]] = {}
    entries = [path for path in list_entries(imdir) if path.suffix.lower() in SECTION_SUFFIXES]
    for path in entries:
        try:
            section = naming.parse_section(path.stem)
            check_regular(path)
        except naming.GrammarError:
            expected = f"a section's name such as 'name{naming.MARK}2d.tiff'"
            advice = "make sections with raw/cleanup2d.py or raw/cross_section3d.py first"
            report.fail(InputError(path, expected, f"{path.name!r}", advice))
            continue
        except InputError as error:
            report.fail(error)
            continue
        if path.stem in sections:
            found = f"{sections.pop(path.stem)[0]} of the same name"
            report.fail(InputError(path, "a name of its own", found, "remove one of them"))
        else:
            sections[path.stem] = path, section
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
        key: Source(
            path,
            notes.fingerprint(path),
            section.dataset,
            owner=imdir,
            is_part=isinstance(section, naming.VolumeSection),
        )
        for key, (path, section) in sections.items()
    }
    origins = {key: trace_origin(path, section, notes) for key, (path, section) in sections.items()}
    settings = {"crop_size": crop_size, "hash_size": hash_size, "hash": hash}
    ledger = Ledger(patchdir, STAGE, settings, product="patches", owner_of=key_of)
    plan = ledger.plan(add_tables(sources, origins, imdir), report, root=imdir, overwrite=overwrite, prune=prune)
    tables = TableUpdates(patchdir, ledger, plan, {key: section for key, (_, section) in sections.items()}, settings)
    report.count("sections cut", 0)
    report.count("patches", sum(len(ledger.outputs_of(key)) for key in tables.kept) // FILES_PER_PATCH)
    report.count("files written", 0)
    report.count("sections already done", len(tables.kept))
    how = Cutting(patchdir, crop_size, hash_size, hash)
    todo = [*(key for key in plan.todo if key in sources), *tables.lost]
    jobs = [SectionJob(key, sources[key].path, how, ledger.replaces(key)) for key in todo]
    for job, written in workers.run(cut_file, jobs, report, unit="section"):
        ledger.finish(job.key, written.outputs)
        tables.add(written.cut)
        report.count("sections cut")
        report.count("patches", len(written.cut.places))
        report.count("files written", written.new)
    tables.write(origins)
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
