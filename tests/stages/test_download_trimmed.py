"""download_trimmed: the hub's own library against a server on this machine, and careful unpacking."""

import hashlib
import importlib
import io
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.coco_sets import run as run_trim
from tests.coco_sets import small
from tests.web import serve

huggingface_hub = pytest.importorskip("huggingface_hub")
download_trimmed = importlib.import_module("data_prep.download_trimmed")

COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILES = {"labels_train.json": b"{}", "train2017/1.jpg": os.urandom(300_000), "train2017/2.jpg": b"two"}


def make_zip(files):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


class Hub:
    """The part of the hub that resolves files of dataset repositories."""

    def __init__(self):
        self.files = {"anonymous347928/pcbm-coco-stuff/resolve/main/data.zip": make_zip(FILES)}
        self.token = None
        self.cuts = []
        self.requests = []
        self.url = ""
        self.etag = None  # another than the checksum
        self.elsewhere = None  # the address of a store to send those who ask to

    def answer(self, handler):
        self.requests.append((handler.command, handler.path, handler.headers.get("Range")))
        name = handler.path.removeprefix("/datasets/")
        repositories = {"/".join(file.split("/")[:2]) for file in self.files}
        if self.token and handler.headers.get("Authorization") != f"Bearer {self.token}":
            return self.refuse(handler, 401, "GatedRepo")
        if "/".join(name.split("/")[:2]) not in repositories:
            return self.refuse(handler, 404, "RepoNotFound")
        if "/resolve/main/" not in name:
            return self.refuse(handler, 404, "RevisionNotFound")
        if name not in self.files:
            return self.refuse(handler, 404, "EntryNotFound")
        body = self.files[name]
        etag = hashlib.sha256(body).hexdigest() if self.etag is None else self.etag
        if self.elsewhere and handler.headers.get("Host") in self.url:
            handler.send_response(302)
            handler.send_header("Location", f"{self.elsewhere}/signed?number={len(self.requests)}")
            handler.send_header("X-Linked-ETag", f'"{etag}"')
            handler.send_header("X-Linked-Size", str(len(body)))
            handler.send_header("X-Repo-Commit", COMMIT)
            handler.end_headers()
            return None
        start = 0
        if handler.headers.get("Range"):
            start = int(handler.headers["Range"].removeprefix("bytes=").split("-")[0])
            handler.send_response(206)
            handler.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        else:
            handler.send_response(200)
        handler.send_header("X-Repo-Commit", COMMIT)
        handler.send_header("ETag", f'"{etag}"')
        handler.send_header("Content-Length", str(len(body) - start))
        handler.end_headers()
        if handler.command == "GET":
            piece = body[start:]
            cut = self.cuts.pop(0) if self.cuts else None
            handler.wfile.write(piece[:cut])
        return None

    def refuse(self, handler, status, code):
        handler.send_response(status)
        handler.send_header("X-Error-Code", code)
        handler.send_header("X-Error-Message", code)
        handler.send_header("X-Repo-Commit", COMMIT)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    def fetched(self):
        return [request for request in self.requests if request[0] == "GET" and "/resolve/" in request[1]]


@pytest.fixture
def cache(tmp_path, monkeypatch):
    directory = tmp_path / "cache"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(directory))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "no token"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return directory


@pytest.fixture
def hub(cache, monkeypatch):
    hub = Hub()
    with serve(hub.answer) as hub.url:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        yield hub


def run(*arguments):
    return download_trimmed.main([str(argument) for argument in arguments])


def tree(directory):
    return {
        str(p.relative_to(directory)): p.read_bytes()
        for p in directory.rglob("*")
        if p.is_file() and ".emcurate" not in p.parts
    }


