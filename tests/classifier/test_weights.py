"""Downloaded weights are checked before they count, and fetched again where they are not what they should be."""

import contextlib
import hashlib
import logging
import os
import stat
import subprocess
import sys
import threading
import time

import pooch
import pytest

from emcurate.classifier import weights
from emcurate.errors import InputError
from tests.web import serve

BODY = bytes(range(256)) * 64
NAME = "patch_quality_classifier_nn.pth"
MD5 = f"md5:{hashlib.md5(BODY).hexdigest()}"


class Site:
    """A server of weights, and what it does wrong."""

    def __init__(self):
        self.body = BODY
        self.status = 200
        self.breaks = 0  # answers that break off half-way
        self.pause = 0.0  # seconds between pieces
        self.stall = None  # set where a connection is to hang half-way
        self.requests = 0
        self.address = ""

    def answer(self, handler):
        self.requests += 1
        if handler.path.startswith("/record"):
            handler.send_response(302)
            handler.send_header("Location", f"{self.address}/files/{NAME}")
            handler.end_headers()
            return
        handler.send_response(self.status)
        handler.send_header("Content-Length", str(len(self.body)))
        handler.end_headers()
        half = len(self.body) // 2
        handler.wfile.write(self.body[:half])
        if self.stall:
            self.stall.wait(60)
        if self.breaks:
            self.breaks -= 1
            handler.close_connection = True
            return
        time.sleep(self.pause)
        with contextlib.suppress(ConnectionError):
            handler.wfile.write(self.body[half:])

    @property
    def url(self):
        return f"{self.address}/files/{NAME}?download=1"


@pytest.fixture
def site(monkeypatch):
    monkeypatch.setattr(weights, "RETRIES", 1)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    site = Site()
    with serve(site.answer) as address:
        site.address = address
        yield site


def check_weights(path):
    """Stands for the check of tensor names and shapes."""
    if not path.read_bytes().startswith(BODY[:16]):
        raise InputError(path, "the tensors of a ResNet34 with one output", "other things", "name other weights")


def fetch(site, directory, **options):
    options = {"least_bytes": 1000, **options}
    return weights.fetch_weights(options.pop("url", site.url), check_weights, directory=directory, **options)


def names(directory):
    return sorted(path.name for path in directory.iterdir())


# ---- the published classifier's


@pytest.mark.parametrize("trouble", [{}, {"pause": 0.2}, {"breaks": 1}], ids=["normal", "slow", "broken off"])
@pytest.mark.parametrize("digest", [None, MD5, hashlib.sha256(BODY).hexdigest().upper()])
def test_weights_are_fetched_once(site, tmp_path, trouble, digest):
    vars(site).update(trouble)
    path = fetch(site, tmp_path, digest=digest)
    assert path.read_bytes() == BODY
    asked = site.requests
    assert fetch(site, tmp_path, digest=digest) == path
    assert site.requests == asked
    assert names(tmp_path) == [path.name]


def test_a_redirect_is_followed(site, tmp_path):
    assert fetch(site, tmp_path, url=f"{site.address}/record/1/{NAME}").read_bytes() == BODY


def test_files_of_one_name_at_two_addresses_are_two_files(site, tmp_path):
    assert fetch(site, tmp_path) != fetch(site, tmp_path, url=f"{site.address}/other/{NAME}")


@pytest.mark.parametrize(
    ("trouble", "message"),
    [
        ({"status": 404}, "found the answer 404"),
        ({"status": 503}, "found the answer 503 .* run the same command again later"),
        ({"body": b"<html>" * 1000}, "expected the tensors of a ResNet34 with one output, found other things"),
        ({"body": BODY[:100]}, "expected at least 1,000 bytes of weights, found 100"),
        ({"breaks": 99}, "broke off"),
    ],
    ids=["404", "busy", "wrong file", "too small", "always broken off"],
)
def test_what_cannot_be_used_is_refused_and_not_kept(site, tmp_path, trouble, message):
    vars(site).update(trouble)
    with pytest.raises(InputError, match=message) as error:
        fetch(site, tmp_path)
    assert error.value.path == site.url
    assert names(tmp_path) == []
    assert site.requests == (2 if trouble in ({"status": 503}, {"breaks": 99}) else 1)
    vars(site).update({"status": 200, "body": BODY, "breaks": 0})
    assert fetch(site, tmp_path).read_bytes() == BODY


