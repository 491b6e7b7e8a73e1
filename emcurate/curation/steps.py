"""The steps of a run: which stage, on what, into what, with which words; and running one after another."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from emcurate import cli
from emcurate.addresses import Address, Place, hide_secrets
from emcurate.curation.flags import HandedOn
from emcurate.reporting.page import StageRun
from emcurate.running.report import LeftOut, Report


@dataclass(frozen=True)
class Step:
    """One run of one stage: its command line, the directory of its outputs, and the kinds of inputs it is for."""

    stage: str
    destination: Path | None
    argv: tuple[str, ...]
    kinds: frozenset[str]


@dataclass
class Steps:
    """The steps of a run, in order.

    Parameters
    ----------
    handed_on : HandedOn
    values : mapping
        The arguments that were given, by name.
    kinds : collection of str
        Those of which there are inputs.
    """

    handed_on: HandedOn
    values: Mapping[str, Any]
    kinds: Collection[str]
    steps: list[Step] = field(default_factory=list)

    def add(
        self,
        stage: str,
        *words: str | Place,
        to: Path | None = None,
        of: Collection[str] | None = None,
        last: Iterable[str | Path] = (),
        less: Collection[str] = (),
    ) -> None:
        """Add a step.

        Parameters
        ----------
        stage : str
        *words : str, Path or Address
            What its command line begins with: its directories.
        to : Path, optional
            Where its results go.
        of : collection of str, optional
            The kinds of inputs it is for; all by default.
        last : iterable of str or Path
            What comes after the flags that are handed on.
        less : collection of str
            Arguments that are not handed on to this step.
        """
        first = [word.full if isinstance(word, Address) else str(word) for word in words]
        flags = self.handed_on.words(stage, self.values, less)
        argv = (*first, *flags, *map(str, last))
        self.steps.append(Step(stage, to, argv, frozenset(self.kinds if of is None else of)))


def check_steps(steps: Iterable[Step], load: Callable[[str], Any], out: Path) -> list[tuple[Step, dict[str, Any]]]:
    """Parse every step's command line, so that a wrong flag ends the program, with usage, before anything runs.

    Parameters
    ----------
    steps : iterable of Step
    load : callable
        Gives a stage's module.
    out : Path
        Where results go: what is not there yet will be.

    Returns
    -------
    list of (Step, dict)
        Each with its arguments by name.
    """
    with cli.as_if_made(out):
        return [(step, cli.check(load(step.stage).build_parser(), step.argv)) for step in steps]


def run_step(step: Step, module: Any) -> tuple[Report, bool]:
    """Run a stage as its script would run; return its report, and whether it came to its end."""
    return cli.attempt(lambda: cli.prepare(module.run, module.build_parser(), step.argv)(), step.stage)


def run_steps(
    steps: Iterable[Step], load: Callable[[str], Any], scripts: Mapping[str, str], total: Report
) -> Iterator[StageRun]:
    """Run steps one after another, and yield what each did.

    A step that cannot do its work stops what it was for, one kind of inputs, and nothing else.

    Parameters
    ----------
    steps : iterable of Step
    load : callable
        Gives a stage's module.
    scripts : mapping of str to str
        The stages' scripts, to be named.
    total : Report
        Receives what failed and what was stopped.
    """
    stopped: set[str] = set()
    told: set[LeftOut] = set()
    for step in steps:
        if step.kinds <= stopped:
            continue
        command = f"python {scripts[step.stage]} {shlex.join(map(hide_secrets, step.argv))}"
        cli.say(f"\n$ {command}")
        start = time.monotonic()
        report, ended = run_step(step, load(step.stage))
        total.fail_all(report.failures)
        cli.print_outcome(report, told)
        if not ended and step.destination is not None:
            stopped |= step.kinds
            total.note(f"{', '.join(sorted(step.kinds))}: stopped at {step.stage}")
        seconds = time.monotonic() - start
        yield StageRun(step.stage, command, seconds, report.spell_counts(), tuple(report.warnings))
