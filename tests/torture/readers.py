"""The stages that read a format, and how cases are put before them: many in one directory, or one a run."""

import importlib
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile

from emcurate.errors import InputError
from emcurate.images.sections import encode_section, write_section
from emcurate.patches import labels
from emcurate.patches.pathlists import write_path_list
from tests.torture.originals import PATCH_ROWS, PIXELS, VOXELS

GOOD = "good neighbour"


@dataclass(frozen=True)
class Reader:
    """A stage, and the command that reads cases.

    `command` has the words of the command line, in which ``IN`` is the directory of the cases, ``OUT`` that of the
    results and ``ROOT`` one of good files. Of a stage that takes a directory of inputs, `neighbours` are good ones by
    name; without any, every case has a run of its own. `names_places` says that results have paths in them, so that
    those of two runs differ.
    """

    module: str
    command: str
    neighbours: dict | None = None
    names_places: bool = False

    @property
    def takes_many(self):
        return self.neighbours is not None

    def words(self, inputs, out, root):
        places = {"IN": str(inputs), "OUT": str(out), "ROOT": str(root)}
        return [_replace(word, places) for word in self.command.split()]


def _replace(word, places):
    for name, path in places.items():
        word = word.replace(name, path)
    return word


def _section(value):
    return encode_section(np.full((40, 40), value, np.uint8))


def _tiff(array):
    import io

    buffer = io.BytesIO()
    tifffile.imwrite(buffer, array, photometric="minisblack")
    return buffer.getvalue()


def make_readers(originals):
    """Return the readers by the names that originals give them."""
    good = {(o.format, o.reader): o.data for o in originals}
    hashes = next(o for o in originals if o.format == "NPY, hashes").files
    return {
        "cross_section3d": Reader("raw.cross_section3d", "IN OUT -a 0 -p 1", {f"{GOOD}.tif": _tiff(VOXELS)}),
        "cleanup2d": Reader("raw.cleanup2d", "IN OUT -p 1", {f"{GOOD}.tif": _tiff(PIXELS)}),
        "mrc2byte": Reader("preprocess.mrc2byte", "IN -o OUT -p 1", {f"{GOOD}.mrc": good["MRC", "mrc2byte"]}),
        "vid2stack": Reader("preprocess.vid2stack", "IN -o OUT -p 1", {f"{GOOD}.avi": good["AVI", "vid2stack"]}),
        "crop_patches": Reader(
            "raw.crop_patches",
            "IN OUT -cs 32 --min-size 1 -p 1",
            {f"{GOOD}-LOC-2d.tiff": good["sections", "crop_patches"]},
        ),
        "deduplicate": Reader(
            "deduplicated.deduplicate",
            "IN OUT -p 1",
            {name.replace("CASE00", GOOD): data for name, data in hashes.items()},
            names_places=True,
        ),
        "reconstruct3d": Reader("3d.reconstruct3d", "IN ROOT/volumes OUT -nz 4 -p 1"),
        "reconstruct3d of a shard": Reader("3d.reconstruct3d", "IN/list.npz ROOT/volumes OUT -nz 4 -p 1"),
        "train_nn": Reader("filtered.train_nn", "ROOT/list.npz IN/labels.npy OUT --init random --epochs 1 -p 1"),
        "the labelling session": Reader("tests.torture.readers", "IN/labels.log.jsonl OUT ROOT"),
        "classify_nn": Reader("filtered.classify_nn", "ROOT/list.npz OUT --weights IN/w.pth -p 1"),
        "select_diverse": Reader("filtered.select_diverse", "ROOT/list.npz IN/features.parquet OUT --budget 2 -p 1"),
        "trim_coco": Reader("data_prep.trim_coco", "--train-annotations IN/instances.json --targets 3 -o OUT"),
        "trim_coco of a zip": Reader(
            "data_prep.trim_coco",
            "--train-annotations IN/instances.json --targets 3 --train-images IN/images.zip -o OUT",
        ),
        "trim_siim": Reader("data_prep.trim_siim", "--metadata IN/metadata.csv --benign 0:5 --malignant 0:5 -o OUT"),
    }


def make_root(root: Path) -> Path:
    """Make the good files that commands name: a volume, patches of it, a list of these."""
    (root / "volumes").mkdir(parents=True)
    (root / "patches").mkdir()
    (root / "volumes" / "vol.tif").write_bytes(_tiff(np.zeros((5, 96, 32), np.uint8)))
    paths = [root / "patches" / f"vol-LOC-0_2_{y}_0.tiff" for y in PATCH_ROWS]
    for path in paths:
        write_section(path, PIXELS[:32, :32])
    write_path_list(root / "list.npz", map(str, paths))
    return root


def write_case(directory: Path, files: dict, name: str, root: Path) -> None:
    """Write the files of a case, or make what functions make; a shard gets the list that names its members."""
    for file, data in files.items():
        path = directory / file.replace("CASE00", name)
        path.parent.mkdir(parents=True, exist_ok=True)
        if callable(data):
            data(path)
        else:
            path.write_bytes(data.replace(b"CASE00", name.encode()))
    if "vol-00000.tar" in files:
        members = [f"{directory}/vol-00000.tar/vol-LOC-0_2_{y}_0.tiff" for y in PATCH_ROWS]
        write_path_list(directory / "list.npz", members)


def main(argv):
    """Open a labelling session's labels as the notebook does; the shape of a stage's `main`."""
    log, _, root = map(Path, argv)
    store = importlib.import_module("emcurate.labeling.store")
    paths = importlib.import_module("emcurate.patches.pathlists").PathList(root / "list.npz")
    path = log.with_name(labels.LABELS_FILE)
    labels.save_labels(path, labels.new_labels(len(paths)))
    log.rename(path.with_suffix(".log.jsonl"))
    try:
        store.LabelStore(path, paths, "a").flush()
    except InputError as error:
        print(error, file=sys.stderr)
        return 1
    return 0
