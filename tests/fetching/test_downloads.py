"""Downloads: resumed, checked, renamed last; against a server on this machine that misbehaves as told."""

from pathlib import Path

import pytest

from emcurate.errors import InputError
from emcurate.fetching import downloads
from emcurate.fetching.downloads import Download, NoAnswerError, fetch, fetch_all
from emcurate.running.report import Report
from tests.web import serve

BODY = bytes(range(256)) * 4096  # 1 MiB


class Site:
    """What the server answers, and what it was asked."""

    def __init__(self):
        self.body = BODY
        self.etag = '"v1"'
        self.ranges = True
        self.cuts = []  # body bytes after which the next answers break off
        self.statuses = []  # statuses of the next answers
        self.content_type = "application/octet-stream"
        self.announce = True
        self.redirect = None
        self.requests = []
        self.url = ""


def answer(site, handler):
    site.requests.append((handler.path, handler.headers.get("Range"), handler.headers.get("If-Range")))
    if site.redirect and handler.path == "/moved":
        handler.send_response(302)
        handler.send_header("Location", site.redirect)
        handler.end_headers()
        return
    if site.statuses:
        handler.send_response(site.statuses.pop(0))
        handler.send_header("Retry-After", "0")
        handler.send_header("Content-Length", "0")
        handler.end_headers()
        return
    body, start = site.body, 0
    wanted = handler.headers.get("Range")
    condition = handler.headers.get("If-Range")
    if site.ranges and wanted and condition in (None, site.etag):
        start = int(wanted.removeprefix("bytes=").removesuffix("-"))
        if start >= len(body):
            handler.send_response(416)
            handler.end_headers()
            return
        handler.send_response(206)
        handler.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
    else:
        handler.send_response(200)
    if site.etag:
        handler.send_header("ETag", site.etag)
    handler.send_header("Content-Type", site.content_type)
    if site.announce:
        handler.send_header("Content-Length", str(len(body) - start))
    handler.end_headers()
    piece = body[start:]
    handler.wfile.write(piece[: site.cuts.pop(0)] if site.cuts else piece)


@pytest.fixture
def site(monkeypatch):
    monkeypatch.setattr(downloads, "FIRST_PAUSE_SECONDS", 0.01)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    site = Site()
    with serve(lambda handler: answer(site, handler)) as site.url:
        yield site


def only(directory):
    return [path.name for path in directory.iterdir()]


def test_fetches_whole_file_once(site, tmp_path):
    path = fetch(f"{site.url}/a", tmp_path / "a.bin", expected_size=len(BODY))
    assert path.read_bytes() == BODY
    assert only(tmp_path) == ["a.bin"]
    fetch(f"{site.url}/a", tmp_path / "a.bin")
    assert len(site.requests) == 1


@pytest.mark.parametrize("cuts", [[1000], [1000, 70000], [0, 5], [10] * 20])
def test_goes_on_where_connection_broke_off(site, tmp_path, cuts):
    site.cuts = list(cuts)
    assert fetch(f"{site.url}/a", tmp_path / "a").read_bytes() == BODY
    starts = [int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0 for _, asked, _ in site.requests]
    assert starts == [sum(cuts[:i]) for i in range(len(cuts) + 1)]
    assert only(tmp_path) == ["a"]


def test_later_run_goes_on_after_failed_one(site, tmp_path):
    site.cuts = [300_000]
    with pytest.raises(InputError, match=r"broke off after 300,000.*what has arrived is kept"):
        fetch(f"{site.url}/a", tmp_path / "a", retries=0)
    assert not (tmp_path / "a").exists()
    assert all(name.startswith(".") for name in only(tmp_path))
    assert fetch(f"{site.url}/a", tmp_path / "a").read_bytes() == BODY
    assert site.requests[-1][1:] == ("bytes=300000-", '"v1"')


