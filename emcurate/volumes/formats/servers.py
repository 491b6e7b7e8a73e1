"""Volumes on servers: of which format one is, as its metadata tell, and what changes when it does."""

from __future__ import annotations

from collections.abc import Callable

from emcurate.addresses import N5, PRECOMPUTED, ZARR, Address
from emcurate.errors import InputError
from emcurate.outputs import digest_bytes
from emcurate.volumes.formats import n5, ome_zarr, precomputed
from emcurate.volumes.formats.chunked import Chunks
from emcurate.volumes.formats.stores import LOOK_THERE, Files, read_tag, store_of
from emcurate.volumes.layouts import Opened
from emcurate.volumes.views import View

# The files of each format's metadata, and what opens it.
SIGNS = {ZARR: ome_zarr.METADATA, PRECOMPUTED: (precomputed.INFO,), N5: (n5.ATTRIBUTES,)}
OPENERS: dict[str, Callable[[Files, str, View], Opened]] = {
    ZARR: ome_zarr.open_files,
    PRECOMPUTED: precomputed.open_files,
    N5: n5.open_files,
}

# Chunks of which a server is asked whether they have changed.
CHUNKS_TAGGED = 4

# File formats, of which nothing is read from servers.
_FILES = (".h5", ".hdf5", ".ims", ".tif", ".tiff", ".mrc", ".nrrd", ".nii", ".nii.gz", ".zip", ".czi", ".rec", ".map")


def open_voxels(address: Address, view: View = View()) -> Opened:
    """Open a volume on a server; read metadata only.

    Raises
    ------
    InputError
        If there is none, the server refuses or does not answer, or it is not known which of several formats is meant.
    """
    store, key = store_of(address)
    return open_files(Files(store), key, view, address)


def fingerprint(address: Address, view: View = View()) -> str:
    """Return what changes when a volume on a server does, as far as that tells.

    It comes from its metadata, and from what the server says of these and of a few chunks: their ETag, or else the time
    of their last change, and their length. That a chunk has changed which is none of these few is not noticed.

    Raises
    ------
    InputError
        As `open_voxels`.
    """
    store, key = store_of(address)
    files = Files(store)
    voxels = open_files(files, key, view, address).voxels
    tags = ""
    if isinstance(voxels, Chunks):
        tags = "\n".join(read_tag(store, name) for name in voxels.sample_files(CHUNKS_TAGGED))
    return f"metadata {files.digest()}, chunks {digest_bytes(tags.encode())[:16]}"


def open_files(files: Files, key: str, view: View, address: Address) -> Opened:
    """Open what lies at an address, of which the metadata go through `files`."""
    if address.url.partition("?")[0].lower().endswith(_FILES):
        found, advice = (
            "a single file",
            "download it, and name the file here; only formats of many small files are read there",
        )
        raise InputError(address, "an OME-Zarr, N5 or precomputed volume", found, advice)
    format = address.format or _find_format(files, key, address)
    return OPENERS[format](files, key, view)


def _find_format(files: Files, key: str, address: Address) -> str:
    """Return the format of which there are metadata at an address."""
    prefix = f"{key}/" if key else ""
    files.fetch([prefix + name for names in SIGNS.values() for name in names], is_search=True)
    found = [format for format, names in SIGNS.items() if any(files.has(prefix + name) for name in names)]
    if len(found) == 1:
        return found[0]
    if not found and ".n5" in address.url.lower():  # of which a group needs no file of its own
        return N5
    expected = "the metadata of an OME-Zarr, N5 or precomputed volume"
    if not found:
        looked = ", ".join(name for names in SIGNS.values() for name in names)
        raise InputError(address, expected, f"none of {looked}", LOOK_THERE)
    advice = f"say which is meant, such as {found[0]}://{address}"
    raise InputError(address, expected, f"those of {' and '.join(found)}", advice)
