"""A power cut that is played: a directory becomes what the disk was certain to have at that moment.

What a real file system keeps of the rest is its own affair. Here it keeps none of it: names that were given since the
last time they were written out are gone, contents that were not are empty. Or it keeps the names, as many do, and of
contents no more than that.
"""

import contextlib
import os
import shutil
from pathlib import Path

import pytest

from emcurate import durability
from emcurate.running.ledger_file import LedgerFile, ledger_paths
from emcurate.running.ledger_lines import DONE, read_outputs

EMPTY = b"", 0  # content and time of a file of which only the name is there


class Disk:
    """What a disk is certain to have of a directory.

    Attributes
    ----------
    syncs : int
        How often it was waited for.
    """

    def __init__(self, directory):
        self.directory = Path(directory)
        self.contents = {}
        self.syncs = 0
        self._written_out = set()

    def keep_all(self, *_):
        """Have everything below the directory: syncfs(2)."""
        self.syncs += 1
        self.contents = {path: self._read(path) for path in self.directory.rglob("*") if path.is_file()}

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
                self.contents[entry] = EMPTY
        elif path.exists():
            self.contents[path] = self._read(path)

    def _read(self, path):
        self._written_out.add(_state(path))
        return path.read_bytes(), path.stat().st_mtime_ns

    def meet(self, name, path):
        """Take notice of a call that is about to be made, by its name: what it waits for was written before."""
        if name == "syncfs":
            self.keep_all()
        elif name == "fsync":
            self.keep(path)

    def cut_power(self, *, names_stay=False):
        """Make the directory what the disk has of it."""
        if names_stay:
            there = {path for path in self.directory.rglob("*") if path.is_file()}
            for path in there:
                if _state(path) in self._written_out:
                    self.contents[path] = self._read(path)
            self.contents = {path: self.contents.get(path, EMPTY) for path in there}
        shutil.rmtree(self.directory)
        self.directory.mkdir(parents=True)
        for path, (content, time) in self.contents.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            os.utime(path, ns=(time, time))


def _state(path):
    """Return what tells a file with its content from others, whatever it is called."""
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns


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


def check_noted(directory):
    """Check that every file that is noted of a finished input is there with the size it was noted with."""
    for path in ledger_paths(directory):
        for line in LedgerFile(path).entries.values():
            if line.state == DONE:
                for output in read_outputs(line):
                    assert (directory / output.name).stat().st_size == output.size
