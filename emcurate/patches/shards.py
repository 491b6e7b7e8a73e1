"""Shards: uncompressed tars of patches, for where millions of small files would be too many.

A shard ``{dataset}-{number}.tar`` holds ``{patch}.tiff`` in the order of the patches' names; in a path list
``…/{dataset}-00000.tar/{patch}.tiff`` is its member. It is a plain POSIX tar, ustar with pax records for names that are
long or not ASCII, the very bytes that Python's tarfile would write: `tar`, tarfile and WebDataset read it as it is.

WebDataset takes what stands before the first dot of a member's name for its sample's key. Where a dataset's or an
image's name has dots, all patches of a shard would become one sample; ``WebDataset(…, rename_files=key_without_dots)``
keeps them apart. The names in the shard stay as they are: tables, labels and path lists know a patch by them.
"""

from __future__ import annotations

import contextlib
import functools
import glob
import io
import itertools
import os
import re
import stat
import struct
import tarfile
import threading
from array import array
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import xxhash

from emcurate.errors import InputError, describe_os_error
from emcurate.files import open_regular
from emcurate.outputs import Output
from emcurate.partials import partial_path
from emcurate.patches.tables import TABLE_SUFFIX, read_shard_places
from emcurate.writing import move_once, telling

SHARD_SUFFIX, MEMBER_SUFFIX = ".tar", ".tiff"
PATCHES_PER_SHARD = 10_000

# Digits of a shard's number, so that names sort as numbers do; 100,000 shards are 1000 million patches.
NUMBER_DIGITS = 5

# Bytes written at a time: few calls to the system, and still in the processor's cache to be digested and written.
WRITE_BYTES = 1 << 18

# What a tar is made of (POSIX.1-2017, pax): blocks, and records of twenty of them. Where the header has what.
BLOCK = tarfile.BLOCKSIZE
RECORD = tarfile.RECORDSIZE
NAME_BYTES = tarfile.LENGTH_NAME
SIZE_FIELD = slice(124, 136)
CHECKSUM_FIELD = slice(148, 156)
PADDING = bytes(BLOCK)

# Bytes read before a member's size is known: more than a patch usually has.
READ_BYTES = 1 << 20

# Shards whose members' places a process keeps: each takes 250 kB and an open file.
SHARDS_KEPT = 32

# What tarfile answers a damaged tar with.
_TAR_DAMAGE = (tarfile.TarError, ValueError, OverflowError, LookupError, struct.error, EOFError, RecursionError)

_REMAKE = "copy it again, or make it again with raw/crop_patches.py"
_SHARD_NAME = re.compile(r"(?P<dataset>.+)-(?P<number>\d+)\.tar", re.DOTALL)


def shard_name(dataset: str, number: int) -> str:
    """Return the file name of a dataset's shard.

    >>> shard_name("fly", 3)
    'fly-00003.tar'
    """
    return f"{dataset}-{number:0{NUMBER_DIGITS}d}{SHARD_SUFFIX}"


def dataset_of_shard(name: str) -> str | None:
    """Return the dataset that a file of this name is a shard of, None if it is none.

    >>> dataset_of_shard("fly-1-00003.tar"), dataset_of_shard("fly.tar")
    ('fly-1', None)
    """
    match = _SHARD_NAME.fullmatch(name)
    return match["dataset"] if match and len(match["number"]) >= NUMBER_DIGITS else None


def find_shards(directory: Path, dataset: str) -> list[Path]:
    """Return the shards of a dataset that lie in a directory."""
    paths = directory.glob(f"{glob.escape(dataset)}-*{SHARD_SUFFIX}")
    return sorted(path for path in paths if dataset_of_shard(path.name) == dataset)


def list_patches(shard: Path) -> Iterator[tuple[str, tuple[int, int]]]:
    """Yield the section of each patch in a shard, and its row and column there, as far as the shard can be read."""
    with (
        contextlib.suppress(InputError, OSError, *_TAR_DAMAGE),
        open_regular(shard) as file,
        tarfile.open(fileobj=file, mode="r:") as tar,
    ):
        for member in tar:
            section, *corner = _plain_name(member.name).removesuffix(MEMBER_SUFFIX).rsplit("_", 2)
            if len(corner) == 2 and all(map(str.isdecimal, corner)):
                yield section, (int(corner[0]), int(corner[1]))