@pytest.mark.parametrize("obeys_if_range", [True, False])
def test_changed_file_is_fetched_from_start(site, tmp_path, obeys_if_range):
    site.cuts = [300_000]
    with pytest.raises(InputError):
        fetch(f"{site.url}/a", tmp_path / "a", retries=0)
    site.body = BODY[::-1] + b"more"
    site.etag = '"v2"' if obeys_if_range else None  # without one, only the size betrays the change
    if not obeys_if_range:
        note = tmp_path / ".a.download.json"
        note.write_text(note.read_text().replace('"\\"v1\\""', "null"))
    assert fetch(f"{site.url}/a", tmp_path / "a").read_bytes() == site.body


def test_partial_of_other_address_is_not_continued(site, tmp_path):
    site.cuts = [300_000]
    with pytest.raises(InputError):
        fetch(f"{site.url}/a", tmp_path / "a", retries=0)
    site.body = BODY[::-1]
    assert fetch(f"{site.url}/b", tmp_path / "a").read_bytes() == site.body
    assert site.requests[-1][1] is None


def test_partial_longer_than_file_is_dropped(site, tmp_path):
    site.cuts = [300_000]
    with pytest.raises(InputError):
        fetch(f"{site.url}/a", tmp_path / "a", retries=0)
    site.body = b"short"
    assert fetch(f"{site.url}/a", tmp_path / "a").read_bytes() == b"short"


def test_complete_partial_is_only_renamed(site, tmp_path):
    site.cuts = [300_000]
    with pytest.raises(InputError):
        fetch(f"{site.url}/a", tmp_path / "a", retries=0)
    (tmp_path / ".a.download").write_bytes(BODY)
    assert fetch(f"{site.url}/a", tmp_path / "a").read_bytes() == BODY
    assert len(site.requests) == 1
    assert only(tmp_path) == ["a"]


def test_server_that_cannot_resume(site, tmp_path):
    site.ranges, site.cuts = False, [1000]
    assert fetch(f"{site.url}/a", tmp_path / "a").read_bytes() == BODY


def test_unannounced_size(site, tmp_path):
    site.announce = False
    assert fetch(f"{site.url}/a", tmp_path / "a").read_bytes() == BODY
    site.body = BODY[:10]
    with pytest.raises(InputError, match="expected 1,048,576 bytes, found 10;"):
        fetch(f"{site.url}/a", tmp_path / "b", expected_size=len(BODY))
    assert not (tmp_path / "b").exists()


def test_wrong_size_is_refused_before_it_is_fetched(site, tmp_path):
    with pytest.raises(InputError, match="expected 5 bytes, found 1,048,576"):
        fetch(f"{site.url}/a", tmp_path / "a", expected_size=5)
    assert only(tmp_path) == []


def test_present_file_of_wrong_size_is_refused_and_kept(site, tmp_path):
    (tmp_path / "a").write_bytes(b"mine")
    with pytest.raises(InputError, match=r"a: expected 5 bytes, found 4; move"):
        fetch(f"{site.url}/a", tmp_path / "a", expected_size=5)
    assert (tmp_path / "a").read_bytes() == b"mine"


def test_busy_server_is_asked_again(site, tmp_path):
    site.statuses = [503, 429]
    assert fetch(f"{site.url}/a", tmp_path / "a").read_bytes() == BODY
    assert len(site.requests) == 3


@pytest.mark.parametrize(
    ("status", "advice"), [(404, "check the address"), (401, "log in"), (403, "log in"), (410, "check the address")]
)
def test_final_refusals_are_not_retried(site, tmp_path, status, advice):
    site.statuses = [status] * 9
    with pytest.raises(InputError, match=rf"found the answer {status} .*; {advice}"):
        fetch(f"{site.url}/a", tmp_path / "a")
    assert len(site.requests) == 1
    assert only(tmp_path) == []


def test_busy_to_the_end(site, tmp_path):
    site.statuses = [503] * 9
    with pytest.raises(InputError, match=r"503 .* run the same command again later"):
        fetch(f"{site.url}/a", tmp_path / "a", retries=2)
    assert len(site.requests) == 3


