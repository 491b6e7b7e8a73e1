"""What is printed: warnings, notes, counts and failures, and the exit status that follows from them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from emcurate.files import describe_kinds
from emcurate.running.ledger_file import LEDGER_DIRECTORY
from emcurate.running.report import LeftOut, Report, take_report
from emcurate.running.signals import Stopped
from emcurate.running.streams import speech
from emcurate.writing import write_bytes

STATUS_DONE = 0
STATUS_FAILED = 1

# Lines of one kind that are shown before the rest is only counted.
LINES_SHOWN = 20


def say(text: str, *, is_wrong: bool = False) -> None:
    """Print a line, to standard error where something is wrong; what is not is kept back where it is to be quiet.

    The log has it in any case.
    """
    speech.note(text)
    if is_wrong or not speech.quiet:
        print(text, file=sys.stderr if is_wrong else sys.stdout, flush=True)


def print_report(report: Report) -> int:
    """Print warnings, notes, one line of counts, and last what failed; return the exit status."""
    print_outcome(report)
    return print_failures(report)


def print_stopped(stopped: Stopped, name: str) -> int:
    """Say that a run was told to stop, and what is done; return the exit status."""
    done = take_report(name).spell_counts()
    with_what = f" with {done}, beside what was only begun" if done else ""
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
