"""What the benchmarks share: command lines in turn, medians, memory of whole families of processes, tables, volumes."""

from __future__ import annotations

import ctypes
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

ROOT = Path(__file__).resolve().parent.parent
HERE = Path(__file__).resolve().parent
POLL_SECONDS = 0.05  # between looks at memory: looking takes time of its own
MIB = 1 << 20
PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
ORPHANS_SECONDS = 5.0  # after which what a command has left behind is let be
ROUNDS = 3

# As users have it: without this, each command would compile what was changed since the last installation.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# Blobs along a patch, so that about a third of very many patches become exemplars. With four, hashes soon repeat.
GRAINS_PER_PATCH = 6
NOISE = 4  # grey levels, so that neighbouring sections are alike and not the same


@dataclass(frozen=True)
class Usage:
    """What a command took.

    Attributes
    ----------
    seconds : float
    cpu : float
        Seconds that cores worked for it and all that came of it: what a busy machine changes little.
    largest, together : int
        Bytes at most in its largest process, and in all of them together; 0 unless it was watched.
    open_files : int
        How many files one of its processes had open at most; as above.
    """

    seconds: float
    cpu: float
    largest: int = 0
    together: int = 0
    open_files: int = 0


class Table:
    """A table printed line by line: the columns' names with the formats of their cells, of which text may be any."""

    def __init__(self, **columns: str) -> None:
        self.formats = list(columns.values())
        self.print([name.replace("_", " ") for name in columns])

    def print(self, cells: Sequence[Any]) -> None:
        """Print one line; numbers take the column's format, text and nothing (None) only its width."""
        words = []
        for cell, form in zip(cells, self.formats, strict=True):
            width = form.partition(".")[0].rstrip("fd,%").replace(",", "")
            words.append(f"{cell:{form}}" if isinstance(cell, (int, float)) else f"{cell or '':{width}}")
        print(" ".join(words).rstrip(), flush=True)


def script(name: str, *words: object) -> list[str]:
    """Return the command line of a script of the repository."""
    return [sys.executable, str(ROOT / name), *map(str, words)]


def run_command(command: Sequence[str], watch: Callable[[int], None] | None = None) -> Usage:
    """Run a command line; one that fails ends the benchmark with its errors.

    `watch` is called with its process id now and then. No other child may run meanwhile.
    """
    adopt_orphans()
    with tempfile.TemporaryFile("w+") as errors:
        start = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors)
        stop = threading.Event()

        def look() -> None:
            while watch is not None and not stop.is_set():
                watch(process.pid)
                stop.wait(POLL_SECONDS)

        watcher = threading.Thread(target=look)
        watcher.start()
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        stop.set()
        watcher.join()
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            errors.seek(0)
            sys.exit(f"{' '.join(command)}\n{errors.read()}")
    return Usage(seconds, usage.ru_utime + usage.ru_stime + wait_for_orphans())


def adopt_orphans() -> None:
    """Have processes whose parent has ended, such as multiprocessing's fork server, waited for here: Linux only."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def wait_for_orphans() -> float:
    """Wait for what a command has left behind; return the seconds that cores worked for it."""
    cpu, deadline = 0.0, time.monotonic() + ORPHANS_SECONDS
    while time.monotonic() < deadline:
        try:
            pid, _, usage = os.wait4(-1, os.WNOHANG)
        except ChildProcessError:
            break
        if pid:
            cpu += usage.ru_utime + usage.ru_stime
        else:
            time.sleep(0.005)
    return cpu


def watch_command(command: Sequence[str], look: Callable[[], None] = lambda: None) -> Usage:
    """Run a command line and watch its memory and that of all that comes of it, from /proc: Linux only.

    The largest process's is what it ever held (VmHWM), file pages that are mapped included. That of all together is
    looked at now and then, shared pages counted once (PSS), and so are open files; `look` is called then too.
    """
    largest, together, open_files = [0], [0], [0]

    def watch(pid: int) -> None:
        pids = find_family(pid)
        largest[0] = max(largest[0], *(read_kib(pid, "status", "VmHWM:") for pid in pids))
        together[0] = max(together[0], sum(read_kib(pid, "smaps_rollup", "Pss:") for pid in pids))
        open_files[0] = max(open_files[0], *map(count_open_files, pids))
        look()

    usage = run_command(command, watch)
    return replace(usage, largest=largest[0], together=together[0], open_files=open_files[0])


def count_open_files(pid: int) -> int:
    """Return how many files a process has open; 0 if it is gone."""
    try:
        return len(os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        return 0


def find_family(pid: int) -> list[int]:
    """Return a process and all that came of it."""
    found = [pid]
    for parent in found:
        for children in Path(f"/proc/{parent}/task").glob("*/children"):
            try:
                found += map(int, children.read_text().split())
            except OSError:
                continue
    return found


def read_kib(pid: int, file: str, key: str) -> int:
    """Return what a line of a process's /proc files says, in bytes; 0 if the process is gone."""
    try:
        with open(f"/proc/{pid}/{file}") as lines:
            return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(key)), 0)
    except OSError:
        return 0


