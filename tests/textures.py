"""Pictures to test with."""

import cv2
import numpy as np
import tifffile


def make_texture(shape, seed=0):
    """Tissue of a kind on the left half, empty resin on the right: (z, y, x) uint8."""
    noise = np.random.default_rng(seed).normal(0, 1, shape).astype(np.float32)
    smooth = np.stack([cv2.GaussianBlur(plane, (0, 0), 3) for plane in noise])
    pixels = np.where(smooth > 0, 180, 60).astype(np.uint8)
    pixels[..., shape[-1] // 2 :] = 220
    return pixels


def write_sections(directory, count, shape, datasets):
    """Write sections of volumes as textures into a directory, one of each dataset in turn; return the directory."""
    for number in range(count):
        dataset = datasets[number % len(datasets)]
        pixels = make_texture((1, *shape), seed=number)[0]
        tifffile.imwrite(directory / f"{dataset}-LOC-0_{number:02d}.tiff", pixels, photometric="minisblack")
    return directory
