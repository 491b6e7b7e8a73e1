"""TIFFs with the tags of scanning electron microscopes, in the words and numbers of real ones."""

import numpy as np
import tifffile

FEI_TAG, ZEISS_TAG = 34682, 34118
BAR = 29  # rows of the info bar


def fei_text(columns, rows, pixel=3.3724e-06, bar=BAR):
    """What a Helios writes, cut down to what tells of scale."""
    return (
        "[User]\r\nUser=service\r\n[Beam]\r\nBeam=EBeam\r\nScan=EScan\r\n[EScan]\r\nScan=PIA 3.0\r\n"
        f"PixelWidth={pixel}\r\nPixelHeight={pixel}\r\n[Scan]\r\nPixelWidth={pixel}\r\nPixelHeight={pixel}\r\n"
        f"[Image]\r\nResolutionX={columns}\r\nResolutionY={rows}\r\n[PrivateFei]\r\nDatabarHeight={bar}\r\n"
    )


def zeiss_text(columns, rows, entries):
    """What SmartSEM writes: names in capitals, each before a line of its value."""
    lines = ["0", "0", "0", *entries, "DP_IMAGE_STORE", f"Store resolution = {columns} * {rows}", "DP_IMAGE_SAVED"]
    return "\r\n".join([*lines, "Image saved = Yes", ""])


def write_sem(path, pixels, tag, text):
    """Write an image with a microscope's text in a tag of its own, and the resolution of a screen."""
    data = text.encode("cp1252")
    extra = [(tag, "s", len(data) + 1, data, True)]
    tifffile.imwrite(path, pixels, resolution=(96, 96), resolutionunit="INCH", metadata=None, extratags=extra)


def write_fei(path, pixels, **named):
    """Write an image with an info bar of white below the scan's pixels."""
    barred = np.concatenate([pixels, np.full((BAR, pixels.shape[1]), 255, pixels.dtype)])
    write_sem(path, barred, FEI_TAG, fei_text(pixels.shape[1], pixels.shape[0], **named))
