"""Fetch a file from the Hugging Face Hub with its own library: cached, with HF_ENDPOINT and the user's token."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emcurate.errors import InputError


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


def _first_line(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0].rstrip(".")
