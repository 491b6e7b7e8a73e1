"""Where the classifier's weights come from.

Downloaded weights are kept in the user's cache. What was downloaded once is remembered by its SHA-256, so that
another file under the same address is noticed.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import unquote, urlsplit

from emcurate.classifier.card import LEAST_BYTES
from emcurate.errors import InputError
from emcurate.fetching.downloads import NoAnswerError, fetch
from emcurate.files import hash_file, make_output_directory, write_bytes

PUBLISHED_URL = "https://zenodo.org/record/6458015/files/patch_quality_classifier_nn.pth?download=1"

# Where downloads are kept, when the usual place is too small or not shared.
CACHE_VARIABLE = "EMCURATE_CACHE"


def cache_directory() -> Path:
    """Return the directory for downloads: ``$EMCURATE_CACHE``, or ``emcurate`` in the user's own cache."""
    chosen = os.environ.get(CACHE_VARIABLE)
    if chosen:
        return Path(chosen).expanduser().absolute()
    if os.name == "nt":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "emcurate"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "emcurate"


def is_url(text: str) -> bool:
    """Return whether weights are named by an address rather than a path."""
    return urlsplit(text).scheme in ("http", "https")


def fetch_weights(
    url: str,
    check: Callable[[Path], object],
    *,
    directory: Path | None = None,
    accept_changed: bool = False,
    least_bytes: int = LEAST_BYTES,
) -> Path:
    """Return the path of downloaded weights; fetch them first if the cache has none.

    Parameters
    ----------
    url : str
        Where they are.
    check : callable
        Called with the path of a fresh download; raises `InputError` if that is not what it should be.
    directory : Path, optional
        Where to keep them; the cache by default.
    accept_changed : bool
        Take a download that differs from the one remembered, and remember it instead.
    least_bytes : int
        A smaller file is refused.

    Raises
    ------
    InputError
        If there is no network, the file is not to be had, is not what `check` wants, or is another than last time.
    """
    directory = make_output_directory(directory or cache_directory())
    path = directory / _cache_name(url)
    memory = path.with_name(f"{path.name}.json")
    remembered = _read_memory(memory)
    if path.exists():
        _compare(path, remembered, accept_changed, f"delete {path} to download it again")
        _remember(memory, url, path)
        return path
    advice = f"or download this address elsewhere and name the file with --weights; or put it at {path}"
    candidate = fetch_candidate(url, path, "the classifier's weights", advice)
    try:
        size = candidate.stat().st_size
        if size < least_bytes:
            raise InputError(url, f"at least {least_bytes:,} bytes of weights", f"{size:,}", "check the address")
        _check_download(candidate, url, check)
        advice = "if its owner has replaced it, take the new one with --accept-changed-weights"
        _compare(candidate, remembered, accept_changed, advice, name=url)
    except InputError:
        candidate.unlink(missing_ok=True)
        raise
    _remember(memory, url, candidate)
    candidate.rename(path)
    return path


def fetch_candidate(url: str, path: Path, what: str, advice: str) -> Path:
    """Download what is to become `path` beside it, under another name, and return that.

    The caller renames it when it has passed every check; until then a later run fetches it again.

    Raises
    ------
    InputError
        If it cannot be had; where there is no answer at all, with `advice` on how to do without the network.
    """
    candidate = path.with_name(f"{path.name}.unchecked")
    candidate.unlink(missing_ok=True)
    try:
        fetch(url, candidate, label=f"download {path.name}")
    except NoAnswerError as error:
        found = f"no answer {error.found.removeprefix('none ')}"
        raise InputError(url, f"to download {what} once", found, f"connect to the network; {advice}") from None
    return candidate


def _cache_name(url: str) -> str:
    name = Path(unquote(urlsplit(url).path)).name or "weights.pth"
    if url == PUBLISHED_URL:
        return name
    # Files of the same name at other addresses are other files.
    return f"{Path(name).stem}-{hashlib.sha256(url.encode()).hexdigest()[:8]}{Path(name).suffix}"


def _check_download(candidate: Path, url: str, check: Callable[[Path], object]) -> None:
    try:
        check(candidate)
    except InputError as error:
        # The candidate's path means nothing to people; its address does.
        raise InputError(url, error.expected, error.found, "check the address; what came was not kept") from None


def _compare(path: Path, remembered: str | None, accept: bool, advice: str, name: str | None = None) -> None:
    found = hash_file(path)
    if remembered not in (None, found) and not accept:
        raise InputError(
            name or path, f"the file downloaded before, SHA-256 {remembered}", f"another, SHA-256 {found}", advice
        )


def _remember(memory: Path, url: str, path: Path) -> None:
    sha256 = hash_file(path)
    if _read_memory(memory) == sha256:
        return
    now = datetime.now(UTC).isoformat(timespec="seconds")
    note = {"url": url, "sha256": sha256, "size": path.stat().st_size, "downloaded": now}
    write_bytes(memory, (json.dumps(note, indent=2) + "\n").encode())


def _read_memory(memory: Path) -> str | None:
    try:
        return str(json.loads(memory.read_text(encoding="utf-8"))["sha256"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
