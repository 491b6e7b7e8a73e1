"""Addresses of volumes on servers: how people write them, what is shown of them, and the dataset's name in them."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

from emcurate import naming

# What stands between a store or file and what is meant in it.
SEPARATOR = "::"

SCHEMES = ("https", "http", "s3", "gs")

# Formats as Neuroglancer writes them before an address or, since 2024, after it as `|zarr2:`.
ZARR, N5, PRECOMPUTED = "zarr", "n5", "precomputed"
FORMATS = {**dict.fromkeys(("zarr", "zarr2", "zarr3"), ZARR), "n5": N5}
FORMATS |= dict.fromkeys(("precomputed", "neuroglancer-precomputed"), PRECOMPUTED)

# What a store's directory ends in.
STORE_SUFFIXES = (".zarr", ".n5", ".precomputed")

# Names that say, on servers, what a thing is and not of which volume, beside those of directories of slices.
_PLAIN_NAMES = frozenset(("em", "img", "stack"))
_LEVEL = re.compile(r"s?[0-9]+|[0-9]+(\.[0-9]+)?(_[0-9]+(\.[0-9]+)?)+")

_URL = re.compile(r"[A-Za-z0-9+.-]+://[^\s'\"<>\\]+")


@dataclass(frozen=True, order=True)
class Address(os.PathLike[str]):
    """The address of a volume on a server.

    As a string or a path it is what may be shown and noted: without user, password, query and fragment, whatever these
    hold.

    Parameters
    ----------
    url : str
        With one of `SCHEMES`, as it was given, without a slash at its end.
    inner : str
        The path of what is meant in the store at `url`; empty for the store itself.
    format : str
        `ZARR`, `N5`, `PRECOMPUTED`, or empty where it is to be found out.
    """

    url: str = field(repr=False)
    inner: str = ""
    format: str = ""

    def __str__(self) -> str:
        prefix = f"{self.format}://" if self.format else ""
        return f"{prefix}{_without_secrets(self.url)}{SEPARATOR + '/' + self.inner if self.inner else ''}"

    def __repr__(self) -> str:
        return f"Address({str(self)!r})"

    def __fspath__(self) -> str:
        return str(self)

    @property
    def full(self) -> str:
        """The address as it is to be given to others who read it, with all that must not be shown."""
        prefix = f"{self.format}://" if self.format else ""
        return f"{prefix}{self.url}{SEPARATOR + '/' + self.inner if self.inner else ''}"

    @property
    def scheme(self) -> str:
        return urlsplit(self.url).scheme

    @property
    def server(self) -> str:
        """The host, or the bucket."""
        return urlsplit(self.url).netloc.rpartition("@")[2]

    @property
    def name(self) -> str:
        """The dataset's name: that of the store, or else the last step of the path that tells more than what it is."""
        parts = urlsplit(self.url)
        steps = [_step_name(step) for step in parts.path.split("/") if step] or [self.server]
        stores = [step for step in steps if step.lower().endswith(STORE_SUFFIXES)]
        if stores:
            return naming.strip_extension(stores[-1])
        telling = [step for step in steps if step.lower() not in _PLAIN_NAMES and not _LEVEL.fullmatch(step)]
        return naming.name_of_directory(telling or steps)

    def hide(self, text: str) -> str:
        """Return a text without what must not be shown of this address, or of any other in it."""
        parts = urlsplit(self.url)
        for secret in (parts.query, parts.fragment, parts.netloc.rpartition("@")[0]):
            if secret:
                text = text.replace(secret, "…")
        return hide_secrets(text)


# Where a volume lies: on this computer, or on a server.
Place = Path | Address


def parse_address(text: str) -> Address | None:
    """Return the address that a text is, or None if it is a path of this computer.

    Raises
    ------
    naming.GrammarError
        If it is neither.

    Examples
    --------
    >>> str(parse_address("precomputed://gs://bucket/fly/em")), parse_address("https://h/a.zarr/em/s0").inner
    ('precomputed://gs://bucket/fly/em', 'em/s0')
    >>> parse_address("corpus/a.zarr") is None, parse_address("https://user:word@h/a.n5?key=1")
    (True, Address('https://h/a.n5'))
    """
    text = text.strip()
    format, rest = "", text
    prefix, separator, after = text.partition("://")
    if separator and prefix.lower() in FORMATS:
        format, rest = FORMATS[prefix.lower()], after
    url, _, inner = rest.partition(SEPARATOR)
    for piece in url.split("|")[1:] if "://" in url else ():
        kind = piece.rstrip("/").rstrip(":").lower()
        if kind not in FORMATS:
            raise naming.GrammarError(f"one of |{', |'.join(FORMATS)} after an address", f"|{kind}")
        format = FORMATS[kind]
    url = url.partition("|")[0] if "://" in url else url
    if "://" not in url:
        if format:
            raise naming.GrammarError(f"an address after {prefix}:// (of a directory here, its path alone)", "none")
        return None
    scheme = url.partition("://")[0].lower()
    if scheme not in SCHEMES:
        raise naming.GrammarError(f"an address ({'://, '.join(SCHEMES)}://) or a path", f"{scheme}://")
    if re.search(r"[\s\x00-\x1f\x7f]", url):
        raise naming.GrammarError("an address in which spaces are written as %20", "one with spaces")
    try:
        parts = urlsplit(f"{scheme}{url[len(scheme) :]}")
        known = bool(parts.netloc.rpartition("@")[2]) and (parts.port is None or parts.port > 0)
    except ValueError:
        known = False
    if not known:
        raise naming.GrammarError(f"a server's or bucket's name after {scheme}://", "none that can be read")
    path, deeper = _split_store(parts.path.rstrip("/"))
    inner = "/".join(step for step in f"{deeper}/{inner}".split("/") if step)
    if ".." in inner.split("/") or ".." in [unquote(step) for step in path.split("/")]:
        raise naming.GrammarError("a path inside its store", "one that leads out of it with ..")
    return Address(urlunsplit(parts._replace(path=path, fragment="")), inner, format)


def _split_store(path: str) -> tuple[str, str]:
    """Return a path up to the directory whose name says that it is a store, and the rest of it."""
    steps = path.split("/")
    for number, step in enumerate(steps):
        if any(step.lower().endswith(suffix) and step.lower() != suffix for suffix in STORE_SUFFIXES):
            return "/".join(steps[: number + 1]), "/".join(map(unquote, steps[number + 1 :]))
    return path, ""


def _step_name(step: str) -> str:
    """Return a step of a path as a name for files, its %20 and the like read where that leads nowhere."""
    read = unquote(step)
    plain = read not in ("", ".", "..") and not re.search(r"[/\\\x00-\x1f\x7f]", read)
    return read if plain else step


def hide_secrets(text: str) -> str:
    """Return a text in which no URL has a user, a password, a query or a fragment."""
    return _URL.sub(lambda match: _without_secrets(match[0]), text)


def _without_secrets(url: str) -> str:
    try:
        parts = urlsplit(url)
    except ValueError:
        return url.partition("?")[0].partition("#")[0]
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
