"""Fetch files over HTTP, several at once: tried again where that may help, under their names only when complete."""

from __future__ import annotations

import errno
import http.cookiejar
import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from requests.exceptions import InvalidSchema, InvalidURL, MissingSchema
from urllib3.exceptions import HTTPError
from urllib3.util import Retry

from emcurate.errors import InputError, describe_os_error
from emcurate.running.jobs import progress
from emcurate.running.report import Report
from emcurate.writing import atomic_path

CHUNK_BYTES = 1 << 18
TIMEOUT_SECONDS = 30.0  # without a single byte; a slow but living connection goes on
RETRIES = 3

# Pause before a retry; it doubles each time. A server's own Retry-After counts for more, up to the most.
FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 60

# Answers that may be better next time: the server is busy, restarting or limits the rate.
PASSING_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})

# Files fetched at once: a transfer mostly waits. More is impolite to a public server.
CONNECTIONS = 16

# After so many failures of one kind the others would only fail in the same way, and cost a public server its time.
MOST_FAILURES = 10

# What the system answers for a place where nothing can be written, whatever the file's name.
_NO_PLACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})

USER_AGENT = "emcurate"


class FetchError(InputError):
    """A file that was not to be had; `kind` says in a few words what such failures have in common."""

    kind = "an address that cannot be followed"


class NoAnswerError(FetchError):
    """The server could not be reached at all: no network, no such host, connection refused."""

    kind = "no answer"


class WrongContentError(FetchError):
    """An answer that is complete but not what was to come."""

    kind = "other content than expected"


class _BrokenOffError(FetchError):
    """A transfer that ended before its time; the next may get further."""

    kind = "a connection that broke off"


class _CutOffError(_BrokenOffError):
    """An answer of unknown length that is not all of what was to come."""

    kind = WrongContentError.kind


@dataclass(frozen=True)
class Download:
    """A file to fetch: from where, to where, in a directory that exists.

    `check` raises `InputError` where a file that has come is not what it should be; it is called with its path, with
    what to call it, and with whether nothing has told its length, so that it may end too early. A file that is there
    stays, unless `replace` is set.
    """

    url: str
    path: Path
    check: Callable[[Path, str, bool], None] | None = None
    replace: bool = False


def open_session(retries: int = RETRIES, connections: int = CONNECTIONS) -> requests.Session:
    """Return a session that is patient with busy servers; redirects and the environment's proxies are followed."""
    patience = Retry(
        retries,
        status_forcelist=PASSING_STATUSES,
        backoff_factor=FIRST_PAUSE_SECONDS,
        backoff_max=LONGEST_PAUSE_SECONDS,
        retry_after_max=LONGEST_PAUSE_SECONDS,
        raise_on_status=False,
    )
    session = requests.Session()
    session.headers["User-Agent"] = USER_AGENT
    # Images are packed already, and the length that is announced of a packed answer is not the file's.
    session.headers["Accept-Encoding"] = "identity"
    # All threads share the session. Without cookies nothing in it changes.
    session.cookies.set_policy(http.cookiejar.DefaultCookiePolicy(allowed_domains=[]))
    for scheme in ("http://", "https://"):
        session.mount(scheme, HTTPAdapter(pool_maxsize=connections, max_retries=patience))
    return session


def fetch(download: Download, session: requests.Session, retries: int = RETRIES) -> Path:
    """Fetch one file unless it is there already, which is taken for finished; return its path.

    Raises
    ------
    InputError
        If the file is not to be had (`NoAnswerError` where there is no network), is a web page or not what its check
        asks for, or broke off each time before the announced length.
    """
    if download.path.is_dir():
        raise InputError(download.path, "a file, or none", "a directory of that name", "move it away")
    if download.path.exists() and not download.replace:
        return download.path
    for number in itertools.count():
        try:
            _transfer(download, session)
            break
        except _BrokenOffError:
            if number == retries:
                raise
            time.sleep(FIRST_PAUSE_SECONDS * 2**number)
    return download.path