def test_weights_of_another_digest_are_refused_and_not_kept(site, tmp_path):
    site.body = BODY + b"more"
    with pytest.raises(InputError, match=rf"expected the file with the digest {MD5}, found another"):
        fetch(site, tmp_path, digest=MD5)
    assert names(tmp_path) == []
    site.body = BODY
    assert fetch(site, tmp_path, digest=MD5).read_bytes() == BODY


def test_the_published_weights_have_the_digest_noted_for_them(site, tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "PUBLISHED_URL", site.url)
    monkeypatch.setattr(weights, "PUBLISHED_DIGEST", MD5)
    assert fetch(site, tmp_path).name == NAME
    monkeypatch.setattr(weights, "PUBLISHED_DIGEST", MD5[:-4] + "0000")
    with pytest.raises(InputError, match="found another, which was not kept"):
        fetch(site, tmp_path)


@pytest.mark.parametrize(
    ("damage", "digest"), [(b"other", None), (BODY[:-900], None), (BODY[:-1] + b"x", MD5)], ids=["other", "cut", "bit"]
)
def test_weights_damaged_in_the_cache_are_fetched_again(site, tmp_path, damage, digest):
    path = fetch(site, tmp_path, digest=digest)
    path.write_bytes(damage)
    assert fetch(site, tmp_path, digest=digest, least_bytes=len(BODY)).read_bytes() == BODY
    assert names(tmp_path) == [path.name]


def test_weights_damaged_in_the_cache_stay_until_others_have_come(site, tmp_path, monkeypatch):
    path = fetch(site, tmp_path)
    path.write_bytes(b"other" * 1000)
    site.body = b"another" * 1000
    with pytest.raises(InputError, match="check the address; what came was not kept"):
        fetch(site, tmp_path)
    assert path.read_bytes() == b"other" * 1000
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy")
    with pytest.raises(InputError, match="found other things; connect to the network to have it replaced, or") as error:
        fetch(site, tmp_path)
    assert error.value.path == str(path)
    assert path.read_bytes() == b"other" * 1000


def test_without_a_network_one_message_says_what_to_do(site, tmp_path):
    with pytest.raises(InputError, match=r"no answer \(.*refused\).*--weights.*or put it at .*weights"):
        weights.fetch_weights("http://127.0.0.1:9/weights.pth", check_weights, directory=tmp_path)
    assert names(tmp_path) == []


def test_a_connection_that_hangs_is_given_up(site, tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "TIMEOUT_SECONDS", 0.2)
    site.stall = threading.Event()
    try:
        with pytest.raises(InputError, match="no answer"):
            fetch(site, tmp_path)
    finally:
        site.stall.set()
    assert site.requests == 2


def test_what_a_killed_download_leaves_is_swept_away(site, tmp_path):
    site.stall = threading.Event()
    program = (
        "import pathlib, sys; from emcurate.classifier import weights; "
        "weights.fetch_weights(sys.argv[1], id, directory=pathlib.Path(sys.argv[2]), least_bytes=1)"
    )
    process = subprocess.Popen([sys.executable, "-c", program, site.url, tmp_path], stderr=subprocess.DEVNULL)
    while not any(path.is_file() for path in tmp_path.rglob("*")):
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    site.stall.set()
    site.stall = None
    assert len(names(tmp_path)) == 1 and names(tmp_path)[0].startswith(".")
    assert names(tmp_path) != [fetch(site, tmp_path).name] == names(tmp_path)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such permissions")
