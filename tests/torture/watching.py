"""Look at everything that appears under a final name while a command runs, and say what is not whole."""

import csv
import io
import json
import os
import tarfile
import threading
import zipfile
from pathlib import Path

import nrrd
import numpy as np
import pyarrow.parquet
import tifffile
from PIL import Image

LOOK_SECONDS = 0.02


def _read_tar(data):
    if not data.endswith(bytes(2 * tarfile.BLOCKSIZE)):
        raise ValueError("no end of the archive")
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        for member in archive:
            if len(archive.extractfile(member).read()) != member.size:
                raise ValueError(f"{member.name} is cut off")


def _read_csv(data):
    if not data.endswith(b"\n"):
        raise ValueError("its last line has no end")
    if len({len(row) for row in csv.reader(io.StringIO(data.decode(), newline=""))}) != 1:
        raise ValueError("rows of different lengths")


def _read_zip(data):
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        if (name := archive.testzip()) is not None:
            raise ValueError(f"{name} is damaged")


def _read_mrc(data):
    nx, ny, nz, mode = np.frombuffer(data[:16], "<i4")
    bytes_of = {0: 1, 1: 2, 2: 4, 6: 2}[int(mode)]
    extended = int(np.frombuffer(data[92:96], "<i4")[0])
    if len(data) != 1024 + extended + int(nx) * int(ny) * int(nz) * bytes_of:
        raise ValueError("not as long as its header says")


def _read_nrrd(data):
    stream = io.BytesIO(data)
    nrrd.read_data(nrrd.read_header(stream), stream)


PARSERS = {
    ".tiff": lambda data: tifffile.imread(io.BytesIO(data)),
    ".tif": lambda data: tifffile.imread(io.BytesIO(data)),
    ".npy": lambda data: np.load(io.BytesIO(data), allow_pickle=False),
    ".parquet": lambda data: pyarrow.parquet.read_table(io.BytesIO(data)),
    ".tar": _read_tar,
    ".csv": _read_csv,
    ".png": lambda data: Image.open(io.BytesIO(data)).load(),
    ".jpg": lambda data: Image.open(io.BytesIO(data)).load(),
    ".json": json.loads,
    ".pth": _read_zip,
    ".mrc": _read_mrc,
    ".nrrd": _read_nrrd,
}


def _shown_files(directory):
    # Not rglob, which an error ends when a directory goes meanwhile.
    for parent, directories, names in os.walk(directory):
        directories[:] = [name for name in directories if not name.startswith(".")]
        yield from (Path(parent) / name for name in names if not name.startswith("."))


class Watcher(threading.Thread):
    """Reads every file of a directory when it appears or changes, hidden ones left out, until the block ends.

    Attributes
    ----------
    seen : int
        How many files it read.
    problems : list of str
        Which of them were not whole.
    """

    def __init__(self, directory):
        super().__init__(daemon=True)
        self.directory = Path(directory)
        self.seen = 0
        self.problems = []
        self._known = {}
        self._ended = threading.Event()

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self._ended.set()
        self.join()
        self.look()

    def run(self):
        while not self._ended.wait(LOOK_SECONDS):
            self.look()

    def look(self):
        """Read what is new."""
        for path in _shown_files(self.directory):
            try:
                state = path.stat()
                mark = (state.st_ino, state.st_size, state.st_mtime_ns)
                if self._known.get(path) == mark:
                    continue
                data = path.read_bytes()
            except OSError:
                continue  # replaced just now
            self._known[path] = mark
            self.seen += 1
            try:
                if not data:
                    raise ValueError("empty")
                PARSERS.get(path.suffix, len)(data)
            except Exception as error:  # noqa: BLE001 - whatever a library says of half a file
                name = path.relative_to(self.directory)
                self.problems.append(f"{name} is under its final name and not whole: {type(error).__name__}: {error}")
