"""Make every MRC file of a directory hold unsigned bytes, as IMOD's newstack would, without IMOD.

Reads:   .mrc .map .rec .st .mrcs in MRCDIR, also with .gz or .bz2. Bytes of mode 0 are signed if IMOD's stamp says so,
         or else if the header's minimum and maximum do; --dry-run tells for each file what was judged, and why.
Writes:  in place: signed bytes get 128 added, which loses nothing; unsigned ones are left alone. Other pixel types
         lose information and are converted only with --overwrite (in place) or -o OUTDIR (under the same names).
Example: python preprocess/mrc2byte.py corpus/volumes --dry-run
"""

from __future__ import annotations

import emcurate.start  # noqa: F401 - before all that takes its time to load

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from emcurate import cli
from emcurate.errors import InputError
from emcurate.files import describe_content, is_directory, list_files, make_output_directory
from emcurate.images.pixels import Rescale
from emcurate.outputs import Output, fingerprint, note_output
from emcurate.running.claims import list_raw, refuse_bad_names, refuse_odd_files
from emcurate.running.jobs import Workers
from emcurate.running.ledger import Ledger
from emcurate.running.locks import hold_lock
from emcurate.running.report import Report
from emcurate.running.sources import Source
from emcurate.running.unread import walk
from emcurate.volumes.formats.mrc import read_header
from emcurate.volumes.unsigned import judge, refuse_in_place, write_unsigned
from emcurate.volumes.volume import VOLUMES

STAGE = "mrc2byte"
MRC_SUFFIXES = (".mrc", ".map", ".rec", ".st", ".mrcs")
COMPRESSION_SUFFIXES = (".gz", ".bz2")
ALL_SUFFIXES = (*MRC_SUFFIXES, *(mrc + packed for mrc in MRC_SUFFIXES for packed in COMPRESSION_SUFFIXES))

# What the label added to a file's header says was done, by need.
LABELS = {"nothing": "unsigned bytes, as they were", "shift": "signed bytes made unsigned by adding 128"}


@dataclass(frozen=True)
class ByteJob:
    """One MRC file to turn into unsigned bytes at `destination`, which may be the file itself."""

    path: Path
    destination: Path
    rescale: Rescale
    overwrite: bool
    dry_run: bool

    @property
    def in_place(self) -> bool:
        return self.destination == self.path


@dataclass(frozen=True)
class Outcome:
    """What was done, a noun for the count; the line of the audit; and what was written in another directory."""

    done: str
    line: str
    output: Output | None = None


def make_unsigned(job: ByteJob) -> Outcome:
    """Judge one file and do what it needs; with `dry_run`, only say so."""
    state = fingerprint(job.path)
    header = read_header(job.path)
    need = judge(header)
    pixels = {"nothing": "unsigned bytes", "shift": "signed bytes"}.get(need, f"{header.type_name} voxels")
    line = f"{job.path}: mode {header.mode}, {pixels}"
    line += f" ({header.reason})" if header.mode == 0 else ""
    if need == "nothing" and job.in_place:
        return Outcome("already unsigned and left alone", f"{line}; left alone")
    plan = {"nothing": "copied as they are", "shift": "128 added to each"}.get(
        need, "converted, which loses information"
    )
    if job.dry_run:
        if need == "convert" and job.in_place and not job.overwrite:
            plan += ": only with -o OUTDIR or --overwrite"
        return Outcome("files judged", f"{line}; to be {plan}")
    if job.in_place:
        refuse_in_place(header, need, overwrite=job.overwrite)
    label = f"emcurate {STAGE}: " + LABELS.get(need, f"mode {header.mode} converted to unsigned bytes")
    overwrite = job.in_place or job.overwrite
    written = write_unsigned(header, need, job.destination, job.rescale, label, state, overwrite=overwrite)
    output = None if job.in_place else note_output(job.destination, job.destination.parent)
    return Outcome("files made unsigned" if written else "already there", f"{line}; {plan}", output)