def key_without_dots(name: str) -> str:
    """Return a member's name with no dot but the one before its extension, as WebDataset wants its keys.

    >>> key_without_dots("scan.v2-LOC-0_12_0_224.tiff")
    'scan_v2-LOC-0_12_0_224.tiff'
    """
    stem, dot, extension = name.rpartition(".")
    return f"{stem.replace('.', '_')}{dot}{extension}"


def make_header(name: str, size: int) -> bytes:
    """Return what stands before a member's data: one block, or three and more for a long name or one not in ASCII.

    It is what Python's tarfile writes for a file of mode 0644, owner 0 and modification time 0.
    """
    if not name.isascii() or len(name) > NAME_BYTES:
        member = tarfile.TarInfo(name)
        member.size = size
        return member.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
    middle, end, total = _header_without_name(size)
    letters = name.encode()
    return letters + bytes(NAME_BYTES - len(letters)) + middle + b"%06o\0 " % (total + sum(letters)) + end


@functools.lru_cache(maxsize=256)
def _header_without_name(size: int) -> tuple[bytes, bytes, int]:
    """Return the parts of a header between name and checksum and after it, and the checksum for an empty name."""
    member = tarfile.TarInfo()
    member.size = size
    block = member.tobuf(tarfile.USTAR_FORMAT)
    return block[NAME_BYTES : CHECKSUM_FIELD.start], block[CHECKSUM_FIELD.stop :], int(block[CHECKSUM_FIELD][:6], 8)


class ShardWriter:
    """Writes a shard, member by member; it becomes visible when it is complete.

    One with the same bytes is left as it is, as by `emcurate.files.write_once`. As a context it is finished at the end
    of the block, or discarded if that raises.

    Parameters
    ----------
    path : Path
        The shard; its directory must exist.
    overwrite : bool
        Replace a shard of this name that holds something else.

    Attributes
    ----------
    output : Output
        The shard as it was written, once it is finished; its name is relative to the shard's directory.
    written : bool
        Whether it was not there already.
    count, size : int
        Members and bytes so far.

    Raises
    ------
    InputError
        If a directory of that name is there; at the end `TakenError`, if a file with other content is and `overwrite`
        is not set.
    """

    def __init__(self, path: Path, *, overwrite: bool = False) -> None:
        if path.is_dir():
            raise InputError(path, "a file, or none", "a directory of that name", "move it away")
        self.path, self.overwrite = path, overwrite
        self.count = self.size = 0
        self.written = False
        self.output: Output | None = None
        self._digest = xxhash.xxh3_128()
        self._waiting: list[bytes | memoryview] = []
        self._waiting_bytes = 0
        self._partial = partial_path(path.parent)
        self._file = os.open(self._partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)

    def add(self, name: str, data: bytes) -> int:
        """Append a member; return where in the shard its data begin, in bytes."""
        if "/" in name or "\0" in name or not name:
            raise ValueError(f"a member's name without directories, not {name!r}")
        header = make_header(name, len(data))
        offset = self.size + len(header)
        self._append(header, data, PADDING[: -len(data) % BLOCK])
        self.count += 1
        return offset

    def finish(self) -> tuple[Output, bool]:
        """Complete the shard and make it visible; return it as it was written, and whether it was not there already."""
        try:
            # The end is two empty blocks, filled up to a whole record as tar does.
            self._append(bytes(2 * BLOCK + -(self.size + 2 * BLOCK) % RECORD))
            self._flush()
            self._close()
            self.written = move_once(self._partial, self.path, overwrite=self.overwrite)
        except BaseException:
            self.discard()
            raise
        digest = self._digest.hexdigest()
        self.output = Output(self.path.name, self.size, self.path.stat().st_mtime_ns, digest)
        return self.output, self.written

    def discard(self) -> None:
        """Give the shard up, and remove what was written of it."""
        self._close()
        self._partial.unlink(missing_ok=True)

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is not None:
            self.discard()
        elif self.output is None:
            self.finish()

    def _append(self, *pieces: bytes) -> None:
        self._waiting += pieces
        length = sum(map(len, pieces))
        self.size += length
        self._waiting_bytes += length
        if self._waiting_bytes >= WRITE_BYTES:
            self._flush()

    def _flush(self) -> None:
        data = b"".join(self._waiting)
        self._waiting, self._waiting_bytes = [], 0
        self._digest.update(data)
        view = memoryview(data)
        with telling(self.path):
            while view:
                view = view[os.write(self._file, view) :]

    def _close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def split_member(path: str) -> tuple[str, str] | None:
    """Return the shard and the member that a path names, or None where it cannot name any.

    Whether the shard is a file is not looked at: a directory may be called ``x.tar`` too.

    >>> split_member("/patches/fly-00000.tar/fly-LOC-0_042_224_0.tiff")
    ('/patches/fly-00000.tar', 'fly-LOC-0_042_224_0.tiff')
    >>> split_member("/patches/fly-LOC-0_042_224_0.tiff") is None
    True
    """
    shard, slash, name = path.rpartition("/")
    return (shard, name) if slash and name and shard.endswith(SHARD_SUFFIX) else None