def timed(function: Callable[[], Any]) -> Callable[[], float]:
    """Return a function that returns how many seconds the given one took."""

    def call() -> float:
        start = time.perf_counter()
        function()
        return time.perf_counter() - start

    return call


def take_turns(ways: Mapping[str, Callable[[], float]], rounds: int = ROUNDS) -> dict[str, float]:
    """Return the median of the seconds that each way says it took; the ways take turns."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            seconds[name].append(way())
    return {name: statistics.median(times) for name, times in seconds.items()}


@contextmanager
def fast_directory(directory: Path | None = None) -> Iterator[Path]:
    """Give a directory to work in: in `directory`, in memory if there is such a file system, or the usual one."""
    memory = Path("/dev/shm")
    if directory is None:
        directory = memory if os.access(memory, os.W_OK) else Path(tempfile.gettempdir())
    with tempfile.TemporaryDirectory(prefix="emcurate-bench-", dir=directory) as work:
        yield Path(work)


def clear(directory: Path) -> None:
    """Make a directory not be there."""
    shutil.rmtree(directory, ignore_errors=True)


def count_files(directory: Path) -> tuple[int, int]:
    """Return the files below a directory, those of hidden directories too, and their bytes."""
    sizes = [entry.stat().st_size for entry in directory.rglob("*") if entry.is_file()]
    return len(sizes), sum(sizes)


def describe_load() -> str:
    """Return how many cores there are and how busy they have been."""
    return f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} in the last minute"


def write_texture(path: Path, shape: tuple[int, int, int], crop: int, seed: int = 0) -> None:
    """Write a volume of blobs with some noise, (z, y, x) uint8, as raw NRRD, plane by plane.

    `crop` is the side of the patches it is meant for.
    """
    random = np.random.default_rng(seed)
    grain = max(1, crop // GRAINS_PER_PATCH)
    noise = random.integers(-NOISE, NOISE + 1, shape[1:]).astype(np.int16)
    sides = [side // grain + 2 for side in shape[1:]]
    header = f"NRRD0004\ntype: uint8\ndimension: 3\nsizes: {shape[2]} {shape[1]} {shape[0]}\nspacings: 8 8 8\n"
    with open(path, "wb") as file:
        file.write(f'{header}space dimension: 3\nspace units: "nm" "nm" "nm"\nencoding: raw\n\n'.encode())
        before = after = random.integers(0, 256, sides).astype(np.float32)
        for z in range(shape[0]):
            if z % grain == 0:
                before, after = after, random.integers(0, 256, sides).astype(np.float32)
            coarse = before + (after - before) * (z % grain / grain)
            smooth = cv2.resize(coarse, (sides[1] * grain, sides[0] * grain), interpolation=cv2.INTER_CUBIC)
            plane = smooth[: shape[1], : shape[2]] + np.roll(noise, (7 * z, 3 * z), (0, 1))
            file.write(np.clip(plane, 0, 255).astype(np.uint8).tobytes())
