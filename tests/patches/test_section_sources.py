"""Sections in a directory are cut by threads where none has to be decoded and they are few."""

import os

import numpy as np
import pytest
import tifffile

from emcurate.images.sections import write_section
from emcurate.patches import section_files
from emcurate.patches.section_files import DirectoryOfSections
from emcurate.running.report import Report

RNG = np.random.default_rng(0)


@pytest.fixture
def directory(tmp_path):
    for dataset in ("ant", "bee"):
        for z in range(3):
            write_section(tmp_path / f"{dataset}-LOC-0_{z}.tiff", RNG.integers(0, 256, (40, 50)).astype(np.uint8))
    return tmp_path


def open_directory(directory):
    report = Report("test")
    material = DirectoryOfSections(directory, report)
    assert len(material.sections) == 6 and not report.failures
    return material


def test_sections_of_ours_suit_threads(directory):
    assert open_directory(directory).suits_threads(["ant", "bee"])


def test_many_pixels_suit_processes(directory, monkeypatch):
    monkeypatch.setattr(section_files, "THREADED_PIXELS", 3 * 40 * 50)
    material = open_directory(directory)
    assert material.suits_threads(["ant"]) and not material.suits_threads(["ant", "bee"])


@pytest.mark.parametrize("change", ["compressed", "cut off", "gone"])
def test_what_has_to_be_decoded_suits_processes(directory, change):
    path = directory / "bee-LOC-0_1.tiff"
    material = open_directory(directory)
    if change == "compressed":
        tifffile.imwrite(path, np.zeros((40, 50), np.uint8), compression="zlib")
    elif change == "cut off":
        os.truncate(path, 1000)
    else:
        path.unlink()
    assert material.suits_threads(["ant"]) and not material.suits_threads(["ant", "bee"])