def find_member(path: str) -> Member | None:
    """Return the member of a shard that a path names, open for reading; None where the path is that of a file.

    Whether the shard has that member only reading it tells.

    Raises
    ------
    InputError
        If the shard is missing, or no file.
    """
    place = split_member(path)
    if place is None:
        return None
    shard = _open_shard(*place)
    return None if shard is None else Member(shard, place[1])


def read_member(path: str) -> memoryview:
    """Return the content of a shard's member, such as ``…/fly-00000.tar/fly-LOC-0_042_224_0.tiff``.

    Where it lies is looked up in the table beside the shard and compared with the tar's own header there; without a
    table, or where that is wrong, the shard's headers are read once. A shard that was replaced is read anew.

    Raises
    ------
    InputError
        If the shard is missing, cut off or no tar, or has no such member.
    """
    member = find_member(path)
    if member is None:
        raise InputError(path, "a member of a shard, as …/name.tar/patch.tiff", "another path", "check the path")
    return member.read()


class Member(NamedTuple):
    """A member of an open shard; its methods raise `InputError` if it is not there or not complete."""

    shard: Shard
    name: str

    def read(self) -> memoryview:
        """Return its content, which may be written to."""
        return self.shard.read(self.name)[0]

    def read_start(self, count: int) -> tuple[memoryview, int]:
        """Return the first `count` bytes of its content, or all if it has fewer, and its size."""
        return self.shard.read(self.name, count)

    def exists(self) -> bool:
        """Return whether it is there and complete."""
        try:
            self.read_start(0)
        except InputError:
            return False
        return True


class _Place(NamedTuple):
    """Where a member's headers begin, where its data should, and where these end at the latest: bytes of the shard."""

    start: int
    offset: int
    end: int


class _Index:
    """Where the members of a shard lie, by a digest of their names: four numbers a member.

    Names are compared with the tar's headers anyhow, so two of one digest do no harm.
    """

    def __init__(self, members: Iterable[tuple[str, _Place]]) -> None:
        digests, places = array("Q"), array("q")
        for name, place in members:
            digests.append(_digest_name(name))
            places.extend(place)
        order = np.argsort(np.asarray(digests), kind="stable")
        self._digests: npt.NDArray[np.uint64] = np.asarray(digests)[order]
        self._places: npt.NDArray[np.int64] = np.asarray(places).reshape(-1, 3)[order]

    def __len__(self) -> int:
        return len(self._digests)

    def find(self, name: str) -> list[_Place]:
        """Return where a member of this name may be, the last in the shard first: that is the one that counts."""
        digest = np.uint64(_digest_name(name))
        first, stop = self._digests.searchsorted(digest, "left"), self._digests.searchsorted(digest, "right")
        return [_Place(*place) for place in self._places[first:stop].tolist()[::-1]]


