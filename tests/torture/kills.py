"""Kill every stage at random moments, run it again, and say where that differs from a run that nothing happened to.

Killed is all of a run, one worker, or the forkserver that starts workers; or a run is told to stop (SIGTERM). The same
command is then given again until it ends well. In the end every file must have the bytes that an uninterrupted run
gives it, with nothing left over, neither files nor processes; and whatever was ever to be seen under a final name must
have been whole. Two runs into one directory at once: the second says so and stops. And results are damaged: the next
run, or --verify, must notice.

Example: python -m tests.torture.kills --seed 1 --only crop_patches
"""

import argparse
import contextlib
import io
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import pyarrow
import pyarrow.parquet

from emcurate.patches.joined import JOINED_NAME
from emcurate.patches.tables import TABLE_SUFFIX
from emcurate.reporting.datasheet import DATASHEET
from emcurate.running.ledger_file import LedgerFile, ledger_paths
from emcurate.running.ledger_lines import read_outputs
from tests.kills import differing, tree
from tests.torture.commands import COMMANDS, Corpus, environment
from tests.torture.processes import GROUP, KINDS, POLL_SECONDS, STOP, Run
from tests.torture.watching import Watcher

TRIALS = 20  # of each command, in the long form; a quarter of each kind
DAMAGES = 10  # of each command's results

RERUNS = 3  # that a command may need to end well
RUN_SECONDS = 120  # that a run may take; the whole ones take a few
OF_A_TIME = ["source_fingerprint"]  # column of a patch table
ORPHAN_SECONDS = 10  # that the others of a run may live after it

# What no output may hold.
FORBIDDEN = ("Traceback (most recent call last)", "please report it")

STOPPED = {128 + signal.SIGTERM, -signal.SIGTERM}  # the second before a script has run its first line

# What is done to a result, and the three ways in which that may be noticed.
DAMAGES_DONE = (DELETE, EMPTY, HALVE, ZERO, FLIP, ROT) = (
    *("deleted", "emptied", "halved", "zeroed", "one byte flipped"),
    "one byte flipped, its time as before",
)
NOTICED = (RESTORED, REFUSED, VERIFIED) = ("restored by the next run", "refused by it", "noticed by --verify only")


