"""The two things that can be wrong with a user's data: it cannot be used, or it can but something is odd."""

from __future__ import annotations

import os


class InputError(Exception):
    """Data that cannot be used: which file, what was expected, what was found, what to do.

    Parameters
    ----------
    path : path or str
        The file or directory at fault.
    expected, found : str
        Completes "expected …" and "found …".
    advice : str
        What the user can do about it, an imperative without a full stop.

    Examples
    --------
    >>> print(InputError("a.tif", "a 2D image", "12 pages", "move it to the 3D corpus"))
    a.tif: expected a 2D image, found 12 pages; move it to the 3D corpus
    """

    def __init__(self, path: str | os.PathLike[str], expected: str, found: str, advice: str) -> None:
        # All four go to Exception so that pickle can carry the error out of a worker process.
        super().__init__(os.fspath(path), expected, found, advice)
        self.path = os.fspath(path)
        self.expected = expected
        self.found = found
        self.advice = advice

    def __str__(self) -> str:
        return f"{self.path}: expected {self.expected}, found {self.found}; {self.advice}"


class DataWarning(UserWarning):
    """Data that can be used but may not be what its owner thinks; the message names the file."""
