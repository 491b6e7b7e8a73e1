"""The published method, literally, to measure against: one file at a time, one process a whole input, plain numpy.

Written from the published description (Conrad & Narayan, eLife 2021, doi 10.7554/eLife.65894), not from its sources,
and as plain as that: no checks, no resuming, no tables. Two things differ, so that results can be compared: MRC mode 0
is taken as unsigned bytes, as it is after the published conversion by IMOD, and hashes are taken by name, where the
published script shuffles them. Processes divide whole volumes, sections or datasets, as published: one volume is cut,
deduplicated and reconstructed by one process, however many there are.

Reads:   see each command's arguments
Writes:  the same files as the stage of the same kind
Example: python benchmarks/published.py sections corpus/volumes sections -p 2
         python benchmarks/published.py patches sections patches -cs 128 -p 2
         python benchmarks/published.py deduplicate patches deduplicated -p 2
         python benchmarks/published.py reconstruct deduplicated/deduplicated_fpaths.npz corpus/volumes subvolumes
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from multiprocessing import Pool
from pathlib import Path

import dask.array as da
import imagehash
import mrcfile
import nrrd
import numpy as np
import tifffile
from PIL import Image

MIN_DISTANCE = 12  # bits
IOU_THRESHOLD = 0.1


def load_volume(path: Path) -> np.ndarray:
    """Return a whole volume as (z, y, x) uint8."""
    if path.suffix == ".mrc":
        return mrcfile.read(path).view(np.uint8)
    return nrrd.read(str(path), index_order="C")[0]


def cut_volume(path: Path, savedir: Path, spacing: int) -> None:
    volume = load_volume(path)
    for plane in range(3):
        size = volume.shape[plane]
        width = len(str(size - 1))
        # The published script leaves the last section out; it is kept here, so that both do the same work.
        for index in sorted({*range(0, size, spacing), size - 1}):
            section = np.take(volume, index, axis=plane)
            tifffile.imwrite(savedir / f"{path.stem}-LOC-{plane}_{index:0{width}d}.tiff", section)


def cut_section(path: Path, savedir: Path, crop: int, hash_size: int) -> None:
    section = tifffile.imread(path)
    rows, columns = (max(1, round(side / crop)) for side in section.shape)
    for y in range(0, rows * crop, crop):
        for x in range(0, columns * crop, crop):
            patch = section[y : y + crop, x : x + crop]
            if min(patch.shape) < crop // 2:
                continue
            image = Image.fromarray(patch).resize((crop, crop), resample=2)
            tifffile.imwrite(savedir / f"{path.stem}_{y}_{x}.tiff", patch)
            np.save(savedir / f"{path.stem}_{y}_{x}.npy", imagehash.dhash(image, hash_size=hash_size).hash)


def deduplicate_dataset(name: str, patchdir: Path, savedir: Path, distance: int) -> None:
    paths = sorted(patchdir.glob(f"{name}-LOC-*.npy"))
    hashes = np.array([np.load(path).ravel() for path in paths])
    patches = np.array([str(path.with_suffix(".tiff")) for path in paths])
    kept = []
    while len(hashes):
        kept.append(patches[0])
        far = np.count_nonzero(hashes != hashes[0], axis=1) > distance
        hashes, patches = hashes[far], patches[far]
    np.save(savedir / f"{name}_exemplars.npy", np.array(kept))


def reconstruct_volume(path: Path, patches: list[str], savedir: Path, depth: int, crop: int) -> None:
    volume = load_volume(path)
    columns = defaultdict(list)
    for patch in patches:
        plane, index, y, x = map(int, Path(patch).stem.rpartition("-LOC-")[2].split("_"))
        columns[plane, y, x].append(index)
    candidates = []
    for (plane, y, x), indices in columns.items():
        for start in range(0, volume.shape[plane], depth):
            score = sum(start <= index < start + depth for index in indices)
            if score > depth // 10:
                low, high = [y, x], [y + crop, x + crop]
                low.insert(plane, start)
                high.insert(plane, start + depth)
                high = np.minimum(high, volume.shape).tolist()
                candidates.append((-score, low, high))
    candidates.sort()
    kept = []
    boxes = np.array([candidate[1:] for candidate in candidates]).reshape(-1, 2, 3)
    while len(boxes):
        kept.append(boxes[0])
        boxes = boxes[measure_overlaps(boxes[0], boxes) <= IOU_THRESHOLD]
    kind = "ISO" if any(plane for plane, _, _ in columns) else "ANISO"
    for number, (low, high) in enumerate(kept):
        box = volume[tuple(map(slice, low, high))]
        if min(box.shape) >= depth // 2:
            # A number, since several boxes may start at one voxel, of which the published script keeps the last.
            place = "_".join(map(str, low))
            np.save(savedir / f"{path.stem}-LOC-3d-{kind}-{place}_zyx_{number}.npy", box)


def measure_overlaps(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the intersection over union of a box, (start, stop), with others."""
    sides = np.minimum(box[1], others[:, 1]) - np.maximum(box[0], others[:, 0])
    shared = np.maximum(sides, 0).prod(axis=1)
    return shared / ((box[1] - box[0]).prod() + (others[:, 1] - others[:, 0]).prod(axis=1) - shared)