def destination_of(path: Path, outdir: Path | None) -> Path:
    """Return where a file's unsigned version goes: its own place, or OUTDIR under its name, uncompressed."""
    if outdir is None:
        return path
    return outdir / (path.stem if path.suffix.lower() in COMPRESSION_SUFFIXES else path.name)


def run(
    mrcdir: Path,
    *,
    outdir: Path | None = None,
    rescale: Rescale = Rescale(),
    overwrite: bool = False,
    prune: bool = False,
    dry_run: bool = False,
    workers: Workers = Workers(),
) -> Report:
    """Make the MRC files of `mrcdir` unsigned; see the module's docstring."""
    report = Report(STAGE)
    paths = list_files(mrcdir, ALL_SUFFIXES)
    for directory in filter(is_directory, list_raw(mrcdir)):
        for path in walk(directory, lambda _: False, report):
            if path.name.lower().endswith(ALL_SUFFIXES):
                report.leave_out(path, "in a sub-directory", f"name {path.parent} itself, or move it up")
    if not paths:
        expected = f"MRC files ({', '.join(MRC_SUFFIXES)}, also with .gz or .bz2)"
        raise InputError(mrcdir, expected, describe_content(mrcdir), "name the directory that holds them")
    if outdir is not None and outdir.is_dir() and outdir.samefile(mrcdir):
        raise InputError(mrcdir, "another directory for -o OUTDIR", "MRCDIR itself", "leave -o out to work in place")
    paths = refuse_odd_files(paths, report)
    destinations = {path: destination_of(path, outdir) for path in paths}
    if outdir is not None:
        paths = refuse_bad_names({path: [(destinations[path].name, path)] for path in paths}, report)
    todo = [ByteJob(path, destinations[path], rescale, overwrite, dry_run) for path in paths]
    if not dry_run:
        make_output_directory(outdir or mrcdir)
    if outdir is None and not dry_run:
        hold_lock(mrcdir, mrcdir)
    # In place, an unsigned file says itself that it is done; in OUTDIR the ledger does.
    ledger = None
    if outdir is not None and not dry_run:
        sources = {
            job.destination.name: Source(job.path, fingerprint(job.path), job.destination.name, is_read_on=True)
            for job in todo
        }
        ledger = Ledger(outdir, STAGE, asdict(rescale), product=VOLUMES, owner_of=lambda name: name)
        plan = ledger.plan(sources, report, root=mrcdir, overwrite=overwrite, prune=prune)
        report.count("already done", len(plan.done))
        todo = [
            replace(job, overwrite=ledger.replaces(job.destination.name))
            for job in todo
            if job.destination.name in plan.todo
        ]
    lines: dict[Path, str] = {}
    for job, outcome in workers.run(make_unsigned, todo, report):
        if ledger is not None and outcome.output is not None:
            ledger.finish(job.destination.name, [outcome.output])
        report.count(outcome.done)
        lines[job.path] = outcome.line
    for job in todo:
        if job.path in lines:
            report.note(lines[job.path])
    return report


def build_parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    parser = cli.make_parser(__doc__, "mrc2byte.py")
    parser.add_argument("mrcdir", type=cli.existing_directory, metavar="MRCDIR", help="directory of MRC files")
    parser.add_argument(
        "-o", "--outdir", type=cli.output_directory, metavar="OUTDIR", help="write there, uncompressed, not in place"
    )
    parser.add_argument("--dry-run", action="store_true", help="only say what each file holds and what would be done")
    cli.add_rescale_flags(parser)
    cli.add_ledger_flags(parser, "outdir", "; without -o, convert other pixel types in place, which loses information")
    cli.add_job_flags(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the script; return its exit status."""
    return cli.run_stage(run, build_parser(), argv)


if __name__ == "__main__":
    sys.exit(main())