class Torture:
    """All that is done to some commands in one place; `findings` are the lines that speak against them."""

    def __init__(self, seed, work, commands=COMMANDS, limit=RUN_SECONDS):
        self.seed = seed
        self.work = Path(work)
        self.commands = commands
        self.limit = limit
        self.out = self.work / "out"  # always the same: path lists name it
        self.findings = []
        (self.work / "corpus").mkdir()
        self.corpus = Corpus(self.work / "corpus")

    def torture(self, name, trials, damages):
        """Do everything to one command; return what came of it, as words."""
        self.name, self.command = name, self.commands[name]
        if not self.learn():
            return "not tried"
        said = [self.kill(trials)]
        if self.command.other:
            said.append(self.meet())
        if damages and not self.command.among_inputs:
            said.append(self.damage(damages))
        return "; ".join(words for words in said if words)

    def find(self, what, run=None):
        tail = "".join(f"\n    | {line}" for line in run.said.splitlines()[-6:]) if run else ""
        self.findings.append(f"{self.name}: {what}{tail}")

    def start(self, *more, words=None):
        command = words or self.command.spell(self.corpus, self.out, *more)
        self.logs = getattr(self, "logs", 0) + 1
        return Run(command, environment(), self.work / f"log{self.logs % 10}")

    def afresh(self):
        """Have an output directory as before the first run."""
        shutil.rmtree(self.out, ignore_errors=True)
        self.out.mkdir()
        if self.command.prepare:
            self.command.prepare(self.corpus, self.out)

    def learn(self):
        """Run the command twice without harm: for what it writes, and how long it takes once its inputs are cached."""
        trees = []
        for _ in range(2):
            self.afresh()
            self.command.words(self.corpus, self.out)  # which makes the inputs
            begun = time.monotonic()
            run = self.start()
            status = run.wait(self.limit)
            self.seconds = time.monotonic() - begun
            if status != 0:
                self.find(f"a run without harm ends with status {status}", run)
                return False
            trees.append(results(self.out))
        if trees[0] != trees[1]:
            self.find(f"two runs without harm differ in {some(differing(*trees))}")
            return False
        self.expected, self.names = trees[0], names_in(self.out)
        return True

    def kill(self, trials):
        """Kill so many runs; return how that went."""
        counts = Counter()
        for trial in range(trials):
            rng = random.Random(f"{self.seed} {self.name} {trial}")
            kind = KINDS[trial % len(KINDS)]
            where = f"trial {trial}, {kind}"
            self.afresh()
            with Watcher(self.out) as watcher:
                run = self.start()
                self.pass_time(run, rng)
                struck = run.strike(kind, rng)
                counts[kind if struck else "over before"] += 1
                status = self.conclude(run, where, kind if struck else None)
                for again in range(RERUNS):
                    if status == 0:
                        break
                    counts["reruns"] += 1
                    run = self.start()
                    status = self.conclude(run, f"{where}, rerun {again + 1}", None)
            for problem in watcher.problems:
                self.find(f"{where}: {problem}")
            counts["files watched"] += watcher.seen
            if status != 0:
                self.find(f"{where}: still status {status} after {RERUNS} reruns", run)
            else:
                self.compare(where, run)
        return ", ".join(f"{number:,} {words}" for words, number in counts.items())

    def pass_time(self, run, rng):
        """Wait until some share of the run's time, or of its results, is there."""
        share, by_results = rng.random(), rng.random() < 0.5
        begun = time.monotonic()
        while run.is_running():
            if by_results and len(names_in(self.out)) >= max(1, share * len(self.names)):
                return
            if not by_results and time.monotonic() - begun >= share * self.seconds:
                return
            time.sleep(POLL_SECONDS)

    def conclude(self, run, where, kind):
        """Wait for the end of a run; find what it must not do, whatever was done to it, and return its status."""
        status = run.wait(self.limit)
        if status is None:
            self.find(f"{where}: did not end within {self.limit} s", run)
        for line in run.orphans(ORPHAN_SECONDS):
            self.find(f"{where}: left a process: {line[:150]}")
        if kind != GROUP:
            for words in FORBIDDEN:
                if words in run.said:
                    self.find(f"{where}: said {words!r}", run)
            if status not in ({0} | STOPPED if kind == STOP else {0, 1} if kind else {0}):
                self.find(f"{where}: status {status}", run)
        return status

    def compare(self, where, run=None):
        """Find what differs from an uninterrupted run."""
        if different := differing(results(self.out), self.expected):
            self.find(f"{where}: status 0, but {some(different)} differ from a run without harm", run)
        elif left := sorted(names_in(self.out) ^ self.names):
            self.find(f"{where}: left over or missing: {some(left)}")

    def meet(self):
        """Start the command a second and a third time, with other parameters, while it is under way."""
        for more in ((), self.command.other):
            where = f"a second run with {' '.join(more) or 'the same parameters'}"
            self.afresh()
            first = self.start()
            while first.is_running() and not any(name.endswith(".lock") for name in names_in(self.out)):
                time.sleep(POLL_SECONDS)
            time.sleep(POLL_SECONDS)  # it is locked a moment after it is made
            first.send(signal.SIGSTOP)  # so that it is still under way
            if not (first.is_running() and any(map(is_locked, self.out.rglob("*.lock")))):
                first.send(signal.SIGCONT)
                first.wait(self.limit)
                return "two at once: the first was over before"
            second = self.start(*more)
            status = second.wait(self.limit)
            if status != 1 or "another that is under way" not in second.said:
                self.find(f"{where}: status {status}", second)
            second.orphans(ORPHAN_SECONDS)
            first.send(signal.SIGCONT)
            if self.conclude(first, f"the first of two, beside {where}", None) == 0:
                self.compare(f"the first of two, beside {where}", first)
        return "two at once: the second says so"

    def damage(self, damages):
        """Damage so many results, one at a time; return how that was noticed."""
        counts = Counter()
        self.afresh()
        self.conclude(self.start(), "before damage", None)
        whole = self.work / "whole"
        shutil.copytree(self.out, whole, symlinks=True)
        noted = noted_files(whole)
        for trial in range(damages):
            rng = random.Random(f"{self.seed} {self.name} damage {trial}")
            what, name = DAMAGES_DONE[trial % len(DAMAGES_DONE)], rng.choice(noted)
            shutil.rmtree(self.out)
            shutil.copytree(whole, self.out, symlinks=True)
            harm(self.out / name, what, rng)
            counts[self.notice(f"{name} {what}")] += 1
        shutil.rmtree(whole)
        return ", ".join(f"{number:,} damages {words}" for words, number in counts.items())

    def notice(self, where):
        """Return how a damage was noticed; find it if it was not, or not mended."""
        run = self.start()
        status = run.wait(self.limit)
        if status == 0 and results(self.out) == self.expected:
            return RESTORED
        if status != 0:
            if status != 1 or any(words in run.said for words in FORBIDDEN):
                self.find(f"{where}: the next run ends with status {status}", run)
            return REFUSED
        run = self.start(words=self.command.spell_verify(self.corpus, self.out))
        status = run.wait(self.limit)
        if status != 1:
            self.find(f"{where}: not noticed, and --verify ends with status {status}", run)
            return "not noticed"
        if self.conclude(self.start(), f"{where}, after --verify", None) == 0:
            self.compare(f"{where}, after --verify")
        return VERIFIED


