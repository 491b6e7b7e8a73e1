"""trim_coco: images from directories, archives and the web."""

import errno
import hashlib
import json
import os
import stat
import threading
import zipfile

import pytest

from tests.coco_sets import image_directory, jpeg, make_content, run, small, write
from tests.web import serve


def send_image(handler, number):
    body = jpeg(number)
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)


def test_same_result_from_directory_zip_and_links(tmp_path):
    path = small(tmp_path)
    images = image_directory(tmp_path / "all", range(1, 13))
    with zipfile.ZipFile(tmp_path / "train2017.zip", "w") as archive:
        for image in images.iterdir():
            archive.write(image, f"train2017/{image.name}")
    common = ["--train-annotations", path, "--targets", 3, "--train-samples", 4]
    sources = {
        "copied": [images],
        "hard": [images, "--link", "hard"],
        "symbolic": [images, "--link", "symbolic"],
        "unzipped": [tmp_path / "train2017.zip", "-p", 2],
    }
    results = {}
    for name, flags in sources.items():
        for _ in range(2):  # the second run finds everything in place
            assert run(*common, "-o", tmp_path / name, "--train-images", *flags) == 0
        folder = tmp_path / name / "train2017"
        results[name] = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.iterdir()}
    chosen = {key.split("/")[1] for key in json.loads((tmp_path / "copied" / "labels_train.json").read_text())}
    assert set(results["copied"]) == chosen
    assert 0 < len(chosen) < 12
    assert all(result == results["copied"] for result in results.values())
    name = min(chosen)
    assert (tmp_path / "hard" / "train2017" / name).samefile(images / name)
    assert (tmp_path / "symbolic" / "train2017" / name).is_symlink()
    assert not (tmp_path / "copied" / "train2017" / name).samefile(images / name)


@pytest.mark.parametrize("zipped", [False, True])
def test_missing_images_are_listed_and_the_rest_done(tmp_path, capsys, zipped):
    images = image_directory(tmp_path / "all", range(1, 11))
    if zipped:
        with zipfile.ZipFile(tmp_path / "i.zip", "w") as archive:
            for image in images.iterdir():
                archive.write(image, image.name)
        images = tmp_path / "i.zip"
    command = ["--train-annotations", small(tmp_path), "--targets", 3, "-o", tmp_path / "o", "--train-images", images]
    command += ["--layout", "imagefolder"]
    assert run(*command) == 1
    err = capsys.readouterr().err
    assert f"{11:012}.jpg: expected an image in {images}, found none" in err
    assert f"{12:012}.jpg" in err
    assert len(json.loads((tmp_path / "o" / "labels_train.json").read_text())) == 12
    assert len(list((tmp_path / "o" / "train2017").glob("*.jpg"))) == 10
    metadata = tmp_path / "o" / "train2017" / "metadata.jsonl"
    assert len(metadata.read_text().splitlines()) == 10
    if not zipped:
        for i in (11, 12):
            (images / f"{i:012}.jpg").write_bytes(jpeg(i))
        assert run(*command) == 0
        assert len(metadata.read_text().splitlines()) == 12


def test_many_missing_images_are_listed_in_a_file(tmp_path, capsys):
    labels = [(i, [3] if i % 2 else [1]) for i in range(1, 61)]
    path = write(tmp_path / "a.json", make_content(labels))
    images = image_directory(tmp_path / "all", range(1, 11))
    command = ["--train-annotations", path, "--targets", 3, "-o", tmp_path / "o", "--train-images", images]
    assert run(*command) == 1
    listing = tmp_path / "o" / "missing_train2017.txt"
    assert f"31 more images are missing; {listing} lists all 50" in capsys.readouterr().err
    assert listing.read_text().split() == [f"{i:012}.jpg" for i in range(11, 61)]
    for i in range(11, 61):
        (images / f"{i:012}.jpg").write_bytes(jpeg(i))
    assert run(*command) == 0
    assert not listing.exists()


def test_damaged_zip_entry_is_named_and_the_rest_done(tmp_path, capsys):
    with zipfile.ZipFile(tmp_path / "i.zip", "w") as archive:
        for i in range(1, 13):
            archive.writestr(f"train2017/{i:012}.jpg", jpeg(i))
        offset = archive.getinfo(f"train2017/{5:012}.jpg").header_offset
    data = bytearray((tmp_path / "i.zip").read_bytes())
    data[offset + 200] ^= 255
    (tmp_path / "i.zip").write_bytes(data)
    command = ["--train-annotations", small(tmp_path), "--targets", 3, "-o", tmp_path / "o"]
    assert run(*command, "--train-images", tmp_path / "i.zip") == 1
    assert f"expected a readable train2017/{5:012}.jpg, found Bad CRC-32" in capsys.readouterr().err
    assert {p.name for p in (tmp_path / "o" / "train2017").iterdir()} == {f"{i:012}.jpg" for i in range(1, 13)} - {
        f"{5:012}.jpg"
    }


