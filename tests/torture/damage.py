"""Ways to break a good file: cut it off where structures begin, flip bits, put absurd numbers where numbers stand."""

import numpy as np

# Written over numbers, in both byte orders and several widths.
ABSURD = (0, 1, 0x7F, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0x7FC00000, 0x7F800000)

CUT, FLIP = "cut", "flip"


def cut_off(data, points, rng=None, count=None):
    """Yield (what, damaged data) for a file cut off at structural points and at others that say much."""
    size = len(data)
    usual = {0, 1, 2, 3, 4, 8, 16, 100, size // 4, size // 2, size * 3 // 4, size - 100, size - 8, size - 2, size - 1}
    lengths = sorted({length for length in {*usual, *points, *(p + 1 for p in points)} if 0 <= length < size})
    if rng is not None and count is not None and count < len(lengths):
        lengths = sorted(rng.choice(lengths, count, replace=False).tolist())
    for length in lengths:
        yield f"cut off after {length} of {size} bytes", data[:length]


def flip(data, points, rng, count):
    """Yield (what, damaged data) with flipped bits, absurd numbers, zeroed and inserted stretches."""
    size = len(data)
    if not size:
        return
    near = [place for point in points for place in range(point, min(point + 8, size))] or [0]
    for _ in range(count):
        # Half of them where structures begin, a quarter in the first bytes, the rest anywhere.
        where = rng.choice([rng.choice(near), rng.choice(near), rng.integers(min(size, 256)), rng.integers(size)])
        where = int(where)
        damaged = bytearray(data)
        match rng.integers(6):
            case 0 | 1:
                bit = int(rng.integers(8))
                damaged[where] ^= 1 << bit
                what = f"bit {bit} of byte {where} flipped"
            case 2 | 3:
                width, order = int(rng.choice([1, 2, 4, 8])), str(rng.choice(["little", "big"]))
                number = int(rng.choice(ABSURD)) & ((1 << 8 * width) - 1)
                damaged[where : where + width] = number.to_bytes(width, order)
                what = f"{number:#x} ({width} bytes, {order}) at byte {where}"
            case 4:
                length = int(rng.integers(1, 64))
                damaged[where : where + length] = bytes(min(length, size - where))
                what = f"{length} zeros at byte {where}"
            case _:
                noise = rng.bytes(int(rng.integers(1, 40)))
                damaged[where:where] = noise
                what = f"{len(noise)} bytes inserted at byte {where}"
        yield what, bytes(damaged)


def seeded(seed, *words):
    """Return a generator of random numbers that depends on a seed and on words, not on what was drawn before."""
    return np.random.default_rng([seed, *(sum(word.encode()) + len(word) * 1009 for word in words)])
