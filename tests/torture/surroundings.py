"""Run every stage where the system gives little or nothing, and say where it does not bear it.

Few open files, little memory, a home, a place for temporary files, a cache that are missing, full or may not be written
to; no terminal; a locale that knows no letters beside English ones, and names that are none of any language; a disk
that is full, a quota, files that may not grow, results that may not be written or that vanish. Each command either
ends well, with the bytes that it gives elsewhere, or with status 1 and a reason, without a traceback and in bounded
time; and the same command, given again where nothing is wanting, ends with those bytes.

Linux only, and some of it only for the superuser.

Example: python -m tests.torture.surroundings --only "open files"
"""

import argparse
import contextlib
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from tests.torture.commands import COMMANDS, Corpus, environment
from tests.torture.kills import FORBIDDEN, names_in, results
from tests.torture.processes import Run

RUN_SECONDS = 300  # that a run may take; the whole ones take a few
ORPHAN_SECONDS = 10

DONE, DONE_OR_REASON, REASON, SPOKEN = "done", "done, or named with a reason", "named with a reason", "done, status 1"

# What must not be written to is no matter to the superuser, as whom containers run.
NO_OVERRIDE = "setpriv --bounding-set=-dac_override,-dac_read_search --inh-caps=-dac_override,-dac_read_search"

# Bytes that fill a disk after some of the results.
TINY_DISK_BYTES = 200_000
QUOTA_BYTES = 100_000

