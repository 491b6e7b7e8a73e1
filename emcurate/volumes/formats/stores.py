"""Stores: directories here or on a server that hold the metadata and the chunks of a volume, read by tensorstore.

Only what lies in a store is read. Of a directory here, everything below an array is looked over once when it is opened:
a link that leads out of it, or a pipe that would be waited for, is found before tensorstore could follow it. A server's
answers are tried again where that may help, and a transfer that stands still is given up.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import os
import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

from emcurate.addresses import SEPARATOR, Address, Place
from emcurate.errors import DAMAGE, InputError, describe_damage
from emcurate.files import is_there, leads_into, open_regular
from emcurate.volumes.layouts import COPY_AGAIN

# Decoded chunks kept by each process, so that neighbouring boxes do not decode the same chunk again.
CACHE_BYTES = 1 << 27

# Threads that tensorstore may use in a process; there is a process a core already.
THREADS = 2

# Metadata are a page or a few; a megabyte of JSON is something else.
MOST_JSON_BYTES = 1 << 24

# Answers waited for at a time: a transfer mostly waits. More is impolite to a public server.
CONNECTIONS = 32

# A server that is busy, or breaks off, is asked again, after a pause that doubles each time.
RETRIES = 3
FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 10.0

# Seconds without a single byte after which a transfer is given up; a slow but living one goes on. Tensorstore waits for
# ever if these are not set, and reads them from the environment when it is first used.
STALLED = {"TENSORSTORE_CURL_LOW_SPEED_TIME_SECONDS": "30", "TENSORSTORE_CURL_LOW_SPEED_LIMIT_BYTES": "1"}
STALLED |= {"TENSORSTORE_CURL_CONNECT_TIMEOUT_SECONDS": "30"}

# Where buckets are, if not where they usually are: what the clients of S3 and of Google's emulators go by.
S3_ENDPOINT = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
GS_ENDPOINT = "STORAGE_EMULATOR_HOST"
GOOGLE = "https://storage.googleapis.com"

# What no name of an array has: marks of other addresses, and of parts of one that are no path.
_MARKS = (":", "\0", "?", "#")

# Letters of an error that a message shows; tensorstore's end in all that it was told.
_MOST_SAID = 300
_SPECIFICATION = re.compile(r"\s*\[tensorstore_spec=.*", re.DOTALL)

# Seconds without an answer to a question that any server answers at once.
TAG_SECONDS = 30.0

LOOK_THERE = "check the address and the network, and that it can be read without logging in"


@dataclass(frozen=True)
class Store:
    """Where the files of a volume lie.

    Parameters
    ----------
    place : Path or Address
        The volume as it was named, for messages.
    root : Path or Address
        The store, of which `place` may name a part.
    """

    place: Place
    root: Place

    @property
    def is_remote(self) -> bool:
        return isinstance(self.root, Address)

    def kvstore(self, key: str) -> dict[str, Any]:
        """Return what tensorstore wants to know of a directory in the store."""
        if isinstance(self.root, Address):
            return _describe_server(self.root, f"{key}/" if key else "")
        return {"driver": "file", "path": str(self.root.absolute() / key) + os.sep}

    def describe(self, error: BaseException, expected: str, advice: str) -> InputError:
        """Return what tensorstore said as an error for users; nothing in it tells a password."""
        if not isinstance(self.root, Address):
            return describe_damage(error, self.place, expected, advice)
        said = " ".join(_SPECIFICATION.sub("", self.root.hide(str(error))).split()) or type(error).__name__
        return InputError(self.place, expected, said[:_MOST_SAID], LOOK_THERE)

    def join(self, directory: str, name: object) -> str:
        """Return the directory in the store that metadata name; raise `InputError` if that is not in the store."""
        steps = PurePosixPath(str(name).replace("\\", "/"))
        inside = isinstance(name, str) and not (
            steps.is_absolute() or PureWindowsPath(name).drive or ".." in steps.parts
        )
        if not inside or any(mark in str(name) for mark in _MARKS):
            raise InputError(self.place, "an array in its own directory", f"path: {name!r}"[:200], "do not trust it")
        key = "/".join(part for part in PurePosixPath(directory, steps).parts if part != ".")
        if isinstance(self.root, Path) and not leads_into(self.root / key, self.root):
            found = f"{name}, a link out of it"
            raise InputError(self.place, "an array in its own directory", found, "put the array there")
        return key

    def list_directories(self, key: str) -> list[str] | None:
        """Return the names of directories in one of the store, in order; None where a server does not tell."""
        if isinstance(self.root, Address):
            return None
        try:
            with os.scandir(self.root / key) as entries:
                return sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
        except (FileNotFoundError, NotADirectoryError):
            return []


class Files:
    """The metadata of a store, each of its files read once.

    Parameters
    ----------
    store : Store
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self._read: dict[str, tuple[bytes | None, bytes]] = {}

    def read_json(self, key: str) -> dict[str, Any] | None:
        """Return the object in a file of JSON, None if there is no such file; raise `InputError` if it is no JSON."""
        self.fetch([key])
        text, _ = self._read[key]
        if text is None:
            return None
        place = self.store.place if self.store.is_remote else Path(self.store.root, key)
        if len(text) > MOST_JSON_BYTES:
            raise InputError(place, f"at most {MOST_JSON_BYTES:,} bytes of metadata", "more", "check what the file is")
        try:
            found = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise describe_damage(error, place, f"metadata in JSON ({key})", COPY_AGAIN) from None
        if not isinstance(found, dict):
            raise InputError(place, f"a JSON object ({key})", type(found).__name__, COPY_AGAIN)
        return found

    def has(self, key: str) -> bool:
        """Return whether there is a file."""
        self.fetch([key])
        return self._read[key][0] is not None

    def fetch(self, keys: Iterable[str], *, is_search: bool = False) -> None:
        """Read several files at once.

        With `is_search`, one that a server refuses is taken for missing if another one is there: some answer so for
        whatever is missing.

        Raises
        ------
        InputError
            If the server does not answer, or refuses.
        """
        unread = [key for key in keys if key not in self._read]
        if not self.store.is_remote:
            for key in unread:
                self._read[key] = self._read_here(key), b""
            return
        refused: dict[str, InputError] = {}
        for key, (found, error) in zip(unread, self._ask(unread), strict=True):
            if error is not None:
                refused[key] = error
            else:
                self._read[key] = found
        if refused and not (is_search and any(self._read.get(key, (None, b""))[0] is not None for key in unread)):
            raise next(iter(refused.values()))
        self._read |= dict.fromkeys(refused, (None, b""))

    def digest(self) -> str:
        """Return what changes when any of the files that were read does, as far as the server tells."""
        digest = hashlib.sha256()
        for key, (text, generation) in sorted(self._read.items()):
            if text is not None:
                digest.update(f"{key}\0{len(text)}\0".encode() + text + generation)
        return digest.hexdigest()[:32]

    def _read_here(self, key: str) -> bytes | None:
        path = Path(self.store.root, key)
        if not is_there(path):
            return None
        if not leads_into(path, Path(self.store.root)):
            expected = "all of it in its own directory"
            raise InputError(self.store.place, expected, f"{path.name}, a link out of it", "put it there")
        with open_regular(path) as file:
            return file.read(MOST_JSON_BYTES + 1)

    def _ask(self, keys: list[str]) -> Iterator[tuple[tuple[bytes | None, bytes], InputError | None]]:
        store = self.store
        try:
            opened = tensorstore().KvStore.open(store.kvstore(""), context=context()).result()
            futures = [opened.read(key) for key in keys]
        except DAMAGE as error:
            raise store.describe(error, "an address that can be followed", LOOK_THERE) from None
        for future in futures:
            try:
                found = future.result()
            except DAMAGE as error:
                yield (None, b""), store.describe(error, "an answer from its server", LOOK_THERE)
                continue
            there = found.state == "value"
            yield (found.value if there else None, bytes(found.stamp.generation) if there else b""), None


