"""Types of arguments: what a word on the command line must be, and an error that says so where it is not."""

from __future__ import annotations

import argparse
import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from emcurate import naming
from emcurate.addresses import Place, parse_address
from emcurate.errors import (
    InputError,
)
from emcurate.files import describe_content, is_there, list_entries
from emcurate.running.ledger_file import read_headers
from emcurate.volumes.cut_settings import PLANES, VoxelSize
from emcurate.volumes.formats import file_of

# What a path list holds at least, and what lies beside labels and is no array of them.
FIRST_CHUNK = "0.npy"
TEXT_SUFFIXES = (".json", ".jsonl", ".csv", ".tsv", ".txt", ".parquet", ".log")


@contextlib.contextmanager
def as_if_made(directory: Path) -> Iterator[None]:
    """Take whatever is named below a directory for what it will be, while flags are checked before anything runs."""
    _coming.append(directory)
    try:
        yield
    finally:
        _coming.pop()


def is_coming(path: Path) -> bool:
    """Return whether a path is yet to be made, or to be made anew; see `as_if_made`."""
    return any(path.is_relative_to(directory) for directory in _coming)


_coming: list[Path] = []


def existing_directory(text: str) -> Path:
    """Argument type: a directory that exists, as an absolute path."""
    path = Path(text)
    if not path.is_dir() and not is_coming(_absolute(path)):
        found = "a file" if path.exists() else "nothing"
        raise argparse.ArgumentTypeError(f"{text}: expected a directory, found {found}")
    return _absolute(path)


def existing_volumes(text: str) -> Place:
    """Argument type: a directory or a file that exists, as an absolute path, a part of one, or an address."""
    try:
        address = parse_address(text)
    except naming.GrammarError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    if address is not None:
        return address
    path = Path(text)
    if not is_there(file_of(path)) and not is_coming(_absolute(path)):
        raise argparse.ArgumentTypeError(f"{text}: expected a directory, a file or an address, found nothing")
    return _absolute(path)


def existing_file(text: str) -> Path:
    """Argument type: a file that exists, as an absolute path."""
    path = Path(text)
    if not path.is_file() and not is_coming(_absolute(path)):
        found = "a directory" if path.is_dir() else "nothing"
        raise argparse.ArgumentTypeError(f"{text}: expected a file, found {found}")
    return _absolute(path)


def directory_or_archive(text: str) -> Path:
    """Argument type: a directory or a zip archive that exists, as an absolute path."""
    return existing_directory(text) if Path(text).is_dir() else existing_file(text)


def output_directory(text: str) -> Path:
    """Argument type: a directory to write to, which need not exist yet, as an absolute path."""
    path = Path(text)
    if path.exists() and not path.is_dir():
        raise argparse.ArgumentTypeError(f"{text}: expected a directory to write to, found a file")
    return _absolute(path)


def output_file(text: str) -> Path:
    """Argument type: a file to write to, in a directory that exists, as an absolute path."""
    path = _absolute(Path(text))
    if path.is_dir() or not path.parent.is_dir():
        found = "a directory" if path.is_dir() else f"no directory {path.parent}"
        raise argparse.ArgumentTypeError(f"{text}: expected a file to write to, found {found}")
    return path


def plane(text: str) -> int:
    """Argument type: a plane of a volume."""
    number = int(text) if text.isdecimal() else None
    if number not in PLANES:
        hint = "" if text.isdecimal() else "; put --axes after the directories, or -- before them"
        raise argparse.ArgumentTypeError(f"expected planes, 0 (xy), 1 (xz) or 2 (yz), found {text!r}{hint}")
    return number


def path_list(text: str) -> Path:
    """Argument type: a path list, which is a directory of chunks, as an absolute path."""
    path = existing_directory(text)
    if not is_coming(path) and not (path / FIRST_CHUNK).is_file():
        inside = [list_path for list_path in list_entries(path) if (list_path / FIRST_CHUNK).is_file()]
        advice = f"; name {' or '.join(map(str, inside))}" if inside else "; name the .npz directory of a stage"
        found = describe_content(path)
        raise argparse.ArgumentTypeError(f"{text}: expected a path list ({FIRST_CHUNK}, ...), found {found}{advice}")
    return path