# A library that is loaded before the system's own: to writes beyond so many bytes a process it answers as a quota does.
QUOTA_SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
static long left = %d;
static int over(int fd, size_t n) {
    struct stat s;
    if (fd < 3 || fstat(fd, &s) || !S_ISREG(s.st_mode)) return 0;
    left -= (long)n;
    if (left >= 0) return 0;
    errno = EDQUOT;
    return 1;
}
ssize_t write(int fd, const void *b, size_t n) {
    static ssize_t (*real)(int, const void *, size_t);
    if (!real) real = dlsym(RTLD_NEXT, "write");
    return over(fd, n) ? -1 : real(fd, b, n);
}
ssize_t pwrite64(int fd, const void *b, size_t n, off_t o) {
    static ssize_t (*real)(int, const void *, size_t, off_t);
    if (!real) real = dlsym(RTLD_NEXT, "pwrite64");
    return over(fd, n) ? -1 : real(fd, b, n, o);
}
"""


class OddCorpus(Corpus):
    """The inputs of the commands under names of other alphabets, in a directory whose name is no text in any."""

    NAMES = ("größe é {}", "組織 {}", "e\u0301 {}")

    def __init__(self, directory):
        super().__init__(directory / "größe \udcff\udcfe")
        self.directory.mkdir()

    def _make(self, name):
        # OpenCV, which writes them, ends the process for names that are no UTF-8.
        if name != "videos":
            return super()._make(name)
        path = self.directory.parent / name
        path.mkdir()
        return path

    def _renamed(self, directory):
        for number, path in enumerate(sorted(directory.iterdir())):
            # Of datasets of all kinds, which curate.py puts together, none has another's name.
            name = f"{self.NAMES[number % len(self.NAMES)].format(number)} {directory.name}"
            path.rename(path.with_name(name + "".join(path.suffixes)))
        return directory

    @cached_property
    def images(self):
        return self._renamed(super().images)

    @cached_property
    def volumes(self):
        return self._renamed(super().volumes)

    @cached_property
    def videos(self):
        return self._renamed(super().videos)


@dataclass(frozen=True)
class Surrounding:
    """What a command is run in.

    Attributes
    ----------
    wanted : str
        What is to come of it: one of the words above.
    shell : str
        Words of a shell before the command; ``"$@"`` is the command.
    variables : mapping
        Of its environment; None takes one out.
    corpus : type
    place : callable or None
        Makes a place from a directory and returns what gives it back; in `shell` and `variables` it is ``PLACE``.
    unfit : tuple of str
        Commands that cannot be run there whatever they do.
    most_said : int
        Letters that can be said there.
    """

    wanted: str = DONE
    shell: str = 'exec "$@"'
    variables: dict | None = None
    corpus: type = Corpus
    place: Callable | None = None
    unfit: tuple = ()
    most_said: int = 1 << 30


@contextlib.contextmanager
def nothing(directory):
    yield directory / "nothing" / "here"


@contextlib.contextmanager
def read_only(directory):
    place = directory / "read only"
    place.mkdir(exist_ok=True)
    place.chmod(stat.S_IRUSR | stat.S_IXUSR)
    yield place


@contextlib.contextmanager
def full(directory, size=4096, fill=True):
    """Give a directory on a disk without any room."""
    place = directory / "full"
    place.mkdir(exist_ok=True)
    options = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)]
    if subprocess.run(options, capture_output=True).returncode:
        raise NotImplementedError("no right to mount a small disk")
    try:
        if fill:
            with contextlib.suppress(OSError), open(place / "filler", "wb", buffering=0) as file:
                while file.write(bytes(4096)):
                    pass
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


@contextlib.contextmanager
def quota(directory):
    """Give a library that answers as a quota does."""
    place = directory / "quota.so"
    if shutil.which("gcc") is None:
        raise NotImplementedError("no compiler")
    source = directory / "quota.c"
    source.write_text(QUOTA_SOURCE % QUOTA_BYTES)
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", str(place), str(source), "-ldl"], check=True)
    yield place


@contextlib.contextmanager
def cgroup(directory, most=260 << 20):
    """Give the file that lists the processes of a group that may have so much memory together."""
    group = Path("/sys/fs/cgroup/memory/emcurate-torture")
    try:
        group.mkdir(exist_ok=True)
        (group / "memory.limit_in_bytes").write_text(str(most))
    except OSError:
        raise NotImplementedError("no right to make a group of processes of its own") from None
    try:
        yield group / "cgroup.procs"
    finally:
        remove_group(group)


def remove_group(group, seconds=10.0):
    """Remove a group of processes, which the last of them leaves some time after it has died."""
    limit = time.monotonic() + seconds
    while True:
        try:
            group.rmdir()
        except OSError:
            if time.monotonic() > limit:
                raise
            time.sleep(0.1)
        else:
            return


PLACES = ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "MPLCONFIGDIR", "NUMBA_CACHE_DIR", "EMCURATE_CACHE")
HOMES = {"HOME": "PLACE", **dict.fromkeys(PLACES[1:])}
CACHES = dict.fromkeys(PLACES[1:], "PLACE")
TEMPORARY = dict.fromkeys(("TMPDIR", "TEMP", "TMP"), "PLACE")
ENGLISH = {"LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": None}
KEPT_FROM = f'exec {NO_OVERRIDE} "$@"'

# Commands that need more memory than that, to load what they are made of, and are killed by the system.
WITH_PYTORCH = ("train_nn", "classify_nn", "embed", "curate")

SURROUNDINGS = {
    "64 open files": Surrounding(shell='ulimit -n 64; exec "$@"'),
    "no home": Surrounding(variables=HOMES, place=nothing),
    "a home that may not be written to": Surrounding(shell=KEPT_FROM, variables=HOMES, place=read_only),
    "a full home": Surrounding(variables=HOMES, place=full),
    "no variables": Surrounding(shell='exec env -i "$@"'),
    "caches that are not there": Surrounding(variables=CACHES, place=nothing),
    "caches that may not be written to": Surrounding(shell=KEPT_FROM, variables=CACHES, place=read_only),
    "full caches": Surrounding(variables=CACHES, place=full),
    "no place for temporary files": Surrounding(variables=TEMPORARY, place=nothing),
    "one that may not be written to": Surrounding(shell=KEPT_FROM, variables=TEMPORARY, place=read_only),
    "a full place for temporary files": Surrounding(variables=TEMPORARY, place=full),
    "no terminal": Surrounding(shell='exec setsid -w "$@" </dev/null'),
    "closed streams": Surrounding(shell='exec "$@" <&- >&- 2>&-'),
    "a full output": Surrounding(SPOKEN, 'exec "$@" >/dev/full 2>/dev/full'),
    "English only": Surrounding(variables=ENGLISH),
    "English only, and names that are not": Surrounding(variables=ENGLISH, corpus=OddCorpus),
    "half a gigabyte of memory": Surrounding(DONE_OR_REASON, 'ulimit -v 524288; exec "$@"'),
    "a gigabyte of memory": Surrounding(DONE_OR_REASON, 'ulimit -v 1048576; exec "$@"'),
    "two gigabytes of memory": Surrounding(DONE_OR_REASON, 'ulimit -v 2097152; exec "$@"'),
    "260 MB for all processes": Surrounding(
        DONE_OR_REASON, 'echo $$ >"PLACE"; exec "$@"', place=cgroup, unfit=WITH_PYTORCH
    ),
    # So is what is said, into a file here.
    "files of 1 kB at most": Surrounding(DONE_OR_REASON, 'ulimit -f 1; exec "$@"', most_said=1024),
    "a quota": Surrounding(DONE_OR_REASON, variables={"LD_PRELOAD": "PLACE"}, place=quota),
    "a umask of 777": Surrounding(DONE_OR_REASON, f'umask 777; exec {NO_OVERRIDE} "$@"'),
    "20 processes": Surrounding(DONE_OR_REASON, 'exec prlimit --nproc=20 setpriv --reuid=0 "$@"'),
}


class Torture:
    """All commands in all surroundings; `findings` are the lines that speak against them."""

    def __init__(self, work, commands=COMMANDS, limit=RUN_SECONDS):
        self.work = Path(work)
        self.commands = commands
        self.limit = limit
        self.out = self.work / "out"  # always the same: path lists name it
        self.findings = []
        self.corpora = {}
        self.learned = {}
        self.logs = 0

    def corpus_of(self, kind):
        if kind not in self.corpora:
            directory = self.work / kind.__name__
            directory.mkdir()
            self.corpora[kind] = kind(directory)
        return self.corpora[kind]

    def find(self, where, what, run=None):
        tail = "".join(f"\n    | {line[:400]}" for line in run.said.splitlines()[-8:]) if run else ""
        self.findings.append(f"{where}: {what}{tail}")

    def afresh(self, command, corpus):
        """Have an output directory as before the first run."""
        if self.out.exists():
            self.out.chmod(0o755)
            shutil.rmtree(self.out)
        self.out.mkdir()
        if command.prepare:
            command.prepare(corpus, self.out)

    def start(self, words, variables=None, shell='exec "$@"'):
        self.logs += 1
        changed = {name: value for name, value in {**environment(), **(variables or {})}.items() if value is not None}
        return Run(["bash", "-c", shell, "bash", *words], changed, self.work / f"log{self.logs % 10}")

    def learn(self, name, kind):
        """Return what a command makes where nothing is wanting; None if it does not end well there."""
        if (name, kind) not in self.learned:
            command, corpus = self.commands[name], self.corpus_of(kind)
            words = command.spell(corpus, self.out)
            self.afresh(command, corpus)
            run = self.start(words)
            if run.wait(self.limit) != 0:
                self.find(name, "does not end well where nothing is wanting", run)
                self.learned[name, kind] = None
            else:
                self.learned[name, kind] = results(self.out), names_in(self.out)
        return self.learned[name, kind]

    def torture(self, name, what):
        """Run one command in one surrounding; return how that went."""
        command, surrounding = self.commands[name], SURROUNDINGS[what]
        if name in surrounding.unfit:
            return "not tried: PyTorch takes more"
        expected = self.learn(name, surrounding.corpus)
        if expected is None:
            return "not tried"
        where, corpus = f"{name}, {what}", self.corpus_of(surrounding.corpus)
        self.afresh(command, corpus)
        make = surrounding.place or nothing
        try:
            with make(self.work) as place:
                variables = {
                    key: value and value.replace("PLACE", str(place))
                    for key, value in (surrounding.variables or {}).items()
                }
                shell = surrounding.shell.replace("PLACE", str(place))
                run = self.start(command.spell(corpus, self.out), variables, shell)
                status = run.wait(self.limit)
                for line in run.orphans(ORPHAN_SECONDS):
                    self.find(where, f"left a process: {line[:150]}")
        except NotImplementedError as reason:
            return f"not tried: {reason}"
        self.judge(where, surrounding, run, status)
        if status != 0 or surrounding.wanted == SPOKEN:
            subprocess.run(["chmod", "-R", "u+rwX", str(self.out)], check=True)
            again = self.start(command.spell(corpus, self.out))
            if again.wait(self.limit) != 0:
                self.find(where, "does not go on where nothing is wanting", again)
                return "not mended"
        self.compare(where, expected, run)
        return {0: "done", 1: "named", None: "hung"}.get(status, f"status {status}")

    def judge(self, where, surrounding, run, status):
        """Find what a run must not do or say."""
        allowed = {DONE: {0}, DONE_OR_REASON: {0, 1}, REASON: {1}, SPOKEN: {1}}[surrounding.wanted]
        if status is None:
            self.find(where, f"did not end within {self.limit} s", run)
        elif status not in allowed:
            self.find(where, f"status {status}", run)
        for words in FORBIDDEN:
            if words in run.said:
                self.find(where, f"said {words!r}", run)
        reasons = ("expected", "enough memory", "for want of memory")
        is_heard = len(run.said.encode()) < surrounding.most_said
        if (
            status == 1
            and surrounding.wanted == DONE_OR_REASON
            and is_heard
            and not any(w in run.said for w in reasons)
        ):
            self.find(where, "gave no reason", run)

    def compare(self, where, expected, run):
        found, names = results(self.out), names_in(self.out)
        different = sorted(
            name for name in found.keys() | expected[0].keys() if found.get(name) != expected[0].get(name)
        )
        if different:
            self.find(where, f"{len(different)} files differ, such as {different[:3]!r}", run)
        elif left := sorted(names ^ expected[1]):
            self.find(where, f"left over or missing: {left[:3]!r}", run)


def main(argv=None):
    """Run the torture; return 1 if anything was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", metavar="WORDS", help="only surroundings with these words")
    parser.add_argument("--command", default="", metavar="WORDS", help="only commands with these words")
    parser.add_argument("--seed", help="taken as by the other tortures; nothing here is left to chance")
    a = parser.parse_args(argv)
    count = 0
    with tempfile.TemporaryDirectory(prefix="surroundings-") as work:
        torture = Torture(work)
        for what in SURROUNDINGS:
            if a.only not in what:
                continue
            begun, said = time.monotonic(), {}
            for name in COMMANDS:
                if a.command in name:
                    before = len(torture.findings)
                    said.setdefault(torture.torture(name, what), []).append(name)
                    count += 1
                    for line in torture.findings[before:]:
                        print(f"  FOUND {line}".encode("utf-8", "backslashreplace").decode(), flush=True)
            print(f"{what}: ", end="")
            print("; ".join(f"{how}: {', '.join(names)}" for how, names in said.items()), end="")
            print(f"; {time.monotonic() - begun:.0f} s", flush=True)
    print(f"{count} runs, {len(torture.findings)} findings")
    return 1 if torture.findings else 0


if __name__ == "__main__":
    sys.exit(main())