def read_tag(store: Store, key: str) -> str:
    """Return what a server says to tell one content of a file from another: its ETag, or time, and its length.

    Raises
    ------
    InputError
        If the server does not answer: whether the file has changed is then not known.
    """
    assert isinstance(store.root, Address)
    if store.root.scheme == "s3":
        try:
            opened = tensorstore().KvStore.open(store.kvstore(""), context=context()).result()
            found = opened.read(key, byte_range=slice(0, 1)).result()
        except DAMAGE as error:
            raise store.describe(error, "an answer from its server", LOOK_THERE) from None
        return str(found.stamp.generation.hex()) if found.state == "value" else "missing"
    import requests

    parts = urlsplit(http_url(store.root))
    url = urlunsplit(parts._replace(path=f"{parts.path}/{quote(key)}"))
    for number in itertools.count():
        try:
            answer = requests.head(url, timeout=TAG_SECONDS, headers={"Accept-Encoding": "identity"})
        except (requests.RequestException, UnicodeError) as error:
            if number == RETRIES:
                raise store.describe(error, "an answer from its server", LOOK_THERE) from None
        else:
            if answer.status_code < 500 or number == RETRIES:
                break
        time.sleep(min(FIRST_PAUSE_SECONDS * 2**number, LONGEST_PAUSE_SECONDS))
    if answer.status_code != requests.codes.ok:
        return f"answer {answer.status_code}"
    tag = answer.headers.get("ETag") or answer.headers.get("Last-Modified") or ""
    return f"{tag} {answer.headers.get('Content-Length', '')}"


