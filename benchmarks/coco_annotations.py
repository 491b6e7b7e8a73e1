"""Measure reading a full-size COCO annotation file: time and peak memory against json.load and a literal loop.

The file is generated once: as many images and annotations as instances_train2017.json has, about as many bytes.
Every reader runs in a process of its own, so that its peak memory is its own; all must find the same labels.

Reads:   nothing
Writes:  the generated file, in DIR (by default in the system's temporary directory), kept for the next time
Example: python benchmarks/coco_annotations.py
"""

from __future__ import annotations

import argparse
import hashlib
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from history import add_flags, compare
from measuring import MIB

# What instances_train2017.json holds.
IMAGES = 118_287
ANNOTATIONS = 860_001
CATEGORIES = 80

# Points of a generated outline, from a geometric law whose mean gives the real file's bytes per annotation.
MEAN_POINTS = 23
DISTINCT_OUTLINES = 5_000
CROWD_SHARE = 0.012

REPEATS = 3


def write_annotations(path: Path, images: int = IMAGES, annotations: int = ANNOTATIONS) -> None:
    """Write an annotation file of realistic shape, the same one every time."""
    random = np.random.default_rng(0)
    outlines = [make_outline(random) for _ in range(DISTINCT_OUTLINES)]
    image_ids = np.sort(random.choice(np.arange(1, 5 * images), images, replace=False)).tolist()
    # As in the real file, annotations come in no order of images and some images have none.
    owners = random.choice(image_ids[: int(images * 0.99)], annotations).tolist()
    popularity = 1 / np.arange(1, CATEGORIES + 1)
    kinds = random.choice(np.arange(1, CATEGORIES + 1), annotations, p=popularity / popularity.sum()).tolist()
    picks = random.integers(0, DISTINCT_OUTLINES, annotations).tolist()
    crowds = (random.random(annotations) < CROWD_SHARE).tolist()
    partial = path.with_name(path.name + ".partial")
    with open(partial, "w", encoding="utf-8") as file:
        file.write('{"info": {"description": "COCO 2017 Dataset"}, "licenses": [], "images": [')
        for number, image_id in enumerate(image_ids):
            url = f"http://images.cocodataset.org/train2017/{image_id:012}.jpg"
            record = (
                f'{{"license": 3,"file_name": "{image_id:012}.jpg","coco_url": "{url}","height": 427,"width": 640,'
                f'"date_captured": "2013-11-14 11:18:45","flickr_url": "http://farm9.staticflickr.com/8186/{image_id}_z.jpg",'
                f'"id": {image_id}}}'
            )
            file.write((", " if number else "") + record)
        file.write('], "annotations": [')
        for number, (owner, kind, pick, crowd) in enumerate(zip(owners, kinds, picks, crowds, strict=True)):
            shape = '{"counts": [272, 2, 4, 4, 4, 4, 2, 9, 1, 2, 16], "size": [427, 640]}' if crowd else outlines[pick]
            file.write(
                f'{", " if number else ""}{{"segmentation": {shape},"area": 702.1057499999998,"iscrowd": {int(crowd)},'
                f'"image_id": {owner},"bbox": [473.07, 395.93, 38.65, 28.67],"category_id": {kind},"id": {number + 1}}}'
            )
        names = [{"supercategory": "thing", "id": i, "name": f"thing {i}"} for i in range(1, CATEGORIES + 1)]
        file.write(f'], "categories": {json.dumps(names)}}}')
    partial.replace(path)


def make_outline(random: np.random.Generator) -> str:
    points = 3 + random.geometric(1 / (MEAN_POINTS - 3))
    return json.dumps([np.round(random.uniform(0, 640, 2 * points), 2).tolist()])


def read_literally(path: Path) -> dict[int, list[int]]:
    """Read the file as the first script that comes to mind does."""
    with open(path, encoding="utf-8") as file:
        content = json.load(file)
    labels: dict[int, list[int]] = {}
    for annotation in content["annotations"]:
        present = labels.setdefault(annotation["image_id"], [])
        if annotation["category_id"] not in present:
            present.append(annotation["category_id"])
    return labels


