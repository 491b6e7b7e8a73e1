"""trim_coco: annotation files and directories that should not be trusted."""

import gzip
import json

import pytest

from tests.coco_sets import image_directory, jpeg, make_content, run, small, write


@pytest.mark.parametrize(
    "name",
    ["../secret.jpg", "/etc/secret.jpg", "a/../../secret.jpg", "C:\\x.jpg", "..\\x.jpg", "", "a//b.jpg", "x\0.jpg"],
)
def test_file_name_that_leads_out_is_refused(tmp_path, capsys, name):
    content = make_content([(1, [3]), (2, [1])])
    content["images"][0]["file_name"] = name
    path = write(tmp_path / "a.json", content)
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    images = image_directory(tmp_path / "all", [1, 2])
    command = ["--train-annotations", path, "--targets", 3, "--train-images", images, "-o", tmp_path / "o" / "p"]
    assert run(*command) == 1
    assert "expected file names inside the image directory" in capsys.readouterr().err
    assert not (tmp_path / "o").exists()


def test_link_in_image_directory_is_not_followed_out(tmp_path, capsys):
    (tmp_path / "secret").write_bytes(b"secret")
    images = image_directory(tmp_path / "all", [2])
    (images / f"{1:012}.jpg").symlink_to(tmp_path / "secret")
    path = write(tmp_path / "a.json", make_content([(1, [3]), (2, [1])]))
    assert run("--train-annotations", path, "--targets", 3, "--train-images", images, "-o", tmp_path / "o") == 1
    assert "which a link leads out of" in capsys.readouterr().err
    assert [p.name for p in (tmp_path / "o" / "train2017").iterdir()] == [f"{2:012}.jpg"]


def test_link_in_output_is_not_written_through(tmp_path, capsys):
    outside = tmp_path / "outside"
    outside.mkdir()
    content = make_content([(1, [3]), (2, [1])])
    content["images"][0]["file_name"] = "sub/one.jpg"
    images = image_directory(tmp_path / "all", [2])
    (images / "sub").mkdir()
    (images / "sub" / "one.jpg").write_bytes(jpeg(1))
    path = write(tmp_path / "a.json", content)
    command = ["--train-annotations", path, "--targets", 3, "--train-images", images]
    assert run(*command, "-o", tmp_path / "fine") == 0
    assert (tmp_path / "fine" / "train2017" / "sub" / "one.jpg").read_bytes() == jpeg(1)
    (tmp_path / "o" / "train2017").mkdir(parents=True)
    (tmp_path / "o" / "train2017" / "sub").symlink_to(outside)
    assert run(*command, "-o", tmp_path / "o") == 1
    assert "which a link leads out of" in capsys.readouterr().err
    assert list(outside.iterdir()) == []


BAD_JSON = {
    "empty": (b"", "an empty file"),
    "truncated": (b'{"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": [{"image_id": 1, "cat', "truncated"),
    "text": (b"hello", "no complete JSON"),
    "csv": (b"image_name,target\na,1\n", "no complete JSON"),
    "zip": (b"PK\x03\x04" + bytes(99), "a zip archive or an Excel workbook; name an instances_….json"),
    "gzip": (gzip.compress(b"{}"), "a file packed with gzip"),
    "page": (b"<html></html>", "a web page or XML"),
    "results": (b'[{"image_id": 1, "category_id": 3, "score": 0.5}]', "JSON that is no object (a list of results?)"),
    "other": (b'{"info": {}, "data": []}', "an object of info, data, without annotations and images"),
    "test": (b'{"info": {}, "images": [], "categories": []}', "without annotations"),
    "captions": (
        b'{"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": [{"image_id": 1, "id": 7, "caption": "a dog"}]}',
        "annotations of image_id, id, caption, without category_id",
    ),
    "strings": (
        b'{"images": [{"id": "1", "file_name": "a.jpg"}], "annotations": [{"image_id": 1, "category_id": 2}]}',
        "Expected `int`, got `str` - at `$.images[0].id`",
    ),
}


@pytest.mark.parametrize("kind", BAD_JSON)
def test_bad_json(tmp_path, capsys, kind):
    data, message = BAD_JSON[kind]
    (tmp_path / "a.json").write_bytes(data)
    assert run("--train-annotations", tmp_path / "a.json", "-o", tmp_path / "o") == 1
    err = capsys.readouterr().err
    assert str(tmp_path / "a.json") in err
    assert message in err
    assert "Traceback" not in err


def test_byte_order_mark_is_fine(tmp_path):
    path = small(tmp_path)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert run("--train-annotations", path, "--targets", 3, "-o", tmp_path / "o") == 0


def test_annotations_of_unknown_images_are_left_out(tmp_path, capsys):
    content = make_content([(1, [3]), (2, [1]), (3, [3]), (4, [3])])
    content["images"] = content["images"][:2]
    path = write(tmp_path / "a.json", content)
    assert run("--train-annotations", path, "--targets", 3, "-o", tmp_path / "o", "--masks") == 0
    assert "2 images (3, 4) that annotations name but the images list lacks" in capsys.readouterr().err
    assert len(json.loads((tmp_path / "o" / "labels_train.json").read_text())) == 2


def test_missing_categories(tmp_path, capsys):
    content = make_content([(1, [3]), (2, [1]), (2, [77])])
    content["categories"] = [c for c in content["categories"] if c["id"] != 77]
    path = write(tmp_path / "a.json", content)
    assert run("--train-annotations", path, "--targets", 3, "-o", tmp_path / "o") == 0
    assert "1 category (77) without an entry" in capsys.readouterr().err
    del content["categories"]
    write(path, content)
    assert run("--train-annotations", path, "--targets", 3, "-o", tmp_path / "o2") == 0
    assert "no categories list" in capsys.readouterr().err
    assert run("--train-annotations", path, "--targets", "car", "-o", tmp_path / "o3") == 1
    first, second = tmp_path / "o" / "labels_train.json", tmp_path / "o2" / "labels_train.json"
    assert first.read_bytes() == second.read_bytes()


def test_duplicate_image_ids(tmp_path, capsys):
    content = make_content([(1, [3]), (2, [1])])
    content["images"].append(dict(content["images"][0]))
    path = write(tmp_path / "a.json", content)
    assert run("--train-annotations", path, "--targets", 3, "-o", tmp_path / "o") == 0
    assert "1 images are listed twice" in capsys.readouterr().err
    content["images"][-1]["file_name"] = "other.jpg"
    write(path, content)
    assert run("--train-annotations", path, "--targets", 3, "-o", tmp_path / "o2") == 1
    assert "image id 1 for 000000000001.jpg and other.jpg" in capsys.readouterr().err


def test_two_images_of_one_name(tmp_path, capsys):
    content = make_content([(1, [3]), (2, [1])])
    content["images"][1]["file_name"] = content["images"][0]["file_name"]
    assert run("--train-annotations", write(tmp_path / "a.json", content), "--targets", 3, "-o", tmp_path / "o") == 1
    assert "a file name of its own for each image" in capsys.readouterr().err


def test_merged_files_must_agree_on_categories(tmp_path, capsys):
    one = write(tmp_path / "1.json", make_content([(1, [3])]))
    other = write(tmp_path / "2.json", make_content([(1, [3])], {3: "cat"}))
    assert run("--train-annotations", one, other, "-o", tmp_path / "o") == 1
    assert "category 3 called 'car' and 'cat'" in capsys.readouterr().err