def look_over(store: Store, key: str) -> list[str]:
    """Return the files of chunks that lie in an array's directory here, by their paths in it.

    Raises
    ------
    InputError
        If a link leads out of the store, or something is neither a file nor a directory.
    """
    root, place = Path(store.root), store.place
    array, inside = root / key, root.resolve()
    chunks: list[str] = []
    if not is_there(array):
        return chunks
    for directory, directories, files in os.walk(array, onerror=_raise):
        for name in (*directories, *files):
            found = Path(directory, name)
            if found.is_symlink():
                if not leads_into(found, inside):
                    raise InputError(
                        place,
                        "all of it in its own directory",
                        f"{found.relative_to(root)}, a link that leads out of it",
                        "put the file itself there",
                    )
                if found.is_dir():
                    raise InputError(
                        place, "no links to directories", str(found.relative_to(root)), "put the directory there"
                    )
        for name in files:
            found = Path(directory, name)
            if not found.is_file():
                raise InputError(
                    place, "files only", f"{found.relative_to(root)}, a pipe, a socket or a device", "remove it"
                )
            if not name.startswith(".") and not name.endswith(".json"):
                chunks.append(found.relative_to(array).as_posix())
    return chunks


def _raise(error: OSError) -> None:
    raise error


def _describe_server(address: Address, path: str) -> dict[str, Any]:
    """Return what tensorstore wants to know of a directory on a server, anonymously but for what the address says."""
    if address.scheme == "s3":
        bucket, _, prefix = address.url.removeprefix("s3://").partition("/")
        prefix = prefix.partition("?")[0]
        endpoint = next((os.environ[name] for name in S3_ENDPOINT if os.environ.get(name)), None)
        region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") if endpoint else None
        return {
            "driver": "s3",
            "bucket": bucket,
            "path": f"{prefix}/{path}" if prefix else path,
            "aws_credentials": {"type": "anonymous"},
            **({"endpoint": endpoint} if endpoint else {}),
            **({"aws_region": region} if region else {}),
        }
    parts = urlsplit(http_url(address))
    # A directory: what is asked for is put behind its slash.
    return {"driver": "http", "base_url": urlunsplit(parts._replace(path=f"{parts.path}/")), "path": path}


def http_url(address: Address) -> str:
    """Return the URL by which HTTP reads an address."""
    if address.scheme == "gs":
        server = os.environ.get(GS_ENDPOINT) or GOOGLE
        server = server if "://" in server else f"http://{server}"
        return f"{server.rstrip('/')}/{address.url.removeprefix('gs://')}"
    return address.url


def store_of(place: Place) -> tuple[Store, str]:
    """Return the store that a place lies in, and what is meant in it.

    >>> store_of(Path("a.zarr::/em/raw"))[1], store_of(Path("a.zarr"))[1]
    ('em/raw', '')
    """
    if isinstance(place, Address):
        return Store(place, place), place.inner
    root, _, inner = str(place).partition(SEPARATOR)
    store = Store(place, Path(root))
    return store, store.join("", "/".join(step for step in inner.split("/") if step))


def tensorstore() -> Any:
    """Return tensorstore, told to wait for no server for ever."""
    for name, value in STALLED.items():
        os.environ.setdefault(name, value)
    import tensorstore

    return tensorstore


@functools.cache
def context() -> Any:
    """Return what all handles of a process share."""
    retries = {
        "max_retries": RETRIES,
        "initial_delay": f"{FIRST_PAUSE_SECONDS}s",
        "max_delay": f"{LONGEST_PAUSE_SECONDS}s",
    }
    return tensorstore().Context(
        {
            "cache_pool": {"total_bytes_limit": CACHE_BYTES},
            "data_copy_concurrency": {"limit": THREADS},
            "file_io_concurrency": {"limit": THREADS},
            "http_request_concurrency": {"limit": CONNECTIONS},
            "http_request_retries": retries,
            "s3_request_concurrency": {"limit": CONNECTIONS},
            "s3_request_retries": retries,
        }
    )
