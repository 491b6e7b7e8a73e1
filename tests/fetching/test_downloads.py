"""Downloads: tried again, checked, renamed last; against a server on this machine that misbehaves as told."""

import contextlib
import errno
import gzip
import re
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from emcurate.errors import InputError
from emcurate.fetching import downloads
from emcurate.fetching.downloads import Download, NoAnswerError, WrongContentError, fetch_all
from emcurate.running.report import Report
from tests.web import serve

BODY = bytes(range(256)) * 4096  # 1 MiB


class Site:
    """What the server answers, and what it was asked."""

    def __init__(self):
        self.body = BODY
        self.cuts = []  # body bytes after which the next answers break off
        self.statuses = []  # statuses of the next answers
        self.retry_after = "0"
        self.content_type = "application/octet-stream"
        self.announce = True
        self.redirect = None
        self.stall = None  # set where a connection is to hang rather than break off
        self.requests = []
        self.url = ""


def answer(site, handler):
    site.requests.append(handler.path)
    if site.redirect and handler.path == "/moved":
        handler.send_response(302)
        handler.send_header("Location", site.redirect)
        handler.end_headers()
        return
    if site.statuses:
        handler.send_response(site.statuses.pop(0))
        handler.send_header("Retry-After", site.retry_after)
        handler.send_header("Content-Length", "0")
        handler.end_headers()
        return
    handler.send_response(200)
    handler.send_header("Content-Type", site.content_type)
    if site.announce:
        handler.send_header("Content-Length", str(len(site.body)))
    handler.end_headers()
    cut = site.cuts.pop(0) if site.cuts else None
    with contextlib.suppress(ConnectionError):  # of one who has waited long enough
        handler.wfile.write(site.body[:cut])
    if cut is not None and site.stall:
        site.stall.wait(60)


@pytest.fixture
def site(monkeypatch):
    monkeypatch.setattr(downloads, "FIRST_PAUSE_SECONDS", 0.01)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    site = Site()
    with serve(lambda handler: answer(site, handler)) as site.url:
        yield site


def fetch(url, path, retries=3):
    with downloads.open_session(retries) as session:
        return downloads.fetch(Download(url, path), session, retries)


def only(directory):
    return [path.name for path in directory.iterdir()]


def test_a_whole_file_is_fetched_once(site, tmp_path):
    assert fetch(f"{site.url}/a", tmp_path / "a.bin").read_bytes() == BODY
    assert only(tmp_path) == ["a.bin"]
    fetch(f"{site.url}/a", tmp_path / "a.bin")
    assert len(site.requests) == 1


def test_a_file_that_is_there_is_kept_and_nobody_is_asked(site, tmp_path):
    (tmp_path / "a").write_bytes(b"mine")
    assert fetch(f"{site.url}/a", tmp_path / "a").read_bytes() == b"mine"
    assert site.requests == []


@pytest.mark.parametrize("cuts", [[1000], [1000, 70000], [0, 5, 900_000]])
def test_what_breaks_off_is_fetched_again(site, tmp_path, cuts):
    site.cuts = list(cuts)
    assert fetch(f"{site.url}/a", tmp_path / "a").read_bytes() == BODY
    assert len(site.requests) == len(cuts) + 1
    assert only(tmp_path) == ["a"]


def test_what_always_breaks_off_is_an_error_and_leaves_nothing(site, tmp_path):
    site.cuts = [300_000] * 9
    with pytest.raises(InputError, match=r"expected 1,048,576 bytes, found a connection that broke off after 300,000"):
        fetch(f"{site.url}/a", tmp_path / "a", retries=2)
    assert len(site.requests) == 3
    assert only(tmp_path) == []
    site.cuts = []
    assert fetch(f"{site.url}/a", tmp_path / "a").read_bytes() == BODY


def test_a_connection_that_hangs_counts_as_broken_off(site, tmp_path, monkeypatch):
    monkeypatch.setattr(downloads, "TIMEOUT_SECONDS", 0.2)
    site.cuts, site.stall = [300_000], threading.Event()
    try:
        assert fetch(f"{site.url}/a", tmp_path / "a").read_bytes() == BODY
    finally:
        site.stall.set()
    assert len(site.requests) == 2


