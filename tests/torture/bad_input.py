"""Put broken, crafted and odd files before the stages that read them, and say where one of them does not bear it.

Of each file: it ends as done or as named, without a traceback, in bounded time and memory; its good neighbours are
done; the exit status says whether anything failed. Where a format has a checksum, and where a file is cut off, what
is taken must give what the whole file gives.

Example: python -m tests.torture.bad_input --seed 1
"""

import argparse
import shutil
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from tests.torture import children
from tests.torture.crafted import make_crafted
from tests.torture.damage import CUT, FLIP, cut_off, flip, seeded
from tests.torture.odd_entries import make_odd_kinds, make_traps, odd_names
from tests.torture.originals import ANYTHING, SAME, SAME_IF_CUT, make_originals
from tests.torture.readers import GOOD, make_readers, make_root, write_case

FLIPS = 60  # of each format, in the long form
BATCH = 40  # cases that lie in one directory
BATCH_SECONDS, CASE_SECONDS = 90, 20  # that a command may take
MOST_BYTES = 2 << 30  # that a process may take beyond what it had at its start

CRAFTED, ODD = "crafted", "odd"

# What no output may hold.
FORBIDDEN = ("Traceback (most recent call last)", "please report it", "enough memory", "unittest", " failed with ")


@dataclass
class Case:
    """One broken input: for whom, what was done to it, and the files it consists of."""

    name: str
    reader: str
    format: str
    kind: str
    what: str
    files: dict
    promise: str = ANYTHING
    must_fail: bool = False
    original: object = None

    def __str__(self):
        return f"{self.format}: {self.what} [{self.reader}, {self.name}]"


@dataclass
class Tally:
    """What became of the cases of a format."""

    named: int = 0
    taken: int = 0
    seconds: float = 0
    peak: int = 0


