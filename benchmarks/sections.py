"""Measure cutting one large volume into sections: sections per second and peak memory, against a naive loop.

The volume, unsigned 16-bit in one MRC file, is generated once. The naive loop loads it whole, measures nothing and
scales each section by the same rule; the stage measures first, as always. Each runs in processes of its own; the
peak is that of the largest process (VmHWM of /proc, so Linux only). All must write the same number of sections.

Reads:   nothing
Writes:  the generated volume and sections, in DIR (by default in the system's temporary directory); sections are
         removed again, the volume is kept for the next time
Example: python benchmarks/sections.py --side 1050
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import mrcfile
import numpy as np
from history import add_flags, compare
from measuring import MIB, clear, script, watch_command

NAIVE = """
import sys
from pathlib import Path
import mrcfile, numpy as np, tifffile
source, target, spacing = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
volume = mrcfile.read(source)
for plane in range(3):
    size = volume.shape[plane]
    for index in sorted({*range(0, size, spacing), size - 1}):
        section = np.take(volume, index, axis=plane)
        scaled = np.rint(section * (255 / 65535)).astype(np.uint8)
        tifffile.imwrite(target / f"naive-LOC-{plane}_{index:04d}.tiff", scaled)
"""


def make_volume(path: Path, side: int) -> None:
    """Write a cube of smooth noise, plane by plane, unless it is there."""
    if path.exists():
        return
    random = np.random.default_rng(0)
    texture = random.integers(0, 60_000, (side, side), dtype=np.uint16)
    partial = path.with_name("partial.mrc")
    with mrcfile.new_mmap(partial, (side, side, side), mrc_mode=6, overwrite=True) as file:
        file.voxel_size = 40.0
        for z in range(side):
            file.data[z] = np.roll(texture, (z, 3 * z), (0, 1))
    partial.rename(path)


def measure(command: list[str], savedir: Path) -> tuple[float, int, int]:
    """Run a command that fills `savedir`; return seconds, sections, and the peak memory of its largest process."""
    clear(savedir)
    savedir.mkdir()
    usage = watch_command(command)
    sections = sum(1 for _ in savedir.glob("*.tiff"))
    clear(savedir)
    return usage.seconds, sections, usage.largest


def main() -> int:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=1050, help="voxels along each side (default: 1050, 2.3 GB)")
    parser.add_argument("--spacing", type=int, default=4, help="cut every N-th index (default: 4)")
    parser.add_argument("--dir", type=Path, default=Path(tempfile.gettempdir()) / "emcurate-bench-sections")
    add_flags(parser)
    arguments = parser.parse_args()
    voldir, savedir = arguments.dir / f"volumes-{arguments.side}", arguments.dir / "sections"
    voldir.mkdir(parents=True, exist_ok=True)
    volume = voldir / "cube.mrc"
    make_volume(volume, arguments.side)
    size, spacing = volume.stat().st_size, str(arguments.spacing)
    stage = script("raw/cross_section3d.py", voldir, savedir, "--spacing", spacing, "-p")
    rows = {
        "naive loop, volume in memory": [sys.executable, "-c", NAIVE, str(volume), str(savedir), spacing],
        "cross_section3d -p 1": [*stage, "1"],
        "cross_section3d -p 2": [*stage, "2"],
    }
    print(f"{size / 1e9:.1f} GB, {arguments.side}^3 uint16, every {spacing}th index of each plane")
    print(f"{'':30}{'sections':>9}{'seconds':>9}{'per s':>8}{'speed':>8}{'peak MiB':>10}{'of volume':>11}")
    rates: dict[str, float] = {}
    for name, command in rows.items():
        seconds, sections, peak = measure(command, savedir)
        rates[name] = rate = sections / seconds
        base = next(iter(rates.values()))
        print(f"{name:30}{sections:9}{seconds:9.1f}{rate:8.0f}{rate / base:7.2f}x{peak / MIB:10.0f}{peak / size:10.0%}")
    setup = f"{arguments.side}^3 uint16, every {spacing}th index"
    compare("sections", setup, {name: rate / base for name, rate in list(rates.items())[1:]}, arguments)
    return 0


if __name__ == "__main__":
    sys.exit(main())
