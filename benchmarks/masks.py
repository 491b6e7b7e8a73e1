"""What --blank-guard of deduplicate.py does for tissue beside masks: python benchmarks/masks.py.

The slices flyem_medulla_slices of EMCURATE_DATA, or a made volume without them, are cut along three planes after
parts of them were made white, as masks and padding are. Without a mask one knows how far apart the same patches'
hashes really are: a duplicate whose pixels beside the mask are more than 16 bits from its exemplar's is called
unlike, one of at most 12 alike. Wholly masked patches (95 % or more) are not counted.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from measuring import Table
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from emcurate.patches.cutting import list_places
from emcurate.patches.duplicates import Cover, find_groups, order_patches
from emcurate.patches.hashing import hamming_distance, pack_hashes
from emcurate.patches.measures import MEASURES, SATURATED, measure_places
from emcurate.patches.names import as_names
from emcurate.patches.section_hashes import hash_places

DISTANCE, UNLIKE = 12, 16  # bits
SIDE, SPACING = 250, 5
WHOLLY = 0.95


def read_volume() -> np.ndarray:
    directory = Path(os.environ.get("EMCURATE_DATA", "")) / "flyem_medulla_slices"
    slices = sorted(directory.glob("*.png"))
    if slices:
        return np.stack([np.asarray(Image.open(path).convert("L")) for path in slices])[:SIDE, :SIDE, :SIDE]
    noise = np.random.default_rng(0).normal(0, 1, (SIDE, SIDE, SIDE)).astype(np.float32)
    smooth = np.stack([cv2.GaussianBlur(plane, (0, 0), 3) for plane in noise])
    return np.clip(128 + smooth * 40 / smooth.std(), 1, 254).astype(np.uint8)


def make_masks() -> Iterator[tuple[str, np.ndarray]]:
    z, y, x = np.meshgrid(*[np.arange(SIDE)] * 3, indexing="ij", sparse=True)
    yield "none", np.zeros((SIDE,) * 3, bool)
    yield "outside a cylinder", ((y - 125) ** 2 + (x - 125) ** 2 > 90**2) & (z >= 0)
    yield "behind slanted planes", (x + 0.3 * z + 0.2 * y < 110) | (x * 0.2 + y + 0.1 * z > 230)
    yield "outside a ball", (y - 110) ** 2 + (x - 140) ** 2 + (z - 120) ** 2 > 110**2
    rng, shaken = np.random.default_rng(0), np.zeros((SIDE,) * 3, bool)
    for section, (top, right) in zip(shaken, rng.integers(20, 60, (SIDE, 2)), strict=True):
        section[:top], section[:, SIDE - right :] = True, True
    yield "shaken borders", shaken


def hash_all(volume: np.ndarray, crop: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the hashes, packed, and the saturated share of all patches of a volume."""
    hashes, shares = [], []
    for axis in range(3):
        for index in range(0, SIDE, SPACING):
            section = np.ascontiguousarray(volume.take(index, axis))
            places = list_places(*section.shape, crop, crop // 2)
            hashes.append(hash_places(section, places, crop, 8))
            shares.append(measure_places(section, places)[:, MEASURES.index(SATURATED)])
    return pack_hashes(np.concatenate(hashes)), np.concatenate(shares)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--crops", type=int, nargs="+", default=[64, 125], help="default: %(default)s")
    arguments = parser.parse_args()
    volume = read_volume()
    table = Table(mask="<22", crop=">4", patches=">8,", guard="<5", exemplars=">9,", unlike=">7,", alike=">6,")
    for crop in arguments.crops:
        truth, _ = hash_all(volume, crop)
        names, order = as_names(map(str, range(len(truth)))), order_patches("a", len(truth), "random", 0, None)
        for name, mask in make_masks():
            hashes, shares = hash_all(np.where(mask, np.uint8(255), volume), crop)
            for guard, blank in (("off", None), ("on", shares)):
                groups = find_groups(names, hashes, order, Cover(DISTANCE), blank=blank)
                counted = (groups.exemplar != np.arange(len(truth))) & (shares < WHOLLY)
                apart = hamming_distance(truth, truth[groups.exemplar])[counted]
                unlike, alike = int((apart > UNLIKE).sum()), int((apart <= DISTANCE).sum())
                table.print([name, crop, len(truth), guard, len(groups.exemplars), unlike, alike])


if __name__ == "__main__":
    main()
