"""Where weights come from: the published classifier's and ImageNet's, each fetched once into a cache and checked."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import logging
import os
import shutil
import socket
import urllib.error
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import requests

from emcurate.classifier.card import LEAST_BYTES, Weights, card_path, describe_assumptions, describe_weights
from emcurate.errors import InputError
from emcurate.fetching.downloads import (
    CHUNK_BYTES,
    PASSING_STATUSES,
    TIMEOUT_SECONDS,
    NoAnswerError,
    describe_cause,
    describe_refusal,
)
from emcurate.files import check_regular, make_output_directory
from emcurate.outputs import hash_file
from emcurate.partials import partial_path
from emcurate.running.jobs import progress
from emcurate.running.report import Report
from emcurate.writing import atomic_path

PUBLISHED_URL = "https://zenodo.org/record/6458015/files/patch_quality_classifier_nn.pth?download=1"

# The published file's digest as pooch writes it, such as "md5:…" from the record's page, or plain SHA-256. While it is
# None, not known, any file passes that holds a classifier's tensors; its SHA-256 is in the stage's closing report.
PUBLISHED_DIGEST: str | None = None

# Where downloads are kept, when the usual place is too small or not shared.
CACHE_VARIABLE = "EMCURATE_CACHE"

# Tries after the first: pooch pauses for one second before the first of them, for two before the second.
RETRIES = 2


def cache_directory() -> Path:
    """Return the directory for downloads: ``$EMCURATE_CACHE``, or ``emcurate`` in the user's own cache."""
    import pooch

    return Path(os.environ.get(CACHE_VARIABLE) or pooch.os_cache("emcurate")).expanduser().absolute()


def is_url(text: str) -> bool:
    """Return whether weights are named by an address rather than a path."""
    return urlsplit(text).scheme in ("http", "https")


def find_weights(weights: str | None, report: Report) -> Weights:
    """Return the weights a user asked for by path or address, or the published ones; download if need be."""
    if weights is not None and not is_url(weights):
        return _warn_without_card(describe_weights(Path(weights)), report)

    def check(path: Path) -> None:
        from emcurate.classifier.network import check_state_dict, read_state_dict

        check_state_dict(read_state_dict(path), path)

    path = fetch_weights(weights or PUBLISHED_URL, check)
    described = describe_weights(path)
    report.note(f"weights: {path}, SHA-256 {described.sha256}")
    return described if weights is None else _warn_without_card(described, report)


def find_start_file(init: str) -> Path | None:
    """Return the user's own file that a training starts from; None where it starts from ImageNet or from nothing."""
    return None if init in ("imagenet", "random") else check_regular(Path(init))


def fetch_start_weights(init: str) -> Path | None:
    """Return the ImageNet weights that a training starts from, downloaded if need be; None for random ones."""
    return fetch_imagenet_weights() if init == "imagenet" else None


def fetch_weights(
    url: str,
    check: Callable[[Path], object],
    *,
    directory: Path | None = None,
    digest: str | None = None,
    least_bytes: int = LEAST_BYTES,
) -> Path:
    """Return the path of downloaded weights; fetch them first if the cache has none, or none that pass the checks.

    Parameters
    ----------
    url : str
        Where they are.
    check : callable
        Called with a path; raises `InputError` if that file is not what it should be.
    directory : Path, optional
        Where to keep them; the cache by default.
    digest : str, optional
        What their bytes must have, as in `PUBLISHED_DIGEST`, which counts for the published ones.
    least_bytes : int
        A smaller file is refused.

    Raises
    ------
    InputError
        If there is no network, the file is not to be had, or is not what the checks want. Nothing is kept then.
    """
    directory = make_output_directory(directory or cache_directory())
    path = directory / _cache_name(url)
    digest = PUBLISHED_DIGEST if digest is None and url == PUBLISHED_URL else digest

    def inspect(file: Path) -> None:
        size = file.stat().st_size
        if size < least_bytes:
            raise InputError(file, f"at least {least_bytes:,} bytes of weights", f"{size:,}", "name other weights")
        check(file)

    fault = None
    if path.exists():
        try:
            _check_digest(path, digest)
            inspect(path)
            return path
        except InputError as error:
            advice = "connect to the network to have it replaced, or put the right file there"
            fault = InputError(path, error.expected, error.found, advice)
    try:
        _download(url, path, digest, inspect)
    except NoAnswerError as error:
        raise fault or InputError(
            url,
            "to download the classifier's weights once",
            f"no answer ({error.found})",
            "connect to the network; or download this address elsewhere and name the file with --weights; "
            f"or put it at {path}",
        ) from None
    return path


def fetch_imagenet_weights(url: str | None = None) -> Path:
    """Return the ResNet34's ImageNet weights; see `fetch_torchvision_weights`."""
    from torchvision.models import ResNet34_Weights

    other = "start from other weights with --init FILE, or from none with --init random"
    return fetch_torchvision_weights(url or ResNet34_Weights.IMAGENET1K_V1.url, "ImageNet start weights", other)


