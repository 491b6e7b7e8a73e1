"""Neuroglancer's precomputed volumes, sharded or not; see `volume.md` in github.com/google/neuroglancer.

Their axes are x, y, z and channel, their sizes nanometres. Voxels are counted from the volume's first one, whatever its
`voxel_offset`. A chunk that is not there is 0, as Neuroglancer and tensorstore show it.
"""

from __future__ import annotations

import gzip
import hashlib
import itertools
import json
import math
import zlib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from emcurate.errors import DAMAGE, InputError, describe_damage
from emcurate.files import is_there, open_regular
from emcurate.volumes.formats.arrays import ArrayHeader, Axis, pick_level, take_volume
from emcurate.volumes.formats.chunked import Chunks
from emcurate.volumes.formats.stores import MOST_JSON_BYTES, Files, look_over, store_of, tensorstore
from emcurate.volumes.layouts import COPY_AGAIN, Opened, checked_voxel_size
from emcurate.volumes.views import View

INFO = "info"
_VOLUME = "neuroglancer_multiscale_volume"
_AXES = ("x", "y", "z", "c")

# How many times its voxels' bytes a chunk may have, and bytes beside: encodings have headers, and pack noise badly.
MOST_ENCODED, HEADER_BYTES = 2, 1 << 20

# What cloud-volume appends to the names of chunks that it packs, where files have no header to say so.
GZIPPED = ".gz"


@dataclass(frozen=True)
class GzippedChunks(Chunks):
    """Chunks in files here that were packed with gzip, and say so by their names."""

    def ask(self, z: slice, y: slice, x: slice) -> Any:
        """Return a future of the voxels of a box, of which the chunks are unpacked first."""
        ts = tensorstore()
        root = Path(self.store.root, self.key)
        with open_regular(root / INFO) as file:
            metadata = file.read()
        scale = json.loads(metadata)["scales"][self.scale or 0]
        context = ts.Context()
        memory = ts.KvStore.open({"driver": "memory"}, context=context).result()
        memory.write(INFO, metadata).result()
        parts = {
            axis: range(*part.indices(side)) for axis, part, side in zip("zyx", (z, y, x), self.shape, strict=True)
        }
        voxels = math.prod(scale["chunk_sizes"][0]) * math.prod(self.stored_shape[len(parts) :])
        most_bytes = MOST_ENCODED * voxels * self.dtype.itemsize + HEADER_BYTES
        spans = []
        for number, axis in enumerate("xyz"):
            size, step, first = scale["size"][number], scale["chunk_sizes"][0][number], self.origin[number]
            wanted = parts[axis]
            starts = range(wanted[0] // step * step, wanted[-1] + 1, step) if wanted else ()
            spans.append([f"{first + at}-{first + min(at + step, size)}" for at in starts])
        for names in itertools.product(*spans):
            key = f"{scale['key']}/{'_'.join(names)}"
            packed = root / (key + GZIPPED)
            if is_there(packed):
                memory.write(key, _unpack(packed, most_bytes)).result()
            elif is_there(root / key):
                with open_regular(root / key) as file:
                    memory.write(key, file.read(most_bytes)).result()
        specification = {"driver": self.driver, "kvstore": {"driver": "memory"}, "scale_index": self.scale}
        opened = ts.open(specification, open=True, read=True, context=context).result()
        index: list[Any] = [start + chosen for start, chosen in zip(self.origin, self.index, strict=True)]
        for place, name in zip(self.axes, "zyx", strict=True):
            part, offset = parts[name], self.origin[place]
            index[place] = slice(offset + part.start, offset + max(part.start, part.stop), part.step)
        return opened[tuple(index)].read()


def open_voxels(path: Path, view: View = View()) -> Opened:
    """Open a level of a precomputed volume in a directory; read metadata only.

    Raises
    ------
    InputError
        If it is none, has several channels of which none is chosen, or leads out of its directory.
    """
    store, key = store_of(path)
    return open_files(Files(store), key, view)


def is_info(path: Path) -> bool:
    """Return whether a file called info is that of a volume: anything may be called so."""
    try:
        with open_regular(path) as file:
            found = json.loads(file.read(MOST_JSON_BYTES))
    except (InputError, OSError, ValueError, RecursionError):
        return False
    return isinstance(found, dict) and found.get("@type", _VOLUME) == _VOLUME and "scales" in found


def open_files(files: Files, key: str, view: View) -> Opened:
    """Open what lies in a directory of a store, as `open_voxels` does."""
    place = files.store.place
    try:
        info = files.read_json(f"{key}/{INFO}" if key else INFO)
        if info is None or not isinstance(info.get("scales"), list) or not info["scales"]:
            found = "none" if info is None else f"one of {info.get('@type', 'something else')}"
            raise InputError(place, "a precomputed volume's file info", found, "name the directory that has it")
        scales = info["scales"]
        sizes = [checked_voxel_size((z, y, x)) for scale in scales for x, y, z in [scale.get("resolution", (0, 0, 0))]]
        level = pick_level(place, view, sizes, [str(scale["key"]) for scale in scales])
        scale = scales[level]
        directory = files.store.join(key, scale["key"])
        channels = int(info["num_channels"])
        shape = (*(int(side) for side in scale["size"]), channels)
        origin = (*(int(start) for start in scale.get("voxel_offset", (0, 0, 0))), 0)
        state = hashlib.sha256(json.dumps(info, sort_keys=True).encode()).hexdigest()
        dtype = np.dtype(str(info["data_type"]).lower())
        header = ArrayHeader("neuroglancer_precomputed", shape, dtype, True, (), state, origin, level, directory)
        axes = [Axis(name, None) for name in _AXES]
        voxels = take_volume(files, key, header, axes, view, COPY_AGAIN)
        if not files.store.is_remote and any(name.endswith(GZIPPED) for name in look_over(files.store, directory)):
            voxels = GzippedChunks(**{item.name: getattr(voxels, item.name) for item in fields(Chunks)})
        return Opened(voxels, sizes[level], len(scales))
    except DAMAGE as error:
        if isinstance(error, OSError):
            raise
        raise describe_damage(error, place, "the info of a precomputed volume", COPY_AGAIN) from None


def _unpack(path: Path, most_bytes: int) -> bytes:
    with open_regular(path) as file:
        try:
            data = gzip.GzipFile(fileobj=file).read(most_bytes + 1)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise describe_damage(error, path, "a chunk packed with gzip", COPY_AGAIN) from None
    if len(data) > most_bytes:
        raise InputError(path, f"a chunk of at most {most_bytes:,} bytes", "more", "do not trust it")
    return data
