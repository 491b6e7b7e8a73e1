"""Make every MRC file of a directory hold unsigned bytes, as IMOD's newstack would, without IMOD.

Reads:   .mrc .map .rec .st .mrcs in MRCDIR, also with .gz or .bz2. Bytes of mode 0 are signed if IMOD's stamp says so,
         or else if the header's minimum and maximum do; --dry-run tells for each file what was judged, and why.
Writes:  in place: signed bytes get 128 added, which loses nothing; unsigned ones are left alone. Other pixel types
         lose information and are converted only with --overwrite (in place) or -o OUTDIR (under the same names).
Example: python preprocess/mrc2byte.py corpus/volumes --dry-run
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from emcurate import cli, naming
from emcurate.errors import InputError
from emcurate.files import (
    Output,
    describe_content,
    fingerprint,
    list_files,
    make_output_directory,
    move_once,
    note_output,
    partial_path,
)
from emcurate.images.pixels import Rescale, convert
from emcurate.running.jobs import Workers
from emcurate.running.ledger import Ledger, Source
from emcurate.running.report import Report
from emcurate.volumes.formats.mrc import (
    HEADER_BYTES,
    MrcHeader,
    compression_of,
    encode_byte_header,
    read_extended_header,
    read_header,
)
from emcurate.volumes.limits import choose_volume_limits, measure_block, measuring_jobs
from emcurate.volumes.scratch import unpacked
from emcurate.volumes.volume import VOLUMES, Volume, open_volume

STAGE = "mrc2byte"
MRC_SUFFIXES = (".mrc", ".map", ".rec", ".st", ".mrcs")
COMPRESSION_SUFFIXES = (".gz", ".bz2")
ALL_SUFFIXES = (*MRC_SUFFIXES, *(mrc + packed for mrc in MRC_SUFFIXES for packed in COMPRESSION_SUFFIXES))

# Added to a signed byte, it gives the unsigned byte that IMOD means: -128..127 becomes 0..255.
SIGNED_SHIFT = 128

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


def judge(header: MrcHeader) -> str:
    """Return what a file needs: "nothing", "shift" for signed bytes, "convert" for any other pixel type."""
    if header.mode != 0:
        return "convert"
    return "shift" if header.signed else "nothing"


def shift_to_unsigned(plane: npt.NDArray[np.int8]) -> npt.NDArray[np.uint8]:
    """Return signed bytes plus 128, as unsigned bytes.

    >>> shift_to_unsigned(np.array([-128, -1, 0, 127], np.int8)).tolist()
    [0, 127, 128, 255]
    """
    # The sum is the byte with its highest bit turned over.
    return plane.view(np.uint8) ^ np.uint8(SIGNED_SHIFT)


def make_unsigned(job: ByteJob) -> Outcome:
    """Judge one file and do what it needs; with `dry_run`, only say so."""
    header = read_header(job.path)
    need = judge(header)
    pixels = {"nothing": "unsigned bytes", "shift": "signed bytes"}.get(need, f"{header.dtype.name} voxels")
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
        refuse_in_place(job, header, need)
    written = write_unsigned(job, header, need)
    output = None if job.in_place else note_output(job.destination, job.destination.parent)
    return Outcome("files made unsigned" if written else "already there", f"{line}; {plan}", output)


def refuse_in_place(job: ByteJob, header: MrcHeader, need: str) -> None:
    """Raise `InputError` where a file must not be changed in place."""
    if need == "convert" and not job.overwrite:
        raise InputError(
            job.path,
            "bytes (mode 0), which can be made unsigned without loss",
            f"{header.dtype.name} voxels (mode {header.mode})",
            "use -o OUTDIR to keep the original, or --overwrite to replace it",
        )
    if compression_of(job.path):
        raise InputError(
            job.path, "an uncompressed file to change in place", "a compressed one", "use -o OUTDIR, or unpack it first"
        )
    if not os.access(job.path, os.W_OK):
        raise InputError(job.path, "a file you may change", "no write permission", "use -o OUTDIR, or allow it")


def write_unsigned(job: ByteJob, header: MrcHeader, need: str) -> bool:
    """Write the unsigned version of a file plane by plane; return whether it was not there yet."""
    # A link stays one: the file it leads to is replaced.
    destination = job.path.resolve() if job.in_place else job.destination
    partial = partial_path(destination.parent)
    try:
        with unpacked(open_volume(job.path), destination.parent) as volume, open(partial, "wb") as file:
            file.write(bytes(HEADER_BYTES))
            file.write(read_extended_header(header))
            histogram = np.zeros(256, np.int64)
            for plane in unsigned_planes(volume, need, job.rescale):
                file.write(np.ascontiguousarray(plane).data)
                histogram += np.bincount(plane.ravel(), minlength=256)
            if compression_of(job.path) is None:
                with open(job.path, "rb") as source:
                    source.seek(header.data_offset + volume.size * header.dtype.itemsize)
                    shutil.copyfileobj(source, file)  # what some programs append
            label = LABELS.get(need, f"mode {header.mode} converted to unsigned bytes")
            file.seek(0)
            file.write(encode_byte_header(header.record, header.byte_order, histogram, f"emcurate {STAGE}: {label}"))
            file.flush()
            os.fsync(file.fileno())  # it may be about to replace the only copy
        shutil.copymode(job.path, partial)
        return move_once(partial, destination, overwrite=job.in_place or job.overwrite)
    finally:
        partial.unlink(missing_ok=True)


def unsigned_planes(volume: Volume, need: str, rescale: Rescale) -> Iterator[npt.NDArray[np.uint8]]:
    """Yield a volume's (y, x) planes as unsigned bytes."""
    planes = volume.voxels.iter_planes(0, volume.shape[0])
    if need == "nothing":
        yield from planes
    elif need == "shift":
        yield from map(shift_to_unsigned, planes)
    else:
        statistics = [measure_block(job) for job in measuring_jobs(volume, rescale)]
        limits = choose_volume_limits(volume, rescale, statistics)
        yield from (convert(plane, limits) for plane in planes)