def label_file(text: str) -> Path:
    """Argument type: a file of labels that is no text, as an absolute path."""
    path = existing_file(text)
    if path.suffix.lower() in TEXT_SUFFIXES:
        from emcurate.patches.labels import LABELS_FILE  # here, since hardly any run needs to name it

        usual = path.parent / LABELS_FILE
        advice = f"; name {usual}" if usual.is_file() else ""
        expected = f"labels, an .npy array such as {LABELS_FILE}"
        raise argparse.ArgumentTypeError(f"{text}: expected {expected}, found a {path.suffix} file{advice}")
    return path


def results(product: str, maker: str) -> Callable[[str], Path]:
    """Return an argument type: a directory that exists, with results of one kind, or of which nothing is known.

    Parameters
    ----------
    product : str
        What a stage makes, as its ledger has it.
    maker : str
        The stage's script.
    """

    def check(text: str) -> Path:
        path = existing_directory(text)
        made = {} if is_coming(path) else {line.product: line.stage for line in read_headers(path) if line.stage}
        if made and product not in made:
            found = " and ".join(f"{other}, which {stage} made" for other, stage in sorted(made.items()))
            raise argparse.ArgumentTypeError(f"{text}: expected {product}, found {found}; name what {maker} wrote to")
        return path

    return check


def voxel_size_file(text: str) -> tuple[tuple[str, VoxelSize], ...]:
    """Argument type: a csv of voxel sizes by name, as what it says."""
    from emcurate.volumes.voxel_sizes import read_voxel_sizes  # here, since hardly any run has one

    try:
        return read_voxel_sizes(existing_file(text))
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def file_extension(text: str) -> str:
    """Argument type: a file's extension, with or without its dot, in any case."""
    extension = text.lower().removeprefix(".")
    if not extension or not all(part.isalnum() for part in extension.split(".")):
        raise argparse.ArgumentTypeError(f"expected an extension such as tif, found {text!r}")
    return extension


def positive_int(text: str) -> int:
    """Argument type: a whole number of at least 1."""
    return _integer(text, 1)


def natural_int(text: str) -> int:
    """Argument type: a whole number of at least 0."""
    return _integer(text, 0)


def even_int(text: str) -> int:
    """Argument type: an even number of at least 0, for what is drawn in halves."""
    number = natural_int(text)
    if number % 2:
        raise argparse.ArgumentTypeError(f"expected an even number, found {text!r}")
    return number


def hash_side(text: str) -> int:
    """Argument type: a hash size; a difference hash of a side under 2 says nothing."""
    return _integer(text, 2)


def positive_float(text: str) -> float:
    """Argument type: a finite number above 0."""
    return _number(text, 0, float("inf"), open_low=True)


def non_negative_float(text: str) -> float:
    """Argument type: a finite number of at least 0."""
    return _number(text, 0, float("inf"))


def fraction(text: str) -> float:
    """Argument type: a number from 0 to 1."""
    return _number(text, 0, 1)


def inner_fraction(text: str) -> float:
    """Argument type: a number above 0 and below 1."""
    share = fraction(text)
    if share in (0, 1):
        raise argparse.ArgumentTypeError(f"expected a number between 0 and 1, found {text!r}")
    return share


def percentile(text: str) -> float:
    """Argument type: a number from 0 to 100."""
    return _number(text, 0, 100)


def row_range(text: str) -> tuple[int, int]:
    """Argument type: START:STOP, rows from 0, the last one not included."""
    start, colon, stop = text.partition(":")
    if not (colon and start.isdecimal() and stop.isdecimal() and int(start) < int(stop)):
        raise argparse.ArgumentTypeError(f"expected START:STOP such as 2000:4000, found {text!r}")
    return int(start), int(stop)


def _absolute(path: Path) -> Path:
    # As typed but for ".." and the like: links are not resolved, since messages should show the names people know.
    return Path(os.path.abspath(path))  # noqa: PTH100


def _integer(text: str, least: int, most: int | None = None) -> int:
    try:
        value = int(text)
    except ValueError:
        value = least - 1
    if value < least or (most is not None and value > most):
        bound = "" if most is None else f" and at most {most}"
        raise argparse.ArgumentTypeError(f"expected a whole number of at least {least}{bound}, found {text!r}")
    return value


def _number(text: str, low: float, high: float, *, open_low: bool = False) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not (low < value or (value == low and not open_low)) or not value <= high or value == float("inf"):
        bounds = f"above {low:g}" if open_low else f"of at least {low:g}"
        most = "" if high == float("inf") else f" and at most {high:g}"
        raise argparse.ArgumentTypeError(f"expected a number {bounds}{most}, found {text!r}")
    return value
