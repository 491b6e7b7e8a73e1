"""How long a patch's difference hash takes, all of a section at once beside one by one; and a proof of equal bits.

Without arguments: microseconds a patch of imagehash.dhash, compute_dhash (Pillow, patch by patch) and hash_patches (a
section at once), which take turns in one process; the median counts.
Compiled loops are used from the first patch on.
With --prove N: N million patches of several sizes, half of them of made sections and half of the images in
EMCURATE_DATA if it is set, hashed both ways, and how many hashes differ.

Example: python benchmarks/hashing.py --prove 3
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import imagehash
import numpy as np
from history import add_flags, compare
from measuring import take_turns, timed
from PIL import Image
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from emcurate.patches.hashing import compute_dhash
from emcurate.patches.section_hashes import LOOPS, hash_patches

CROPS = (64, 128, 224, 256)
HASHES = (8, 16)
ROUNDS = 15
PATCHES_A_SIDE = 4  # about what a section of 520 pixels has at 128

# Crop and hash sizes to prove: the usual ones, a prime, an upsampled one, hashes of more than a word.
PROVED = ((64, 8), (64, 16), (128, 8), (128, 16), (224, 8), (224, 16), (101, 7), (48, 32), (7, 8), (33, 64))
SIDE = 1024  # pixels of a made section, and at most of a real one
STARTS = 16  # rows and columns at which patches of one section start, drawn afresh for each


def hash_by_imagehash(section, starts, crop, hash_size):
    return np.array(
        [
            imagehash.dhash(Image.fromarray(section[y : y + crop, x : x + crop]), hash_size).hash
            for y, x in itertools.product(*starts)
        ]
    )


def hash_one_by_one(section, starts, crop, hash_size):
    return np.array(
        [compute_dhash(section[y : y + crop, x : x + crop], crop, hash_size) for y, x in itertools.product(*starts)]
    )


def hash_at_once(section, starts, crop, hash_size):
    return hash_patches(section, np.array(list(itertools.product(*starts)), np.int32), crop, hash_size)


WAYS: dict[str, Callable[..., np.ndarray]] = {
    "imagehash.dhash": hash_by_imagehash,
    "compute_dhash": hash_one_by_one,
    "hash_patches": hash_at_once,
}


def print_times(arguments: argparse.Namespace) -> None:
    print("microseconds a patch")
    print(f"{'crop':>5} {'hash':>5} " + " ".join(f"{name:>16}" for name in WAYS) + f" {'ratio':>7}")
    rng = np.random.default_rng(0)
    ratios = {}
    for crop, hash_size in itertools.product(CROPS, HASHES):
        section = rng.integers(0, 256, (PATCHES_A_SIDE * crop, PATCHES_A_SIDE * crop)).astype(np.uint8)
        starts = (range(0, len(section), crop),) * 2
        given = section, starts, crop, hash_size
        found = [way(*given) for way in WAYS.values()]
        if any(not np.array_equal(hashes, found[0]) for hashes in found):
            raise SystemExit("the hashes differ")
        ways = {name: timed(lambda way=way, given=given: way(*given)) for name, way in WAYS.items()}
        medians = {name: t / PATCHES_A_SIDE**2 * 1e6 for name, t in take_turns(ways, ROUNDS).items()}
        ratio = medians["compute_dhash"] / medians["hash_patches"]
        ratios[f"crop {crop}, hash {hash_size}"] = ratio
        print(f"{crop:>5} {hash_size:>5} " + " ".join(f"{t:>16.1f}" for t in medians.values()) + f" {ratio:>6.1f}x")
    compare("hashing", "hash_patches against compute_dhash", ratios, arguments)


def make_sections(rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Yield noise of several kinds for ever, of one pixel and coarser, some of it only black and white."""
    for i in itertools.count():
        grain, grey = (1, 2, 5, 19)[i % 4], ((0, 256, 1), (0, 2, 255), (100, 108, 1))[i % 3]
        noise = (rng.integers(*grey[:2], (SIDE // grain + 1,) * 2) * grey[2]).astype(np.uint8)
        yield noise.repeat(grain, 0).repeat(grain, 1)[:SIDE, :SIDE]


def read_sections(directory: Path, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Yield pieces of the images below a directory for ever."""
    paths = sorted(p for p in directory.rglob("*") if p.suffix in (".png", ".jpg"))
    images = [np.asarray(Image.open(path).convert("L")) for path in paths]
    images = [image for image in images if min(image.shape) > max(PROVED)[0]]
    while True:
        image = images[rng.integers(len(images))]
        y, x = (rng.integers(max(1, side - SIDE)) for side in image.shape)
        yield image[y : y + SIDE, x : x + SIDE]


def prove(millions: float, seed: int) -> int:
    """Compare the two ways on that many patches; return how many hashes differ."""
    rng = np.random.default_rng(seed)
    sources = {"made": make_sections(rng)}
    if "EMCURATE_DATA" in os.environ:
        sources["real"] = read_sections(Path(os.environ["EMCURATE_DATA"]), rng)
    rounds = max(1, round(millions * 1e6 / (STARTS**2 * len(PROVED) * len(sources))))
    differing = dict.fromkeys(itertools.product(sources, PROVED), 0)
    for _ in tqdm(range(rounds), unit="round", mininterval=15):
        for source, (crop, hash_size) in differing:
            section = next(sources[source])
            starts = tuple(rng.integers(0, side - crop + 1, STARTS) for side in section.shape)
            one_by_one = hash_one_by_one(section, starts, crop, hash_size)
            different = (hash_at_once(section, starts, crop, hash_size) != one_by_one).any(axis=(1, 2))
            differing[source, (crop, hash_size)] += int(different.sum())
    print(f"{'patches':<8} {'crop':>5} {'hash':>5} {'compared':>10} {'differing':>10}")
    for (source, (crop, hash_size)), count in differing.items():
        print(f"{source:<8} {crop:>5} {hash_size:>5} {rounds * STARTS**2:>10,} {count:>10,}")
    total = sum(differing.values())
    print(f"{rounds * STARTS**2 * len(differing):,} patches compared, {total:,} hashes differ")
    return total


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prove", type=float, metavar="N", help="compare N million patches")
    parser.add_argument("--seed", type=int, default=0, help="of the patches to compare (default: %(default)s)")
    add_flags(parser)
    arguments = parser.parse_args()
    LOOPS.compiled_from = 0
    if arguments.prove:
        return int(prove(arguments.prove, arguments.seed) > 0)
    print_times(arguments)
    return 0


if __name__ == "__main__":
    sys.exit(main())
