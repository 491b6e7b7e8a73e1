"""Fetch a file from the Hugging Face Hub with its own library: cached, with HF_ENDPOINT and the user's token."""

from __future__ import annotations

import functools
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from emcurate.errors import InputError
from emcurate.files import hash_file

_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class HubFile:
    """A file of a dataset repository, at a branch, tag or commit."""

    repository: str
    name: str
    revision: str = "main"

    def __str__(self) -> str:
        return f"{self.repository}/{self.name}"


def fetch_from_hub(file: HubFile) -> Path:
    """Return the path of a hub file in the library's cache, fetched with a progress bar if it is not there yet.

    A file that is in the cache is also found without a network. One that was damaged there is fetched again.

    Raises
    ------
    InputError
        If the library is not installed, or the file is not to be had, or is damaged even when it has just come.
    """
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
        path = Path(download())
        if _find_damaged(path) is None:
            return path
        path = Path(download(force_download=True))
        damaged = _find_damaged(path)
        if damaged is None:
            return path
        path.unlink()
        damaged.unlink()
        found, advice = "other bytes, twice; they were not kept", "run the same command again later"
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
        advice = "check the network connection, HF_ENDPOINT and HF_HUB_OFFLINE, and run the same command again"
    except failures as error:
        status = getattr(getattr(error, "response", None), "status_code", None)
        if status == 404:
            found, advice = "none of that name in the repository", "check --file and --revision"
        else:
            found = f"a download that failed ({_first_line(error)})"
            advice = "check HF_ENDPOINT if it is set, and run the same command again later"
    except ValueError as error:  # the library's for a download by force that cannot be
        found = f"a damaged copy in the cache, and no answer ({_first_line(error.__cause__ or error)})"
        advice = "check the network connection, HF_ENDPOINT and HF_HUB_OFFLINE, and run the same command again"
    raise InputError(str(file), "a file on the Hugging Face Hub", found, advice) from None


def _find_damaged(pointer: Path) -> Path | None:
    """Return the bytes that a file of the cache points to, if they have not the SHA-256 that they are named after.

    The library names large files after it, but looks only at the name of what it finds in its cache.
    """
    if not pointer.is_symlink():  # as where the system has no links: nothing then tells the digest
        return None
    # One step only: the bytes may in turn be a link to a store that several caches share, under another name.
    blob = pointer.parent / pointer.readlink()
    return blob if _SHA256.fullmatch(blob.name) and hash_file(blob) != blob.name else None


def _first_line(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0].rstrip(".")