def fetch_all(
    downloads: Sequence[Download],
    report: Report,
    *,
    connections: int = CONNECTIONS,
    retries: int = RETRIES,
    most_failures: int = MOST_FAILURES,
) -> Iterator[Download]:
    """Fetch many files, several at once, and yield each that is there; failures go to `report`.

    After `most_failures` of one kind the rest is given up with one message; 0 never gives up.
    """
    if not downloads:
        return
    waiting = iter(downloads)
    failures: Counter[str] = Counter()
    given_up: str | None = None
    is_any_there = False
    untried: list[Download] = []
    running: dict[Future[Path], Download] = {}
    with (
        open_session(retries, connections) as session,
        ThreadPoolExecutor(connections) as pool,
        progress(None, total=len(downloads), label="download", unit="file") as bar,
    ):
        try:
            while True:
                # Twice as many handed out as are under way, so that no thread waits for this loop.
                room = 0 if given_up else 2 * connections
                if most_failures and not is_any_there:
                    # Nobody knows yet whether any will come: no more than are needed to see that none does.
                    room = min(room, most_failures - max(failures.values(), default=0))
                for item in itertools.islice(waiting, max(0, room - len(running))):
                    running[pool.submit(fetch, item, session, retries)] = item
                if not running:
                    break
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    item = running.pop(future)
                    bar.update()
                    kind = _take_result(future, item, report, given_up)
                    if kind is None:
                        is_any_there = True
                        yield item
                        continue
                    failures[kind] += 1
                    if most_failures and failures[kind] >= most_failures and given_up is None:
                        given_up = kind
                        # Those that wait for a thread stay untried too; those under way come to their end.
                        untried += [running.pop(other) for other in list(running) if other.cancel()]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    if given_up is not None:
        skipped, alike = len([*untried, *waiting]), failures[given_up] - most_failures
        if skipped or alike:
            report.fail(
                f"{skipped:,} more files were not tried and {alike:,} more failed alike, after {most_failures:,} "
                f"failures of one kind, {given_up}; mend the cause and run the same command again to go on, or give "
                "--max-failures 0 to try them all"
            )


def _take_result(future: Future[Path], item: Download, report: Report, given_up: str | None) -> str | None:
    """Return what kind of failure a fetch ended in, None if it did not; the failure goes to `report`.

    Failures of the kind that all is given up for are only counted: they were under way when it was.
    """
    try:
        future.result()
        return None
    except FetchError as error:
        kind, failure = error.kind, InputError(*error.args)
    except InputError as error:
        kind, failure = "a file in the way", error
    except OSError as error:
        if error.errno in _NO_PLACE:
            raise
        kind, failure = "a place that cannot be written", describe_os_error(error, item.path)
    if kind != given_up:
        report.fail(failure)
    return kind


def describe_refusal(url: str, status: int, reason: str) -> FetchError:
    """Return the error of an answer that is not the file asked for."""
    if status in (401, 403):
        advice = "log in or ask its owner for access"
    elif status in (404, 410):
        advice = "check the address: there is no such file (any more)"
    elif status in PASSING_STATUSES:
        advice = "the server is busy: run the same command again later"
    else:
        advice = "open the address in a browser to see what is wrong"
    refusal = FetchError(url, "a file", f"the answer {status} {reason}", advice)
    refusal.kind = f"the answer {status}"
    return refusal


def describe_cause(error: BaseException) -> str:
    """Return the words of the first of a chain of errors, such as "Connection refused", for a person to read."""
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    return str(error) or type(error).__name__


def _transfer(download: Download, session: requests.Session) -> None:
    url = download.url
    with _ask(url, session) as response:
        if response.status_code != requests.codes.ok:
            raise describe_refusal(url, response.status_code, response.reason)
        if response.headers.get("Content-Type", "").startswith("text/html"):
            # What a hotel's login or a moved repository answers for any address.
            advice = "open the address in a browser: a login or a notice may be in the way"
            raise WrongContentError(url, "a file", "a web page", advice)
        length = response.headers.get("Content-Length", "")
        # Of a packed answer the length is that of the packed one, and an unpacker takes an early end for the end.
        is_announced = length.isdecimal() and "Content-Encoding" not in response.headers
        with atomic_path(download.path) as partial:
            with open(partial, "wb") as file:
                try:
                    for chunk in response.iter_content(CHUNK_BYTES):
                        file.write(chunk)
                except requests.RequestException as error:
                    raise _BrokenOffError(
                        url,
                        f"{int(length):,} bytes" if length.isdecimal() else "a whole file",
                        f"a connection that broke off after {response.raw.tell():,} ({describe_cause(error)})",
                        "run the same command again",
                    ) from None
            if download.check is not None:
                try:
                    download.check(partial, url, not is_announced)
                except InputError as error:
                    # Where nothing told the length, it may only have been cut off: worth another try.
                    kind = WrongContentError if is_announced else _CutOffError
                    raise kind(*error.args) from None


def _ask(url: str, session: requests.Session) -> requests.Response:
    try:
        return session.get(url, stream=True, timeout=TIMEOUT_SECONDS)
    except (InvalidSchema, InvalidURL, MissingSchema) as error:
        raise FetchError(url, "an http or https address", f"another ({error})", "correct the address") from None
    except (requests.ConnectionError, requests.Timeout) as error:
        advice = "check the network connection and any proxy, and run the same command again"
        found = f"none ({describe_cause(error)})"
        raise NoAnswerError(url, f"an answer from {urlsplit(url).netloc}", found, advice) from None
    except (requests.RequestException, HTTPError) as error:  # redirects without end, a header that is none
        advice = "open the address in a browser to see what is wrong"
        raise FetchError(url, "a file", f"an answer that cannot be followed ({error})", advice) from None
