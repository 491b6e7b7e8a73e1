"""Make a small COCO-like and a small SIIM-ISIC-like set for data_prep/ to trim.

Reads:   nothing.
Writes:  OUTDIR/coco/annotations/instances_train2017.json and instances_val2017.json, OUTDIR/coco/train2017.zip,
         OUTDIR/coco/val2017/; OUTDIR/siim/train.csv with as many rows as the published cut needs, OUTDIR/siim/jpeg/.
Example: python demo/make_classification_sets.py demo/output/classification
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from emcurate import cli
from emcurate.files import make_output_directory
from emcurate.running.report import Report
from emcurate.writing import write_once

STAGE = "make_classification_sets"
SEED = 7

# COCO's ids and names of the published targets, and of what is on half of all photographs.
CATEGORIES = {
    1: "person",
    3: "car",
    6: "bus",
    31: "handbag",
    35: "skis",
    36: "snowboard",
    37: "sports ball",
    40: "baseball glove",
    41: "skateboard",
    43: "tennis racket",
    46: "wine glass",
    47: "cup",
    50: "spoon",
    53: "apple",
    64: "potted plant",
    75: "remote",
    76: "keyboard",
    78: "microwave",
    80: "toaster",
    85: "clock",
    89: "hair drier",
}
COCO_IMAGES = {"train2017": 160, "val2017": 80}
COCO_SIZE = (96, 72)  # pixels, width and height
MOST_OBJECTS = 4

# The published cut takes benign rows up to 4,000 and malignant ones up to 550.
SIIM_ROWS = {"benign": 4100, "malignant": 580}
SIIM_PATIENTS = 600
SIIM_SIZE = (48, 48)
SIIM_PICTURES = 40  # different ones; thousands of files share them
SITES = ("torso", "lower extremity", "upper extremity", "head/neck", "palms/soles", "")

# A zip entry's date must not be that of the run, or no two archives were alike.
ZIP_DATE = (2017, 9, 1, 0, 0, 0)


def make_coco(folder: str, images: int, rng: np.random.Generator) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Return a COCO-like annotation file's content, and images of coloured polygons by file name."""
    ids = rng.choice(np.arange(1, 100_000), images, replace=False).tolist()
    names = {image_id: f"{image_id:012}.jpg" for image_id in ids}
    annotations: list[dict[str, Any]] = []
    pictures = {}
    for image_id in ids:
        objects = [make_object(rng) for _ in range(rng.integers(1, MOST_OBJECTS + 1))]
        pictures[names[image_id]] = draw_photograph([(c, corners) for c, corners in objects], rng)
        annotations += [make_annotation(image_id, category, corners) for category, corners in objects]
    # As in the real files, the annotations follow no order of images.
    annotations = [annotations[i] for i in rng.permutation(len(annotations))]
    width, height = COCO_SIZE
    base = "http://images.cocodataset.org"
    content = {
        "info": {"description": "synthetic, in the shape of COCO 2017"},
        "images": [
            {
                "id": i,
                "file_name": names[i],
                "coco_url": f"{base}/{folder}/{names[i]}",
                "width": width,
                "height": height,
            }
            for i in ids
        ],
        "annotations": [{**annotation, "id": number} for number, annotation in enumerate(annotations, start=1)],
        "categories": [{"id": number, "name": name} for number, name in CATEGORIES.items()],
    }
    return content, pictures


def make_object(rng: np.random.Generator) -> tuple[int, list[int]]:
    """Return a category and the corners x1, y1, x2, y2, ... of a polygon."""
    category = 1 if rng.random() < 0.3 else int(rng.choice(list(CATEGORIES)))
    centre = rng.uniform((20, 20), (COCO_SIZE[0] - 20, COCO_SIZE[1] - 20))
    angles = np.sort(rng.uniform(0, 2 * np.pi, 3 + category % 5))
    corners = centre + rng.uniform(8, 18) * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return category, corners.round().astype(int).ravel().tolist()


def make_annotation(image_id: int, category: int, corners: list[int]) -> dict[str, Any]:
    """Return an annotation without its id; its area is that of its box."""
    xs, ys = corners[::2], corners[1::2]
    box = [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]
    about = {"image_id": image_id, "category_id": category, "iscrowd": 0}
    return {**about, "segmentation": [corners], "bbox": box, "area": box[2] * box[3]}


