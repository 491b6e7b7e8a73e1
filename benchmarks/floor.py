"""Write as many bytes as a list says, and nothing else: the least that writing them can take.

LIST has a line a file: its bytes and its name, with a space between. Each is opened, written and closed, in one
process; large ones are written a piece at a time, as a stream is.

Reads:   LIST
Writes:  the files, of zeros, in OUTDIR
Example: python benchmarks/floor.py sizes.txt scratch
"""

import os
import sys

PIECE = 1 << 20  # bytes


def main() -> None:
    listing, outdir = sys.argv[1:]
    zeros = memoryview(bytes(PIECE))
    os.mkdir(outdir)  # noqa: PTH102 - pathlib takes longer to load than some floors take
    os.chdir(outdir)
    with open(listing) as lines:
        for line in lines:
            size, _, name = line.rstrip("\n").partition(" ")
            left = int(size)
            file = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
            while left:
                left -= os.write(file, zeros[: min(left, PIECE)])
            os.close(file)


if __name__ == "__main__":
    main()
