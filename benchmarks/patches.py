"""How fast sections become patches and hashes, beside a plain loop: python benchmarks/patches.py [SECTIONS].

The plain loop reads a section, slices it, writes each patch by tifffile and its imagehash.dhash by numpy. Both write
the same patches and hashes to the same disk, in turn in one run.
"""

from __future__ import annotations

import argparse
import importlib
import shutil
import sys
import tempfile
import time
from pathlib import Path

import imagehash
import numpy as np
import tifffile
from history import add_flags, compare
from PIL import Image

from emcurate.running.jobs import Workers, default_processes

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

CROP = 224
SIDE = 2048  # pixels, a common camera's
SECTIONS = 40
ROUNDS = 3  # the ways take turns, and each one's best round counts: disks are moody


def plain_loop(sections: Path, out: Path) -> None:
    for path in sorted(sections.iterdir()):
        section = tifffile.imread(path)
        count = max(1, round(SIDE / CROP))
        for y in range(0, count * CROP, CROP):
            for x in range(0, count * CROP, CROP):
                patch = section[y : y + CROP, x : x + CROP]
                image = Image.fromarray(patch).resize((CROP, CROP), resample=2)
                tifffile.imwrite(out / f"{path.stem}_{y}_{x}.tiff", patch)
                np.save(out / f"{path.stem}_{y}_{x}.npy", imagehash.dhash(image, 8).hash)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sections", type=int, nargs="?", default=SECTIONS, help="default: %(default)s")
    add_flags(parser)
    arguments = parser.parse_args()
    count = arguments.sections
    crop_patches = importlib.import_module("raw.crop_patches")
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        sections = root / "sections"
        sections.mkdir()
        for i in range(count):
            tifffile.imwrite(sections / f"a-LOC-0_{i:03d}.tiff", rng.integers(0, 256, (SIDE, SIDE)).astype(np.uint8))
        rows: dict[tuple[str, int], tuple[float, dict[str, bytes]]] = {}
        for _ in range(ROUNDS):
            for name, processes in (("plain loop", 0), ("emcurate", 1), ("emcurate", default_processes())):
                out = root / "patches"
                out.mkdir()
                start = time.perf_counter()
                if processes:
                    crop_patches.run(sections, out, workers=Workers(processes))
                else:
                    plain_loop(sections, out)
                seconds = time.perf_counter() - start
                hashes = {path.name: np.load(path).tobytes() for path in out.glob("*.npy")}
                shutil.rmtree(out)
                rows[name, processes] = min(seconds, rows.get((name, processes), (seconds,))[0]), hashes
        if any(hashes != rows["plain loop", 0][1] for _, hashes in rows.values()):
            raise SystemExit("the hashes differ")
        print(f"{'':<12} {'processes':>9} {'seconds':>8} {'patches/s':>10} {'ratio':>6}")
        ratios = {}
        for (name, processes), (seconds, hashes) in rows.items():
            ratios[f"{name} -p {processes}"] = ratio = rows["plain loop", 0][0] / seconds
            print(f"{name:<12} {processes or 1:>9} {seconds:>8.2f} {len(hashes) / seconds:>10,.0f} {ratio:>5.1f}x")
    del ratios["plain loop -p 0"]
    compare("patches", f"{count} sections of {SIDE}, crop {CROP}, against a plain loop", ratios, arguments)


if __name__ == "__main__":
    main()
