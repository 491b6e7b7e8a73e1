"""What measuring patches costs beside cutting them, and how its verdicts and speed compare with cleanvision's.

First: seconds of the processor that crop_patches.py takes with measures and without, which take turns, in one process;
the median counts. Then, where cleanvision is installed (pip install cleanvision): patches of the images in
EMCURATE_DATA, or made ones, as they are, and blank, dark, bright and blurred; of each issue how often both flag it,
either or neither; how many pairs of a blurred and another patch the scores of each put in the right order; and the time
a patch of each, files being read by both, in one process.

Example: python benchmarks/measures.py
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import cv2
import numpy as np
import tifffile
from history import add_flags, compare
from measuring import Table, fast_directory, take_turns
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from emcurate.images.sections import encode_section
from emcurate.patches import cutting, measures
from emcurate.patches.judging import Rules
from emcurate.patches.measures import MEASURES, measure_patch
from emcurate.patches.reading import read_patch
from emcurate.running.jobs import Workers

CROP = 224
SIDE = 2048  # pixels of a section, a common camera's
SECTIONS = 20
ROUNDS = 7
PATCHES = 60  # of each kind

# What cleanvision calls an issue, by the words for it here. Its limits, as its documentation has them: the 99th
# percentile of the grey values, of 0 to 1, is under 0.32; the 5th is above 0.95; their entropy is under 3 bits.
ISSUES = {"blank": "low_information", "dark": "dark", "bright": "light", "blurred": "blurry"}
DARK, BRIGHT, BLANK_BITS = 0.32 * 255, 0.95 * 255, 3.0

# How many deviations the 99th and the 5th percentile of normally distributed values are from the mean.
PERCENTILE_99, PERCENTILE_5 = 2.326, -1.645


def read_pieces(crop: int, count: int) -> Iterator[np.ndarray]:
    """Yield patches with something to see: of real images where there are any."""
    rng = np.random.default_rng(0)
    directory = os.environ.get("EMCURATE_DATA")
    paths = sorted(Path(directory).rglob("*.png")) + sorted(Path(directory).rglob("*.jpg")) if directory else []
    images = [np.asarray(Image.open(path).convert("L")) for path in paths if "coco" not in str(path)]
    images = [image for image in images if min(image.shape) >= crop]
    for _ in range(count):
        if images:
            image = images[rng.integers(len(images))]
            y, x = (rng.integers(side - crop + 1) for side in image.shape)
            yield image[y : y + crop, x : x + crop]
        else:
            noise = cv2.GaussianBlur(rng.normal(0, 1, (crop, crop)), (0, 0), 1.5)
            yield np.clip(128 + noise * 45 / noise.std(), 0, 255).astype(np.uint8)


def spoil(patches: list[np.ndarray]) -> dict[str, list[np.ndarray]]:
    """Return patches as they are, and spoilt in each of the ways."""
    rng = np.random.default_rng(1)
    return {
        "fine": patches,
        "blank": [np.round(rng.normal(rng.integers(60, 200), 1, p.shape)).astype(np.uint8) for p in patches],
        "dark": [(p * 0.25).astype(np.uint8) for p in patches],
        "bright": [(244 + p / 24).astype(np.uint8) for p in patches],
        "blurred": [cv2.GaussianBlur(p, (0, 0), 4) for p in patches],
    }


def flag_by_measures(paths: list[Path]) -> tuple[dict[str, np.ndarray], np.ndarray, float]:
    """Return which patches have which issue by their measures alone, how blurred each is, and the seconds that took."""
    start = time.perf_counter()
    rows = np.array([list(measure_patch(read_patch(path)).values()) for path in paths])
    mean, deviation, entropy, blur, _ = (rows[:, MEASURES.index(name)] for name in MEASURES)
    flags = {
        "blank": entropy < BLANK_BITS,
        "dark": mean + PERCENTILE_99 * deviation < DARK,
        "bright": mean + PERCENTILE_5 * deviation > BRIGHT,
        "blurred": blur > Rules().blurred_above,
    }
    return flags, blur, time.perf_counter() - start


def flag_by_cleanvision(paths: list[Path]) -> tuple[dict[str, np.ndarray], np.ndarray, float]:
    """Return which patches have which issue by cleanvision, how blurred each is, and the seconds that took."""
    from cleanvision import Imagelab

    start = time.perf_counter()
    lab = Imagelab(filepaths=list(map(str, paths)))
    lab.find_issues({issue: {} for issue in ISSUES.values()}, n_jobs=1, verbose=False)
    seconds = time.perf_counter() - start
    found = lab.issues.loc[list(map(str, paths))]
    flags = {name: found[f"is_{issue}_issue"].to_numpy() for name, issue in ISSUES.items()}
    return flags, 1 - found["blurry_score"].to_numpy(), seconds


def write_kinds(directory: Path, crop: int, count: int) -> dict[str, list[Path]]:
    """Write patches, as they are and spoilt, as files; return these by kind."""
    paths: dict[str, list[Path]] = {}
    for kind, some in spoil(list(read_pieces(crop, count))).items():
        paths[kind] = [directory / f"{kind}-{i:03d}.tiff" for i in range(len(some))]
        for path, patch in zip(paths[kind], some, strict=True):
            path.write_bytes(encode_section(patch))  # as crop_patches.py writes them
    return paths


def compare_with_cleanvision(root: Path, crop: int, count: int) -> float:
    """Print how far both agree, and return how many times as fast the measures are."""
    root.mkdir()
    kinds = write_kinds(root, crop, count)
    paths = [path for some in kinds.values() for path in some]
    measures.LOOPS.compiled_from = 0
    flag_by_measures(paths[:1])  # so that all is loaded, by both
    flag_by_cleanvision(paths[:1])
    ours, our_blur, our_seconds = flag_by_measures(paths)
    theirs, their_blur, their_seconds = flag_by_cleanvision(paths)
    table = Table(issue="<9", patches="<9", both=">6", ours_only=">10", theirs_only=">12", neither=">8", agree=">6.0%")
    for issue in ISSUES:
        start = 0
        for kind, some in kinds.items():
            part = slice(start, start := start + len(some))
            one, other = ours[issue][part], theirs[issue][part]
            counts = [int(x.sum()) for x in (one & other, one & ~other, ~one & other, ~one & ~other)]
            table.print([issue, kind, *counts, float((one == other).mean())])
    fine, blurred = slice(0, count), slice((len(kinds) - 1) * count, None)
    for name, seconds, blur in (("measures", our_seconds, our_blur), ("cleanvision", their_seconds, their_blur)):
        right = float((blur[blurred, None] > blur[fine]).mean())
        print(
            f"{name}: {seconds / len(paths) * 1e6:,.0f} us a patch of {crop}, reading it included; "
            f"{right:.0%} of pairs in the right order by blur"
        )
    return their_seconds / our_seconds


def time_cutting(root: Path, sections: int) -> dict[str, float]:
    """Print what measuring adds to cutting; return how fast cutting with it is, by what is written."""
    crop_patches = importlib.import_module("raw.crop_patches")
    (root / "sections").mkdir()
    rng = np.random.default_rng(0)
    for i in range(sections):
        noise = rng.integers(0, 256, (SIDE, SIDE)).astype(np.uint8)
        tifffile.imwrite(root / "sections" / f"a-LOC-0_{i:03d}.tiff", cv2.GaussianBlur(noise, (0, 0), 1))

    def cut(number: list[int], measured: bool, **more: object) -> float:
        number[0] += 1
        unmeasured = mock.patch.object(cutting, "measure_places", lambda pixels, places: None)
        start = time.process_time()
        if measured:
            crop_patches.run(root / "sections", root / f"{number[0]}", workers=Workers(1), **more)
        else:
            with unmeasured:
                crop_patches.run(root / "sections", root / f"{number[0]}", workers=Workers(1), **more)
        return time.process_time() - start

    number, ratios = [0], {}
    count = sections * len(cutting.list_places(SIDE, SIDE, CROP, CROP // 2))
    table = Table(written="<20", us_a_patch=">11.0f", measured=">9.0f", more=">7.1%")
    for name, more in (("files", {}), ("shards", {"store": "tar"}), ("hashes only", {"hashes_only": True})):
        ways = {measured: lambda m=measured, more=more: cut(number, m, **more) for measured in (False, True)}
        seconds = take_turns(ways, ROUNDS)
        without, measured = (seconds[way] / count * 1e6 for way in (False, True))
        table.print([name, without, measured, measured / without - 1])
        ratios[f"cutting into {name}, with measures"] = without / measured
    return ratios


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sections", type=int, nargs="?", default=SECTIONS, help="default: %(default)s")
    add_flags(parser)
    arguments = parser.parse_args()
    with fast_directory() as root:
        ratios = time_cutting(root, arguments.sections)
        print()
        try:
            ratios["cleanvision"] = compare_with_cleanvision(root / "patches", CROP, PATCHES)
            print(f"measures are {ratios['cleanvision']:,.0f} times as fast")
        except ImportError:
            print("cleanvision is not installed: nothing to compare with")
    compare("measures", f"{arguments.sections} sections of {SIDE}, crop {CROP}", ratios, arguments)


if __name__ == "__main__":
    main()
