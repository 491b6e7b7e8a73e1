"""A power cut, played inside this process: the directory becomes what the disk was certain to have at that moment.

What a real file system keeps of the rest is its own affair. Here it keeps none of it: names that were given since the
last time they were written out are gone, contents that were not are empty.
"""

import contextlib
import os
import shutil
from pathlib import Path

import pytest

from emcurate import durability


class Disk:
    """What a disk is certain to have of a directory.

    Attributes
    ----------
    syncs : int
        How often it was waited for.
    cuts : dict of int to dict
        What it had, by path, before each time the ledger was written to.
    """

    def __init__(self, directory):
        self.directory = Path(directory)
        self.contents = {}
        self.syncs = 0

    def keep_all(self, *_):
        """Have everything below the directory: syncfs(2)."""
        self.syncs += 1
        self.contents = {path: path.read_bytes() for path in self.directory.rglob("*") if path.is_file()}

    def keep(self, path):
        """Have the content of one file, or the names in one directory, whose contents may be missing: fsync(2)."""
        self.syncs += 1
        path = Path(path)
        if path.is_dir():
            names = {entry for entry in path.iterdir() if entry.is_file()}
            gone = [known for known in self.contents if known.parent == path and known not in names]
            for known in gone:
                del self.contents[known]
            for entry in names - self.contents.keys():
                self.contents[entry] = b""
        elif path.exists():
            self.contents[path] = path.read_bytes()

    def cut_power(self):
        """Make the directory what the disk has of it."""
        shutil.rmtree(self.directory)
        self.directory.mkdir(parents=True)
        for path, content in self.contents.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)


@contextlib.contextmanager
def on_disk(directory):
    """Give the disk below a directory, which in the block knows only what it is made to wait for."""
    disk = Disk(directory)
    disk.keep_all()
    real = os.fsync

    def fsync(place):
        real(place)
        disk.keep(Path(f"/proc/self/fd/{place}").resolve())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(durability, "_syncfs", lambda: lambda place: disk.keep_all() or 0)
        patch.setattr(os, "fsync", fsync)
        yield disk
