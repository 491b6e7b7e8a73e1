"""Fetch files over HTTP: resumed where they broke off, checked for size, renamed only when complete.

What has arrived is kept beside the destination under a hidden name, together with a note on what it is part of,
so that the next try, in this run or a later one, goes on from there if the server can and the file has not changed.
"""

from __future__ import annotations

import contextlib
import email.message
import http.client
import itertools
import json
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from tqdm import tqdm

from emcurate.errors import InputError
from emcurate.running.jobs import progress
from emcurate.running.report import Report

try:
    import fcntl
except ImportError:  # not on Windows, where two runs at once are simply not told apart
    fcntl = None  # type: ignore[assignment]

CHUNK_BYTES = 1 << 18
TIMEOUT_SECONDS = 30.0  # without a single byte; a slow but living connection goes on
RETRIES = 3

# Pause before the first retry; it doubles each time. A server's own Retry-After counts for more, up to the most.
FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 60.0

# Answers that may be better next time: the server is busy, restarting or limits the rate.
PASSING_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})

# Files fetched at once: a transfer mostly waits. More is impolite to a public server.
CONNECTIONS = 16

# So many files in a row without any answer mean that the network or the server is gone: the rest is not tried.
UNANSWERED_BEFORE_GIVING_UP = 2 * CONNECTIONS

USER_AGENT = "emcurate"
WRONG_SIZE_ADVICE = "check the address: it may hold another version"


class NoAnswerError(InputError):
    """The server could not be reached at all: no network, no such host, connection refused."""


@dataclass(frozen=True)
class Download:
    """A file to fetch: from where, to where, and its size in bytes where that is known beforehand."""

    url: str
    path: Path
    size: int | None = None


@dataclass(frozen=True)
class _Try:
    """How each try of a transfer is made."""

    url: str
    key: str
    expected_size: int | None
    timeout: float
    label: str | None
    headers: Mapping[str, str]


@dataclass(frozen=True)
class _Source:
    """What a partial file is part of; a partial of anything else must not be continued.

    `key` is the address, or the version where the caller knows one.
    """

    key: str
    validator: str | None
    total: int | None


class _PassingError(Exception):
    """A failure that may not repeat itself; carries the error to raise if it does, and seconds to wait."""

    def __init__(self, error: InputError, pause: float | None = None) -> None:
        super().__init__(str(error))
        self.error = error
        self.pause = pause


def fetch(
    url: str,
    destination: Path,
    *,
    expected_size: int | None = None,
    retries: int = RETRIES,
    timeout: float = TIMEOUT_SECONDS,
    label: str | None = None,
    headers: Mapping[str, str] | None = None,
    version: str | None = None,
) -> Path:
    """Fetch one file unless it is there already; redirects and the proxy variables of the environment are followed.

    Parameters
    ----------
    url : str
        An http or https address.
    destination : Path
        Where the file goes, in a directory that exists. A file of that name is taken for finished.
    expected_size : int, optional
        Bytes the file must have. Without it the size the server announces must arrive.
    retries : int
        Tries after one that got no further; 0 for none. Only what may pass (no answer, busy, broken off) is retried.
    timeout : float
        Seconds without a byte after which a connection counts as broken off.
    label : str, optional
        Shows a progress bar of this name.
    headers : mapping of str to str, optional
        Sent along; an ``Authorization`` goes to the host of `url` only, not to where it redirects.
    version : str, optional
        What stands for these very bytes, such as their checksum. What has arrived of a version is continued even from
        another address: those that a server signs for a short time change with each request.

    Returns
    -------
    Path
        `destination`, complete.

    Raises
    ------
    InputError
        If the file is not to be had (`NoAnswerError` where there is no network), or is not what was expected.
    """
    if urlsplit(url).scheme not in ("http", "https"):
        raise InputError(url, "an http or https address", "another", "correct the address")
    if destination.exists():
        _check_size(str(destination), destination.stat().st_size, expected_size, "move the file away to fetch it anew")
        return destination
    partial, note = _partial_paths(destination)
    with _open_alone(partial, destination) as file:
        if file is None:  # another process has finished it meanwhile
            return destination
        try:
            _transfer_with_retries(
                _Try(url, version or url, expected_size, timeout, label, headers or {}), file, note, retries
            )
        except BaseException:
            if not os.fstat(file.fileno()).st_size:
                _remove(partial, note)
            raise
        partial.rename(destination)
    note.unlink(missing_ok=True)
    return destination