def draw_photograph(objects: Sequence[tuple[int, list[int]]], rng: np.random.Generator) -> bytes:
    """Return a JPEG of polygons on a noisy ground; a category always has the same colour."""
    ground = rng.integers(150, 190, (COCO_SIZE[1], COCO_SIZE[0], 3)).astype(np.uint8)
    image = Image.fromarray(ground)
    for category, corners in objects:
        image_draw = ImageDraw.Draw(image)
        image_draw.polygon(corners, fill=(category * 37 % 256, category * 91 % 256, category * 151 % 256))
    return encode_jpeg(image)


def make_siim(rng: np.random.Generator) -> tuple[str, list[str]]:
    """Return a csv in the columns of Kaggle's train.csv, and the names of its images."""
    classes = np.repeat(list(SIIM_ROWS), list(SIIM_ROWS.values()))
    rng.shuffle(classes)
    names = [f"ISIC_{number:07}" for number in np.sort(rng.choice(10_000_000, len(classes), replace=False))]
    lines = ["image_name,patient_id,sex,age_approx,anatom_site_general_challenge,diagnosis,benign_malignant,target"]
    for name, kind in zip(names, classes.tolist(), strict=True):
        patient = f"IP_{rng.integers(SIIM_PATIENTS):07}"
        sex, site = rng.choice(["male", "female"]), rng.choice(SITES)
        age = "" if rng.random() < 0.01 else rng.integers(2, 18) * 5
        diagnosis = "melanoma" if kind == "malignant" else "unknown"
        lines.append(f"{name},{patient},{sex},{age},{site},{diagnosis},{kind},{int(kind == 'malignant')}")
    return "\n".join(lines) + "\n", names


def draw_lesion(rng: np.random.Generator) -> bytes:
    """Return a JPEG of a brown spot on skin."""
    y, x = np.mgrid[: SIIM_SIZE[1], : SIIM_SIZE[0]]
    spot = np.hypot(y - rng.uniform(18, 30), (x - rng.uniform(18, 30)) * rng.uniform(0.7, 1.4)) < rng.uniform(6, 14)
    pixels = np.where(spot[..., None], (110, 70, 50), (225, 180, 160)) + rng.normal(0, 6, (*SIIM_SIZE[::-1], 3))
    return encode_jpeg(Image.fromarray(pixels.clip(0, 255).astype(np.uint8)))


def encode_jpeg(image: Image.Image) -> bytes:
    """Return an image as the bytes of a JPEG file."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def encode_zip(files: dict[str, bytes]) -> bytes:
    """Return files as the bytes of a zip archive, the same for the same files."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name, ZIP_DATE), data)
    return buffer.getvalue()


def run(outdir: Path) -> Report:
    """Make both sets; files that are there already stay."""
    report = Report(STAGE)
    rng = np.random.default_rng(SEED)
    files: dict[str, bytes] = {}
    for folder, images in COCO_IMAGES.items():
        content, pictures = make_coco(folder, images, rng)
        files[f"coco/annotations/instances_{folder}.json"] = json.dumps(content).encode()
        if folder.startswith("train"):
            files[f"coco/{folder}.zip"] = encode_zip({f"{folder}/{name}": data for name, data in pictures.items()})
        else:
            files |= {f"coco/{folder}/{name}": data for name, data in pictures.items()}
    table, names = make_siim(rng)
    files["siim/train.csv"] = table.encode()
    lesions = [draw_lesion(rng) for _ in range(SIIM_PICTURES)]
    files |= {f"siim/jpeg/{name}.jpg": lesions[i % SIIM_PICTURES] for i, name in enumerate(names)}
    for parent in {(outdir / name).parent for name in files}:
        make_output_directory(parent)
    report.count("files written", 0)
    for name, data in files.items():
        report.count_file(write_once(outdir / name, data))
    return report


def build_parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    parser = cli.make_parser(__doc__, "make_classification_sets.py")
    parser.add_argument("outdir", type=cli.output_directory, metavar="OUTDIR", help="directory for the two sets")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the script; return its exit status."""
    return cli.run_stage(run, build_parser(), argv)


if __name__ == "__main__":
    sys.exit(main())