def read_ours(path: Path) -> dict[int, list[int]]:
    from emcurate.trimming.coco import read_annotations

    return read_annotations([path]).labels


def read_with_orjson(path: Path) -> dict[int, list[int]]:
    import orjson

    return collect((a["image_id"], a["category_id"]) for a in orjson.loads(path.read_bytes())["annotations"])


def read_with_simdjson(path: Path) -> dict[int, list[int]]:
    import simdjson

    document = simdjson.Parser().load(path)
    return collect((a["image_id"], a["category_id"]) for a in document["annotations"])


def read_with_ijson(path: Path) -> dict[int, list[int]]:
    import ijson

    with open(path, "rb") as file:
        return collect((a["image_id"], a["category_id"]) for a in ijson.items(file, "annotations.item", use_float=True))


def collect(pairs: Iterator[tuple[int, int]]) -> dict[int, list[int]]:
    labels: dict[int, list[int]] = {}
    for image_id, category_id in pairs:
        present = labels.setdefault(image_id, [])
        if category_id not in present:
            present.append(category_id)
    return labels


OURS = "emcurate.trimming.coco"
READERS: dict[str, Callable[[Path], dict[int, list[int]]]] = {
    "json.load and a loop": read_literally,
    OURS: read_ours,
    "orjson": read_with_orjson,
    "simdjson": read_with_simdjson,
    "ijson": read_with_ijson,
}


def measure(reader: str, path: Path) -> dict[str, Any]:
    """Run one reader in a process of its own."""
    command = [sys.executable, __file__, "--reader", reader, "--file", str(path)]
    done = subprocess.run(command, capture_output=True, text=True)
    return json.loads(done.stdout) if done.returncode == 0 else {"error": done.stderr.strip().splitlines()[-1]}


def run_reader(reader: str, path: Path) -> None:
    """Print seconds, peak memory and a digest of what one reader found, as JSON."""
    started = time.perf_counter()
    labels = READERS[reader](path)
    seconds = time.perf_counter() - started
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in bytes on macOS, in KiB on Linux
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    digest = hashlib.sha256(json.dumps(list(labels.items())).encode()).hexdigest()
    print(json.dumps({"seconds": seconds, "peak": peak, "digest": digest}))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dir", type=Path, default=Path(tempfile.gettempdir()), help="where the file is kept")
    parser.add_argument("--all", action="store_true", help="also measure the parsers that were not chosen")
    parser.add_argument("--reader", choices=list(READERS), help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    add_flags(parser)
    arguments = parser.parse_args()
    if arguments.reader:
        run_reader(arguments.reader, arguments.file)
        return 0
    path = arguments.dir / "emcurate_benchmark_instances.json"
    if not path.exists():
        print("generating the file ...", flush=True)
        write_annotations(path)
    print(f"{path}: {path.stat().st_size / 1e6:.0f} MB, {IMAGES:,} images, {ANNOTATIONS:,} annotations")
    print(f"best of {REPEATS} runs, peak memory of the whole process\n")
    print(f"{'reader':22} {'seconds':>8} {'peak MiB':>9} {'faster':>7} {'leaner':>7}")
    names = list(READERS) if arguments.all else list(READERS)[:2]
    base: dict[str, Any] = {}
    ratios = {}
    for name in names:
        runs = [measure(name, path) for _ in range(REPEATS)]
        if "error" in runs[0]:
            print(f"{name:22} {runs[0]['error']}")
            continue
        best = {key: min(run[key] for run in runs) for key in ("seconds", "peak")}
        base = base or {**best, "digest": runs[0]["digest"]}
        same = all(run["digest"] == base["digest"] for run in runs)
        faster, leaner = base["seconds"] / best["seconds"], base["peak"] / best["peak"]
        ratios |= {f"{name}, time": faster, f"{name}, memory": leaner} if name == OURS else {}
        line = f"{name:22} {best['seconds']:8.2f} {best['peak'] / MIB:9.0f} {faster:6.1f}x {leaner:6.1f}x"
        print(line if same else f"{line}  OTHER LABELS", flush=True)
    compare("coco_annotations", f"{ANNOTATIONS:,} annotations, against json.load", ratios, arguments)
    return 0


if __name__ == "__main__":
    sys.exit(main())
