"""The two things that can be wrong with a user's data: it cannot be used, or it can but something is odd."""

from __future__ import annotations

import errno
import os
import struct
import zlib


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


class TooLittleMemoryError(InputError):
    """Data that may be fine, but for which memory was not to be had; alone, they may be used."""

    @classmethod
    def of(
        cls, path: str | os.PathLike[str], said: object, wanted: str = "enough memory for it", more: str = ""
    ) -> TooLittleMemoryError:
        """Return what was said where memory ran out as an error for users; `more` is what else they may try."""
        words = " ".join(str(said).split())[:_MOST_SAID] or "no more was to be had"
        return cls(path, wanted, f"too little ({words})", MORE_MEMORY + more)


class DataWarning(UserWarning):
    """Data that can be used but may not be what its owner thinks; the message names the file."""


MORE_MEMORY = "give it more memory, or use fewer processes with -p where several run"

# What a user can do about what the system answers.
_ADVICE = {
    errno.EACCES: "ask its owner for access",
    errno.EPERM: "ask its owner for access",
    errno.ENOSPC: "make room there and run the same command again: it goes on where it stopped",
    errno.EDQUOT: "make room there and run the same command again: it goes on where it stopped",
    errno.ENAMETOOLONG: "give the input a shorter name",
    errno.ELOOP: "remove the link that leads to itself",
    errno.EROFS: "write to another place",
    errno.ENOENT: "check the path",
    errno.EFBIG: "allow larger files there (ulimit -f), or write to another disk",
    errno.EMFILE: "allow more open files (ulimit -n), or use fewer processes with -p",
}


def describe_os_error(error: OSError, path: str | os.PathLike[str]) -> InputError:
    """Return what the system answered as an error for users; `path` is meant where the answer names none."""
    where = error.filename if isinstance(error.filename, str | os.PathLike) else path
    found = error.strerror or str(error) or type(error).__name__
    if is_for_want_of_memory(error):
        return TooLittleMemoryError.of(where, found)
    advice = _ADVICE.get(error.errno or 0, "check it and run the same command again")
    return InputError(where, "a place that can be read or written", found[:1].lower() + found[1:], advice)


# What Python says where no thread can be started: there is no memory for its stack, or no more are allowed.
_NO_THREAD = "can't start new thread"

# What the system's loader says where there is no memory for a library.
_NO_LIBRARY = ("failed to map segment", "cannot allocate memory")


def is_for_want_of_memory(error: BaseException) -> bool:
    """Return whether something failed since there was too little memory, in whichever way that is said."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    if isinstance(error, ImportError):
        return any(words in str(error).lower() for words in _NO_LIBRARY)
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and str(error) == _NO_THREAD)


# What libraries answer a damaged file with: each has its own ways of finding out that numbers make no sense.
DAMAGE = (
    *(OSError, EOFError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, AssertionError),
    *(SyntaxError, RuntimeError, MemoryError, StopIteration, struct.error, zlib.error),
)


def describe_damage(
    error: BaseException, path: str | os.PathLike[str], expected: str, advice: str, where: str = ""
) -> InputError:
    """Return what a library said of a damaged file as an error for users; what the system said is no damage, nor is it
    that memory ran out.

    `where` tells, after "damaged or unknown data", in which part of the file.
    """
    if isinstance(error, OSError) and error.errno not in (None, *_ERRORS_OF_NUMBERS):
        return describe_os_error(error, path)
    if is_for_want_of_memory(error):
        more = f"; if it should not need so much, {advice}"
        return TooLittleMemoryError.of(path, error, f"enough memory for {expected}{where}", more)
    said = " ".join(str(error).split())[:_MOST_SAID] or type(error).__name__
    return InputError(path, expected, f"damaged or unknown data{where} ({said})", advice)


# What the system answers to a place in a file that makes no sense.
_ERRORS_OF_NUMBERS = (errno.EINVAL, errno.EOVERFLOW, errno.EFAULT)

# Letters of a library's own words in a message: some quote the file.
_MOST_SAID = 300
