"""What every script's command line shares: flags, argument types, the closing report and the exit status.

Exit status 0: all done, or nothing new. 1: something failed, and the last lines say what. 2: wrong arguments.
130, 143, 129: told to stop, by Ctrl-C, SIGTERM or SIGHUP.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import sys
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from emcurate import __version__, durability, naming
from emcurate.addresses import Place, parse_address
from emcurate.errors import (
    FEWER_PROCESSES,
    InputError,
    TooLittleMemoryError,
    describe_os_error,
    is_for_want_of_memory,
)
from emcurate.files import describe_content, describe_kinds, is_there, list_entries, write_bytes
from emcurate.images.pixels import Rescale
from emcurate.images.resampling import Scale
from emcurate.licences import parse_licences
from emcurate.running.disk import NO_ROOM, describe_no_room, forget_room
from emcurate.running.jobs import Workers, default_processes
from emcurate.running.ledger_file import LEDGER_DIRECTORY, ledger_path, read_headers, take_altered
from emcurate.running.locks import held_locks, release_locks
from emcurate.running.report import LeftOut, Report, begin, take_report
from emcurate.running.signals import Stopped, raise_if_told, stop_when_told
from emcurate.running.streams import speak, speech
from emcurate.running.verification import verify
from emcurate.volumes.cut_settings import ANISOTROPY, PLANES, HowToCut, VoxelSize
from emcurate.volumes.formats import file_of
from emcurate.volumes.views import View

# The parsed arguments of a script, by name; no other module but the scripts knows how they are parsed.
Arguments = argparse.Namespace

STATUS_DONE = 0
STATUS_FAILED = 1

# What a path list holds at least, and what lies beside labels and is no array of them.
FIRST_CHUNK = "0.npy"
TEXT_SUFFIXES = (".json", ".jsonl", ".csv", ".tsv", ".txt", ".parquet", ".log")

# Packages that only some stages need, and by which extra of pyproject.toml they come.
EXTRA_OF = {
    **dict.fromkeys(("torch", "torchvision", "sklearn", "pooch"), "classifier"),
    "distributed": "cluster",
    "huggingface_hub": "hub",
}

# Lines of one kind that are shown before the rest is only counted.
LINES_SHOWN = 20


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


def say(text: str, *, is_wrong: bool = False) -> None:
    """Print a line, to standard error where something is wrong; what is not is kept back where it is to be quiet.

    The log has it in any case.
    """
    speech.note(text)
    if is_wrong or not speech.quiet:
        print(text, file=sys.stderr if is_wrong else sys.stdout, flush=True)


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


def add_rescale_flags(parser: argparse.ArgumentParser) -> None:
    """Add ``--rescale`` and ``--percentiles``; they come back as one `Rescale`."""
    group = parser.add_argument_group("grey values", "how pixels that are not uint8 become uint8")
    group.add_argument(
        "--rescale",
        choices=["dtype", "minmax", "percentile"],
        help="map the pixel type's range, the image's or volume's own extremes, or robust limits to 0..255 "
        "(default: dtype for integers, minmax for floats)",
    )
    group.add_argument(
        "--percentiles",
        nargs=2,
        type=percentile,
        metavar=("LOW", "HIGH"),
        help="the limits of --rescale percentile (default: {:g} {:g})".format(*Rescale.percentiles),
    )


def pop_rescale(parser: argparse.ArgumentParser, arguments: dict[str, Any]) -> Rescale:
    """Take the flags of `add_rescale_flags` out of parsed arguments and return them as one value."""
    limits, method = arguments.pop("percentiles"), arguments.pop("rescale")
    if limits is None:
        return Rescale(method)
    low, high = limits
    if low >= high:
        parser.error(f"argument --percentiles: expected LOW below HIGH, found {low:g} {high:g}")
    if method != "percentile":
        parser.error(f"argument --percentiles: expected --rescale percentile too, found {method or 'no --rescale'}")
    return Rescale(method, (low, high))


def add_voxel_size_flag(parser: argparse.ArgumentParser) -> None:
    """Add ``--voxel-size Z Y X``, in nm, which overrides what the files say."""
    parser.add_argument(
        "--voxel-size",
        nargs=3,
        type=positive_float,
        metavar=("Z", "Y", "X"),
        help="voxel size in nm of every volume, instead of what the files say",
    )
    parser.add_argument(
        "--voxel-sizes",
        type=voxel_size_file,
        default=(),
        metavar="FILE",
        help="voxel sizes of some by name, before --voxel-size: a csv of name,z,y,x in nm",
    )


def add_volumes_argument(parser: argparse.ArgumentParser) -> None:
    """Add ``VOLDIR``, where volumes are."""
    parser.add_argument(
        "voldir",
        type=existing_volumes,
        metavar="VOLDIR",
        help="directory of volumes, or a text or csv file of their addresses and paths, or one of these by itself",
    )


def add_view_flags(parser: argparse.ArgumentParser) -> None:
    """Add what is read of volumes that hold several: ``--level``, ``--channel``, ``--time``, which come as a `View`."""
    group = parser.add_argument_group("volumes that hold several", "such as OME-Zarr, N5, precomputed and HDF5")
    for name, text in (
        ("level", "which resolution is read, 0 being the full one (default: 0)"),
        ("channel", "which channel is read, where there are several, counted from 0"),
        ("time", "which time is read, where there are several, counted from 0"),
    ):
        group.add_argument(f"--{name}", type=natural_int, metavar="N", help=text)


def pop_view(arguments: dict[str, Any]) -> View:
    """Take the flags of `add_view_flags` out of parsed arguments and return them as one value."""
    return View(arguments.pop("level"), arguments.pop("channel"), arguments.pop("time"))


def add_scale_flags(parser: argparse.ArgumentParser) -> None:
    """Add ``--pixel-size`` and ``--allow-upsampling``, which come back as one `Scale`, called `scale`."""
    group = parser.add_argument_group("scale", "patches of one scale from many instruments")
    group.add_argument(
        "--pixel-size",
        type=positive_float,
        metavar="NM",
        help="bring sections to pixels of so many nm a side, each the mean of the area that it covers (default: leave "
        "them as they are); rows and columns in names are then those of the new pixels",
    )
    group.add_argument(
        "--allow-upsampling",
        action="store_true",
        help="also where the source's pixels are larger: between these straight lines, without any more detail",
    )


def add_section_flags(parser: argparse.ArgumentParser, title: str) -> None:
    """Add how volumes are cut: ``--axes``, ``--spacing``, ``--anisotropy``, ``--voxel-size``, grey values.

    They come back as `emcurate.volumes.cut_settings.HowToCut`, called `sections`.
    """
    group = parser.add_argument_group(title)
    group.add_argument(
        "-a",
        "--axes",
        nargs="+",
        type=plane,
        default=PLANES,
        metavar="PLANE",
        help="planes to cut: 0 is xy, 1 xz, 2 yz (default: 0 1 2)",
    )
    group.add_argument(
        "-s",
        "--spacing",
        type=positive_int,
        default=HowToCut.spacing,
        metavar="N",
        help="cut every N-th index, and the last (default: %(default)s)",
    )
    group.add_argument(
        "--anisotropy",
        type=non_negative_float,
        default=ANISOTROPY,
        metavar="PART",
        help="cut plane 0 only where voxels differ in z from x by more than this part of x (default: %(default)s)",
    )
    add_view_flags(parser)
    add_voxel_size_flag(parser)
    add_rescale_flags(parser)


def pop_sections(arguments: dict[str, Any]) -> HowToCut:
    """Take the flags of `add_section_flags` out of parsed arguments and return them as one value."""
    axes, size = tuple(sorted(set(arguments.pop("axes")))), arguments.pop("voxel_size")
    voxel_size = None if size is None else (size[0], size[1], size[2])
    spacing, anisotropy = arguments.pop("spacing"), arguments.pop("anisotropy")
    rescale, view, by_name = arguments.pop("rescale"), pop_view(arguments), arguments.pop("voxel_sizes")
    return HowToCut(axes, spacing, anisotropy, voxel_size, rescale, view, by_name)


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


def add_field_flags(parser: argparse.ArgumentParser, name: str, kind: type, groups: Mapping[str, str]) -> None:
    """Add a flag for each field of a dataclass; `parse_arguments` gives them back as one value, called `name`.

    A field's type tells the type of its flag, a `Literal` its choices. Its metadata tell the rest: ``text`` for the
    help, ``group``, ``metavar``, the ``short`` spelling, the bounds ``least``, ``above`` and ``most`` of a number, and
    the ``words`` that may stand in place of a file.

    Parameters
    ----------
    groups : mapping of str to str
        The title and the description of each group in the help.
    """
    parser.set_defaults(**{name: kind})
    hints = typing.get_type_hints(kind)
    sections = {title: parser.add_argument_group(title, text) for title, text in groups.items()}
    for item in fields(kind):
        about = item.metadata
        shown = item.default is not None and hints[item.name] is not bool
        options: dict[str, Any] = {"help": about["text"] + (" (default: %(default)s)" if shown else "")}
        options |= {"default": item.default} | _flag_type(hints[item.name], about)
        flags = [about["short"], f"--{item.name.replace('_', '-')}"]
        sections[about["group"]].add_argument(*filter(None, flags), **options)


def run_stage(run: Callable[..., Report], parser: argparse.ArgumentParser, argv: Sequence[str] | None = None) -> int:
    """Parse the command line, run the stage, print its closing report, return the exit status."""
    return close(lambda: prepare(run, parser, argv)(), stage_of(parser))


def prepare(
    run: Callable[..., Report], parser: argparse.ArgumentParser, argv: Sequence[str] | None = None
) -> Callable[[], Report]:
    """Parse the command line, which ends the program where it is wrong, and return what runs the stage.

    A parser's default `check_arguments` is called with the parser and the arguments, for what only shows in several;
    it may fill in an argument whose default is another's.
    """
    arguments = check(parser, argv)
    outputs, beside = arguments.pop("output_arguments", ()), arguments.pop("ledgers_beside", ())
    if arguments.pop("no_sync", False):
        durability.do_without()
    if not arguments.pop("verify", False):
        return lambda: run(**arguments)
    directory = next((arguments[name] for name in outputs if arguments.get(name)), None)
    if directory is None:
        parser.error(f"argument --verify: expected --{outputs[0]} too, found none")
    stage = stage_of(parser)
    return lambda: verify_results(directory, stage, beside)


def check(parser: argparse.ArgumentParser, argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Return the arguments of a command line by name; one that is wrong ends the program."""
    arguments = parse_arguments(parser, argv)
    if (check_arguments := arguments.pop("check_arguments", None)) is not None:
        check_arguments(parser, arguments)
    return arguments