def test_fetches_and_unpacks_once(hub, tmp_path, capsys):
    assert run("cocostuff", "-o", tmp_path / "o") == 0
    captured = capsys.readouterr()
    assert "3 files written, 0 files already there" in captured.out
    assert "data.zip: 100%" in captured.err
    assert tree(tmp_path / "o") == FILES
    assert run("cocostuff", "-o", tmp_path / "o") == 0
    assert "0 files written, 3 files already there" in capsys.readouterr().out
    assert len(hub.fetched()) == 1


def test_interrupted_unpacking_is_finished(hub, tmp_path):
    assert run("cocostuff", "-o", tmp_path / "o") == 0
    (tmp_path / "o" / "train2017" / "1.jpg").unlink()
    assert run("cocostuff", "-o", tmp_path / "o") == 0
    assert tree(tmp_path / "o") == FILES
    assert len(hub.fetched()) == 1


def test_broken_connection_is_resumed(hub, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 25_000)
    hub.cuts = [100_000]
    assert run("cocostuff", "-o", tmp_path / "o") == 0
    assert tree(tmp_path / "o") == FILES
    assert [asked for _, _, asked in hub.fetched()] == [None, "bytes=100000-"]


@pytest.mark.parametrize("kind", ["changed", "cut"])
def test_file_damaged_in_the_cache_is_fetched_again(hub, cache, tmp_path, kind):
    assert run("cocostuff", "-o", tmp_path / "o") == 0
    (blob,) = cache.rglob("blobs/*")
    data = blob.read_bytes()
    blob.write_bytes(data[:1000] + b"damage" + data[1006:] if kind == "changed" else data[:-1000])
    assert run("cocostuff", "-o", tmp_path / "p") == 0
    assert tree(tmp_path / "p") == FILES
    assert blob.read_bytes() == data
    assert len(hub.fetched()) == 2


def test_file_damaged_in_the_cache_and_no_network(hub, cache, tmp_path, capsys, monkeypatch):
    assert run("cocostuff", "-o", tmp_path / "o") == 0
    (blob,) = cache.rglob("blobs/*")
    blob.write_bytes(b"damage")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert run("cocostuff", "-o", tmp_path / "p") == 1
    err = capsys.readouterr().err
    assert "found a damaged copy in the cache, and no answer" in err
    assert "check the network connection" in err
    assert tree(tmp_path / "p") == {}


def test_wrong_bytes_from_the_hub_are_refused_and_not_kept(hub, cache, tmp_path, capsys):
    name = "anonymous347928/pcbm-coco-stuff/resolve/main/data.zip"
    right = hub.files[name]
    hub.etag = hashlib.sha256(right).hexdigest()
    hub.files[name] = make_zip({"evil": b"x"})
    assert run("cocostuff", "-o", tmp_path / "o") == 1
    assert "found other bytes, twice; they were not kept; run the same command again" in capsys.readouterr().err
    assert tree(tmp_path / "o") == {}
    assert not list(cache.rglob("data.zip")) and not list(cache.rglob("blobs/*"))
    hub.files[name] = right
    assert run("cocostuff", "-o", tmp_path / "o") == 0
    assert tree(tmp_path / "o") == FILES