def destination_of(path: Path, outdir: Path | None) -> Path:
    """Return where a file's unsigned version goes: its own place, or OUTDIR under its name, uncompressed."""
    if outdir is None:
        return path
    return outdir / (path.stem if path.suffix.lower() in COMPRESSION_SUFFIXES else path.name)


def refuse_shared_destinations(jobs: Iterable[ByteJob], report: Report) -> list[ByteJob]:
    """Return the jobs whose output is theirs alone; report the others."""
    claims: dict[Path, list[Path]] = defaultdict(list)
    jobs = list(jobs)
    for job in jobs:
        claims[job.destination].append(job.path)
    good = []
    for job in jobs:
        rivals = ", ".join(str(path) for path in claims[job.destination] if path != job.path)
        if rivals:
            found = f"{rivals}, which gives {job.destination.name} too"
            report.fail(InputError(job.path, "an output name of its own", found, "rename one"))
        else:
            good.append(job)
    return good


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
    if not paths:
        expected = f"MRC files ({', '.join(MRC_SUFFIXES)}, also with .gz or .bz2)"
        raise InputError(mrcdir, expected, describe_content(mrcdir), "name the directory that holds them")
    if outdir == mrcdir:
        raise InputError(mrcdir, "another directory for -o OUTDIR", "MRCDIR itself", "leave -o out to work in place")
    jobs = [ByteJob(path, destination_of(path, outdir), rescale, overwrite, dry_run) for path in paths]
    todo = refuse_shared_destinations(jobs, report)
    if not dry_run:
        make_output_directory(outdir or mrcdir)
    # In place, an unsigned file says itself that it is done; in OUTDIR the ledger does.
    ledger = None
    if outdir is not None and not dry_run:
        sources = {
            job.destination.name: Source(job.path, fingerprint(job.path), naming.strip_extension(job.path.name))
            for job in todo
        }
        ledger = Ledger(outdir, STAGE, asdict(rescale), product=VOLUMES)
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
    cli.add_ledger_flags(parser, "outdir")
    cli.add_job_flags(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the script; return its exit status."""
    return cli.run_stage(run, build_parser(), argv)


if __name__ == "__main__":
    sys.exit(main())
