"""Fetch files over HTTP, several at once: tried again where that may help, under their names only when complete."""

from __future__ import annotations

import http.cookiejar
import itertools
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from requests.exceptions import InvalidSchema, InvalidURL, MissingSchema
from urllib3.exceptions import HTTPError
from urllib3.util import Retry

from emcurate.errors import InputError
from emcurate.files import atomic_path
from emcurate.running.jobs import progress
from emcurate.running.report import Report

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

# So many files in a row without any answer mean that the network or the server is gone: the rest is not tried.
UNANSWERED_BEFORE_GIVING_UP = 2 * CONNECTIONS

USER_AGENT = "emcurate"


class NoAnswerError(InputError):
    """The server could not be reached at all: no network, no such host, connection refused."""


class _BrokenOffError(InputError):
    """A transfer that ended before its time; the next may get further."""


@dataclass(frozen=True)
class Download:
    """A file to fetch: from where, to where, in a directory that exists."""

    url: str
    path: Path


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
        If the file is not to be had (`NoAnswerError` where there is no network), is a web page, or broke off each
        time before the announced length.
    """
    if download.path.exists():
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
    downloads: Sequence[Download], report: Report, *, connections: int = CONNECTIONS, retries: int = RETRIES
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
        open_session(retries, connections) as session,
        ThreadPoolExecutor(connections) as pool,
        progress(None, total=len(downloads), label="download", unit="file") as bar,
    ):
        try:
            while True:
                # Twice as many handed out as are under way, so that no thread waits for this loop.
                for item in itertools.islice(waiting, 0 if given_up else 2 * connections - len(running)):
                    running[pool.submit(fetch, item, session, retries)] = item
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


def describe_refusal(url: str, status: int, reason: str) -> InputError:
    """Return the error of an answer that is not the file asked for."""
    if status in (401, 403):
        advice = "log in or ask its owner for access"
    elif status in (404, 410):
        advice = "check the address: there is no such file (any more)"
    elif status in PASSING_STATUSES:
        advice = "the server is busy: run the same command again later"
    else:
        advice = "open the address in a browser to see what is wrong"
    return InputError(url, "a file", f"the answer {status} {reason}", advice)


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
            raise InputError(url, "a file", "a web page", advice)
        with atomic_path(download.path) as partial, open(partial, "wb") as file:
            try:
                for chunk in response.iter_content(CHUNK_BYTES):
                    file.write(chunk)
            except requests.RequestException as error:
                length = response.headers.get("Content-Length", "")
                raise _BrokenOffError(
                    url,
                    f"{int(length):,} bytes" if length.isdecimal() else "a whole file",
                    f"a connection that broke off after {response.raw.tell():,} ({describe_cause(error)})",
                    "run the same command again",
                ) from None


def _ask(url: str, session: requests.Session) -> requests.Response:
    try:
        return session.get(url, stream=True, timeout=TIMEOUT_SECONDS)
    except (InvalidSchema, InvalidURL, MissingSchema) as error:
        raise InputError(url, "an http or https address", f"another ({error})", "correct the address") from None
    except (requests.ConnectionError, requests.Timeout) as error:
        advice = "check the network connection and any proxy, and run the same command again"
        found = f"none ({describe_cause(error)})"
        raise NoAnswerError(url, f"an answer from {urlsplit(url).netloc}", found, advice) from None
    except (requests.RequestException, HTTPError) as error:  # redirects without end, a header that is none
        advice = "open the address in a browser to see what is wrong"
        raise InputError(url, "a file", f"an answer that cannot be followed ({error})", advice) from None