def test_bytes_from_another_host_do_not_get_the_token(hub, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    seen = []

    def store(handler):
        seen.append(handler.headers.get("Authorization"))
        hub.token, token = None, hub.token
        handler.path = "/datasets/anonymous347928/pcbm-coco-stuff/resolve/main/data.zip"
        hub.answer(handler)
        hub.token = token

    with serve(store) as hub.elsewhere:
        hub.token = "hf_secret"
        hub.cuts = [100_000]
        assert run("cocostuff", "-o", tmp_path / "o") == 0
    assert tree(tmp_path / "o") == FILES
    assert seen == [None, None]


def test_library_finds_the_file_where_it_was_put(hub, cache, tmp_path):
    assert run("cocostuff", "-o", tmp_path / "o") == 0
    found = huggingface_hub.try_to_load_from_cache(
        "anonymous347928/pcbm-coco-stuff", "data.zip", repo_type="dataset", cache_dir=cache
    )
    assert hashlib.sha256(Path(found).read_bytes()).hexdigest() in {p.name for p in cache.rglob("blobs/*")}
    scan = huggingface_hub.scan_cache_dir(cache)
    assert [repository.repo_id for repository in scan.repos] == ["anonymous347928/pcbm-coco-stuff"]
    assert scan.warnings == []


def test_siim_and_other_places(hub, tmp_path):
    hub.files["anonymous347928/pcbm-siim-isic/resolve/main/data/images.zip"] = make_zip({"a.jpg": b"a"})
    hub.files["me/mine/resolve/main/my.zip"] = make_zip({"b.jpg": b"b"})
    assert run("siim", "-o", tmp_path / "siim") == 0
    assert tree(tmp_path / "siim") == {"a.jpg": b"a"}
    assert run("siim", "-o", tmp_path / "mine", "--repository", "me/mine", "--file", "my.zip") == 0
    assert tree(tmp_path / "mine") == {"b.jpg": b"b"}


def test_token_is_sent(hub, tmp_path, capsys, monkeypatch):
    hub.token = "hf_secret"
    assert run("cocostuff", "-o", tmp_path / "o") == 1
    assert "ask for access on its page, then set HF_TOKEN" in capsys.readouterr().err
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert run("cocostuff", "-o", tmp_path / "o") == 0


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ["--repository", "no/body"],
            "no/body/data.zip: expected a file on the Hugging Face Hub, found none of that name",
        ),
        (["--file", "other.zip"], "found none of that name in the repository; check --file"),
        (["--revision", "v9"], "found no revision v9; check --revision"),
        (["--repository", "a/b/c"], "give --repository as owner/name"),
    ],
)
def test_not_to_be_had(hub, tmp_path, capsys, flags, message):
    assert run("cocostuff", "-o", tmp_path / "o", *flags) == 1
    err = capsys.readouterr().err
    assert message in err
    assert "Traceback" not in err
    assert tree(tmp_path / "o") == {}


def test_offline(cache, tmp_path, capsys, monkeypatch):
    # As the library finds no network, which is when a name server does not answer.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert run("cocostuff", "-o", tmp_path / "o") == 1
    err = capsys.readouterr().err
    assert "found no answer, and no copy in the cache" in err
    assert "check the network connection" in err
    assert "Traceback" not in err


def test_offline_with_a_copy_in_the_cache(hub, tmp_path, monkeypatch):
    assert run("cocostuff", "-o", tmp_path / "o") == 0
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert run("cocostuff", "-o", tmp_path / "p") == 0
    assert tree(tmp_path / "p") == FILES