def run_sections(a: argparse.Namespace) -> None:
    run_pool(partial(cut_volume, savedir=a.savedir, spacing=a.spacing), sorted(a.voldir.iterdir()), a.processes)


def run_patches(a: argparse.Namespace) -> None:
    function = partial(cut_section, savedir=a.patchdir, crop=a.crop_size, hash_size=a.hash_size)
    run_pool(function, sorted(a.imdir.glob("*.tiff")), a.processes)


def run_deduplicate(a: argparse.Namespace) -> None:
    names = sorted({path.name.rpartition("-LOC-")[0] for path in a.patchdir.glob("*.npy")})
    function = partial(deduplicate_dataset, patchdir=a.patchdir, savedir=a.savedir, distance=a.min_distance)
    run_pool(function, names, a.processes)
    paths = np.concatenate([np.load(a.savedir / f"{name}_exemplars.npy") for name in names])
    da.to_npy_stack(str(a.savedir / "deduplicated_fpaths.npz"), da.from_array(paths))


def run_reconstruct(a: argparse.Namespace) -> None:
    patches = defaultdict(list)
    for path in da.from_npy_stack(str(a.filtered)).compute().tolist():
        patches[Path(path).name.rpartition("-LOC-")[0]].append(path)
    jobs = [(path, patches[path.stem], a.savedir, a.nz, a.crop_size) for path in sorted(a.voldir.iterdir())]
    with Pool(a.processes) as pool:
        pool.starmap(reconstruct_volume, jobs)


def run_pool(function: Callable, inputs: list, processes: int) -> None:
    with Pool(processes) as pool:
        pool.map(function, inputs)


COMMANDS = {
    "sections": (run_sections, ("voldir",), "savedir"),
    "patches": (run_patches, ("imdir",), "patchdir"),
    "deduplicate": (run_deduplicate, ("patchdir",), "savedir"),
    "reconstruct": (run_reconstruct, ("filtered", "voldir"), "savedir"),
}
FLAGS = {
    "sections": {"-s/--spacing": 1},
    "patches": {"-cs/--crop_size": 224, "-hs/--hash_size": 8},
    "deduplicate": {"-d/--min_distance": MIN_DISTANCE},
    "reconstruct": {"-nz/--nz": 224, "-cs/--crop_size": 224},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, (_, inputs, savedir) in COMMANDS.items():
        command = commands.add_parser(name)
        for directory in (*inputs, savedir):
            command.add_argument(directory, type=Path)
        for flags, default in FLAGS[name].items():
            command.add_argument(*flags.split("/"), type=int, default=default)
        command.add_argument("-p", "--processes", type=int, default=2)
    arguments = parser.parse_args()
    run, _, savedir = COMMANDS[arguments.command]
    getattr(arguments, savedir).mkdir(parents=True, exist_ok=True)
    run(arguments)


if __name__ == "__main__":
    main()
