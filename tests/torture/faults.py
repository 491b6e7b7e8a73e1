"""Let every change of a file, in every stage, be the last one or fail; run the stage again, and say where that differs.

At each change that a command makes below its output directory, one after another: the process dies there, half of what
it was writing written, and perhaps its ledgers are lost; the power is cut, and of all it wrote there is only what it
had waited for the disk to have, or the names of the rest too, as of empty files; the disk is full from there on; the
disk fails there once; nothing may be changed in directories any more.

Whatever it is, what can be seen under a final name is whole (but after a power cut), and a run that goes on says in a
line what is wrong. The same command, given again, must then end well, with the bytes of a run that nothing happened to
and with nothing left over.

Each command is also run with --overwrite where results of other parameters lie. And at each change the same command
with other parameters comes, while the first waits: one of the two must end well, as if alone, the other say why not.

Example: python -m tests.torture.faults --seed 1 --only crop_patches --trials 100
"""

import argparse
import contextlib
import importlib
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from emcurate.running import ledger as ledgers
from emcurate.running.ledger_file import LEDGER_DIRECTORY
from tests.kills import differing
from tests.power import Disk, check_noted
from tests.quick import make_stages_quick
from tests.torture import children, syscalls
from tests.torture.commands import SMALL_COMMANDS, SmallCorpus
from tests.torture.faulty_runs import DIE, FAULTS, run_watched
from tests.torture.kills import FORBIDDEN, names_in, results, some
from tests.torture.watching import Watcher

RUN_SECONDS = 60  # that a run may take; the longest takes a few
OVERWRITE = "--overwrite"
OVER_OTHERS = ", over others"
SECOND = "a second run comes"
KINDS = (*FAULTS, SECOND)

# What a run says that is not the one to write: another does, or has done.
REFUSED = ("another that is under way", "expected results made with", "expected the input that its results in")