def fetch_torchvision_weights(url: str, what: str, other: str) -> Path:
    """Return a file of torchvision's weights, from PyTorch's own cache; PyTorch downloads it there if need be.

    Parameters
    ----------
    url : str
    what : str
        The weights, in words.
    other : str
        What may be done without them.

    Raises
    ------
    InputError
        If they cannot be had, or what came is not what the digits in their file name promise.
    """
    import torch.hub

    path = Path(torch.hub.get_dir(), "checkpoints", Path(urlsplit(url).path).name)
    promised = path.stem.rpartition("-")[2]
    if path.exists() and hash_file(path).startswith(promised):
        return path
    make_output_directory(path.parent)
    try:
        with _default_timeout(TIMEOUT_SECONDS):
            torch.hub.download_url_to_file(url, str(path), promised)
    except urllib.error.HTTPError as error:
        refusal = describe_refusal(url, error.code, error.reason)
        raise InputError(url, refusal.expected, refusal.found, f"{refusal.advice}; or {other}") from None
    except (urllib.error.URLError, ConnectionError, TimeoutError, http.client.HTTPException) as error:
        raise InputError(
            url,
            f"to download {what} once",
            f"no answer ({describe_cause(error)})",
            f"connect to the network; or put the file at {path}; or {other}",
        ) from None
    except RuntimeError:  # of a digest that differs, as also where a connection broke off
        expected = f"a file whose SHA-256 starts with {promised}"
        raise InputError(url, expected, "other bytes, which were not kept", f"try again; or {other}") from None
    return path


def _warn_without_card(weights: Weights, report: Report) -> Weights:
    """Return weights; say what is assumed of them if nothing lies beside them that says so."""
    if not os.path.lexists(card_path(weights.path)):
        report.warn(describe_assumptions(weights))
    return weights


def _download(url: str, path: Path, digest: str | None, inspect: Callable[[Path], None]) -> None:
    """Bring what lies at an address to `path`, which appears or changes only when all is well."""
    import pooch

    pooch.get_logger().setLevel(logging.WARNING)  # what it tells is the place of work below
    workplace = partial_path(path.parent)  # which the next run sweeps away if this one is killed
    keeper = pooch.create(workplace, "", registry={path.name: digest}, urls={path.name: url}, retry_if_failed=RETRIES)
    try:
        candidate = Path(keeper.fetch(path.name, downloader=_ask))
        inspect(candidate)
        with atomic_path(path) as partial:
            # A copy, since only its owner may read the file that pooch made, and the cache may be shared.
            shutil.copyfile(candidate, partial)
    except InputError as error:
        # The path of a file that is gone means nothing to people; its address does.
        advice = error.advice if error.path == url else "check the address; what came was not kept"
        raise InputError(url, error.expected, error.found, advice) from None
    except requests.exceptions.ChunkedEncodingError as error:
        found = f"a connection that broke off ({describe_cause(error)})"
        raise InputError(url, "a whole file of weights", found, "run the same command again") from None
    except (requests.ConnectionError, requests.Timeout) as error:
        raise NoAnswerError(url, "an answer", describe_cause(error), "connect to the network") from None
    except requests.HTTPError as error:
        raise describe_refusal(url, error.response.status_code, error.response.reason) from None
    except requests.RequestException as error:
        raise InputError(url, "weights to download", f"no way to them ({error})", "correct the address") from None
    except ValueError:  # pooch's for a digest that differs
        advice = "try again; if it stays so, do not trust what is there"
        raise InputError(url, f"the file with the digest {digest}", "another, which was not kept", advice) from None
    finally:
        shutil.rmtree(workplace, ignore_errors=True)


def _ask(url: str, output: str, keeper: Any) -> None:
    """Download as pooch does, with this project's progress bar; what cannot pass is not tried again."""
    import pooch

    name = Path(urlsplit(url).path).name
    # A guess of the total, since pooch takes a bar without one for none; it puts in what the server announces.
    with progress(None, total=LEAST_BYTES, label=f"download {name}", unit="B") as bar:
        bar.unit_scale, bar.unit_divisor = True, 1024
        try:
            pooch.HTTPDownloader(bar, CHUNK_BYTES, timeout=TIMEOUT_SECONDS)(url, output, keeper)
        except requests.HTTPError as error:
            if error.response.status_code in PASSING_STATUSES:
                raise
            raise describe_refusal(url, error.response.status_code, error.response.reason) from None


def _check_digest(path: Path, digest: str | None) -> None:
    import pooch

    if digest is None:
        return
    algorithm, _, wanted = digest.rpartition(":")
    found = pooch.file_hash(str(path), algorithm or "sha256")
    if found != wanted.lower():
        raise InputError(path, f"the file with the digest {digest}", f"one with {found}", "delete it")


def _cache_name(url: str) -> str:
    name = Path(unquote(urlsplit(url).path)).name or "weights.pth"
    if url == PUBLISHED_URL:
        return name
    # Files of the same name at other addresses are other files.
    return f"{Path(name).stem}-{hashlib.sha256(url.encode()).hexdigest()[:8]}{Path(name).suffix}"


@contextlib.contextmanager
def _default_timeout(seconds: float) -> Iterator[None]:
    # PyTorch sets none: it would wait without end for a connection that hangs.
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