@dataclass
class Torture:
    """A run: where it works, what it found."""

    seed: int
    share: float
    work: Path
    keep: Path | None
    only: str = ""
    findings: list = field(default_factory=list)
    tallies: dict = field(default_factory=lambda: defaultdict(Tally))
    number: int = 0

    def run(self):
        self.root = make_root(self.work / "root")
        make_traps(self.root / "patches")
        self.originals = make_originals(self.root)
        self.readers = make_readers(self.originals)
        for name, reader in self.readers.items():
            cases = [case for case in self.make_cases(name) if self.only in str(case)]
            if not cases:
                continue
            self.learn(name, reader)
            # Damage does more to a process than crafted files: each kind has directories of its own.
            size = BATCH if reader.takes_many else 200
            for start in range(0, len(cases), size):
                self.put(reader, cases[start : start + size])
            if reader.takes_many and self.only in f"odd entries [{name}]":
                self.put_odd(name, reader)
        if (self.root / "ran").exists():
            self.findings.append("a payload was executed")
        return self.findings

    def new_name(self):
        self.number += 1
        return f"c{self.number:05d}"

    def make_cases(self, name):
        for original in self.originals:
            if original.reader != name:
                continue
            rng = seeded(self.seed, original.format, name)
            count = max(1, round(self.share * FLIPS))
            cuts = cut_off(original.data, original.points, rng, None if self.share >= 1 else max(2, count // 2))
            for kind, broken in ((CUT, cuts), (FLIP, flip(original.data, original.points, rng, count))):
                for what, data in broken:
                    files = original.with_data(data)
                    yield Case(
                        self.new_name(), name, original.format, kind, what, files, original.promise, False, original
                    )
        rng = seeded(self.seed, "crafted", name)
        for what, files in make_crafted(name, self.root):
            if self.share >= 1 or rng.random() < self.share:
                yield Case(self.new_name(), name, "crafted", CRAFTED, what, files)

    def learn(self, name, reader):
        """Run the reader on whole files, for what comes of them, and on the good neighbours alone."""
        self.expected = {}
        originals = [o for o in self.originals if o.reader == name and o.promise != ANYTHING]
        cases = [Case(self.new_name(), name, o.format, "whole", "nothing", o.files, original=o) for o in originals]
        for group in [cases] if reader.takes_many else [[case] for case in cases]:
            inputs, out = self.lay_out(reader, group)
            ((_, answer),) = children.run_all([(reader.module, reader.words(inputs, out, self.root))], BATCH_SECONDS)
            if answer.status != 0:
                raise SystemExit(f"{name} does not take good files: {answer.out}{answer.err}")
            for case in group:
                self.expected[id(case.original)] = results(out, case.name if reader.takes_many else "")
            self.neighbours = results(out, GOOD) if reader.takes_many else {}
        if not cases and reader.takes_many:
            inputs, out = self.lay_out(reader, [])
            ((_, answer),) = children.run_all([(reader.module, reader.words(inputs, out, self.root))], BATCH_SECONDS)
            self.neighbours = results(out, GOOD)

    def lay_out(self, reader, cases):
        directory = Path(tempfile.mkdtemp(dir=self.work))
        inputs, out = directory / "in", directory / "out"
        inputs.mkdir()
        if reader.takes_many:
            make_traps(inputs)
            for name, data in reader.neighbours.items():
                (inputs / name).write_bytes(data)
        for case in cases:
            write_case(inputs, case.files, case.name, self.root)
        return inputs, out

    def put(self, reader, cases):
        """Put cases before a reader: together where it takes many, and one by one if that hangs."""
        if reader.takes_many:
            self.put_together(reader, cases, BATCH_SECONDS)
            return
        places = [self.lay_out(reader, [case]) for case in cases]
        commands = [(reader.module, reader.words(*place, self.root)) for place in places]
        for index, answer in children.run_all(commands, CASE_SECONDS):
            case, (inputs, out) = cases[index], places[index]
            named = answer.status == 1
            self.judge_answer(answer, [case], inputs)
            if named and "Failed:\n  " not in answer.err and "expected" not in answer.err:
                self.find(case, f"exit 1 without a reason: {answer.err[-300:]}", inputs)
            self.judge_case(case, named, "warning:" in answer.err, answer.status == 0, results(out, ""), inputs)
            self.count(case, named, answer)
            shutil.rmtree(inputs.parent, ignore_errors=True)

    def put_together(self, reader, cases, limit):
        inputs, out = self.lay_out(reader, cases)
        ((_, answer),) = children.run_all([(reader.module, reader.words(inputs, out, self.root))], limit)
        if answer.status is None and len(cases) > 1 and "Traceback" not in answer.err:
            for case in cases:
                self.put_together(reader, [case], CASE_SECONDS)
            shutil.rmtree(inputs.parent, ignore_errors=True)
            return
        self.judge_answer(answer, cases, inputs)
        self.judge_all(reader, answer, cases, inputs, out)
        shutil.rmtree(inputs.parent, ignore_errors=True)

    def judge_all(self, reader, answer, cases, inputs, out):
        before, _, failed = answer.err.partition("Failed:\n")
        # Of many the first are printed, and all of them are in a file beside the results.
        failed += "".join(path.read_text(errors="surrogateescape") for path in inputs.parent.rglob("*.failures.txt"))
        warned = "\n".join(line for line in before.splitlines() if line.startswith("warning:"))
        any_named = False
        for case in cases:
            named = case.name in failed
            any_named |= named
            found = results(out, case.name)
            self.judge_case(case, named, case.name in warned, bool(found), found, inputs)
            self.count(case, named, answer)
        found = results(out, GOOD)
        if found.keys() != self.neighbours.keys() or (not reader.names_places and found != self.neighbours):
            self.find(cases[0], f"the good neighbours of {len(cases)} cases were not done: {answer.err[-500:]}", inputs)
        if answer.status is not None and (answer.status == 1) is not any_named:
            self.find(
                cases[0], f"exit {answer.status} with {'some' if any_named else 'none'} named: {failed[-500:]}", inputs
            )

    def judge_answer(self, answer, cases, inputs):
        if answer.status not in (0, 1):
            self.find(cases[0], f"exit {answer.status}: {answer.err[-1500:]}", inputs)
        text = answer.out + answer.err
        for line in text.splitlines():
            if any(word in line for word in FORBIDDEN):
                case = next((case for case in cases if case.name in line), cases[0])
                self.find(case, line[:600], inputs)
        if answer.peak_bytes > MOST_BYTES:
            self.find(cases[0], f"{answer.peak_bytes >> 20:,} MiB of memory in the batch that begins with it", inputs)

    def judge_case(self, case, named, warned, taken, found, inputs):
        if case.must_fail and not named:
            self.find(case, "not named", inputs)
        if not named and not taken:
            self.find(case, "neither done nor named", inputs)
        same = case.promise == SAME or (case.promise == SAME_IF_CUT and case.kind == CUT)
        if same and taken and not named and not warned and found != self.expected[id(case.original)]:
            self.find(case, "taken without a word, with other results than the whole file's", inputs)

    def put_odd(self, name, reader):
        """Put odd kinds of entries and odd names before a reader, twice: the second time nothing may be new."""
        own = next((o for o in self.originals if o.reader == name), None)
        inputs, out = self.lay_out(reader, [])
        # Data beside a header, or in a directory store, are no input by themselves.
        found = {next(iter(o.files)).partition("CASE00")[2] for o in self.originals if o.reader == name}
        suffixes = sorted(suffix for suffix in found if suffix != ".raw" and not suffix.rpartition("/")[0])
        cases = []
        for suffix in suffixes if self.share >= 1 else suffixes[:3]:
            if "/" in suffix:
                (inputs / f"d{self.number}").mkdir()
            directory = inputs if "/" not in suffix else inputs / self.new_name()
            directory.mkdir(exist_ok=True)
            for what, case in make_odd_kinds(directory, self.new_name(), suffix.rpartition("/")[2]):
                shown = case if directory == inputs else directory.name
                cases.append(Case(shown, name, f"odd {suffix}", ODD, what, {}, must_fail="must not" not in what))
        (inputs / self.new_name()).mkdir()
        (inputs / f"c{self.number:05d}").chmod(0)
        for number in range(len(odd_names("", "")) if own else 0):
            case = self.new_name()
            for file, data in own.files.items():
                name_of_file = odd_names(case, file.partition("CASE00")[2])[number]
                (inputs / name_of_file).write_bytes(data)
            cases.append(Case(case, name, f"odd names of {own.format}", ODD, repr(name_of_file)[:60], {}))
        command = (reader.module, reader.words(inputs, out, self.root))
        answers = [answer for _, answer in children.run_all([command, command], BATCH_SECONDS)]
        self.judge_answer(answers[0], cases, inputs)
        self.judge_all(reader, answers[0], cases, inputs, out)
        if len(answers) > 1:
            again = next((line for line in answers[1].out.splitlines() if line.startswith(f"{name}:")), "")
            first = next((line for line in answers[0].out.splitlines() if line.startswith(f"{name}:")), "")
            if first == again:
                self.find(cases[0], f"a second run does the work again: {again}", inputs)
            self.judge_answer(answers[1], cases, inputs)
        shutil.rmtree(inputs.parent, ignore_errors=True)

    def count(self, case, named, answer):
        tally = self.tallies[case.reader, case.format]
        tally.named += named
        tally.taken += not named
        tally.seconds = max(tally.seconds, answer.seconds)
        tally.peak = max(tally.peak, answer.peak_bytes)

    def find(self, case, what, inputs):
        self.findings.append(f"{case}: {what}")
        if self.keep:
            place = self.keep / case.name
            place.mkdir(parents=True, exist_ok=True)
            for file, data in case.files.items():
                path = place / file.replace("CASE00", case.name)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(repr(data).encode() if callable(data) else data)


def results(out: Path, name: str) -> dict:
    """Return the content of results by name, those of one case: its own name replaced, so that cases compare."""
    if not out.is_dir():
        return {}
    return {
        str(path.relative_to(out)).replace(name, "CASE00") if name else str(path.relative_to(out)): path.read_bytes()
        for path in sorted(out.rglob("*"))
        if name in path.name and ".emcurate" not in path.parts and path.is_file()
    }


def main(argv=None):
    """Run the torture; return 1 if anything was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0, help="of the damage (default: 0)")
    parser.add_argument("--share", type=float, default=1.0, help="part of the cases to try (default: all)")
    parser.add_argument("--only", default="", metavar="WORDS", help="only cases whose description has these words")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep the files that something was found with")
    arguments = parser.parse_args(argv)
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="torture-") as work:
        torture = Torture(arguments.seed, arguments.share, Path(work), arguments.keep, arguments.only)
        findings = torture.run()
    print(f"{'reader':26} {'format':24} {'named':>6} {'taken':>6} {'longest s':>9} {'peak MiB':>9}")
    for (reader, format), tally in torture.tallies.items():
        print(f"{reader:26} {format:24} {tally.named:6} {tally.taken:6} {tally.seconds:9.1f} {tally.peak >> 20:9,}")
    count = sum(tally.named + tally.taken for tally in torture.tallies.values())
    seconds = time.monotonic() - start
    print(f"seed {arguments.seed}: {count:,} broken files, {len(findings):,} findings, {seconds:.0f} s")
    for finding in findings:
        print(f"  {finding!s}".encode("utf-8", "backslashreplace").decode())
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
