"""Fetch a file from the Hugging Face Hub with its own library: cached, with HF_ENDPOINT and the user's token."""

from __future__ import annotations

import functools
import hashlib
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm

from emcurate.errors import InputError
from emcurate.outputs import DIGEST_CHUNK_BYTES, hash_file

# What the hub names a file's bytes after: large ones after their SHA-256, small ones after git's SHA-1.
_SHA256 = re.compile(r"[0-9a-f]{64}")
_GIT_SHA1 = re.compile(r"[0-9a-f]{40}")

Answer = TypeVar("Answer")

_EXPECTED = "a file on the Hugging Face Hub"
_CHECK_NETWORK = "check the network connection, HF_ENDPOINT and HF_HUB_OFFLINE, and run the same command again"


@dataclass(frozen=True)
class HubFile:
    """A file of a dataset repository, at a branch, tag or commit."""

    repository: str
    name: str
    revision: str = "main"

    def __str__(self) -> str:
        return f"{self.repository}/{self.name}"


@dataclass(frozen=True)
class HubState:
    """How large a hub file is, in bytes, and its path in the library's cache if it is there."""

    size: int
    path: Path | None


def look_up(file: HubFile) -> HubState:
    """Return what the hub says of a file, without fetching it.

    Raises
    ------
    InputError
        As `fetch_from_hub`.
    """
    found = _ask(file, lambda download: download(dry_run=True))
    return HubState(int(found.file_size), Path(found.local_path) if found.is_cached else None)


def fetch_from_hub(file: HubFile, *, again: bool = False) -> Path:
    """Return the path of a hub file in the library's cache, fetched with a progress bar if it is not there yet.

    A file that is in the cache is also found without a network. One that was damaged there is fetched again; so is any
    with `again`, for damage that only shows when it is used.

    Raises
    ------
    InputError
        If the library is not installed, or the file is not to be had, or is damaged even when it has just come.
    """
    return _ask(file, lambda download: _fetch_whole(file, download, again))


def _fetch_whole(file: HubFile, download: Callable[..., str], again: bool) -> Path:
    if not again:
        path = Path(download())
        if _find_damaged(path) is None:
            return path
    path = Path(download(force_download=True))
    damaged = _find_damaged(path)
    if damaged is None:
        return path
    path.unlink()
    damaged.unlink()
    found = "other bytes, twice; they were not kept"
    raise InputError(str(file), _EXPECTED, found, "run the same command again later")


def _ask(file: HubFile, question: Callable[[Callable[..., Any]], Answer]) -> Answer:
    """Put a question to the library, a function of its download of this file, and put its errors into our words."""
    try:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import (
            GatedRepoError,
            HfHubHTTPError,
            HFValidationError,
            LocalEntryNotFoundError,
            RepositoryNotFoundError,
            RevisionNotFoundError,
        )
    except ImportError:
        raise InputError(str(file), "the package huggingface-hub", "none", "pip install huggingface-hub") from None
    except ValueError as error:  # the library takes the address apart when it is imported
        address = os.environ.get("HF_ENDPOINT", "")
        raise InputError(address, "a web address in HF_ENDPOINT", str(error), "correct or unset it") from None
    # The library's errors share a base with those of the HTTP library under it, which it lets through here and there.
    failures: Any = (OSError, *HfHubHTTPError.__bases__)
    # Given explicitly, though the library reads it too: it does so only once, when it is first imported.
    endpoint = os.environ.get("HF_ENDPOINT") or None
    download = functools.partial(
        hf_hub_download,
        file.repository,
        file.name,
        repo_type="dataset",
        revision=file.revision,
        endpoint=endpoint,
        tqdm_class=tqdm,  # the library's own shows nothing in a log
    )
    try:
        return question(download)
    except GatedRepoError:
        found, advice = "one whose owner must let you in", "ask for access on its page, then set HF_TOKEN"
    except RepositoryNotFoundError:
        found, advice = "none of that name, or one you may not see", "check --repository, or set HF_TOKEN to your token"
    except RevisionNotFoundError:
        found, advice = f"no revision {file.revision}", "check --revision"
    except HFValidationError as error:
        found, advice = str(error), "give --repository as owner/name"
    except LocalEntryNotFoundError as error:
        cause = error.__cause__ or error
        found = f"no answer, and no copy in the cache ({_first_line(cause)})"
        advice = _CHECK_NETWORK
    except failures as error:
        status = getattr(getattr(error, "response", None), "status_code", None)
        if status == 404:
            found, advice = "none of that name in the repository", "check --file and --revision"
        else:
            found = f"a download that failed ({_first_line(error)})"
            advice = "check HF_ENDPOINT if it is set, and run the same command again later"
    except ValueError as error:  # the library's for a download by force that cannot be
        found = f"a damaged copy in the cache, and no answer ({_first_line(error.__cause__ or error)})"
        advice = _CHECK_NETWORK
    raise InputError(str(file), _EXPECTED, found, advice) from None


def _find_damaged(pointer: Path) -> Path | None:
    """Return the bytes that a file of the cache points to, if they have not the digest that they are named after.

    The library looks only at the name of what it finds in its cache.
    """
    if not pointer.is_symlink():  # as where the system has no links: nothing then tells the digest
        return None
    # One step only: the bytes may in turn be a link to a store that several caches share, under another name.
    blob = pointer.parent / pointer.readlink()
    if _SHA256.fullmatch(blob.name):
        digest = hash_file(blob)
    elif _GIT_SHA1.fullmatch(blob.name):
        digest = _hash_as_git(blob)
    else:
        return None
    return blob if digest != blob.name else None


def _hash_as_git(path: Path) -> str:
    """Return a file's SHA-1 as git takes it, after a header with the length; it guards against damage here."""
    digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    with open(path, "rb") as file:
        while chunk := file.read(DIGEST_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _first_line(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0].rstrip(".")
