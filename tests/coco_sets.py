"""Small COCO annotation files with images, and trim_coco run on them."""

import importlib
import io
import json

from PIL import Image

from emcurate.trimming import coco_output

trim_coco = importlib.import_module("data_prep.trim_coco")


NAMES = {1: "person", 3: "car", 6: "bus", 13: "stop sign", 81: "sink", 92: "banner"}


def jpeg(number, size=(8, 6)):
    buffer = io.BytesIO()
    Image.new("RGB", size, (number % 256, 50, 100)).save(buffer, "JPEG")
    return buffer.getvalue()


def make_content(labels, names=NAMES, first_id=1):
    """Return annotation file content from (image id, category ids) pairs, in this order."""
    images = sorted({image for image, _ in labels})
    pairs = [(image, category) for image, categories in labels for category in categories]
    return {
        "images": [
            {"id": i, "file_name": f"{i:012}.jpg", "width": 8, "height": 6, "coco_url": f"http://127.0.0.1:9/{i}.jpg"}
            for i in images
        ],
        "annotations": [
            {
                "id": number,
                "image_id": image,
                "category_id": category,
                "iscrowd": 0,
                "area": 4.5,
                "bbox": [1, 1, 3, 3],
                "segmentation": [[1.25, 1, 4, 1.0, 4, 4.75]],
            }
            for number, (image, category) in enumerate(pairs, start=first_id)
        ],
        "categories": [{"id": i, "name": name, "supercategory": "thing"} for i, name in names.items()],
    }


def write(path, content):
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def small(tmp_path, count=12):
    """Twelve annotated images: person on all odd ones, car on every third, bus on the rest."""
    labels = [(i, [1] * (i % 2) + [3] * (i % 3 == 0) + [6] * (i % 2 == 0 and i % 3 != 0)) for i in range(count, 0, -1)]
    return write(tmp_path / "instances_train2017.json", make_content(labels))


def image_directory(path, numbers):
    path.mkdir()
    for i in numbers:
        (path / f"{i:012}.jpg").write_bytes(jpeg(i))
    return path


def run(*arguments):
    return trim_coco.main([str(argument) for argument in arguments])


def break_off_after_gathering(patch):
    """Let runs end, as if by Ctrl-C, when the images are there and nobody has noted that they are."""

    def gather(*arguments, **flags):
        real(*arguments, **flags)
        raise KeyboardInterrupt

    real = coco_output.gather
    patch.setattr(coco_output, "gather", gather)
