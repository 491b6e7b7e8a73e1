"""Running a script: from its command line to its exit status, without a traceback for what a user can cause."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from emcurate import durability
from emcurate.cli.telling import STATUS_DONE, STATUS_FAILED, print_report, print_stopped
from emcurate.cli.volume_flags import pop_rescale, pop_sections, pop_view
from emcurate.errors import (
    InputError,
    TooLittleMemoryError,
    describe_os_error,
    is_for_want_of_memory,
)
from emcurate.images.resampling import Scale
from emcurate.running.disk import NO_ROOM, describe_no_room, forget_room
from emcurate.running.hearing import without_chatter
from emcurate.running.jobs import Workers
from emcurate.running.ledger_file import ledger_path, take_altered
from emcurate.running.locks import held_locks, release_locks
from emcurate.running.report import Report, begin, take_report
from emcurate.running.signals import Stopped, raise_if_told, stop_when_told
from emcurate.running.streams import speak, speech
from emcurate.running.verification import verify

# Packages that only some stages need, and by which extra of pyproject.toml they come.
EXTRA_OF = {
    **dict.fromkeys(("torch", "torchvision", "sklearn", "pooch"), "classifier"),
    "distributed": "cluster",
    "huggingface_hub": "hub",
}


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
            with stop_when_told(), without_chatter():
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
        failure = TooLittleMemoryError.of(name, error, "enough memory for the work")
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