def zip_of(path, prefix="train2017/", method=zipfile.ZIP_STORED, numbers=range(1, 13)):
    with zipfile.ZipFile(path, "w", method) as archive:
        for i in numbers:
            archive.writestr(f"{prefix}{i:012}.jpg", jpeg(i))
    return path


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_damage_in_any_packing_is_named_and_the_rest_done(tmp_path, capsys, method):
    path = zip_of(tmp_path / "i.zip", method=method)
    with zipfile.ZipFile(path) as archive:
        entry = archive.getinfo(f"train2017/{5:012}.jpg")
    data = bytearray(path.read_bytes())
    start = entry.header_offset + 30 + len(entry.filename)
    data[start + entry.compress_size // 2] ^= 255
    path.write_bytes(data)
    command = ["--train-annotations", small(tmp_path), "--targets", 3, "-o", tmp_path / "o"]
    assert run(*command, "--train-images", path) == 1
    err = capsys.readouterr().err
    assert f"i.zip: expected a readable train2017/{5:012}.jpg, found" in err
    assert "delete it and fetch it again" in err
    assert len(list((tmp_path / "o" / "train2017").iterdir())) == 11


def test_encrypted_images_of_a_zip_are_named_with_the_right_advice_and_the_rest_done(tmp_path, capsys):
    path = zip_of(tmp_path / "i.zip")
    data = bytearray(path.read_bytes())
    name = f"train2017/{5:012}.jpg".encode()
    data[data.index(name) - 30 + 6] |= 1
    data[data.rindex(name) - 46 + 8] |= 1
    path.write_bytes(data)
    command = ["--train-annotations", small(tmp_path), "--targets", 3, "-o", tmp_path / "o"]
    assert run(*command, "--train-images", path) == 1
    err = capsys.readouterr().err
    assert "found an encrypted one; unpack it with its password, and name the directory" in err
    assert len(list((tmp_path / "o" / "train2017").iterdir())) == 11


def test_images_deeper_in_a_zip_and_zips_in_a_zip_are_told(tmp_path, capsys):
    command = ["--train-annotations", small(tmp_path), "--targets", 3, "-o", tmp_path / "o", "--train-images"]
    deep = zip_of(tmp_path / "deep.zip", "data/coco/train2017/")
    assert run(*command, deep) == 1
    assert (
        f"{deep}: expected the images as NAME or train2017/NAME, found them deeper, as data/coco/train2017/{1:012}.jpg"
        "; unpack it, and name the directory that holds them"
    ) in capsys.readouterr().err
    with zipfile.ZipFile(tmp_path / "outer.zip", "w") as archive:
        archive.write(deep, "coco/train2017.zip")
        archive.writestr("readme.txt", "")
    assert run(*command, tmp_path / "outer.zip") == 1
    assert (
        "found another archive in it, coco/train2017.zip; unpack it, and name the archive that holds the images"
    ) in capsys.readouterr().err


def test_link_in_a_zip_is_refused(tmp_path, capsys):
    with zipfile.ZipFile(tmp_path / "i.zip", "w") as archive:
        entry = zipfile.ZipInfo(f"{1:012}.jpg")
        entry.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(entry, "/etc/hosts")
        archive.writestr(f"{2:012}.jpg", jpeg(2))
    path = write(tmp_path / "a.json", make_content([(1, [3]), (2, [1])]))
    command = ["--train-annotations", path, "--targets", 3, "-o", tmp_path / "o"]
    assert run(*command, "--train-images", tmp_path / "i.zip", "--link", "hard") == 1
    err = capsys.readouterr().err
    assert f"expected {1:012}.jpg to be a file, found a link" in err
    assert "images in an archive are written out; --link hard is for directories" in err
    assert [p.name for p in (tmp_path / "o" / "train2017").iterdir()] == [f"{2:012}.jpg"]


def test_hard_link_to_another_file_system(tmp_path, capsys, monkeypatch):
    def refuse(*paths):
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    images = image_directory(tmp_path / "all", range(1, 13))
    command = ["--train-annotations", small(tmp_path), "--targets", 3, "-o", tmp_path / "o", "-p", 1]
    assert run(*command, "--train-images", images, "--link", "hard") == 1
    assert "none (Invalid cross-device link); use --link symbolic or --link copy" in capsys.readouterr().err


def test_no_zip_at_all(tmp_path, capsys):
    (tmp_path / "i.zip").write_bytes(b"no archive")
    command = ["--train-annotations", small(tmp_path), "--targets", 3, "-o", tmp_path / "o"]
    assert run(*command, "--train-images", tmp_path / "i.zip") == 1
    assert "expected a complete zip archive" in capsys.readouterr().err


def test_nothing_is_fetched_unless_asked(tmp_path, capsys):
    asked = []
    with serve(lambda handler: asked.append(handler.path)) as url:
        content = make_content([(1, [3]), (2, [1])])
        for image in content["images"]:
            image["coco_url"] = f"{url}/{image['file_name']}"
        path = write(tmp_path / "a.json", content)
        assert run("--train-annotations", path, "--targets", 3, "-o", tmp_path / "o") == 0
        empty = image_directory(tmp_path / "empty", [])
        assert run("--train-annotations", path, "--targets", 3, "-o", tmp_path / "o", "--train-images", empty) == 1
    assert asked == []
    assert "--download" in capsys.readouterr().out


def test_download_fetches_only_what_is_chosen_and_not_at_hand(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("emcurate.fetching.downloads.FIRST_PAUSE_SECONDS", 0.01)
    asked, breaks = [], {f"/{7:012}.jpg": 1, f"/{8:012}.jpg": 99}

    def answer(handler):
        asked.append(handler.path)
        body = jpeg(int(handler.path[1:-4]))
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        if breaks.get(handler.path, 0):
            breaks[handler.path] -= 1
            body = body[:100]
        handler.wfile.write(body)

    with serve(answer) as url:
        labels = [(i, [3] if i % 2 else [1]) for i in range(1, 21)]
        content = make_content(labels)
        for image in content["images"]:
            image["coco_url"] = f"{url}/{image['file_name']}"
        content["images"][8].pop("coco_url")  # image 9
        path = write(tmp_path / "a.json", content)
        at_hand = image_directory(tmp_path / "some", range(1, 5))
        command = ["--train-annotations", path, "--targets", 3, "-o", tmp_path / "o", "--train-samples", 2000]
        command += ["--download", "--train-images", at_hand]
        assert run(*command) == 1
        err = capsys.readouterr().err
        assert f"/{8:012}.jpg: expected {len(jpeg(8)):,} bytes, found a connection that broke off after 100" in err
        assert (
            f"{9:012}.jpg: expected an image in {at_hand}, found none of that name; no address is known for it" in err
        )
        assert {name[1:] for name in asked} == {f"{i:012}.jpg" for i in range(5, 21)} - {f"{9:012}.jpg"}
        folder = tmp_path / "o" / "train2017"
        there = {p.name: p.read_bytes() for p in folder.glob("*.jpg")}
        assert there == {f"{i:012}.jpg": jpeg(i) for i in range(1, 21) if i not in (8, 9)}
        asked.clear()
        breaks.clear()
        assert run(*command) == 1  # image 9 is still nowhere
        assert set(asked) == {f"/{8:012}.jpg"}
        assert (folder / f"{8:012}.jpg").read_bytes() == jpeg(8)


def test_downloads_run_side_by_side(tmp_path):
    together = threading.Barrier(8)

    def answer(handler):
        together.wait(20)  # breaks, and with it the test, unless eight ask at the same time
        send_image(handler, 1)

    with serve(answer) as url:
        content = make_content([(i, [3] if i % 2 else [1]) for i in range(1, 17)])
        for image in content["images"]:
            image["coco_url"] = f"{url}/{image['file_name']}"
        path = write(tmp_path / "a.json", content)
        assert run("--train-annotations", path, "--targets", 3, "-o", tmp_path / "o", "--download") == 0
    assert len(list((tmp_path / "o" / "train2017").iterdir())) == 16


def test_download_refuses_local_files(tmp_path, capsys):
    secret = tmp_path / "secret"
    secret.write_text("secret")
    content = make_content([(1, [3]), (2, [1])])
    for image in content["images"]:
        image["coco_url"] = secret.as_uri()
    path = write(tmp_path / "a.json", content)
    assert run("--train-annotations", path, "--targets", 3, "-o", tmp_path / "o", "--download") == 1
    assert "expected an http or https address" in capsys.readouterr().err
    assert list((tmp_path / "o" / "train2017").iterdir()) == []


def test_a_harmed_download_is_fetched_again_and_nothing_else(tmp_path):
    asked = []

    def answer(handler):
        asked.append(handler.path)
        send_image(handler, int(handler.path[1:-4]))

    with serve(answer) as url:
        content = make_content([(i, [3] if i % 2 else [1]) for i in range(1, 7)])
        for image in content["images"]:
            image["coco_url"] = f"{url}/{image['file_name']}"
        command = ["--train-annotations", write(tmp_path / "a.json", content), "--targets", 3, "-o", tmp_path / "o"]
        assert run(*command, "--download") == 0
        assert len(asked) == 6
        harmed = tmp_path / "o" / "train2017" / f"{4:012}.jpg"
        harmed.write_bytes(jpeg(4)[:100])
        for _ in range(2):
            assert run(*command, "--download") == 0
            assert harmed.read_bytes() == jpeg(4)
            assert asked[6:] == [f"/{4:012}.jpg"]
