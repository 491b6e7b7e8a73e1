"""Downloaded weights are checked and remembered."""

import contextlib
import hashlib
import json
import time

import pytest

from emcurate.classifier import weights
from emcurate.errors import InputError
from emcurate.fetching import downloads
from tests.web import serve

BODY = bytes(range(256)) * 64
NAME = "patch_quality_classifier_nn.pth"


class Site:
    """A server of weights, and what it does wrong."""

    def __init__(self):
        self.body = BODY
        self.status = 200
        self.breaks = 0  # answers that break off half-way
        self.pause = 0.0  # seconds between pieces
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
    monkeypatch.setattr(downloads, "FIRST_PAUSE_SECONDS", 0.01)
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


@pytest.mark.parametrize("trouble", [{}, {"pause": 0.2}, {"breaks": 1}], ids=["normal", "slow", "broken off"])
def test_weights_are_fetched_once_and_remembered(site, tmp_path, trouble):
    vars(site).update(trouble)
    path = fetch(site, tmp_path)
    assert path.read_bytes() == BODY
    asked = site.requests
    assert fetch(site, tmp_path) == path
    assert site.requests == asked
    memory = json.loads(path.with_name(f"{path.name}.json").read_text())
    assert memory["sha256"] == hashlib.sha256(BODY).hexdigest()
    assert (memory["url"], memory["size"]) == (site.url, len(BODY))
    assert names(tmp_path) == [path.name, f"{path.name}.json"]


def test_a_redirect_is_followed(site, tmp_path):
    assert fetch(site, tmp_path, url=f"{site.address}/record/1/{NAME}").read_bytes() == BODY


def test_files_of_one_name_at_two_addresses_are_two_files(site, tmp_path):
    assert fetch(site, tmp_path) != fetch(site, tmp_path, url=f"{site.address}/other/{NAME}")


@pytest.mark.parametrize(
    ("trouble", "message"),
    [
        ({"status": 404}, "found the answer 404"),
        ({"body": b"<html>" * 1000}, "expected the tensors of a ResNet34 with one output, found other things"),
        ({"body": BODY[:100]}, "expected at least 1,000 bytes of weights, found 100"),
        ({"breaks": 99}, "broke off after"),
    ],
    ids=["404", "wrong file", "too small", "always broken off"],
)
def test_what_cannot_be_used_is_refused_and_not_kept(site, tmp_path, trouble, message):
    vars(site).update(trouble)
    with pytest.raises(InputError, match=message) as error:
        fetch(site, tmp_path)
    assert error.value.path == site.url
    assert not [name for name in names(tmp_path) if name.endswith((".pth", ".unchecked")) and not name.startswith(".")]
    vars(site).update({"status": 200, "body": BODY, "breaks": 0})
    assert fetch(site, tmp_path).read_bytes() == BODY


def test_a_later_download_that_differs_is_refused_unless_accepted(site, tmp_path):
    path = fetch(site, tmp_path)
    path.unlink()
    site.body = BODY + b"more"
    with pytest.raises(InputError, match=f"the file downloaded before, SHA-256 {hashlib.sha256(BODY).hexdigest()}"):
        fetch(site, tmp_path)
    assert not path.exists()
    assert fetch(site, tmp_path, accept_changed=True).read_bytes() == site.body
    assert fetch(site, tmp_path).read_bytes() == site.body


def test_a_file_damaged_in_the_cache_is_noticed(site, tmp_path):
    path = fetch(site, tmp_path)
    path.write_bytes(BODY[:-1] + b"x")
    with pytest.raises(InputError, match="to download it again"):
        fetch(site, tmp_path)


def test_without_a_network_one_message_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(downloads, "FIRST_PAUSE_SECONDS", 0.01)
    with pytest.raises(InputError, match=r"no answer.*--weights.*or put it at .*weights"):
        weights.fetch_weights("http://127.0.0.1:9/weights.pth", check_weights, directory=tmp_path)
    assert not [name for name in names(tmp_path) if not name.startswith(".")]


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
