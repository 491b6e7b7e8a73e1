"""How even a diverse selection is, beside random ones: python benchmarks/diversity.py OUT FEATURES.

OUT is a directory of curate.py with patches of several specimens, FEATURES what embed.py wrote of its exemplars. As
many patches are drawn in three ways: at random; evenly over datasets, as `export.py --budget` does; and by
select_diverse.py. For each it prints

- the share of the largest dataset, and how many datasets there are in effect;
- how many structures there are in effect, and how many at all. Structures are found without any network, by what
  scikit-image measures of a patch (grey values, local binary patterns, sharpness): regions of about equal extent,
  however many patches lie in them, around patches of which each is the farthest from those before it;
- the same of regions by scikit-learn's k-means, of about equally many patches: a random draw is even over these by
  itself;
- the mean distance from a region of the first kind to the nearest patch drawn, random draws having 1.

"In effect" is the exponential of the entropy of shares: as many equal ones would have the same. With --picture FILE a
PNG shows shares and patches.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import tempfile
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from skimage.feature import local_binary_pattern
from skimage.filters import gaussian, sobel
from skimage.measure import shannon_entropy
from skimage.transform import resize
from sklearn.cluster import KMeans
from sklearn.metrics import pairwise_distances_argmin, pairwise_distances_argmin_min
from sklearn.preprocessing import StandardScaler

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from emcurate.patches.drawing import allot
from emcurate.patches.pathlists import PathList
from emcurate.patches.reading import read_patch

BUDGET = 200
STRUCTURES = 40
DRAWS = 20  # at random, of which the mean is printed
SCALES = (1, 3)  # radii of local binary patterns, in pixels of patches of `SIDE`
POINTS = 8
SIDE = 128
SHOWN = (4, 12)  # rows and columns of patches in the picture


def measure(patch):
    """What scikit-image says of a patch, 28 numbers."""
    whole = resize(patch, (SIDE, SIDE), preserve_range=True).astype(np.float64)
    found = [whole.mean(), whole.std(), shannon_entropy(whole.astype(np.uint8)), sobel(whole).mean()]
    found += [np.abs(whole - gaussian(whole, sigma)).mean() for sigma in (1, 2, 4, 8)]
    for radius in SCALES:
        pattern = local_binary_pattern(
            gaussian(whole, radius, preserve_range=True).astype(np.uint8), POINTS, radius, "uniform"
        )
        found += np.bincount(pattern.astype(int).ravel(), minlength=POINTS + 2).tolist()
    return found


def count_in_effect(labels):
    shares = np.unique(labels, return_counts=True)[1] / len(labels)
    return float(np.exp(-(shares * np.log(shares)).sum()))


def find_structures(measures, count):
    """Regions around patches of which each is the farthest from those before it, and those patches."""
    centres = [int(np.linalg.norm(measures - measures.mean(axis=0), axis=1).argmin())]
    distances = np.linalg.norm(measures - measures[centres[0]], axis=1)
    while len(centres) < count:
        centres.append(int(distances.argmax()))
        distances = np.minimum(distances, np.linalg.norm(measures - measures[centres[-1]], axis=1))
    return pairwise_distances_argmin(measures, measures[centres]), centres


def judge(rows, datasets, structures, equal, measures):
    structures, centres = structures
    largest = np.bincount(datasets).argmax()
    return {
        "largest dataset": float((datasets[rows] == largest).mean()),
        "datasets in effect": count_in_effect(datasets[rows]),
        "structures in effect": count_in_effect(structures[rows]),
        "structures": float(len(np.unique(structures[rows]))),
        "by k-means in effect": count_in_effect(equal[rows]),
        "distance": float(pairwise_distances_argmin_min(measures[centres], measures[rows])[1].mean()),
    }


def select(fpaths, features, budget, out):
    stage = importlib.import_module("filtered.select_diverse")
    if stage.main([str(fpaths), str(features), str(out), "--budget", str(budget), "--quiet"]) != 0:
        raise SystemExit("select_diverse.py failed")
    names = {path.rpartition("/")[2] for path in PathList(out / "diverse_fpaths.npz")}
    return np.array([at for at, path in enumerate(PathList(fpaths)) if path.rpartition("/")[2] in names])


def draw_picture(path, names, datasets, ways, paths, table):
    figure = Figure(figsize=(12, 8.6), layout="constrained")
    top, below = figure.subfigures(2, 1, height_ratios=(1, 1.75))
    axes = top.subplots(1, 2, width_ratios=(2.2, 1))
    colours = {"random": "#888888", "diverse": "#0072B2"}
    order = np.argsort(-np.bincount(datasets))
    for at, (way, colour) in enumerate(colours.items()):
        shares = np.bincount(datasets[ways[way]], minlength=len(names)) / len(ways[way])
        axes[0].bar(np.arange(len(names)) + 0.4 * at - 0.2, shares[order], 0.38, color=colour, label=way)
        numbers = [table[way]["datasets in effect"], table[way]["structures in effect"]]
        bars = axes[1].bar(np.arange(2) + 0.4 * at - 0.2, numbers, 0.38, color=colour)
        axes[1].bar_label(bars, fmt="%.1f")
    axes[0].set_xticks(np.arange(len(names)), [names[i].replace("_", "\n") for i in order], fontsize=8)
    axes[0].set(ylabel="share of patches drawn")
    axes[0].legend(frameon=False)
    axes[1].set_xticks([0, 1], ["datasets in effect", "structures in effect"])
    rows, columns = SHOWN
    for axis, way in zip(below.subplots(1, 2), colours, strict=True):
        some = np.random.default_rng(0).permutation(ways[way])[: rows * columns // 2 * 2]
        tiles = [resize(read_patch(paths[i]), (64, 64), preserve_range=True).astype(np.uint8) for i in some]
        tiles = [np.pad(tile, 2, constant_values=255) for tile in tiles]
        half = columns // 2
        sheet = np.block([[tiles[r * half + c] for c in range(half)] for r in range(len(tiles) // half)])
        axis.imshow(sheet, cmap="gray", vmin=0, vmax=255)
        axis.set_title(f"{len(tiles)} of those drawn {'at random' if way == 'random' else 'by select_diverse.py'}")
        axis.axis("off")
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=100, metadata={"Software": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("features", type=Path)
    parser.add_argument("--budget", type=int, default=BUDGET)
    parser.add_argument("--picture", type=Path)
    a = parser.parse_args()
    fpaths = a.out / "deduplicate" / "deduplicated_fpaths.npz"
    paths = list(PathList(fpaths))
    names, datasets = np.unique([Path(path).name.partition("-LOC-")[0] for path in paths], return_inverse=True)
    measures = StandardScaler().fit_transform([measure(read_patch(path)) for path in paths])
    structures = find_structures(measures, STRUCTURES)
    equal = KMeans(STRUCTURES, n_init=4, random_state=0).fit_predict(measures)
    ways = {}
    with tempfile.TemporaryDirectory() as scratch:
        ways["diverse"] = select(fpaths, a.features, a.budget, Path(scratch))
    draws = [np.random.default_rng(seed).choice(len(paths), a.budget, replace=False) for seed in range(DRAWS)]
    ways["random"] = draws[0]
    judged = [judge(draw, datasets, structures, equal, measures) for draw in draws]
    table = {"random": {name: float(np.mean([each[name] for each in judged])) for name in judged[0]}}
    shares = allot(np.bincount(datasets), a.budget, 0)
    rng = np.random.default_rng(0)
    even = [rng.choice(np.flatnonzero(datasets == at), share, replace=False) for at, share in enumerate(shares)]
    table["even datasets"] = judge(np.concatenate(even), datasets, structures, equal, measures)
    table["diverse"] = judge(ways["diverse"], datasets, structures, equal, measures)
    unit = table["random"]["distance"]
    print(f"{a.budget} of {len(paths):,} patches, {len(names)} datasets, {STRUCTURES} structures")
    print(f"{'':14}" + "".join(f"{name:>22}" for name in table["random"]))
    for way, row in table.items():
        cells = [f"{row['largest dataset']:.1%}", *(f"{row[name]:.1f}" for name in list(row)[1:5])]
        print(f"{way:14}" + "".join(f"{cell:>22}" for cell in [*cells, f"{row['distance'] / unit:.2f}"]))
    if a.picture:
        draw_picture(a.picture, names, datasets, ways, paths, table)


if __name__ == "__main__":
    main()
