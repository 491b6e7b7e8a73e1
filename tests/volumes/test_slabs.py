import nrrd
import numpy as np
import pytest

from emcurate.images.pixels import Limits
from emcurate.volumes import slabs
from emcurate.volumes.slabs import Slab, separate_sections, suits_threads
from emcurate.volumes.volume import open_volume


@pytest.fixture
def volume(tmp_path):
    voxels = np.random.default_rng(0).integers(0, 256, (12, 17, 23), np.uint8)
    nrrd.write(str(tmp_path / "cell.nrrd"), voxels, {"encoding": "raw"}, index_order="C")
    return voxels, open_volume(tmp_path / "cell.nrrd")


@pytest.mark.parametrize("plane", [0, 1, 2])
@pytest.mark.parametrize("indices", [[5], [0, 3, 6, 9], [0, 3, 9], [1, 2, 7, 11], range(2, 11, 4)])
def test_sections_are_the_voxels_at_their_indices_whatever_lies_between(volume, plane, indices):
    voxels, opened = volume
    cut = list(Slab(opened, plane, indices, Limits(0, 255)).sections())
    assert [section.index for section, _ in cut] == list(indices)
    for section, pixels in cut:
        assert np.array_equal(pixels, np.take(voxels, section.index, plane))


@pytest.mark.parametrize("plane", [0, 1, 2])
def test_sections_lie_row_by_row_in_memory(volume, plane):
    for section in separate_sections(volume[0], plane):
        assert section.flags.c_contiguous


def test_threads_are_for_a_little_that_is_mapped(volume, tmp_path, monkeypatch):
    packed = tmp_path / "packed.nrrd"
    nrrd.write(str(packed), volume[0], {"encoding": "gzip"}, index_order="C")
    assert suits_threads([volume[1]])
    assert not suits_threads([volume[1], open_volume(packed)])
    monkeypatch.setattr(slabs, "THREADED_BYTES", 2 * volume[0].size - 1)
    assert not suits_threads([volume[1], volume[1]])