def test_weights_in_a_shared_cache_can_be_read_by_others(site, tmp_path):
    (tmp_path / "usual").write_bytes(b"")
    usual = stat.S_IMODE((tmp_path / "usual").stat().st_mode)
    assert stat.S_IMODE(fetch(site, tmp_path).stat().st_mode) == usual


def test_a_download_shows_its_progress_and_nothing_else(site, tmp_path, capsys, monkeypatch):
    told = []
    monkeypatch.setattr(pooch.get_logger(), "handlers", [handler := logging.Handler()])
    monkeypatch.setattr(handler, "emit", told.append)
    fetch(site, tmp_path)
    captured = capsys.readouterr()
    assert f"download {NAME}: 100%" in captured.err
    assert captured.out == ""
    assert told == []


def test_the_cache_is_where_the_variable_says(tmp_path, monkeypatch, site):
    monkeypatch.setenv(weights.CACHE_VARIABLE, str(tmp_path / "cache"))
    assert fetch(site, None).parent == tmp_path / "cache"
    monkeypatch.delenv(weights.CACHE_VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert weights.cache_directory() == tmp_path / "xdg" / "emcurate"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert weights.cache_directory() == tmp_path / ".cache" / "emcurate"


def test_the_published_file_keeps_its_own_name():
    assert weights._cache_name(weights.PUBLISHED_URL) == NAME


# ---- ImageNet's


@pytest.fixture
def checkpoints(tmp_path, monkeypatch):
    """PyTorch's own cache."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    return tmp_path / "hub" / "checkpoints"


def imagenet(site, digest=None):
    digits = (digest or hashlib.sha256(BODY).hexdigest())[:8]
    return weights.fetch_imagenet_weights(f"{site.address}/models/resnet34-{digits}.pth")


def test_imagenet_weights_come_from_torchvisions_address_and_cache(site, checkpoints):
    path = imagenet(site)
    assert path == checkpoints / f"resnet34-{hashlib.sha256(BODY).hexdigest()[:8]}.pth"
    assert path.read_bytes() == BODY
    assert imagenet(site) == path
    assert site.requests == 1
    assert names(checkpoints) == [path.name]


def test_imagenet_weights_damaged_in_the_cache_are_fetched_again(site, checkpoints):
    imagenet(site).write_bytes(b"damaged")
    assert imagenet(site).read_bytes() == BODY


@pytest.mark.parametrize(
    ("trouble", "message"),
    [
        ({"body": BODY[::-1]}, "expected a file whose SHA-256 starts with .*, found other bytes, .*; try again"),
        ({"breaks": 1}, "found other bytes, which were not kept; try again"),
        ({"status": 404}, "found the answer 404 .*; check the address"),
    ],
    ids=["wrong file", "broken off", "404"],
)
def test_imagenet_weights_that_cannot_be_used_are_refused_and_not_kept(site, checkpoints, trouble, message):
    vars(site).update(trouble)
    with pytest.raises(InputError, match=message + ".*--init FILE.*--init random"):
        imagenet(site)
    assert names(checkpoints) == []
    vars(site).update({"status": 200, "body": BODY})
    assert imagenet(site).read_bytes() == BODY


def test_without_a_network_imagenet_gives_one_clear_message(checkpoints):
    with pytest.raises(InputError, match=r"no answer \(.*refused\).*put the file at .*--init FILE.*--init random"):
        weights.fetch_imagenet_weights("http://127.0.0.1:9/resnet34-b627a593.pth")
    assert names(checkpoints) == []


def test_a_connection_to_imagenet_that_hangs_is_given_up(site, checkpoints, monkeypatch):
    monkeypatch.setattr(weights, "TIMEOUT_SECONDS", 0.2)
    site.stall = threading.Event()
    try:
        with pytest.raises(InputError, match="no answer"):
            imagenet(site)
    finally:
        site.stall.set()
    assert names(checkpoints) == []