def _digest_name(name: str) -> int:
    return xxhash.xxh3_64_intdigest(name.encode("utf-8", "surrogateescape"))


class Shard:
    """An open shard, for any number of threads.

    It is closed when nobody holds it any more, so that one thread may forget what another is reading.
    """

    def __init__(self, path: str, file: int, state: os.stat_result) -> None:
        self.path, self.size, self.identity = path, state.st_size, _identify(state)
        self._file = file
        self._lock = threading.Lock()
        self._of_table: _Index | None = None
        self._of_scan: _Index | None = None
        self._is_whole = True

    def __del__(self) -> None:
        os.close(self._file)

    def read(self, name: str, count: int | None = None) -> tuple[memoryview, int]:
        """Return a member's content, or no more than the first `count` bytes of it, and the size of all."""
        for find_index in (self._index_by_table, self._index_by_scan):
            for place in find_index().find(name):
                found = self._read_at(place, name, count)
                if found is not None:
                    return found
        raise self._describe_missing(name)

    def _read_at(self, place: _Place, name: str, count: int | None) -> tuple[memoryview, int] | None:
        """Return what `read` does if the member is at a place, None if something else is."""
        length = min(place.end, place.offset + (READ_BYTES if count is None else count)) - place.start
        piece = self._read_bytes(place.start, length)
        found = _check_headers(piece, place.offset - place.start, name)
        if found is None:
            return None
        header, size = found
        start, wanted = place.start + header, size if count is None else min(size, count)
        data = piece[header : header + wanted]
        if len(data) < wanted:
            data = self._read_bytes(start, wanted)
        # The file may also have been cut off since it was opened.
        if len(data) < wanted or start + size > self.size:
            expected, there = f"a shard of {start + size:,} bytes at least", os.fstat(self._file).st_size
            raise InputError(f"{self.path}/{name}", expected, f"{there:,} bytes", _REMAKE)
        return data, size

    def _read_bytes(self, start: int, length: int) -> memoryview:
        """Return bytes of the shard, fewer only where it ends before."""
        length = max(0, min(length, self.size - start))
        data = np.empty(length, np.uint8).data
        done = 0
        try:
            while done < length:
                count = os.preadv(self._file, [data[done:]], start + done)
                if not count:
                    break
                done += count
        except OSError as error:
            raise describe_os_error(error, self.path) from None
        return data[:done]

    def _index_by_table(self) -> _Index:
        with self._lock:
            if self._of_table is None:
                self._of_table = self._read_table()
            return self._of_table

    def _index_by_scan(self) -> _Index:
        with self._lock:
            if self._of_scan is None:
                self._of_scan = self._scan()
            return self._of_scan

    def _read_table(self) -> _Index:
        """Return what the table beside the shard says, if there is one and it says something."""
        path = Path(self.path)
        dataset = dataset_of_shard(path.name)
        table = path.with_name(f"{dataset}{TABLE_SUFFIX}")
        if dataset is None or not table.is_file():
            return _Index([])
        try:
            patches, offsets = read_shard_places(table, path.name)
        except InputError:  # whoever needs the table will tell; the shard can do without
            return _Index([])
        names = [f"{patch}{MEMBER_SUFFIX}" for patch in patches]
        starts = [offset - _header_bytes(name) for name, offset in zip(names, offsets, strict=True)]
        # A member ends where the next begins.
        ends = dict(itertools.pairwise([*sorted({*starts}), self.size]))
        places = map(_Place, starts, offsets, (ends[start] for start in starts))
        return _Index((name, place) for name, place in zip(names, places, strict=True) if 0 <= place.start < place.end)

    def _scan(self) -> _Index:
        """Return where the members are, by reading every header; note whether the tar is whole."""
        with os.fdopen(os.dup(self._file), "rb") as file:
            file.seek(0)
            try:
                with tarfile.open(fileobj=file, mode="r:") as tar:
                    return _Index(self._iter_members(tar))
            except _TAR_DAMAGE as error:
                found = "an empty file" if not self.size else f"data of another kind ({error})"
                raise InputError(self.path, "an uncompressed tar of patches", found, _REMAKE) from None
            except OSError as error:
                raise describe_os_error(error, self.path) from None

    def _iter_members(self, tar: tarfile.TarFile) -> Iterator[tuple[str, _Place]]:
        reached = -1
        try:
            while (member := tar.next()) is not None:
                tar.members.clear()  # type: ignore[attr-defined]  # it would keep them all
                # A damaged size may be negative, and lead round in a circle.
                if member.size < 0 or member.offset_data <= reached:
                    self._is_whole = False
                    return
                reached = member.offset_data
                if _is_plain_file(member):
                    yield _plain_name(member.name), _Place(member.offset, reached, reached + member.size)
        except _TAR_DAMAGE:
            self._is_whole = False
            return
        # tarfile takes a damaged header for the end; a tar's true end is an empty block.
        self._is_whole = bytes(self._read_bytes(tar.offset, BLOCK)) == PADDING

    def _describe_missing(self, name: str) -> InputError:
        count = f"{len(self._index_by_scan()):,}"
        if self._is_whole:
            found, advice = f"no such member among its {count}", "check the path list, or cut its section again"
            return InputError(f"{self.path}/{name}", "a patch in a shard", found, advice)
        found = f"one that is cut off or damaged after {count} members, without this one"
        return InputError(f"{self.path}/{name}", "a complete shard", found, _REMAKE)


