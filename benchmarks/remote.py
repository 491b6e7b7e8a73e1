"""Measure fetching a volume from a server that takes its time, against asking for one chunk after another.

A server on 127.0.0.1, in a process of its own, waits before each answer as one far away would. The loop reads the
chunks one by one through the same handle. Both are checked against the voxels that were written. The peak is that of
the fetching process (VmHWM of /proc, so Linux only), of a volume larger than what may be under way.

Reads:   nothing
Writes:  the generated volume, in a temporary directory that is removed
Example: python benchmarks/remote.py --delay 0.05
"""

from __future__ import annotations

import argparse
import functools
import http.server
import itertools
import multiprocessing
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import tensorstore
from history import add_flags, compare
from measuring import MIB

from emcurate.addresses import parse_address
from emcurate.running.report import Report
from emcurate.volumes.fetched import all_fetched
from emcurate.volumes.formats import chunked, stores
from emcurate.volumes.volume import Volume, open_volume

CHUNK = 64


def serve(directory: str, delay: float, told: multiprocessing.connection.Connection) -> None:
    """Serve a directory, each answer after a delay; tell the port."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            time.sleep(delay)
            super().do_GET()

        def log_message(self, *arguments: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=directory))
    told.send(server.server_port)
    server.serve_forever()


def write_volume(directory: Path, side: int) -> None:
    """Write a cube of noise as one array of Zarr 3."""
    metadata = {"shape": [side] * 3, "data_type": "uint8"}
    metadata["chunk_grid"] = {"name": "regular", "configuration": {"chunk_shape": [CHUNK] * 3}}
    place = {"driver": "file", "path": f"{directory}/cube.zarr/"}
    array = tensorstore.open({"driver": "zarr3", "kvstore": place, "metadata": metadata, "create": True}).result()
    random = np.random.default_rng(0)
    for z in range(0, side, CHUNK):
        array[z : min(z + CHUNK, side)] = random.integers(0, 256, (min(CHUNK, side - z), side, side), dtype=np.uint8)


def forget() -> None:
    """Keep no chunk of what was read before."""
    chunked._open.cache_clear()
    stores.context.cache_clear()


def read_one_by_one(volume: Volume, chunks: int) -> int:
    """Read the first chunks of a volume one after another; return how many bytes these were."""
    grid = itertools.product(*(range(0, side, CHUNK) for side in volume.shape))
    boxes = [tuple(slice(at, at + CHUNK) for at in place) for place in itertools.islice(grid, chunks)]
    return sum(volume.read(*box).nbytes for box in boxes)


def fetch(volume: Volume, scratch: Path, expected: Volume) -> int:
    """Fetch a volume; return how many bytes it has, all of them as they were written."""
    report = Report("benchmark")
    with all_fetched([volume], scratch, report) as copies:
        assert not report.failures, report.failures
        seconds = time.monotonic()
        for z in range(0, volume.shape[0], CHUNK):
            assert np.array_equal(copies[0].read(slice(z, z + CHUNK)), expected.read(slice(z, z + CHUNK)))
        fetch.checking = time.monotonic() - seconds  # type: ignore[attr-defined]
    return volume.size


def peak_bytes() -> int:
    """Return the most memory that this process has had."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM"))


def main() -> int:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=640, help="voxels along each side (default: 640, 1000 chunks)")
    parser.add_argument("--delay", type=float, default=0.05, help="seconds before each answer (default: 0.05)")
    parser.add_argument("--loop", type=int, default=100, help="chunks that the loop reads (default: 100)")
    add_flags(parser)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="emcurate-bench-remote") as name:
        directory = Path(name)
        write_volume(directory, arguments.side)
        here, there = multiprocessing.Pipe()
        server = multiprocessing.get_context("spawn").Process(
            target=serve, args=(name, arguments.delay, there), daemon=True
        )
        server.start()
        try:
            address = parse_address(f"http://127.0.0.1:{here.recv()}/cube.zarr")
            assert address is not None
            volume, expected = open_volume(address), open_volume(directory / "cube.zarr")
            rates: dict[str, float] = {}
            print(f"{arguments.side}^3 uint8 in chunks of {CHUNK}^3, {arguments.delay * 1000:g} ms before each answer")
            print(f"{'':24}{'MiB':>8}{'seconds':>9}{'MiB/s':>8}{'speed':>8}")
            for what in ("one chunk after another", "fetched ahead"):
                forget()
                start = time.monotonic()
                is_loop = not rates
                size = read_one_by_one(volume, arguments.loop) if is_loop else fetch(volume, directory, expected)
                seconds = time.monotonic() - start - (0 if is_loop else fetch.checking)  # type: ignore[attr-defined]
                rates[what] = rate = size / seconds
                base = next(iter(rates.values()))
                print(f"{what:24}{size / MIB:8.0f}{seconds:9.1f}{rate / MIB:8.1f}{rate / base:7.1f}x")
            print(f"peak memory: {peak_bytes() / MIB:.0f} MiB")
        finally:
            server.kill()
            server.join()
    loop, ahead = rates.values()
    compare("remote", f"{arguments.side}^3 uint8, {arguments.delay:g} s", {"fetched ahead": ahead / loop}, arguments)
    return 0


if __name__ == "__main__":
    sys.exit(main())
