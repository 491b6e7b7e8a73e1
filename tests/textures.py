"""Pictures to test with."""

import cv2
import numpy as np


def make_texture(shape, seed=0):
    """Tissue of a kind on the left half, empty resin on the right: (z, y, x) uint8."""
    noise = np.random.default_rng(seed).normal(0, 1, shape).astype(np.float32)
    smooth = np.stack([cv2.GaussianBlur(plane, (0, 0), 3) for plane in noise])
    pixels = np.where(smooth > 0, 180, 60).astype(np.uint8)
    pixels[..., shape[-1] // 2 :] = 220
    return pixels
