"""trim_coco --download from a server that lies, is slow or gone: what comes is the image, or is named."""

import contextlib
import gzip
import json
import re
import signal
import subprocess
import sys

import pytest

from tests.coco_sets import break_off_after_gathering, jpeg, make_content, run, write
from tests.results import contents
from tests.web import serve

PAGE = b"<html><body>Please log in</body></html>"


def name_of(number):
    return f"{number:012}.jpg"


def respond(handler, body, *, length=True, status=200, kind="image/jpeg", packed=None):
    handler.send_response(status)
    handler.send_header("Content-Type", kind)
    if packed:
        handler.send_header("Content-Encoding", packed)
    if length:
        handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)


def redirect(handler):
    handler.send_response(302)
    handler.send_header("Location", handler.path)
    handler.send_header("Content-Length", "0")
    handler.end_headers()


# What may come in the place of an image, and what is said of it.
LIES = {
    "nothing": (lambda handler, body: respond(handler, b""), "an empty file (0 bytes)"),
    "nothing, without a length": (lambda handler, body: respond(handler, b"", length=False), "an empty file (0 bytes)"),
    "half": (lambda handler, body: respond(handler, body[: len(body) // 2]), "damaged or unknown data"),
    "half, without a length": (
        lambda handler, body: respond(handler, body[: len(body) // 2], length=False),
        "damaged or unknown data",
    ),
    "all but the end, without a length": (
        lambda handler, body: respond(handler, body[:-2], length=False),
        "an image of 8 × 6 pixels",
    ),
    "a packed file": (lambda handler, body: respond(handler, gzip.compress(body)), r"of another kind, b'\x1f\x8b"),
    "half of a packed answer": (
        lambda handler, body: respond(handler, gzip.compress(body)[:300], packed="gzip"),
        "damaged or unknown data",
    ),
    "a web page": (lambda handler, body: respond(handler, PAGE, kind="text/html"), "a web page"),
    "a web page that says it is an image": (lambda handler, body: respond(handler, PAGE), "of another kind, b'<html>"),
    "another image": (
        lambda handler, body: respond(handler, jpeg(1, (6, 8))),
        "expected an image of 8 × 6 pixels (width × height), found one of 6 × 8",
    ),
    "itself, again and again": (lambda handler, body: redirect(handler), "an answer that cannot be followed"),
    "an error": (lambda handler, body: respond(handler, b"", status=404), "the answer 404"),
}


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr("emcurate.fetching.downloads.FIRST_PAUSE_SECONDS", 0.001)
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@contextlib.contextmanager
def a_set(tmp_path, answer, count=8):
    """Serve images as `answer(handler, number)` does; give the command that downloads them."""

    def number_of(handler):
        return int(re.search(r"(\d+)\.jpg", handler.path)[1])

    with serve(lambda handler: answer(handler, number_of(handler))) as url:
        content = make_content([(i, [3] if i % 2 else [1]) for i in range(1, count + 1)])
        for image in content["images"]:
            image["coco_url"] = f"{url}/{image['file_name']}"
        path = write(tmp_path / "a.json", content)
        yield ["--train-annotations", path, "--targets", 3, "--train-samples", count, "--download", "-o"]


def images_in(directory):
    return {path.name: path.read_bytes() for path in (directory / "train2017").iterdir() if path.is_file()}


@pytest.mark.parametrize("lie", LIES)
def test_what_is_not_the_image_is_named_and_never_there_and_comes_when_the_server_is_honest(
    tmp_path, capsys, quick, lie
):
    lying = [True]

    def answer(handler, number):
        tell, _ = LIES[lie]
        tell(handler, jpeg(number)) if lying and number == 3 else respond(handler, jpeg(number))

    with a_set(tmp_path, answer) as command:
        assert run(*command, tmp_path / "o") == 1
        err = capsys.readouterr().err
        assert LIES[lie][1] in err
        assert f"/{name_of(3)}: expected" in err
        assert images_in(tmp_path / "o") == {name_of(i): jpeg(i) for i in range(1, 9) if i != 3}
        assert run("--verify", "-o", tmp_path / "o") == 0
        lying.clear()
        assert run(*command, tmp_path / "o") == 0
    assert images_in(tmp_path / "o") == {name_of(i): jpeg(i) for i in range(1, 9)}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("length", [False, True])
def test_an_honest_answer_is_the_image_whether_packed_or_without_a_length(tmp_path, quick, packed, length):
    def answer(handler, number):
        body = gzip.compress(jpeg(number)) if packed else jpeg(number)
        respond(handler, body, length=length, packed="gzip" if packed else None)

    with a_set(tmp_path, answer) as command:
        assert run(*command, tmp_path / "o") == 0
    assert images_in(tmp_path / "o") == {name_of(i): jpeg(i) for i in range(1, 9)}


@pytest.mark.parametrize(
    "data",
    [b"", jpeg(3)[:200], gzip.compress(jpeg(3)), PAGE, jpeg(3, (6, 8)), None],
    ids=["empty", "half", "gzip", "page", "size", "directory"],
)
def test_what_lies_in_the_place_of_an_image_is_not_taken_for_it(tmp_path, capsys, quick, data):
    mine = tmp_path / "o" / "train2017" / name_of(3)
    mine.parent.mkdir(parents=True)
    mine.mkdir() if data is None else mine.write_bytes(data)
    with a_set(tmp_path, lambda handler, number: respond(handler, jpeg(number))) as command:
        for flags in ([], []) if data is not None else ([], ["--overwrite"]):
            assert run(*command, tmp_path / "o", *flags) == 1
            err = capsys.readouterr().err
            assert f"{mine}: expected" in err
            assert ("a directory of that name" in err) == (data is None)
            assert mine.is_dir() if data is None else mine.read_bytes() == data
            assert len(images_in(tmp_path / "o")) == 7 + (data is not None)
        if data is None:
            mine.rmdir()
        assert run(*command, tmp_path / "o", *([] if data is None else ["--overwrite"])) == 0
    assert images_in(tmp_path / "o") == {name_of(i): jpeg(i) for i in range(1, 9)}


def test_an_image_that_is_there_whole_is_not_fetched(tmp_path, capsys, quick):
    asked = []

    def answer(handler, number):
        asked.append(number)
        respond(handler, jpeg(number))

    (tmp_path / "o" / "train2017").mkdir(parents=True)
    (tmp_path / "o" / "train2017" / name_of(3)).write_bytes(jpeg(3))
    with a_set(tmp_path, answer) as command:
        assert run(*command, tmp_path / "o") == 0
        assert sorted(asked) == [1, 2, 4, 5, 6, 7, 8]
        # Those that an earlier run fetched and that are as they were need not come again, even to be replaced.
        assert run(*command, tmp_path / "o", "--overwrite") == 0
        assert len(asked) == 7


LONG = ["x" * 300 + ".jpg", "é" * 130 + ".jpg", "y" * 200 + "/" + "z" * 256, f"{'d' * 200}/" * 30 + "a.jpg"]


@pytest.mark.parametrize("name", LONG, ids=["letters", "bytes", "below", "path"])
@pytest.mark.parametrize("source", ["download", "directory", "none"])
def test_a_name_that_no_file_can_have_is_named_and_the_others_come(tmp_path, capsys, quick, name, source):
    with a_set(tmp_path, lambda handler, number: respond(handler, jpeg(number))) as command:
        content = json.loads((tmp_path / "a.json").read_text())
        content["images"][2]["file_name"] = name
        write(tmp_path / "a.json", content)
        if source != "download":
            command.remove("--download")
        if source == "directory":
            (tmp_path / "all").mkdir()
            for i in range(1, 9):
                (tmp_path / "all" / name_of(i)).write_bytes(jpeg(i))
            command[:0] = ["--train-images", tmp_path / "all"]
        assert run(*command, tmp_path / "o") == (0 if source == "none" else 1)
    err = capsys.readouterr().err
    assert "Traceback" not in err
    labels = json.loads((tmp_path / "o" / "labels_train.json").read_text())
    assert len(labels) == 8
    assert f"train2017/{name}" in labels
    if source == "none":
        return
    assert re.search(r"expected a (name|path) of at most (255|4,095) bytes, found [\d,]+; shorten it", err)
    assert images_in(tmp_path / "o") == {name_of(i): jpeg(i) for i in range(1, 9) if i != 3}


def test_a_name_that_is_anothers_directory_is_named_and_the_others_come(tmp_path, capsys, quick):
    with a_set(tmp_path, lambda handler, number: respond(handler, jpeg(number))) as command:
        content = json.loads((tmp_path / "a.json").read_text())
        content["images"][2]["file_name"] = f"{name_of(5)}/inside.jpg"
        write(tmp_path / "a.json", content)
        assert run(*command, tmp_path / "o") == 1
    assert re.search("a (file in the way|directory of that name)", capsys.readouterr().err)
    assert {name_of(i) for i in (1, 2, 4, 6, 7, 8)} <= set(images_in(tmp_path / "o"))


def test_downloads_stop_after_the_first_ten_failures_of_one_kind_and_go_on_later(tmp_path, capsys, quick):
    gone, asked = [True], []

    def answer(handler, number):
        asked.append(number)
        respond(handler, b"" if gone else jpeg(number), status=403 if gone else 200)

    with a_set(tmp_path, answer, count=200) as command:
        assert run(*command, tmp_path / "o") == 1
        err = capsys.readouterr().err
        assert len(asked) == 10
        assert err.count("the answer 403 Forbidden; log in") == 10
        assert re.search("more failed alike, after 10 failures of one kind, the answer 403; mend the cause", err)
        asked.clear()
        assert run(*command, tmp_path / "o", "--max-failures", 0) == 1
        assert len(asked) == 200
        gone.clear()
        assert run(*command, tmp_path / "o") == 0
    assert len(images_in(tmp_path / "o")) == 200


class Deadly:
    """Answers requests for images, and kills the run it is told of at the twentieth."""

    def __init__(self):
        self.asked, self.process = [], None

    def __call__(self, handler, number):
        self.asked.append(number)
        if self.process is not None and len(self.asked) == 20:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
        respond(handler, jpeg(number))


def start(command, cwd, root):
    arguments = [sys.executable, root / "data_prep" / "trim_coco.py", *command]
    return subprocess.Popen(
        [str(argument) for argument in arguments], cwd=cwd, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def test_a_killed_download_goes_on_and_leaves_nothing_beside_another_selection(tmp_path, capsys, quick, root):
    answer = Deadly()
    with a_set(tmp_path, answer, count=40) as command:
        for number, flags in enumerate((["--targets", 3], ["--targets", 1, "--train-samples", 4, "--overwrite"])):
            out = tmp_path / f"{number}"
            answer.asked.clear()
            with contextlib.suppress(ConnectionError):
                answer.process = start([*command, out], tmp_path, root)
                answer.process.wait()
            answer.process = None
            there = images_in(out)
            assert 0 < len([name for name in there if name.endswith(".jpg")]) < 40
            assert run("--verify", "-o", out) == 1
            assert "a run that was broken off; run the same command without --verify to go on" in (
                capsys.readouterr().err
            )
            assert run(*command, out, "--targets", 1, "--train-samples", 4) == 1  # another selection
            assert len(images_in(out)) == len(there)
            before = len(answer.asked)
            assert run(*command, out, *flags) == 0
            assert run(*command, tmp_path / "fresh", *flags, "--overwrite") == 0
            assert contents(out) == contents(tmp_path / "fresh")
            if number == 0:
                # Nothing that had come was fetched again.
                done = {int(name[:-4]) for name in there if name.endswith(".jpg")}
                assert not done & set(answer.asked[before : before + 40 - len(done)])
            assert run("--verify", "-o", out) == 0


def test_a_run_without_images_keeps_what_a_killed_download_brought(tmp_path, quick, root):
    answer = Deadly()
    with a_set(tmp_path, answer, count=40) as command:
        answer.process = start([*command, tmp_path / "o"], tmp_path, root)
        answer.process.wait()
        answer.process = None
        there = {name for name in images_in(tmp_path / "o") if name.endswith(".jpg")}
        assert there
        at = command.index("--download")
        assert run(*command[:at], *command[at + 1 :], tmp_path / "o") == 0
        assert {name for name in images_in(tmp_path / "o") if name.endswith(".jpg")} == there
        assert run("--verify", "-o", tmp_path / "o") == 0
        answer.asked.clear()
        assert run(*command, tmp_path / "o") == 0
        assert {name_of(number) for number in answer.asked}.isdisjoint(there)
    assert len(images_in(tmp_path / "o")) == 40


@pytest.mark.parametrize("known", [True, False])
def test_dry_run_counts_and_estimates_and_neither_asks_nor_writes(tmp_path, capsys, quick, known):
    asked = []
    with a_set(tmp_path, lambda handler, number: asked.append(number), count=40) as command:
        content = json.loads((tmp_path / "a.json").read_text())
        for image in content["images"]:
            image["width"], image["height"] = (640, 480) if known else (None, "?")
        write(tmp_path / "a.json", content)
        (tmp_path / "all").mkdir()
        (tmp_path / "all" / name_of(1)).write_bytes(bytes(10_000_000))
        flags = ["--train-images", tmp_path / "all", "--dry-run"]
        assert run(*command, tmp_path / "o", *flags) == 0
        out = capsys.readouterr().out
        expected = 39 * (640 * 480 * 0.58 if known else 163_000) / 1e9
        assert f"train: 1 images to place, 0.010 GB; 39 to fetch, about {expected:.3f} GB; 0 are there already" in out
        assert "40 train images chosen, 1 images to place, 39 images to fetch" in out
        assert asked == []
        assert not (tmp_path / "o").exists()
        command.remove("--download")
        assert run(*command, tmp_path / "o", *flags) == 0
    captured = capsys.readouterr()
    assert "39 images that are nowhere" in captured.out
    assert f"39 images are nowhere, such as {name_of(2)}, " in captured.err


def test_a_killed_download_with_a_name_that_no_file_can_have_goes_on(tmp_path, capsys, quick, monkeypatch):
    with a_set(tmp_path, lambda handler, number: respond(handler, jpeg(number))) as command:
        content = json.loads((tmp_path / "a.json").read_text())
        for number, name in enumerate(LONG):
            content["images"][number]["file_name"] = name
        write(tmp_path / "a.json", content)

        def break_off(*arguments, **flags):
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr("emcurate.trimming.coco_output.gather", break_off)
            assert run(*command, tmp_path / "o") == 130
        capsys.readouterr()
        for _ in range(2):
            assert run(*command, tmp_path / "o") == 1
            assert "4 failed" in capsys.readouterr().out
            assert images_in(tmp_path / "o") == {name_of(i): jpeg(i) for i in range(5, 9)}


def test_an_image_that_a_power_cut_emptied_is_fetched_again_and_no_other(tmp_path, quick, monkeypatch):
    asked = []

    def answer(handler, number):
        asked.append(number)
        respond(handler, jpeg(number))

    with a_set(tmp_path, answer) as command:
        with monkeypatch.context() as patch:
            break_off_after_gathering(patch)
            assert run(*command, tmp_path / "o") == 130
        (tmp_path / "o" / "train2017" / name_of(3)).write_bytes(b"")
        asked.clear()
        assert run(*command, tmp_path / "o") == 0
    assert asked == [3]
    assert images_in(tmp_path / "o") == {name_of(i): jpeg(i) for i in range(1, 9)}