class Torture:
    """All that is done to some commands in one place; `findings` are the lines that speak against them."""

    def __init__(self, seed, work, commands=SMALL_COMMANDS):
        self.seed, self.work, self.commands = seed, Path(work), commands
        self.out = self.work / "out"  # always the same: path lists name it
        self.findings = []
        (self.work / "corpus").mkdir()
        self.corpus = SmallCorpus(self.work / "corpus")

    def torture(self, name, trials=None, kinds=KINDS):
        """Do everything to one command, or so many of all trials that there are, drawn; return how that went."""
        self.name = name
        self.command = self.commands[name.removesuffix(OVER_OTHERS)]
        self.more = (OVERWRITE,) if name.endswith(OVER_OTHERS) else ()
        if not self.learn():
            return "not tried"
        chosen = [(kind, moment) for kind in kinds for moment in range(self.count_moments(kind))]
        if trials is not None:
            chosen = random.Random(f"{self.seed} {name}").sample(chosen, min(trials, len(chosen)))
        if any(kind == SECOND for kind, _ in chosen):
            self.learn_other()
        for kind, moment in chosen:
            if kind == SECOND:
                self.meet(moment)
            else:
                self.try_one(kind, FAULTS[kind], moment)
        counts = Counter(kind for kind, _ in chosen)
        tried = ", ".join(f"{number:,} times {kind}" for kind, number in counts.items())
        return f"{len(self.changes):,} changes; {tried}"

    def count_moments(self, kind):
        """Return how many changes something can happen at."""
        if kind == SECOND:
            return len(self.changes) if self.command.other and not self.more else 0
        # What a ledger knew of other results is then lost: their files are somebody else's.
        if self.more and FAULTS[kind].loses_ledgers:
            return 0
        return sum(map(FAULTS[kind].can_hit, self.changes))

    def find(self, what, said=""):
        tail = "".join(f"\n    | {line}" for line in said.splitlines()[-8:])
        self.findings.append(f"{self.name}: {what}{tail}")

    def afresh(self):
        """Have an output directory as before the first run."""
        shutil.rmtree(self.out, ignore_errors=True)
        if self.more:
            shutil.copytree(self.before, self.out, symlinks=True)
            return
        self.out.mkdir()
        if self.command.prepare:
            self.command.prepare(self.corpus, self.out)

    def learn(self):
        """Run the command without harm, seen and unseen: for what it makes, and the changes it makes on the way."""
        self.call = self.command.call(self.corpus, self.out, *self.more)  # which makes the inputs
        if self.more:
            self.before = self.work / "before"
            shutil.rmtree(self.before, ignore_errors=True)
            shutil.rmtree(self.out, ignore_errors=True)
            self.out.mkdir()
            if self.run(self.command.call(self.corpus, self.out, *self.command.other)).status != 0:
                self.find("the run with other parameters ends badly")
                return False
            shutil.copytree(self.out, self.before, symlinks=True)
        self.afresh()
        answer = self.run(self.call)
        if answer.status != 0:
            self.find(f"a run without harm ends with status {answer.status}", answer.out + answer.err)
            return False
        load(answer.loaded)
        self.expected, self.names = results(self.out), names_in(self.out)
        self.afresh()
        self.changes = run_watched(self.call, self.out, RUN_SECONDS).changes
        if different := differing(results(self.out), self.expected):
            self.find(f"runs without harm differ in {some(different)}")
            return False
        return True

    def run(self, *calls):
        """Run commands in a child, without harm, and return the answer of the first that does not end well."""
        for _, answer in children.run_all(list(calls), RUN_SECONDS):
            if answer.status != 0:
                break
        return answer

    def try_one(self, kind, fault, moment):
        """Have a fault happen at a moment; judge what came of it, and what comes of the same command then."""
        self.afresh()
        disk = Disk(self.out) if fault.cuts_power else None
        if disk is not None:
            disk.keep_all()
        course = run_watched(self.call, self.out, RUN_SECONDS, fault, moment, disk)
        of_kind = [change for change in course.changes if fault.can_hit(change)]
        where = f"{kind} at change {moment}"
        if len(of_kind) > moment:
            change = of_kind[moment]
            where += f", {change.name} {change.path.removeprefix(str(self.out))}"
        if course.hung:
            self.find(f"{where}: did not end within {RUN_SECONDS} s")
        elif fault.error == DIE:
            if course.answer is not None and len(of_kind) > moment:
                self.find(f"{where}: lived on")
        else:
            self.judge(where, fault, course.answer)
        if disk is not None:
            disk.cut_power(names_stay=fault.names_stay)
            try:
                check_noted(self.out)
            except (AssertionError, OSError) as error:
                self.find(f"{where}: noted as done what the disk does not have: {error}")
        elif problems := self.look():
            self.find(f"{where}: {problems[0]}")
        if fault.loses_ledgers:
            for ledger in self.out.rglob(f"{LEDGER_DIRECTORY}/*.jsonl"):
                ledger.unlink()
        self.conclude(where)

    def learn_other(self):
        """Run the command with other parameters, for what that makes."""
        self.other_call = self.command.call(self.corpus, self.out, *self.command.other)
        self.afresh()
        answer = self.run(self.other_call)
        if answer.status != 0:
            self.find(f"the run with other parameters ends with status {answer.status}", answer.out + answer.err)
        self.expected_of_other = results(self.out)

    def meet(self, moment):
        """Have the command with other parameters come at a moment; judge what comes of both."""
        self.afresh()
        answers = []
        course = run_watched(
            self.call,
            self.out,
            RUN_SECONDS,
            moment=moment,
            meanwhile=lambda: answers.append(self.run(self.other_call)),
        )
        where = f"{SECOND} at change {moment}"
        if course.answer is None or not answers:
            self.find(f"{where}: {'the first did not end' if course.answer is None else 'it came too late'}")
            return
        first, second = course.answer, answers[0]
        said = "".join((first.out, first.err, second.out, second.err))
        statuses = first.status, second.status
        # Where results replace inputs there is nothing left to do for whoever comes after the other.
        expected = {(0, 1): [self.expected], (1, 0): [self.expected_of_other]}
        expected |= {(0, 0): [self.expected]} if self.command.among_inputs else {}
        expected |= {(0, 0): [self.expected, self.expected_of_other]} if self.command.renews else {}
        if statuses not in expected:
            self.find(f"{where}: status {first.status} and {second.status}", said)
            return
        if 1 in statuses and not any(words in (first, second)[statuses.index(1)].err for words in REFUSED):
            self.find(f"{where}: does not say so", said)
        different = [differing(results(self.out), alone) for alone in expected[statuses]]
        if all(different):
            self.find(f"{where}: {some(different[0])} differ from a run alone", said)

    def judge(self, where, fault, answer):
        """Find what a run must not do that a change of files failed in."""
        if answer is None:
            self.find(f"{where}: died")
            return
        said = answer.out + answer.err
        for words in FORBIDDEN:
            if words in said:
                self.find(f"{where}: said {words!r}", said)
                return
        if answer.status == 0:
            self.compare(f"{where}, not spoken of", said, of_names=False)
        elif answer.status != 1:
            self.find(f"{where}: status {answer.status}", said)
        elif not any(words in answer.err.lower() for words in fault.words):
            self.find(f"{where}: does not say so", said)

    def look(self):
        """Return what is not whole of all that can be seen under a final name."""
        watcher = Watcher(self.out)
        watcher.look()
        return watcher.problems

    def conclude(self, where):
        """Give the same command again; find what it must not end with."""
        calls = [self.call]
        if not self.command.among_inputs:
            calls.append(self.command.call_verify(self.corpus, self.out))
        answer = self.run(*calls)
        if answer.status != 0:
            self.find(f"{where}: the next run ends with status {answer.status}", answer.out + answer.err)
        else:
            self.compare(f"{where}, and run again", answer.out + answer.err)

    def compare(self, where, said, of_names=True):
        """Find what differs from an uninterrupted run, and with `of_names` what was left over."""
        found = {name: data for name, data in results(self.out).items() if of_names or not name.endswith(".partial")}
        # Of a README.md nobody but its writer can say that it is no card of his own: it stays, and a warning says so.
        told = {name for name in {*found, *self.expected} if f"/{name}: another {name} is there" in said}
        if different := [name for name in differing(found, self.expected) if name not in told]:
            self.find(f"{where}: status 0, but {some(different)} differ from a run without harm", said)
        elif of_names and (left := sorted(names_in(self.out) ^ self.names)):
            self.find(f"{where}: left over or missing: {some(left)}", said)