def test_a_slow_server_is_waited_for_as_long_as_it_lives(tmp_path, monkeypatch):
    monkeypatch.setattr(downloads, "TIMEOUT_SECONDS", 1)
    asked = []

    def trickle(handler):
        asked.append(handler.path)
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(BODY)))
        handler.end_headers()
        for start in range(0, len(BODY), len(BODY) // 8):
            handler.wfile.write(BODY[start : start + len(BODY) // 8])
            time.sleep(0.2)  # longer in all than anyone would wait without a byte

    with serve(trickle) as url:
        assert fetch(f"{url}/a", tmp_path / "a").read_bytes() == BODY
    assert len(asked) == 1


def test_a_server_that_says_no_length_is_believed(site, tmp_path):
    site.announce = False
    assert fetch(f"{site.url}/a", tmp_path / "a").read_bytes() == BODY


@pytest.mark.parametrize("statuses", [[503, 429], [500], [502, 504, 408]])
def test_a_busy_server_is_asked_again(site, tmp_path, statuses):
    site.statuses = list(statuses)
    assert fetch(f"{site.url}/a", tmp_path / "a").read_bytes() == BODY
    assert len(site.requests) == len(statuses) + 1


def test_a_server_that_names_a_pause_gets_it_but_no_longer_than_the_longest(site, tmp_path, monkeypatch):
    monkeypatch.setattr(downloads, "LONGEST_PAUSE_SECONDS", 2)
    for named, least, most in (("1", 1, 1.9), ("3600", 2, 10)):
        site.statuses, site.retry_after = [429], named
        start = time.monotonic()
        fetch(f"{site.url}/a", tmp_path / named)
        assert least <= time.monotonic() - start < most


@pytest.mark.parametrize(
    ("status", "advice"), [(404, "check the address"), (401, "log in"), (403, "log in"), (410, "check the address")]
)
def test_final_refusals_are_not_retried(site, tmp_path, status, advice):
    site.statuses = [status] * 9
    with pytest.raises(InputError, match=rf"found the answer {status} .*; {advice}"):
        fetch(f"{site.url}/a", tmp_path / "a")
    assert len(site.requests) == 1
    assert only(tmp_path) == []


def test_a_server_that_is_busy_to_the_end_is_named(site, tmp_path):
    site.statuses = [503] * 9
    with pytest.raises(InputError, match=r"503 .* run the same command again later"):
        fetch(f"{site.url}/a", tmp_path / "a", retries=2)
    assert len(site.requests) == 3


def test_redirects_are_followed_to_web_addresses_only(site, tmp_path):
    site.redirect = "/a"
    assert fetch(f"{site.url}/moved", tmp_path / "a").read_bytes() == BODY
    for other in ("ftp://127.0.0.1/a", "file:///etc/hosts"):
        site.redirect = other
        with pytest.raises(InputError, match="expected an http or https address"):
            fetch(f"{site.url}/moved", tmp_path / "b")
    site.redirect = "/moved"
    with pytest.raises(InputError, match="an answer that cannot be followed"):
        fetch(f"{site.url}/moved", tmp_path / "b")
    assert only(tmp_path) == ["a"]


def test_proxy_of_the_environment_is_asked(site, tmp_path, monkeypatch):
    monkeypatch.setenv("http_proxy", site.url)
    assert fetch("http://images.invalid/a", tmp_path / "a").read_bytes() == BODY
    assert site.requests == ["http://images.invalid/a"]


def test_web_page_is_not_taken_for_file(site, tmp_path):
    site.content_type = "text/html; charset=utf-8"
    with pytest.raises(InputError, match="a web page"):
        fetch(f"{site.url}/a", tmp_path / "a")
    assert only(tmp_path) == []


@pytest.mark.parametrize(
    "url",
    ["file:///etc/hosts", "ftp://127.0.0.1/a", "a.jpg", "http://127.0.0.1:port/a", "http:///a", "http://[::1/a", ""],
)
def test_other_addresses_are_refused(tmp_path, url):
    with pytest.raises(InputError, match="address"):
        fetch(url, tmp_path / "a")
    assert only(tmp_path) == []


def test_without_an_answer_the_network_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(downloads, "FIRST_PAUSE_SECONDS", 0.01)
    with pytest.raises(NoAnswerError, match=r"an answer from 127.0.0.1:9, found none \(.*refused\); check the network"):
        fetch("http://127.0.0.1:9/a", tmp_path / "a")
    assert only(tmp_path) == []


def test_two_who_fetch_one_file_at_a_time_both_get_it_whole(site, tmp_path):
    threads = [threading.Thread(target=fetch, args=(f"{site.url}/a", tmp_path / "a")) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "a").read_bytes() == BODY
    assert only(tmp_path) == ["a"]


def test_of_many_files_the_missing_one_is_named(site, tmp_path):
    site.statuses = [404]
    report = Report("test")
    wanted = [Download(f"{site.url}/{i}", tmp_path / f"{i}") for i in range(100)]
    done = {item.path.name for item in fetch_all(wanted, report, connections=4)}
    (missing,) = report.failures
    assert "expected a file, found the answer 404" in missing
    assert len(done) == 99
    assert set(only(tmp_path)) == done


def test_the_rest_is_given_up_when_nobody_answers(tmp_path):
    report = Report("test")
    wanted = [Download("http://127.0.0.1:9/a", Path(tmp_path, f"{i}")) for i in range(1000)]
    assert list(fetch_all(wanted, report, retries=0)) == []
    assert len(report.failures) < 100
    assert "more files were not tried" in report.failures[-1]


class Picky:
    """A check that takes only the site's body, and what it was told of each answer."""

    def __init__(self):
        self.told = []

    def __call__(self, path, subject, may_end_early):
        self.told.append((subject.rpartition("/")[2], may_end_early))
        if path.read_bytes() != BODY:
            raise InputError(subject, "the body", f"{path.stat().st_size:,} other bytes", "look")


def fetch_checked(site, path, retries=3):
    check = Picky()
    with downloads.open_session(retries) as session:
        return downloads.fetch(Download(f"{site.url}/a", path, check), session, retries), check


def test_a_file_that_is_cut_off_without_a_length_is_fetched_again(site, tmp_path):
    site.announce, site.cuts = False, [0, 1000, 900_000]
    path, check = fetch_checked(site, tmp_path / "a")
    assert path.read_bytes() == BODY
    assert check.told == [("a", True)] * 4
    assert only(tmp_path) == ["a"]


def test_a_file_that_is_always_cut_off_without_a_length_is_an_error_and_leaves_nothing(site, tmp_path):
    site.announce, site.cuts = False, [1000] * 9
    with pytest.raises(InputError, match="expected the body, found 1,000 other bytes"):
        fetch_checked(site, tmp_path / "a", retries=2)
    assert len(site.requests) == 3
    assert only(tmp_path) == []


def test_an_answer_that_is_complete_and_wrong_is_not_asked_for_again(site, tmp_path):
    site.body = b""
    with pytest.raises(WrongContentError, match="expected the body, found 0 other bytes"):
        fetch_checked(site, tmp_path / "a")
    assert len(site.requests) == 1
    assert only(tmp_path) == []


@pytest.mark.parametrize("cut", [None, 20_000])
def test_a_packed_answer_is_unpacked_and_one_that_ends_early_is_fetched_again(site, tmp_path, cut):
    body = np.random.default_rng(0).integers(0, 256, 1 << 18, np.uint8).tobytes()
    packed = gzip.compress(body)

    class Expecting(Picky):
        def __call__(self, path, subject, may_end_early):
            self.told.append(may_end_early)
            if path.read_bytes() != body:
                raise InputError(subject, "the body", "another", "look")

    check, asked = Expecting(), []

    def answer(handler):
        asked.append(handler.headers.get("Accept-Encoding"))
        handler.send_response(200)
        handler.send_header("Content-Encoding", "gzip")
        piece = packed if len(asked) > 1 else packed[:cut]
        handler.send_header("Content-Length", str(len(piece)))
        handler.end_headers()
        handler.wfile.write(piece)

    with serve(answer) as url, downloads.open_session() as session:
        downloads.fetch(Download(f"{url}/a", tmp_path / "a", check), session)
    assert (tmp_path / "a").read_bytes() == body
    assert set(asked) == {"identity"}
    assert check.told == [True] * (1 if cut is None else 2)


def test_a_directory_in_the_place_of_a_file_is_named_and_the_others_are_fetched(site, tmp_path):
    (tmp_path / "3").mkdir()
    report = Report("test")
    wanted = [Download(f"{site.url}/{i}", tmp_path / f"{i}") for i in range(6)]
    assert {item.path.name for item in fetch_all(wanted, report)} == set("01245")
    assert report.failures == [
        f"{tmp_path / '3'}: expected a file, or none, found a directory of that name; move it away"
    ]


def test_a_name_that_no_file_can_have_is_named_and_the_others_are_fetched(site, tmp_path):
    report = Report("test")
    wanted = [Download(f"{site.url}/{i}", tmp_path / ("x" * 300 if i == 2 else f"{i}")) for i in range(6)]
    assert {item.path.name for item in fetch_all(wanted, report)} == set("01345")
    (failure,) = report.failures
    assert "file name too long" in failure


def test_a_full_disk_ends_all_downloads_at_once(site, tmp_path, monkeypatch):
    @contextlib.contextmanager
    def full(path):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))
        yield

    monkeypatch.setattr(downloads, "atomic_path", full)
    wanted = [Download(f"{site.url}/{i}", tmp_path / f"{i}") for i in range(200)]
    with pytest.raises(OSError, match="No space left"):
        list(fetch_all(wanted, Report("test")))
    assert len(site.requests) < 200


def few_kinds(handler):
    """Answer 404 where the path ends in 4, a web page where in 7, break off where in 9, and else a short body."""
    last = handler.path[-1]
    handler.send_response(404 if last == "4" else 200)
    handler.send_header("Content-Type", "text/html" if last == "7" else "image/jpeg")
    handler.send_header("Content-Length", "4")
    handler.end_headers()
    handler.wfile.write(b"b" if last == "9" else b"body")


def test_downloads_stop_after_ten_failures_of_one_kind(tmp_path):
    asked = []

    def answer(handler):
        asked.append(handler.path)
        handler.send_response(404)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    report = Report("test")
    with serve(answer) as url:
        wanted = [Download(f"{url}/{i}", tmp_path / f"{i}") for i in range(1000)]
        assert list(fetch_all(wanted, report, connections=4)) == []
    assert len(asked) == 10
    assert sum("the answer 404 Not Found" in failure for failure in report.failures[:-1]) == 10
    assert report.failures[10:] == [
        "990 more files were not tried and 0 more failed alike, after 10 failures of one kind, the answer 404; mend "
        "the cause and run the same command again to go on, or give --max-failures 0 to try them all"
    ]


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize(("number", "connections"), [(10, 16), (11, 16), (12, 1), (60, 16), (60, 1)])
def test_every_file_is_accounted_for_when_downloads_stop(tmp_path, number, connections, first):
    def answer(handler):
        is_there = first and handler.path == "/0"
        handler.send_response(200 if is_there else 404)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    report = Report("test")
    with serve(answer) as url:
        wanted = [Download(f"{url}/{i}", tmp_path / f"{i}") for i in range(number + first)]
        assert len(list(fetch_all(wanted, report, connections=connections))) == first
    named = [failure for failure in report.failures if "the answer 404 Not Found" in failure]
    others = [failure for failure in report.failures if failure not in named]
    told = sum(map(int, re.findall(r"(\d+) more (?:files|failed)", "".join(others))))
    assert (len(named), told) == (10, number - 10)


@pytest.mark.parametrize(("number", "given_up"), [(90, False), (110, True)])
def test_fewer_than_ten_failures_of_each_kind_stop_nothing(tmp_path, monkeypatch, number, given_up):
    monkeypatch.setattr(downloads, "FIRST_PAUSE_SECONDS", 0.001)
    report = Report("test")
    with serve(few_kinds) as url:
        wanted = [Download(f"{url}/{i}", tmp_path / f"{i}") for i in range(number)]
        done = list(fetch_all(wanted, report, connections=1, retries=0))
    assert ("were not tried" in report.failures[-1]) == given_up
    if not given_up:
        assert len(report.failures) == 27
        assert len(done) == 63


def test_with_0_downloads_never_stop(tmp_path, monkeypatch):
    monkeypatch.setattr(downloads, "FIRST_PAUSE_SECONDS", 0.001)
    report = Report("test")
    with serve(few_kinds) as url:
        wanted = [Download(f"{url}/{i}", tmp_path / f"{i}") for i in range(150)]
        done = list(fetch_all(wanted, report, retries=0, most_failures=0))
    assert len(done) == 105
    assert len(report.failures) == 45