@pytest.mark.parametrize("address", ["http://127.0.0.1:port", "http://[::1", "127.0.0.1"])
def test_endpoint_that_is_no_address_is_named(tmp_path, root, address):
    # In a process of its own, since the library looks at the address when it is first imported.
    environment = {**os.environ, "HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "0"}
    command = [sys.executable, root / "data_prep" / "download_trimmed.py", "cocostuff"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert "HF_ENDPOINT" in done.stderr
    assert "Traceback" not in done.stderr


def test_evil_archive(hub, tmp_path, capsys):
    hub.files["me/evil/resolve/main/data.zip"] = make_zip({"fine": b"x", "../evil": b"x"})
    assert run("cocostuff", "--repository", "me/evil", "-o", tmp_path / "o") == 1
    assert "'../evil', which leads out of the directory" in capsys.readouterr().err
    assert tree(tmp_path / "o") == {}
    assert not (tmp_path / "evil").exists()


def test_archive_that_becomes_too_large(hub, tmp_path, capsys):
    assert run("cocostuff", "-o", tmp_path / "o", "--max-size", "0.0001") == 1
    assert "expected at most 100,000 bytes when unpacked, found 300,005" in capsys.readouterr().err
    assert tree(tmp_path / "o") == {}


def test_no_archive_at_all(hub, tmp_path, capsys):
    hub.files["me/text/resolve/main/data.zip"] = b"hello"
    assert run("cocostuff", "--repository", "me/text", "-o", tmp_path / "o") == 1
    assert "expected a complete zip archive" in capsys.readouterr().err


def test_users_files_are_not_overwritten_without_flag(hub, tmp_path, capsys):
    (tmp_path / "labels_train.json").write_bytes(b"mine")
    assert run("cocostuff", "-o", tmp_path) == 1
    assert "--overwrite" in capsys.readouterr().err
    assert (tmp_path / "labels_train.json").read_bytes() == b"mine"
    assert run("cocostuff", "-o", tmp_path, "--overwrite") == 0
    assert (tmp_path / "labels_train.json").read_bytes() == b"{}"


def test_without_the_library(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert run("cocostuff", "-o", tmp_path) == 1
    assert "expected the package huggingface-hub, found none; pip install" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["imagenet"], ["siim", "--max-size", "0"]])
def test_wrong_arguments(arguments):
    with pytest.raises(SystemExit) as stopped:
        run(*arguments)
    assert stopped.value.code == 2


def test_runs_as_a_script_from_anywhere(tmp_path, root):
    hub = Hub()
    hub.token = "hf_environment"
    with serve(hub.answer) as url:
        environment = {**os.environ, "HF_ENDPOINT": url, "HF_HOME": str(tmp_path / "hf"), "HF_TOKEN": hub.token}
        environment |= {"no_proxy": "127.0.0.1", "HF_HUB_OFFLINE": "0"}
        command = [sys.executable, root / "data_prep" / "download_trimmed.py", "cocostuff"]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert tree(tmp_path / "trimmed") == FILES
    assert (tmp_path / "hf" / "hub").is_dir()


def test_another_revision_is_refused_and_with_overwrite_leaves_nothing_of_the_earlier_one(hub, tmp_path, capsys):
    assert run("cocostuff", "-o", tmp_path / "o") == 0
    other = make_zip({"labels_train.json": b"{}", "new.txt": b"new"})
    hub.files["anonymous347928/pcbm-coco-stuff/resolve/main/other.zip"] = other
    arguments = ["cocostuff", "-o", tmp_path / "o", "--file", "other.zip"]
    assert run(*arguments) == 1
    assert "--overwrite" in capsys.readouterr().err
    assert tree(tmp_path / "o") == FILES
    assert run(*arguments, "--overwrite") == 0
    assert tree(tmp_path / "o") == {"labels_train.json": b"{}", "new.txt": b"new"}
    assert run("cocostuff", "-o", tmp_path / "o", "--verify") == 0


def git_sha1(data):
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


@pytest.mark.parametrize("etag", [git_sha1, lambda data: "no-digest-at-all"])
@pytest.mark.parametrize("place", ["content", "name", "end"])
def test_a_damaged_file_heals_whatever_the_hub_calls_its_bytes(hub, cache, tmp_path, etag, place):
    (data,) = hub.files.values()
    hub.etag = etag(data)
    assert run("cocostuff", "-o", tmp_path / "o") == 0
    (blob,) = cache.rglob("blobs/*")
    assert blob.name == hub.etag
    damaged = bytearray(data)
    if place == "end":
        del damaged[-1000:]
    else:
        damaged[1000 if place == "content" else data.rindex(b"train2017/2.jpg") + 10] ^= 4
    blob.write_bytes(damaged)
    for directory in ("o", "p"):
        assert run("cocostuff", "-o", tmp_path / directory) == 0
        assert tree(tmp_path / directory) == FILES
    assert blob.read_bytes() == data
    assert len(hub.fetched()) == 2
    assert run("cocostuff", "-o", tmp_path / "p", "--verify") == 0


def test_an_archive_that_is_damaged_on_the_hub_itself_is_fetched_twice_and_said_to_be(hub, tmp_path, capsys):
    (name,) = hub.files
    data = bytearray(hub.files[name])
    data[1000] ^= 4
    hub.files[name] = bytes(data)
    assert run("cocostuff", "-o", tmp_path / "o") == 1
    err = capsys.readouterr().err
    assert "pcbm-coco-stuff/data.zip: expected a readable train2017/1.jpg, found Bad CRC-32" in err
    assert "it is so on the hub itself: check --file and --repository, or tell its owner" in err
    assert len(hub.fetched()) == 2
    assert tree(tmp_path / "o") == {}


@pytest.mark.parametrize(("name", "output"), [("cocostuff", "trimmed"), ("siim", "trimmed_siim")])
def test_verify_looks_where_the_set_went_without_o(hub, tmp_path, capsys, monkeypatch, name, output):
    hub.files["anonymous347928/pcbm-siim-isic/resolve/main/data/images.zip"] = make_zip({"a.jpg": b"a", "b.jpg": b"b"})
    monkeypatch.chdir(tmp_path)
    assert run(name, "--verify") == 1
    assert f"{tmp_path / output}: expected results of download_trimmed, found no" in capsys.readouterr().err
    assert run(name) == 0
    count = len(tree(tmp_path / output))
    assert run(name, "--verify") == 0
    assert f"{count} files verified" in capsys.readouterr().out
    (tmp_path / output / min(tree(tmp_path / output))).write_bytes(b"?")
    assert run(name, "--verify") == 1
    assert "run the same command without --verify to make it again" in capsys.readouterr().err


def test_a_file_where_the_set_would_go_is_a_wrong_argument(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "trimmed").write_text("mine")
    with pytest.raises(SystemExit) as stopped:
        run("cocostuff")
    assert stopped.value.code == 2
    assert "argument -o/--output: trimmed: expected a directory to write to, found a file" in capsys.readouterr().err


def test_dry_run_tells_the_gigabytes_before_and_the_files_once_the_archive_is_there(hub, cache, tmp_path, capsys):
    (data,) = hub.files.values()
    assert run("cocostuff", "-o", tmp_path / "o", "--dry-run") == 0
    out = capsys.readouterr().out
    assert f"{len(data) / 1e9:.3f} GB to fetch" in out
    assert "1 archives to fetch" in out
    assert hub.fetched() == []
    assert not (tmp_path / "o").exists()
    assert run("cocostuff", "-o", tmp_path / "o") == 0
    capsys.readouterr()
    assert run("cocostuff", "-o", tmp_path / "p", "--dry-run") == 0
    out = capsys.readouterr().out
    assert f"in the cache; {sum(map(len, FILES.values())) / 1e9:.3f} GB to unpack into {tmp_path / 'p'}" in out
    assert "3 files in the archive" in out
    assert not (tmp_path / "p").exists()
    assert run("cocostuff", "--repository", "no/body", "--dry-run") == 1
    assert "found none of that name" in capsys.readouterr().err


def test_a_trim_and_a_downloaded_set_are_never_mixed(hub, tmp_path, capsys):
    # Both go to a directory called trimmed by default, and both have labels and images of the same names.
    (tmp_path / "a").mkdir()
    trim = ["--train-annotations", small(tmp_path / "a"), "--targets", 3, "-o"]
    assert run("cocostuff", "-o", tmp_path / "o") == 0
    assert run_trim(*trim, tmp_path / "p") == 0
    before = [tree(tmp_path / name) for name in "op"]
    for flags in ([], ["--overwrite"]):
        capsys.readouterr()
        assert run_trim(*trim, tmp_path / "o", *flags) == 1
        assert "a directory of its own for what trim_coco makes, found results of download_trimmed" in (
            capsys.readouterr().err
        )
        assert run("cocostuff", "-o", tmp_path / "p", *flags) == 1
        assert "found results of trim_coco; name another one" in capsys.readouterr().err
        assert [tree(tmp_path / name) for name in "op"] == before
    for name in before[0]:
        (tmp_path / "o" / name).unlink()
    assert run_trim(*trim, tmp_path / "o") == 0
