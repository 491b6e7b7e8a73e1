"""A parser, and the flags that many scripts share."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from typing import Any

from emcurate import __version__
from emcurate.cli.argument_types import file_extension, natural_int, output_file, positive_int
from emcurate.errors import (
    describe_os_error,
)
from emcurate.licences import parse_licences
from emcurate.running.jobs import default_processes
from emcurate.running.streams import speech

# The parsed arguments of a script, by name; no other module but the scripts knows how they are parsed.
Arguments = argparse.Namespace


def make_parser(docstring: str | None, name: str) -> argparse.ArgumentParser:
    """Return a parser whose help is the script's docstring as it stands: a sentence, Reads, Writes, Example."""
    parser = argparse.ArgumentParser(
        prog=name, description=docstring, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--version", action="version", version=f"emcurate {__version__}", help="print it and end")
    parser.add_argument(
        "--quiet", action=_BeQuiet, nargs=0, default=argparse.SUPPRESS, help="say only what is wrong, show no progress"
    )
    parser.add_argument(
        "--log",
        action=_KeepLog,
        type=output_file,
        default=argparse.SUPPRESS,
        metavar="FILE",
        help="add all that is said to a file, with the time and the command",
    )
    return parser


class _BeQuiet(argparse.Action):
    """Has nothing said but what is wrong."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        speech.quiet = True


class _KeepLog(argparse.Action):
    """Has all that is said added to a file."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, *_: Any) -> None:
        try:
            speech.keep_log(values, shlex.join([parser.prog, *sys.argv[1:]]))
        except OSError as error:
            parser.error(f"argument --log: {describe_os_error(error, values)}")


def add_processes_flag(parser: argparse.ArgumentParser) -> None:
    """Add ``-p/--processes``."""
    parser.add_argument(
        "-p",
        "--processes",
        type=positive_int,
        default=default_processes(),
        metavar="N",
        help="worker processes (default: all usable cores, here %(default)s)",
    )


def add_job_flags(parser: argparse.ArgumentParser) -> None:
    """Add ``-p/--processes`` and ``--scheduler``, which come back as `Workers`."""
    add_processes_flag(parser)
    parser.add_argument(
        "--scheduler",
        metavar="ADDRESS",
        help="run the jobs on the Dask cluster at this address, such as tcp://host:8786, instead of here",
    )


def add_ledger_flags(
    parser: argparse.ArgumentParser, output: str, also: str = "", or_else: str = "", beside: Sequence[str] = ()
) -> None:
    """Add what decides over results of earlier runs: ``--overwrite``, ``--prune`` and ``--verify``.

    `output` is the argument that names the output directory, for `prepare`; `also` says what else --overwrite allows;
    `or_else` is the argument that names the output directory where `output` is not given; `beside` are the names of
    ledgers that the stage keeps there beside its own.
    """
    group = parser.add_argument_group("results of earlier runs", "what is done is not done again")
    group.add_argument(
        "--overwrite",
        action="store_true",
        help="replace results made with other parameters or from other input, and remove those whose input is gone: "
        f"afterwards the directory is that of a fresh run{also}",
    )
    group.add_argument(
        "--no-sync",
        action="store_true",
        help="do not wait until the disk has what is written: for a scratch directory that a power cut may take",
    )
    group.add_argument("--prune", action="store_true", help="remove results whose input is gone")
    group.add_argument(
        "--verify", action="store_true", help="only compare all results with the digests noted when they were written"
    )
    parser.set_defaults(output_arguments=(output, or_else), ledgers_beside=beside)


def add_licence_flag(parser: argparse._ActionsContainer) -> None:
    """Add ``--licence``, whose words `parse_licences` understands."""
    parser.add_argument(
        "--licence",
        "--license",
        nargs="+",
        action="extend",
        default=[],
        metavar="[DATASET=]LICENCE",
        help="under which licence the data are, such as CC-BY-4.0, all of them or one dataset's",
    )


def check_licences(parser: argparse.ArgumentParser, words: Sequence[str]) -> dict[str, str]:
    """Return licences by dataset; words that say nothing end the program with usage."""
    try:
        return parse_licences(words)
    except ValueError as error:
        parser.error(f"argument --licence: expected {error}")


def add_prefer_flag(parser: argparse.ArgumentParser) -> None:
    """Add ``--prefer``, which of several files of one name to take; see `emcurate.running.doubles`."""
    parser.add_argument(
        "--prefer",
        type=file_extension,
        metavar="EXTENSION",
        help="of files that differ in their extension only, such as cell.jpg and cell.tif, take the one with this",
    )


def add_dry_run_flag(parser: argparse.ArgumentParser) -> None:
    """Add ``--dry-run``, for a stage that can tell what it would do."""
    parser.add_argument(
        "--dry-run", action="store_true", help="only say how many files and gigabytes would come; write nothing"
    )


def add_max_failures_flag(parser: argparse.ArgumentParser, default: int) -> None:
    """Add ``--max-failures``, when to give up downloads that only fail."""
    parser.add_argument(
        "--max-failures",
        type=natural_int,
        default=default,
        metavar="N",
        help="stop downloads after so many failures of one kind, 0 for never (default: %(default)s)",
    )


def add_link_flag(parser: argparse.ArgumentParser) -> None:
    """Add ``--link``, how chosen files get to their place; see `emcurate.fetching.placing.Link`."""
    parser.add_argument(
        "--link",
        choices=["copy", "hard", "symbolic"],
        default="copy",
        help="how images of a directory get to OUTPUT: copied, or linked to, which saves space (default: %(default)s); "
        "those of a zip archive are always written out",
    )


def add_reroot_flag(parser: argparse.ArgumentParser) -> None:
    """Add ``--reroot OLD NEW``, for path lists whose files have been moved; see `pathlists.PathList`."""
    parser.add_argument(
        "--reroot",
        nargs=2,
        metavar=("OLD", "NEW"),
        help="replace the leading directory OLD of each listed path by NEW, where the data have been moved",
    )


def add_device_flags(parser: argparse.ArgumentParser) -> None:
    """Add ``--device`` and ``--precision``, where a network computes and in which number type."""
    group = parser.add_argument_group("computing")
    group.add_argument(
        "--device",
        choices=["auto", "cuda", "mps", "cpu"],
        default="auto",
        help="where to compute (default: the fastest there is)",
    )
    group.add_argument(
        "--precision",
        choices=["auto", "float32", "bfloat16", "float16"],
        default="auto",
        help="number type to compute in (default: the fastest that the device has and the work allows)",
    )
