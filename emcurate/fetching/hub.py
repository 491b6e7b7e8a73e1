"""Fetch a file from the Hugging Face Hub with its own library: cached, with HF_ENDPOINT and the user's token.

Since its release 2 the library starts a download over when its process was killed. The bytes are therefore fetched by
`emcurate.downloads`, which goes on, to the place in the library's cache where it looks for them.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from emcurate.errors import InputError
from emcurate.fetching.downloads import fetch

# What the cache names a file's bytes after: a checksum. Anything else could lead out of the cache.
_CHECKSUM = re.compile(r"[0-9A-Za-z-]+")


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

    A file that is in the cache is also found without a network.

    Raises
    ------
    InputError
        If the library is not installed, or the file is not to be had.
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
    # The library's errors share a base with those of the HTTP library under it, which it lets through here and there.
    failures: Any = (OSError, *HfHubHTTPError.__bases__)
    # Given explicitly, though the library reads it too: it does so only once, when it is first imported.
    endpoint = os.environ.get("HF_ENDPOINT") or None
    try:
        _fill_cache(file, endpoint, failures)
        return Path(
            hf_hub_download(file.repository, file.name, repo_type="dataset", revision=file.revision, endpoint=endpoint)
        )
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
            advice = "run the same command again later"
    raise InputError(str(file), "a file on the Hugging Face Hub", found, advice) from None


def _fill_cache(file: HubFile, endpoint: str | None, failures: Any) -> None:
    """Fetch a file's bytes into the library's cache, unless they are there or the hub does not tell about them.

    What is wrong then is said by the library when it looks for the file itself.
    """
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url
    from huggingface_hub.file_download import repo_folder_name
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined,unused-ignore]

    try:
        url = hf_hub_url(file.repository, file.name, repo_type="dataset", revision=file.revision, endpoint=endpoint)
        about = get_hf_file_metadata(url)
    except (*failures, ValueError):
        return
    if not about.size or not about.commit_hash or not about.etag or not _CHECKSUM.fullmatch(about.etag):
        return
    folder = Path(constants.HF_HUB_CACHE, repo_folder_name(repo_id=file.repository, repo_type="dataset"))
    blob = folder / "blobs" / about.etag
    if blob.exists() or (folder / "snapshots" / about.commit_hash / file.name).exists():
        return
    blob.parent.mkdir(parents=True, exist_ok=True)
    # A signed address of another host needs no token, and must not get one.
    headers = build_hf_headers() if urlsplit(about.location).netloc == urlsplit(url).netloc else {}
    fetch(about.location, blob, expected_size=about.size, label=file.name, headers=headers, version=about.etag)


def _first_line(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0].rstrip(".")