def results(directory):
    """Return what a run makes: the bytes of its files, but not when those it was made of were last written.

    Stages that one command runs in a row read each other's results, which are as old as the run.
    """
    found = {}
    for name, data in tree(directory).items():
        if "/.emcurate/" in f"/{name}" and not name.endswith(".partial"):
            continue  # what a stage notes for itself
        if name.endswith((TABLE_SUFFIX, JOINED_NAME)) and data:
            with contextlib.suppress(pyarrow.ArrowException, OSError):
                data = pyarrow.parquet.read_table(io.BytesIO(data)).drop_columns(OF_A_TIME)
        if name == DATASHEET:
            with contextlib.suppress(ValueError, LookupError, TypeError):
                data = _without_digest_of_account(json.loads(data))
        found[name] = data
    return found


def _without_digest_of_account(sheet):
    """Return a datasheet without the digest and size of the table of all patches, which holds times as well."""
    files = [file for file in sheet["distribution"] if file.get("contentUrl") != JOINED_NAME]
    return {**sheet, "distribution": files}


def is_locked(path):
    """Return whether any process holds a lock of a file."""
    number = path.stat().st_ino
    return any(f":{number} " in line for line in Path("/proc/locks").read_text().splitlines())


def names_in(directory):
    """Return all names below a directory, hidden ones too."""
    # Not rglob, which an error ends when a directory goes meanwhile.
    return {
        (Path(parent) / name).relative_to(directory).as_posix()
        for parent, directories, names in os.walk(directory)
        for name in [*directories, *names]
    }


def noted_files(directory):
    """Return the files that any stage noted below a directory, by their paths from there."""
    return sorted(
        (ledger.path.parent.parent / output.name).relative_to(directory).as_posix()
        for place in [directory, *(path for path in directory.iterdir() if path.is_dir())]
        for ledger in map(LedgerFile, ledger_paths(place))
        for line in ledger.entries.values()
        for output in read_outputs(line)
    )


def harm(path, what, rng):
    """Damage a file."""
    before = path.stat()
    data = bytearray(path.read_bytes())
    if what == DELETE:
        path.unlink()
        return
    if what in (FLIP, ROT):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    else:
        data = {EMPTY: b"", HALVE: data[: len(data) // 2], ZERO: bytes(len(data))}[what]
    path.write_bytes(data)
    if what == ROT:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def some(names):
    """Return the first names of a list, and how many more there are."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3:,} more" if len(names) > 3 else "")


def main(argv=None):
    """Run the torture; return 1 if anything was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", default="0", metavar="N", help="of all that is left to chance (default: 0)")
    parser.add_argument("--only", default="", metavar="WORDS", help="only commands with these words in their names")
    parser.add_argument(
        "--trials", type=int, default=TRIALS, metavar="N", help="kills a command (default: %(default)s)"
    )
    parser.add_argument("--damages", type=int, default=DAMAGES, metavar="N", help="a command (default: %(default)s)")
    a = parser.parse_args(argv)
    print(f"seed {a.seed}")
    with tempfile.TemporaryDirectory(prefix="kills-") as work:
        torture = Torture(a.seed, work)
        for name in COMMANDS:
            if a.only in name:
                begun, before = time.monotonic(), len(torture.findings)
                print(f"{name}: {torture.torture(name, a.trials, a.damages)}; ", end="")
                print(f"{time.monotonic() - begun:.0f} s", flush=True)
                print("".join(f"  FOUND {line}\n" for line in torture.findings[before:]), end="", flush=True)
    print(f"{len(torture.findings)} findings")
    return 1 if torture.findings else 0


if __name__ == "__main__":
    sys.exit(main())