def _check_headers(piece: memoryview, length: int, name: str) -> tuple[int, int] | None:
    """Return how long the headers are that a piece of a tar begins with, and their member's size.

    None if they are not those of a file of this name. `length` is how long they should be.
    """
    try:
        size = int(bytes(piece[length - BLOCK :][SIZE_FIELD]).rstrip(b" \0"), 8)
        if size >= 0 and bytes(piece[:length]) == make_header(name, size):
            return length, size
    except ValueError:
        pass
    # Ours are the same to the last bit. What other programs write tarfile can tell.
    try:
        with tarfile.open(fileobj=io.BytesIO(piece), mode="r:") as tar:
            member = tar.next()
    except (*_TAR_DAMAGE, OSError):
        return None
    if member is None or _plain_name(member.name) != name or not _is_plain_file(member):
        return None
    return member.offset_data, member.size


def _is_plain_file(member: tarfile.TarInfo) -> bool:
    return member.isreg() and not member.issparse() and member.size >= 0


def _plain_name(name: str) -> str:
    # As `tar -c .` writes them.
    return name.removeprefix("./")


def _header_bytes(name: str) -> int:
    return BLOCK if name.isascii() and len(name) <= NAME_BYTES else len(make_header(name, 0))


def _identify(state: os.stat_result) -> tuple[int, int, int, int]:
    return state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns


_kept: OrderedDict[str, Shard] = OrderedDict()
_kept_lock = threading.Lock()


def _open_shard(path: str, name: str) -> Shard | None:
    """Return a shard, the one open already unless it was changed or replaced; None if a directory has its name."""
    try:
        state = os.stat(path)  # noqa: PTH116  (a Path for each of millions would take longer than the call)
        if stat.S_ISDIR(state.st_mode):
            return None
        if not stat.S_ISREG(state.st_mode):
            raise InputError(path, "a shard", "a pipe, a socket or a device", "check the path list")
        with _kept_lock:
            shard = _kept.get(path)
            if shard is None or shard.identity != _identify(state):
                file = os.open(path, os.O_RDONLY)
                shard = _kept[path] = Shard(path, file, os.fstat(file))
            _kept.move_to_end(path)
            while len(_kept) > SHARDS_KEPT:
                _kept.popitem(last=False)
        return shard
    except FileNotFoundError:
        advice = "check the path; if it was moved, say so with --reroot OLD NEW"
        raise InputError(f"{path}/{name}", "a patch in a shard", "no such shard", advice) from None
    except OSError as error:
        raise describe_os_error(error, path) from None