def fetch_all(
    downloads: Sequence[Download],
    report: Report,
    *,
    connections: int = CONNECTIONS,
    retries: int = RETRIES,
    timeout: float = TIMEOUT_SECONDS,
) -> Iterator[Download]:
    """Fetch many files, several at once, and yield each that is there; failures go to `report`.

    When file after file gets no answer at all, the rest is given up with one message.
    """
    if not downloads:
        return
    waiting = iter(downloads)
    unanswered, given_up = 0, False
    running: dict[Future[Path], Download] = {}
    with (
        ThreadPoolExecutor(connections) as pool,
        progress(None, total=len(downloads), label="download", unit="file") as bar,
    ):
        try:
            while True:
                # Twice as many handed out as are under way, so that no thread waits for this loop.
                for item in itertools.islice(waiting, 0 if given_up else 2 * connections - len(running)):
                    future = pool.submit(
                        fetch, item.url, item.path, expected_size=item.size, retries=retries, timeout=timeout
                    )
                    running[future] = item
                if not running:
                    break
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    item = running.pop(future)
                    bar.update()
                    try:
                        future.result()
                    except InputError as error:
                        report.fail(error)
                        unanswered = unanswered + 1 if isinstance(error, NoAnswerError) else 0
                    else:
                        unanswered = 0
                        yield item
                given_up = given_up or unanswered >= UNANSWERED_BEFORE_GIVING_UP
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    skipped = sum(1 for _ in waiting)
    if skipped:
        report.fail(
            f"{skipped:,} more files: not tried, since {unanswered} in a row got no answer; "
            "check the network and run the same command again to go on"
        )


def _transfer_with_retries(way: _Try, file: IO[bytes], note: Path, retries: int) -> None:
    tries, furthest = 0, 0
    while True:
        try:
            _transfer(way, file, note)
            return
        except _PassingError as problem:
            # A bad line that breaks again and again still gets there, as long as each try gets further.
            arrived = os.fstat(file.fileno()).st_size
            if arrived > furthest:
                tries, furthest = 0, arrived
            if tries >= retries:
                raise problem.error from None
            pause = FIRST_PAUSE_SECONDS * 2**tries if problem.pause is None else problem.pause
            time.sleep(min(pause, LONGEST_PAUSE_SECONDS))
            tries += 1


def _transfer(way: _Try, file: IO[bytes], note: Path) -> None:
    """Make one try, going on after what `file` holds if that is part of the same thing."""
    url = way.url
    before = _read_note(note)
    have = os.fstat(file.fileno()).st_size
    if not _can_continue(before, way.key, have):
        have = _empty(file)
    elif before is not None and have == before.total:
        return  # everything had arrived; a kill prevented the renaming
    response = _request(way, have, before)
    if response is None:
        have = _empty(file)
        response = _request(way, 0, None)
    if response is None:
        raise InputError(url, "a file", "the answer 416 to a request for all of it", _advice(416))
    with contextlib.closing(response):
        if _is_web_page(response.headers):
            raise InputError(
                url, "a file", "a web page", "open the address in a browser: a login or a notice may be in the way"
            )
        start, total = _extent(response)
        source = _Source(way.key, _validator(response.headers), total)
        if start and (start != have or source != before):
            # A part of something else than what is here, since the file has changed: from the start, then.
            _empty(file)
            raise _PassingError(InputError(url, "a whole file", f"one from byte {start:,} on", "try again later"), 0)
        if not start:
            have = _empty(file)
        _check_size(url, total, way.expected_size, WRONG_SIZE_ADVICE)
        note.write_text(json.dumps(vars(source)), encoding="utf-8")
        _copy(response, file, have, total, url, way.label)
    _check_size(url, os.fstat(file.fileno()).st_size, way.expected_size, WRONG_SIZE_ADVICE)


def _can_continue(before: _Source | None, key: str, have: int) -> bool:
    if before is None or before.key != key or not have:
        return False
    # Something must tell whether the file is still the same one.
    return (before.validator is not None or before.total is not None) and have <= (before.total or have)


def _request(way: _Try, have: int, before: _Source | None) -> http.client.HTTPResponse | None:
    """Ask for a file from byte `have` on; None if the server says that it has no such part."""
    url = way.url
    headers = {"User-Agent": USER_AGENT, **way.headers, "Accept-Encoding": "identity"}
    request = urllib.request.Request(url, headers=headers)
    if have:
        request.add_header("Range", f"bytes={have}-")
        if before is not None and before.validator:
            request.add_header("If-Range", before.validator)
    try:
        response: http.client.HTTPResponse = _OPENER.open(request, timeout=way.timeout)
        return response
    except urllib.error.HTTPError as error:
        with contextlib.closing(error):
            if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                return None
            problem = InputError(url, "a file", f"the answer {error.code} {error.reason}", _advice(error.code))
            if error.code in PASSING_STATUSES:
                raise _PassingError(problem, _retry_after(error.headers)) from None
            raise problem from None
    except (ValueError, http.client.InvalidURL) as error:  # a port that is no number, a control character
        raise InputError(url, "a web address", str(error), "correct the address") from None
    except (OSError, http.client.HTTPException) as error:
        cause = getattr(error, "reason", error)
        found = f"none ({str(cause) or type(cause).__name__})"
        advice = "check the network connection and any proxy, and run the same command again"
        raise _PassingError(NoAnswerError(url, f"an answer from {urlsplit(url).netloc}", found, advice)) from None