def load(names):
    """Load modules here, so that no child has to; what only a child can have is left out."""
    for name in names:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)


def names_of(commands):
    """Return what can be tried of some commands: each, and each over the results of others."""
    over = [f"{name}{OVER_OTHERS}" for name, command in commands.items() if command.other and not command.among_inputs]
    return [*commands, *over]


def main(argv=None):
    """Run the torture; return 1 if anything was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", default="0", metavar="N", help="of all that is left to chance (default: 0)")
    parser.add_argument("--only", default="", metavar="WORDS", help="only commands with these words in their names")
    parser.add_argument("--kind", default="", metavar="WORDS", help="only what has these words in its name")
    parser.add_argument("--trials", type=int, metavar="N", help="of each command, drawn from all (default: all)")
    a = parser.parse_args(argv)
    print(f"seed {a.seed}")
    if not syscalls.are_seen():
        print("this system does not ask about changes of files (seccomp_unotify, Linux on x86-64): nothing was tried")
        return 0
    ledgers.NOTED_SECONDS = -1.0  # every input is noted at once, which makes more moments
    make_stages_quick()
    with tempfile.TemporaryDirectory(prefix="faults-") as work:
        torture = Torture(a.seed, work)
        for name in names_of(torture.commands):
            if a.only in name:
                begun, before = time.monotonic(), len(torture.findings)
                said = torture.torture(name, a.trials, [kind for kind in KINDS if a.kind in kind])
                print(f"{name}: {said}; {time.monotonic() - begun:.0f} s", flush=True)
                print("".join(f"  FOUND {line}\n" for line in torture.findings[before:]), end="", flush=True)
    print(f"{len(torture.findings)} findings")
    return 1 if torture.findings else 0


if __name__ == "__main__":
    sys.exit(main())
