"""Damage what stages keep for themselves and for each other, and say which of them does not bear it.

Each file in the ``.emcurate`` of an output directory, and some of every kind of result, is emptied, cut off, flipped,
filled with something else, crafted, made a pipe, a directory, a link or unreadable: after a finished run, and after one
that was killed half-way. So are the ledgers and tables of the stages before. The next run must end well, with the bytes
of a run that nothing happened to; or name the file and end with status 1, and once the file is deleted, end well.

Example: python -m tests.torture.state --seed 1 --only train_nn
"""

import argparse
import json
import os
import random
import re
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet

from emcurate.running import ledger as ledgers
from emcurate.running.ledger_file import LEDGER_DIRECTORY
from tests.quick import make_stages_quick
from tests.torture import faults, syscalls
from tests.torture.commands import SMALL_COMMANDS
from tests.torture.crafted_lists import make_npys, pickled
from tests.torture.faulty_runs import FAULTS, run_watched
from tests.torture.kills import FORBIDDEN
from tests.torture.odd_entries import make_socket

RESULTS_OF_A_KIND = 2  # results of one suffix that are damaged
FLIPS = 4
DEEP = 100_000  # brackets in brackets
FINISHED, HALF = "after a finished run", "after a run that was killed half-way"
BEFORE = "of a stage before"
HALF_WAY = 0.6  # of its changes
PUT_IN = "a"  # the file in a directory that stands where a file should

# What a line of a ledger ends with, which those of version 0.1.0 do not.
CHECK = re.compile(rb', ?"check": ?"[0-9a-f]*"(?=}$)')

# What may stand where something else should, as JSON.
ODD = ("null", "true", "-1", "0.5", "1e400", "NaN", '""', '"x"', '"../../x"', '"/etc/passwd"', '"a\\u0000"')
ODD += ("[]", "[[]]", "{}", '{"a": 1}', "9" * 40, '"' + "y" * 5000 + '"', '"\\ud800"')


def write(data):
    """Return what makes a file have this content."""
    return lambda path: path.write_bytes(data)


def _become(make):
    """Return what puts something else in the place of a file."""

    def become(path):
        path.unlink()
        make(path)

    return become


def _make_unreadable(path):
    path.chmod(0)