def _copy(
    response: http.client.HTTPResponse, file: IO[bytes], have: int, total: int | None, url: str, label: str | None
) -> None:
    """Append a response's body to `file`, which holds `have` bytes; check that all of it came."""
    found = ""
    with _bar(label, have, total) as bar:
        while True:
            try:
                chunk = response.read1(CHUNK_BYTES)  # what is there, so that a kill loses next to nothing
            except (OSError, http.client.HTTPException) as error:
                found = f" ({error})"
                break
            if not chunk:
                break
            file.write(chunk)
            have += len(chunk)
            bar.update(len(chunk))
    file.flush()
    if found or (total is not None and have != total):
        raise _PassingError(
            InputError(
                url,
                "a whole file" if total is None else f"{total:,} bytes",
                f"a connection that broke off after {have:,}{found}",
                "run the same command again: what has arrived is kept",
            )
        )


def _extent(response: http.client.HTTPResponse) -> tuple[int, int | None]:
    """Return the byte a response's body starts at and the size of the whole file, None where it is not said."""
    if response.status == http.HTTPStatus.PARTIAL_CONTENT:
        match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", "").strip())
        if match:
            return int(match[1]), None if match[2] == "*" else int(match[2])
    length = response.headers.get("Content-Length", "")
    return 0, int(length) if length.isdecimal() else None


def _check_size(name: str, found: int | None, expected: int | None, advice: str) -> None:
    if expected is not None and found is not None and found != expected:
        raise InputError(name, f"{expected:,} bytes", f"{found:,}", advice)


def _validator(headers: email.message.Message) -> str | None:
    """Return what changes when the file does; a weak ETag does not promise the same bytes."""
    tag = headers.get("ETag")
    return tag if tag and not tag.startswith("W/") else headers.get("Last-Modified")


def _is_web_page(headers: email.message.Message) -> bool:
    # What a hotel's login or a moved repository answers, with status 200, for any address.
    return headers.get_content_type() == "text/html"


def _retry_after(headers: email.message.Message) -> float | None:
    text = headers.get("Retry-After", "")
    return float(text) if text.isdecimal() else None


def _advice(status: int) -> str:
    if status in (401, 403):
        return "log in or ask its owner for access"
    if status in (404, 410):
        return "check the address: there is no such file (any more)"
    if status in PASSING_STATUSES:
        return "the server is busy: run the same command again later"
    return "open the address in a browser to see what is wrong"


def _partial_paths(destination: Path) -> tuple[Path, Path]:
    partial = destination.with_name(f".{destination.name}.download")
    return partial, partial.with_name(f"{partial.name}.json")


def _read_note(note: Path) -> _Source | None:
    try:
        return _Source(**json.loads(note.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def _empty(file: IO[bytes]) -> int:
    file.truncate(0)
    file.seek(0)
    return 0


def _remove(*paths: Path) -> None:
    for path in paths:
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def _open_alone(partial: Path, destination: Path) -> Iterator[IO[bytes] | None]:
    """Open the partial file to append to, for this process only; None if another has just completed it."""
    with open(partial, "ab") as file:
        if fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise InputError(
                    destination, "to fetch it", "another process that does", "wait for it and run this again"
                ) from None
            except OSError:
                pass  # some network file systems have no locks
        if destination.exists():
            partial.unlink(missing_ok=True)
            yield None
        else:
            yield file


def _bar(label: str | None, have: int, total: int | None) -> Any:
    if label is None:
        return tqdm(disable=True)
    bar = progress(None, total=total, label=label, unit="B")
    bar.unit_scale, bar.unit_divisor = True, 1024
    bar.update(have)
    return bar


class _CarefulRedirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to http and https only, not to ftp, and tells no other host the user's token."""

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        if urlsplit(newurl).scheme not in ("http", "https"):
            raise urllib.error.HTTPError(newurl, code, f"{msg} to another kind of address", headers, fp)
        following = super().redirect_request(req, fp, code, msg, headers, newurl)
        if following is not None and urlsplit(newurl).netloc != urlsplit(req.full_url).netloc:
            following.remove_header("Authorization")
        return following


_OPENER = urllib.request.build_opener(_CarefulRedirects)
