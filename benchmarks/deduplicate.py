"""How long deduplicate.py takes from tables, Python's start included: python benchmarks/deduplicate.py [--large].

The first row has a published loop beside it, a process of its own as well: it reads one file a hash, compares the first
hash that is left with all that are left, and writes the exemplars. Both find the same number of exemplars. The others
tell how it grows: many datasets, very many of one patch, and with `--large` four million patches in one. "again" is a
run with nothing to do, "files" what only writing as many files takes. Memory is the largest process's at its peak.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from emcurate import naming
from emcurate.images.origins import Origin
from emcurate.patches.cuts import Cut, write_cuts
from emcurate.patches.tables import TABLE_SUFFIX

STAGE = Path(__file__).resolve().parent.parent / "deduplicated" / "deduplicate.py"
DISTANCE = 12  # bits of 64

PATCHES_A_SECTION = 100
FEW, MANY, SINGLES, LARGE = (1, 25_000), (300, 200_000), (10_000, 10_000), (1, 4_000_000)  # datasets, patches of all

ROUNDS = 3  # the ways take turns, and each one's best round counts
SECONDS_TIMED_ONCE = 20

LOOP = """
import sys
from pathlib import Path
import numpy as np
patchdir, out = map(Path, sys.argv[1:])
paths = np.random.default_rng(0).permutation(sorted(map(str, patchdir.glob("*.npy"))))
hashes = np.array([np.load(path).ravel() for path in paths])
kept = []
left = np.arange(len(hashes))
while left.size:
    kept.append(left[0])
    left = left[np.count_nonzero(hashes[left] != hashes[left[0]], axis=1) > 12]
np.save(out / "exemplars.npy", paths[kept])
"""


def make_hashes(rng: np.random.Generator, count: int) -> np.ndarray:
    """Return hashes of which a third become exemplars, as bytes: any two alike differ in four bits at most."""
    centres = rng.integers(0, 2**64, max(1, count // 3), np.uint64)
    hashes = centres[rng.permutation(np.arange(count) % len(centres))]
    for _ in range(2):
        hashes ^= np.uint64(1) << rng.integers(0, 64, count, np.uint64)
    return hashes.view(np.uint8).reshape(count, 8)


def write_tables(patchdir: Path, datasets: int, patches: int, with_files: bool) -> None:
    """Write a table for each dataset, as crop_patches does, and also a file for each hash."""
    patchdir.mkdir()
    rng = np.random.default_rng(0)
    settings = {"crop_size": 224, "hash_size": 8, "hash": "dhash"}
    for number in range(datasets):
        hashes = make_hashes(rng, patches // datasets + (number < patches % datasets))
        cuts, origins = [], {}
        for index, start in enumerate(range(0, len(hashes), PATCHES_A_SECTION)):
            some = hashes[start : start + PATCHES_A_SECTION]
            section = naming.VolumeSection(f"volume_{number:05d}", 0, index, 5)
            corners = np.stack([np.arange(len(some)) // 10, np.arange(len(some)) % 10], 1) * 224
            places = np.concatenate([corners, np.full_like(corners, 224)], 1).astype(np.int32)
            cuts.append(Cut(section, places, some))
            origins[section.stem] = Origin("volume", "/data/volume.mrc")
            for (y, x), bits in zip(corners, some, strict=True) if with_files else ():
                np.save(patchdir / f"{section.stem}_{y}_{x}.npy", np.unpackbits(bits).reshape(8, 8).astype(bool))
        write_cuts(patchdir / f"volume_{number:05d}{TABLE_SUFFIX}", cuts, origins.__getitem__, settings)


def run(*command: object) -> tuple[float, float]:
    """Run a command; return its seconds, and the MB of the process."""
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, *map(str, command)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    errors = process.stderr.read() if process.stderr else b""
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(errors.decode())
    return time.perf_counter() - start, usage.ru_maxrss / 1000


def write_files(out: Path, count: int) -> float:
    start = time.perf_counter()
    for number in range(count):
        partial = out / f".{number}.partial"
        partial.write_bytes(b"x" * 200)
        partial.replace(out / f"{number}.txt")
    return time.perf_counter() - start


def measure(datasets: int, patches: int, with_loop: bool) -> None:
    """Print a row."""
    seconds: dict[str, list[float]] = {}
    memory = 0.0
    with tempfile.TemporaryDirectory() as temporary:
        patchdir = Path(temporary) / "patches"
        write_tables(patchdir, datasets, patches, with_loop)
        for number in range(ROUNDS):
            out = Path(temporary) / f"{number}"
            for name in ("out", "loop", "files"):
                (out / name).mkdir(parents=True)
            taken, peak = run(STAGE, patchdir, out / "out", "-d", DISTANCE)
            seconds.setdefault("stage", []).append(taken)
            memory = max(memory, peak)
            seconds.setdefault("again", []).append(run(STAGE, patchdir, out / "out", "-d", DISTANCE)[0])
            seconds.setdefault("files", []).append(write_files(out / "files", 2 * datasets))
            if with_loop:
                seconds.setdefault("loop", []).append(run("-c", LOOP, patchdir, out / "loop")[0])
                exemplars = np.load(out / "loop" / "exemplars.npy", allow_pickle=False)
                found = np.load(out / "out" / "volume_00000_exemplars.npy", allow_pickle=False)
                if len(exemplars) != len(found):
                    raise SystemExit(f"{len(found)} exemplars, but {len(exemplars)} by the loop")
            if taken > SECONDS_TIMED_ONCE:
                break
    best = {name: min(each) for name, each in seconds.items()}
    ratio = f"{best['loop']:>8.2f} {best['loop'] / best['stage']:>10.1f}" if with_loop else f"{'':>19}"
    times = " ".join(f"{best[name]:>7.2f}" for name in ("stage", "again", "files"))
    print(f"{patches:>10,} {datasets:>8,} {times} {memory:>6.0f} {ratio}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--large", action="store_true", help=f"also {LARGE[1]:,} patches")
    options = parser.parse_args()
    columns = {"patches": 10, "datasets": 8, "stage": 7, "again": 7, "files": 7, "MB": 6, "loop": 8, "loop/stage": 10}
    print(" ".join(f"{name:>{width}}" for name, width in columns.items()))
    for datasets, patches in (FEW, MANY, SINGLES, *[LARGE] * options.large):
        measure(datasets, patches, (datasets, patches) == FEW)


if __name__ == "__main__":
    main()