def generic_damages(data, others, root, rng):
    """Yield (what, function of a path) of damages to any file; `others` are contents of other such files."""
    size = len(data)
    yield "deleted", Path.unlink
    yield "emptied", write(b"")
    yield "cut in half", write(data[: size // 2])
    yield "without its last byte", write(data[:-1])
    yield "zeroed", write(bytes(size))
    yield "noise", write(rng.randbytes(200))
    yield "twice", write(data * 2)
    for _ in range(FLIPS if data else 0):
        where, bit = rng.randrange(size), rng.randrange(8)
        flipped = bytearray(data)
        flipped[where] ^= 1 << bit
        yield f"bit {bit} of byte {where} flipped", write(flipped)
    for text in ("text\n", "null", "[]", "{}", '"x"', "[" * DEEP, '{"a":' * DEEP, "\u2028\x85", "\ufeff"):
        yield f"{text[:8]!r}", write(text.encode())
    yield "no UTF-8", write(b"\xff\xfe\xff\n")
    yield "a pickle", write(pickled(root))
    for other in others:
        yield "another's content", write(other)
    yield "a directory", _become(Path.mkdir)
    yield "a directory with a file", _become(lambda path: (path.mkdir(), (path / PUT_IN).touch()))
    yield "a pipe", _become(os.mkfifo)
    yield "a socket", _become(make_socket)
    yield "a link that leads nowhere", _become(lambda path: path.symlink_to("/nowhere/at/all"))
    yield "a link to itself", _become(lambda path: path.symlink_to(path.name))
    yield "a link to a device", _become(lambda path: path.symlink_to("/dev/zero"))
    yield "unreadable", _make_unreadable


def crafted_damages(path, data, root, rng):
    """Yield (what, function of a path) of damages to a file of this format."""
    if path.suffix == ".jsonl":
        lines = [line for line in data.splitlines() if line.strip()]
        for number in {0, len(lines) - 1, rng.randrange(len(lines))} if lines else ():
            for what, text in _odd_values(json.loads(lines[number])):
                changed = [*lines[:number], text.encode("utf-8", "surrogatepass"), *lines[number + 1 :]]
                yield f"line {number}: {what}", write(b"\n".join(changed) + b"\n")
                unchecked = [CHECK.sub(b"", line) for line in changed]
                yield f"line {number}, as of version 0.1.0: {what}", write(b"\n".join(unchecked) + b"\n")
    elif path.suffix == ".json":
        for what, text in _odd_values(json.loads(data)):
            yield what, write(text.encode("utf-8", "surrogatepass"))
    elif path.suffix == ".npy":
        for what, other in make_npys(root):
            yield what, write(other)
    elif path.suffix == ".parquet":
        yield from _odd_tables(path)
    elif path.suffix == ".csv":
        lines = data.splitlines(keepends=True)
        for what, rows in {
            "only its header": lines[:1],
            "without its header": lines[1:],
            "a row twice": [*lines, lines[-1]],
            "rows of other lengths": [*lines, b"a,b,c,d,e,f,g,h,i,j,k\n"],
            "a quote without end": [*lines, b'"a'],
            "a field of 10^6 letters": [*lines, b"x" * 1_000_000],
            "NUL": [line.replace(b",", b"\0,") for line in lines],
        }.items():
            yield what, write(b"".join(rows))


def _odd_values(value, place=""):
    """Yield (what, text) of JSON in which one value after another, at any depth, is an odd one, or missing."""
    marker = "\0marker\0"

    def walk(part):
        if isinstance(part, dict):
            for key in [*part]:
                kept = part[key]
                part[key] = marker
                yield f"{key!r}"
                del part[key]
                yield f"without {key!r}"
                part[key] = kept
                yield from walk(kept)
        elif isinstance(part, list):
            for index in range(min(2, len(part))):
                kept = part[index]
                part[index] = marker
                yield f"item {index}"
                part[index] = kept
                yield from walk(kept)

    for what in walk(value):
        text = json.dumps(value)
        if json.dumps(marker) in text:
            for odd in ODD:
                yield f"{what} {odd[:20]}", text.replace(json.dumps(marker), odd)
        else:
            yield what, text


def _odd_tables(path):
    table = pyarrow.parquet.read_table(path)
    first = table.column_names[0]
    tables = {
        "no rows": table.slice(0, 0),
        "no columns": table.select([]),
        "without its first column": table.drop_columns([first]),
        "its first column numbers": table.set_column(0, first, pyarrow.array(np.arange(len(table)))),
        "nulls": pyarrow.Table.from_arrays(
            [pyarrow.nulls(len(table), f.type) for f in table.schema], schema=table.schema
        ),
        "without metadata": table.replace_schema_metadata(None),
        "odd metadata": table.replace_schema_metadata(dict.fromkeys(table.schema.metadata or {b"a": b""}, b"[1, ")),
        "rows twice": pyarrow.concat_tables([table, table]),
    }
    for what, other in tables.items():
        yield what, lambda path, other=other: pyarrow.parquet.write_table(other, path)


class Torture(faults.Torture):
    """The same for state as the faults do for changes."""

    def torture(self, name, trials=None, kinds=(FINISHED, HALF, BEFORE)):
        """Do everything to one command's state, or so many of all trials that there are, drawn."""
        self.name, self.command, self.more = name, self.commands[name], ()
        if not self.learn():
            return "not tried"
        counts = Counter()
        for kind in kinds:
            rng = random.Random(f"{self.seed} {name} {kind}")
            if kind == BEFORE:
                chosen = [damage for path in self.find_inputs() for damage in list_damages(path, [], self.work, rng)]
            else:
                whole = self.keep(kind)
                chosen = list(self.damages_below(whole, rng))
            if trials is not None and chosen:
                chosen = draw(chosen, trials, rng)
            for path, what, damage in chosen:
                if kind == BEFORE:
                    counts[self.try_before(path, what, damage)] += 1
                else:
                    counts[self.try_damage(whole, path.relative_to(whole), what, damage, kind)] += 1
        return ", ".join(f"{number:,} {words}" for words, number in counts.items())

    def keep(self, kind):
        """Run the command, to the end or half-way; return a copy of what there is then."""
        self.afresh()
        if kind == FINISHED:
            self.run(self.call)
        else:
            moment = int(HALF_WAY * len(self.changes))
            run_watched(self.call, self.out, faults.RUN_SECONDS, FAULTS["the process dies"], moment)
        whole = self.work / "whole"
        shutil.rmtree(whole, ignore_errors=True)
        shutil.copytree(self.out, whole, symlinks=True)
        return whole

    def find_inputs(self):
        """Return what the stages before keep of the inputs: ledgers, and tables of patches."""
        words = [Path(word) for word in self.call[1] if word.startswith(f"{self.corpus.directory}/")]
        places = {path if path.is_dir() and path.suffix != ".npz" else path.parent for path in words}
        ends = (f"{LEDGER_DIRECTORY}/*.jsonl", "*.parquet")
        return sorted({path for place in places for end in ends for path in place.glob(end)})

    def damages_below(self, whole, rng):
        """Yield (path, what, function of a path) for all that is done to files below a directory."""
        paths = sorted(path for path in whole.rglob("*") if path.is_file() and path.suffix != ".partial")
        states = [path for path in paths if LEDGER_DIRECTORY in path.relative_to(whole).parts]
        kinds = {}
        for path in paths:
            if path not in states and not self.command.among_inputs:
                kinds.setdefault((path.suffix, path.parent == whole), []).append(path)
        results = [path for found in kinds.values() for path in rng.sample(found, min(RESULTS_OF_A_KIND, len(found)))]
        contents = [path.read_bytes() for path in rng.sample(paths, min(3, len(paths)))]
        for path in [*states, *results]:
            yield from list_damages(path, contents, self.work, rng)

    def try_before(self, path, what, damage):
        """Damage what an earlier stage keeps; judge what the command does then; return that in words."""
        before, data = path.stat(), path.read_bytes()
        self.afresh()
        damage(path)
        _, judged = self.judge_run(f"{path.name} {what}")
        remove(path)
        path.write_bytes(data)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        return judged

    def judge_run(self, where):
        """Run the command; find what it must never do; return what it says, and in words how it ends."""
        answer = self.run(self.call)
        said = answer.out + answer.err
        if (self.work / "ran").exists():
            self.find(f"{where}: a payload was executed", said)
            (self.work / "ran").unlink()
        if answer.status not in (0, 1) or any(words in said for words in FORBIDDEN):
            self.find(f"{where}: status {answer.status}", said)
            return said, "not borne"
        return said, "named" if answer.status else "mended"

    def try_damage(self, whole, path, what, damage, kind):
        """Damage a file; judge what the command does then; return that in words."""
        where = f"{kind}, {path} {what}"
        shutil.rmtree(self.out)
        shutil.copytree(whole, self.out, symlinks=True)
        damage(self.out / path)
        said, judged = self.judge_run(where)
        if (self.out / path).is_dir():  # as which a lock does its work too: what was put into it is nobody's
            (self.out / path / PUT_IN).unlink(missing_ok=True)
        if judged == "mended":
            self.compare(where, said)
        if judged != "named":
            return judged
        if path.name not in said and path.parent.name not in said and str(self.out) not in said:
            self.find(f"{where}: not named", said)
        remove(self.out / path)
        answer = self.run(self.call)
        if answer.status != 0:
            self.find(f"{where}, named and deleted: status {answer.status}", said + answer.out + answer.err)
        else:
            self.compare(f"{where}, named and deleted", said + answer.out + answer.err)
        return judged


def draw(damages, count, rng):
    """Draw damages of one file as often as of any other, however many there are of each."""
    of_path = {}
    for damage in damages:
        of_path.setdefault(damage[0], []).append(damage)
    return [rng.choice(of_path[path]) for path in rng.choices(list(of_path), k=count)]


def remove(path):
    """Remove whatever is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def list_damages(path, others, root, rng):
    """Yield (path, what, function of a path) for all that is done to a file."""
    data = path.read_bytes()
    for damages in (generic_damages(data, others, root, rng), crafted_damages(path, data, root, rng)):
        for what, damage in damages:
            yield path, what, damage


def main(argv=None):
    """Run the torture; return 1 if anything was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", default="0", metavar="N", help="of all that is left to chance (default: 0)")
    parser.add_argument("--only", default="", metavar="WORDS", help="only commands with these words in their names")
    parser.add_argument("--trials", type=int, metavar="N", help="of each command and kind (default: all)")
    a = parser.parse_args(argv)
    print(f"seed {a.seed}")
    ledgers.NOTED_SECONDS = -1.0
    make_stages_quick()
    kinds = (FINISHED, HALF, BEFORE) if syscalls.are_seen() else (FINISHED, BEFORE)
    with tempfile.TemporaryDirectory(prefix="state-") as work:
        torture = Torture(a.seed, work)
        for name in SMALL_COMMANDS:
            if a.only in name:
                begun, before = time.monotonic(), len(torture.findings)
                said = torture.torture(name, a.trials, kinds)
                print(f"{name}: {said}; {time.monotonic() - begun:.0f} s", flush=True)
                print("".join(f"  FOUND {line}\n" for line in torture.findings[before:]), end="", flush=True)
    print(f"{len(torture.findings)} findings")
    return 1 if torture.findings else 0


if __name__ == "__main__":
    sys.exit(main())