def test_redirects(site, tmp_path):
    site.redirect = "/a"
    assert fetch(f"{site.url}/moved", tmp_path / "a").read_bytes() == BODY
    site.redirect = "ftp://127.0.0.1/a"
    with pytest.raises(InputError, match="another kind of address"):
        fetch(f"{site.url}/moved", tmp_path / "b")


def test_token_stays_with_its_host(site, tmp_path):
    seen = []

    def elsewhere(handler):
        seen.append(handler.headers.get("Authorization"))
        answer(site, handler)

    with serve(elsewhere) as url:
        headers = {"Authorization": "Bearer secret"}
        fetch(f"{url}/a", tmp_path / "a", headers=headers)
        site.redirect = f"{url}/b"
        fetch(f"{site.url}/moved", tmp_path / "b", headers=headers)
    assert seen == ["Bearer secret", None]


def test_version_is_continued_from_another_address(site, tmp_path):
    site.cuts = [300_000]
    with pytest.raises(InputError):
        fetch(f"{site.url}/signed?1", tmp_path / "a", retries=0, version="v1")
    assert fetch(f"{site.url}/signed?2", tmp_path / "a", version="v1").read_bytes() == BODY
    assert [asked for _, asked, _ in site.requests] == [None, "bytes=300000-"]


def test_web_page_is_not_taken_for_file(site, tmp_path):
    site.content_type = "text/html; charset=utf-8"
    with pytest.raises(InputError, match="a web page"):
        fetch(f"{site.url}/a", tmp_path / "a")
    assert only(tmp_path) == []


@pytest.mark.parametrize("url", ["file:///etc/hosts", "ftp://127.0.0.1/a", "a.jpg", "http://127.0.0.1:port/a"])
def test_refuses_other_addresses(tmp_path, url):
    with pytest.raises(InputError, match="address"):
        fetch(url, tmp_path / "a")
    assert only(tmp_path) == []


def test_no_answer(tmp_path, monkeypatch):
    monkeypatch.setattr(downloads, "FIRST_PAUSE_SECONDS", 0.01)
    with pytest.raises(NoAnswerError, match=r"an answer from 127.0.0.1:9, found none .*check the network"):
        fetch("http://127.0.0.1:9/a", tmp_path / "a")
    assert only(tmp_path) == []


def test_two_processes_do_not_write_one_file(site, tmp_path):
    fcntl = pytest.importorskip("fcntl")
    with open(tmp_path / ".a.download", "ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="another process"):
            fetch(f"{site.url}/a", tmp_path / "a")
    assert fetch(f"{site.url}/a", tmp_path / "a").read_bytes() == BODY


def test_shows_progress_where_asked(site, tmp_path, capsys):
    fetch(f"{site.url}/a", tmp_path / "a")
    assert capsys.readouterr().err == ""
    fetch(f"{site.url}/b", tmp_path / "b", label="weights")
    assert "weights: 100%" in capsys.readouterr().err


def test_many_files_one_missing(site, tmp_path):
    report = Report("test")
    wanted = [Download(f"{site.url}/{i}", tmp_path / f"{i}") for i in range(100)]
    wanted[7] = Download(f"{site.url}/seven", tmp_path / "7", size=1)
    done = {item.path.name for item in fetch_all(wanted, report, connections=4)}
    assert done == {f"{i}" for i in range(100)} - {"7"}
    assert len(report.failures) == 1
    assert "/seven: expected 1 bytes" in report.failures[0]
    assert set(only(tmp_path)) == done


def test_gives_up_when_nobody_answers(tmp_path):
    report = Report("test")
    wanted = [Download("http://127.0.0.1:9/a", Path(tmp_path, f"{i}")) for i in range(1000)]
    assert list(fetch_all(wanted, report, retries=0)) == []
    assert len(report.failures) < 100
    assert "more files: not tried" in report.failures[-1]
