"""A stage that does what stages must not, to see that the torture notices."""

import os
import shutil
import sys
import time
from pathlib import Path


def main(argv):
    """Misbehave in the way that the first argument says; the others are directories of inputs and of results."""
    way, inputs, out = argv[0], *map(Path, argv[1:3])
    out.mkdir(exist_ok=True)
    names = sorted(path.name for path in inputs.iterdir() if path.is_file() and not path.is_symlink())
    names = [name for name in names if name.startswith(("c", "good"))]
    match way:
        case "hang" if any(name.startswith("c") for name in names):
            time.sleep(60)
        case "die" if any(name.startswith("c") for name in names):
            os.kill(os.getpid(), 9)
        case "raise" if any(name.startswith("c") for name in names):
            raise RuntimeError("a bug")
        case "stop at the first":
            broken = next((name for name in names if name.startswith("c")), None)
            if broken:
                print(f"Failed:\n  {inputs / broken}: expected another", file=sys.stderr)
                return 1
        case "say nothing":
            names = [name for name in names if name.startswith("good")]
        case "name all and return 0":
            print("Failed:\n" + "".join(f"  {name}\n" for name in names if name.startswith("c")), file=sys.stderr)
        case "take all as it is":
            pass
        case "eat memory" if any(name.startswith("c") for name in names):
            bytearray(os.urandom(1)) * (300 << 20)
    for name in names:
        shutil.copy(inputs / name, out / name)
    return 0