def parse_arguments(parser: argparse.ArgumentParser, argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Return the arguments by name; those of `add_rescale_flags` as one `rescale`, of `add_job_flags` as `workers`.

    Those of `add_field_flags` come as one value of their dataclass.
    """
    arguments = vars(parser.parse_args(argv))
    for name, kind in list(arguments.items()):
        if isinstance(kind, type) and is_dataclass(kind):
            arguments[name] = kind(**{item.name: arguments.pop(item.name) for item in fields(kind)})
    if "processes" in arguments:
        arguments["workers"] = Workers(arguments.pop("processes"), arguments.pop("scheduler", None))
    if "percentiles" in arguments:
        arguments["rescale"] = pop_rescale(parser, arguments)
    if "allow_upsampling" in arguments:
        arguments["scale"] = Scale(arguments.pop("pixel_size"), arguments.pop("allow_upsampling"))
    if "anisotropy" in arguments:
        arguments["sections"] = pop_sections(arguments)
    elif "level" in arguments:
        arguments["view"] = pop_view(arguments)
    return arguments


def verify_results(directory: Path, stage: str, beside: Sequence[str] = ()) -> Report:
    """Compare what a stage made in a directory with its ledger, and with others that it may keep beside."""
    report = Report(stage, directory=directory)
    verify(directory, stage, report)
    for name in beside:
        if ledger_path(directory, name).exists():
            verify(directory, name, report)
    return report


def stage_of(parser: argparse.ArgumentParser) -> str:
    """Return the stage's name."""
    return Path(parser.prog).stem


def close(stage: Callable[[], Report], name: str) -> int:
    """Run a stage, print its closing report, and return the exit status; no user mistake ends in a traceback."""
    with speak() as voices:
        try:
            with stop_when_told():
                status = print_report(attempt(stage, name)[0])
        except KeyboardInterrupt as stopped:
            status = print_stopped(stopped if isinstance(stopped, Stopped) else Stopped(), name)
        except BaseException:  # wrong arguments, above all
            speech.end()
            raise
        for voice in voices:
            voice.flush()
        unlogged = speech.end()
        if unlogged is not None:
            print(f"{name}: the log could not be written: {unlogged.strerror}", file=sys.stderr)
        if voices[0].error is not None:
            print(f"{name}: standard output could not be written: {voices[0].error.strerror}", file=sys.stderr)
        return status or (STATUS_FAILED if any(voice.error for voice in voices) else STATUS_DONE)


def attempt(stage: Callable[[], Report], name: str) -> tuple[Report, bool]:
    """Run a stage; return its report, and whether it came to its end. What broke it off is among the failures."""
    failure: InputError | str
    begin(name)
    forget_room()
    outer = held_locks()  # of what runs one stage after another
    try:
        try:
            report = stage()
        finally:
            release_locks(outer)
        warn_of_altered_ledgers(report)
        return report, True
    except InputError as error:
        failure = error
    except OSError as error:
        failure = describe_no_room(error) if error.errno in NO_ROOM else describe_os_error(error, name)
    except ModuleNotFoundError as error:
        failure = describe_missing(error, name)
    except (MemoryError, RuntimeError, ImportError) as error:
        if not is_for_want_of_memory(error):
            raise
        failure = TooLittleMemoryError(name, "enough memory for the work", f"too little ({error})", FEWER_PROCESSES)
    raise_if_told()
    report = take_report(name)
    warn_of_altered_ledgers(report)
    report.fail(failure)
    return report, False


def warn_of_altered_ledgers(report: Report) -> None:
    """Name the ledgers in which a run met lines that are not as they were written."""
    for path, lines in take_altered().items():
        report.warn(f"{path}: altered since it was written, {lines}; what that told of counts as not done")


def describe_missing(error: ModuleNotFoundError, name: str) -> InputError:
    """Return the error of a package that is not installed; one that is no extra is raised again."""
    package = (error.name or "").partition(".")[0]
    if package not in EXTRA_OF:
        raise error
    extra = EXTRA_OF[package]
    advice = f"install it with: pip install 'emcurate[{extra}]', or in a checkout: make install EXTRAS={extra}"
    return InputError(name, f"the package {package}", "none", advice)


def print_report(report: Report) -> int:
    """Print warnings, notes, one line of counts, and last what failed; return the exit status."""
    print_outcome(report)
    return print_failures(report)


def print_stopped(stopped: Stopped, name: str) -> int:
    """Say that a run was told to stop, and what is done; return the exit status."""
    done = take_report(name).spell_counts()
    with_what = f" with {done}" if done else ""
    say(f"\n{name}: stopped by {stopped.name}{with_what}; run the same command again to go on", is_wrong=True)
    return stopped.status


def print_outcome(report: Report, told: set[LeftOut] | None = None) -> None:
    """Print a stage's warnings, what it did not read, its notes and its line of counts.

    What is not read and was `told` before is not told again.
    """
    for warning in report.warnings:
        say(f"warning: {in_one_line(warning)}", is_wrong=True)
    for line in describe_left_out([item for item in report.left_out if told is None or item not in told]):
        say(in_one_line(line))
    if told is not None:
        told.update(report.left_out)
    for note in report.notes:
        say(in_one_line(note))
    say(f"{report.stage}: {report.spell_counts() or 'nothing to do'}.")


def describe_left_out(items: Sequence[LeftOut]) -> list[str]:
    """Return lines that name what was not read: the first `LINES_SHOWN`, and of the rest how many of which kind."""
    lines = [f"not read: {item.path}: {item.reason}; {item.advice}" for item in items[:LINES_SHOWN]]
    if rest := items[LINES_SHOWN:]:
        lines.append(f"not read: ... and {len(rest):,} more: {describe_kinds(item.path for item in rest)}")
    return lines


def print_failures(report: Report) -> int:
    """Print what failed, the last thing a script prints; return the exit status.

    Of many the first `LINES_SHOWN` are printed, and all of them are written into a file beside the results.
    """
    lines = [in_one_line(failure) for failure in report.failures]
    all_of_them = write_failures(report.stage, report.directory, lines)
    if not lines:
        return STATUS_DONE
    say("Failed:", is_wrong=True)
    for line in lines[:LINES_SHOWN]:
        say(f"  {line}", is_wrong=True)
    if len(lines) > LINES_SHOWN:
        where = f": {all_of_them} has all of them" if all_of_them else ""
        say(f"  ... and {len(lines) - LINES_SHOWN:,} more{where}", is_wrong=True)
    return STATUS_FAILED


def write_failures(stage: str, directory: Path | None, lines: Sequence[str]) -> Path | None:
    """Write what failed beside a stage's results if it is too much to be printed, and return the file.

    That of an earlier run goes. None where there is no such file, or none can be written.
    """
    if directory is None:
        return None
    path = directory / LEDGER_DIRECTORY / f"{stage}.failures.txt"
    try:
        if len(lines) > LINES_SHOWN:
            path.parent.mkdir(exist_ok=True)
            write_bytes(path, "".join(f"{line}\n" for line in lines).encode("utf-8", "surrogateescape"))
            return path
        path.unlink(missing_ok=True)
    except OSError:
        pass  # a disk that is full or may not be written to has made itself known
    return None


def in_one_line(text: str) -> str:
    r"""Return a message as it may be printed: what is in names must not end the line or steer the terminal.

    >>> print(in_one_line("fly\nwing\x1b[31m é.tif: expected …"))
    fly\nwing\x1b[31m é.tif: expected …
    """
    if text.isprintable():
        return text
    # What is no text, such as bytes that are no UTF-8, is left to the stream, which knows what it can show.
    return "".join(
        c if c.isprintable() or "\ud800" <= c <= "\udfff" else c.encode("unicode_escape").decode() for c in text
    )


@contextlib.contextmanager
def as_if_made(directory: Path) -> Iterator[None]:
    """Take whatever is named below a directory for what it will be, while flags are checked before anything runs."""
    _coming.append(directory)
    try:
        yield
    finally:
        _coming.pop()


def is_coming(path: Path) -> bool:
    """Return whether a path is yet to be made, or to be made anew; see `as_if_made`."""
    return any(path.is_relative_to(directory) for directory in _coming)


_coming: list[Path] = []


def existing_directory(text: str) -> Path:
    """Argument type: a directory that exists, as an absolute path."""
    path = Path(text)
    if not path.is_dir() and not is_coming(_absolute(path)):
        found = "a file" if path.exists() else "nothing"
        raise argparse.ArgumentTypeError(f"{text}: expected a directory, found {found}")
    return _absolute(path)


def existing_volumes(text: str) -> Place:
    """Argument type: a directory or a file that exists, as an absolute path, a part of one, or an address."""
    try:
        address = parse_address(text)
    except naming.GrammarError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    if address is not None:
        return address
    path = Path(text)
    if not is_there(file_of(path)) and not is_coming(_absolute(path)):
        raise argparse.ArgumentTypeError(f"{text}: expected a directory, a file or an address, found nothing")
    return _absolute(path)


def existing_file(text: str) -> Path:
    """Argument type: a file that exists, as an absolute path."""
    path = Path(text)
    if not path.is_file() and not is_coming(_absolute(path)):
        found = "a directory" if path.is_dir() else "nothing"
        raise argparse.ArgumentTypeError(f"{text}: expected a file, found {found}")
    return _absolute(path)


def directory_or_archive(text: str) -> Path:
    """Argument type: a directory or a zip archive that exists, as an absolute path."""
    return existing_directory(text) if Path(text).is_dir() else existing_file(text)


def output_directory(text: str) -> Path:
    """Argument type: a directory to write to, which need not exist yet, as an absolute path."""
    path = Path(text)
    if path.exists() and not path.is_dir():
        raise argparse.ArgumentTypeError(f"{text}: expected a directory to write to, found a file")
    return _absolute(path)


def output_file(text: str) -> Path:
    """Argument type: a file to write to, in a directory that exists, as an absolute path."""
    path = _absolute(Path(text))
    if path.is_dir() or not path.parent.is_dir():
        found = "a directory" if path.is_dir() else f"no directory {path.parent}"
        raise argparse.ArgumentTypeError(f"{text}: expected a file to write to, found {found}")
    return path


def plane(text: str) -> int:
    """Argument type: a plane of a volume."""
    number = int(text) if text.isdecimal() else None
    if number not in PLANES:
        hint = "" if text.isdecimal() else "; put --axes after the directories, or -- before them"
        raise argparse.ArgumentTypeError(f"expected planes, 0 (xy), 1 (xz) or 2 (yz), found {text!r}{hint}")
    return number


def path_list(text: str) -> Path:
    """Argument type: a path list, which is a directory of chunks, as an absolute path."""
    path = existing_directory(text)
    if not is_coming(path) and not (path / FIRST_CHUNK).is_file():
        inside = [list_path for list_path in list_entries(path) if (list_path / FIRST_CHUNK).is_file()]
        advice = f"; name {' or '.join(map(str, inside))}" if inside else "; name the .npz directory of a stage"
        found = describe_content(path)
        raise argparse.ArgumentTypeError(f"{text}: expected a path list ({FIRST_CHUNK}, ...), found {found}{advice}")
    return path


def label_file(text: str) -> Path:
    """Argument type: a file of labels that is no text, as an absolute path."""
    path = existing_file(text)
    if path.suffix.lower() in TEXT_SUFFIXES:
        from emcurate.patches.labels import LABELS_FILE  # here, since hardly any run needs to name it

        usual = path.parent / LABELS_FILE
        advice = f"; name {usual}" if usual.is_file() else ""
        expected = f"labels, an .npy array such as {LABELS_FILE}"
        raise argparse.ArgumentTypeError(f"{text}: expected {expected}, found a {path.suffix} file{advice}")
    return path


def results(product: str, maker: str) -> Callable[[str], Path]:
    """Return an argument type: a directory that exists, with results of one kind, or of which nothing is known.

    Parameters
    ----------
    product : str
        What a stage makes, as its ledger has it.
    maker : str
        The stage's script.
    """

    def check(text: str) -> Path:
        path = existing_directory(text)
        made = {} if is_coming(path) else {line.product: line.stage for line in read_headers(path) if line.stage}
        if made and product not in made:
            found = " and ".join(f"{other}, which {stage} made" for other, stage in sorted(made.items()))
            raise argparse.ArgumentTypeError(f"{text}: expected {product}, found {found}; name what {maker} wrote to")
        return path

    return check


def voxel_size_file(text: str) -> tuple[tuple[str, VoxelSize], ...]:
    """Argument type: a csv of voxel sizes by name, as what it says."""
    from emcurate.volumes.voxel_sizes import read_voxel_sizes  # here, since hardly any run has one

    try:
        return read_voxel_sizes(existing_file(text))
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def file_extension(text: str) -> str:
    """Argument type: a file's extension, with or without its dot, in any case."""
    extension = text.lower().removeprefix(".")
    if not extension or not all(part.isalnum() for part in extension.split(".")):
        raise argparse.ArgumentTypeError(f"expected an extension such as tif, found {text!r}")
    return extension


def positive_int(text: str) -> int:
    """Argument type: a whole number of at least 1."""
    return _integer(text, 1)


def natural_int(text: str) -> int:
    """Argument type: a whole number of at least 0."""
    return _integer(text, 0)


def even_int(text: str) -> int:
    """Argument type: an even number of at least 0, for what is drawn in halves."""
    number = natural_int(text)
    if number % 2:
        raise argparse.ArgumentTypeError(f"expected an even number, found {text!r}")
    return number


def hash_side(text: str) -> int:
    """Argument type: a hash size; a difference hash of a side under 2 says nothing."""
    return _integer(text, 2)


def positive_float(text: str) -> float:
    """Argument type: a finite number above 0."""
    return _number(text, 0, float("inf"), open_low=True)


def non_negative_float(text: str) -> float:
    """Argument type: a finite number of at least 0."""
    return _number(text, 0, float("inf"))


def fraction(text: str) -> float:
    """Argument type: a number from 0 to 1."""
    return _number(text, 0, 1)


def inner_fraction(text: str) -> float:
    """Argument type: a number above 0 and below 1."""
    share = fraction(text)
    if share in (0, 1):
        raise argparse.ArgumentTypeError(f"expected a number between 0 and 1, found {text!r}")
    return share


def percentile(text: str) -> float:
    """Argument type: a number from 0 to 100."""
    return _number(text, 0, 100)


def row_range(text: str) -> tuple[int, int]:
    """Argument type: START:STOP, rows from 0, the last one not included."""
    start, colon, stop = text.partition(":")
    if not (colon and start.isdecimal() and stop.isdecimal() and int(start) < int(stop)):
        raise argparse.ArgumentTypeError(f"expected START:STOP such as 2000:4000, found {text!r}")
    return int(start), int(stop)


def _flag_type(hint: Any, about: Mapping[str, Any]) -> dict[str, Any]:
    """Return what `add_argument` has to know of a field's type."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        hint = next(part for part in typing.get_args(hint) if part is not types.NoneType)
    if hint is bool:
        return {"action": "store_true"}
    if typing.get_origin(hint) is typing.Literal:
        return {"choices": typing.get_args(hint)}
    words = about["words"]
    if words:
        return {
            "type": lambda text: text if text in words else str(existing_file(text)),
            "metavar": "|".join([*words, "FILE"]),
        }
    least, above, most = about["least"], about["above"], about["most"]
    if hint is int:
        return {"type": lambda text: _integer(text, least, most), "metavar": about["metavar"]}
    low, high = least if above is None else above, float("inf") if most is None else most
    return {"type": lambda text: _number(text, low, high, open_low=above is not None), "metavar": about["metavar"]}


def _absolute(path: Path) -> Path:
    # As typed but for ".." and the like: links are not resolved, since messages should show the names people know.
    return Path(os.path.abspath(path))  # noqa: PTH100


def _integer(text: str, least: int, most: int | None = None) -> int:
    try:
        value = int(text)
    except ValueError:
        value = least - 1
    if value < least or (most is not None and value > most):
        bound = "" if most is None else f" and at most {most}"
        raise argparse.ArgumentTypeError(f"expected a whole number of at least {least}{bound}, found {text!r}")
    return value


def _number(text: str, low: float, high: float, *, open_low: bool = False) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not (low < value or (value == low and not open_low)) or not value <= high or value == float("inf"):
        bounds = f"above {low:g}" if open_low else f"of at least {low:g}"
        most = "" if high == float("inf") else f" and at most {high:g}"
        raise argparse.ArgumentTypeError(f"expected a number {bounds}{most}, found {text!r}")
    return value
