"""Patches are read in batches, resized as the published weights expect, and bad ones named."""

import numpy as np
import pytest
import torch

from emcurate.classifier.batches import BatchJobs, read_batch, resize_patch
from emcurate.images.sections import write_section


def test_batches_hold_the_chosen_positions_in_order():
    paths = [f"{number}.tiff" for number in range(10)]
    jobs = BatchJobs(paths, np.array([1, 4, 5, 7, 9]), 2, 32)
    assert len(jobs) == 3
    assert [job.paths for job in jobs] == [("1.tiff", "4.tiff"), ("5.tiff", "7.tiff"), ("9.tiff",)]
    assert [job.positions.tolist() for job in jobs[1:]] == [[5, 7], [9]]
    with pytest.raises(IndexError):
        jobs[3]


def test_bad_patches_are_left_out_and_named(tmp_path):
    good = np.arange(32 * 32, dtype=np.uint8).reshape(32, 32)
    write_section(tmp_path / "good.tiff", good)
    (tmp_path / "bad.tiff").write_bytes(b"II*\0")
    (tmp_path / "directory.tiff").mkdir()
    names = ["bad.tiff", "good.tiff", "missing.tiff", "directory.tiff"]
    batch = read_batch(BatchJobs([str(tmp_path / name) for name in names], np.arange(4), 4, 32)[0])
    assert batch.positions.tolist() == [1]
    np.testing.assert_array_equal(batch.pixels, good[None])
    assert [error.split(":")[0] for error in batch.errors] == [str(tmp_path / n) for n in names if n != "good.tiff"]


def test_a_batch_of_nothing_but_bad_patches_is_empty(tmp_path):
    batch = read_batch(BatchJobs([str(tmp_path / "none.tiff")], np.arange(1), 4, 32)[0])
    assert batch.pixels.shape == (0, 32, 32)


@pytest.mark.parametrize("shape", [(224, 224), (100, 60), (300, 224), (1, 1), (448, 448)])
def test_resizing_is_bilinear_without_antialiasing(shape):
    patch = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    resized = resize_patch(patch, 224)
    assert (resized.shape, resized.dtype) == ((224, 224), np.uint8)
    source = torch.from_numpy(patch)[None, None].double()
    expected = torch.nn.functional.interpolate(source, (224, 224), mode="bilinear", antialias=False)[0, 0].numpy()
    # OpenCV's weights are fractions of 2048 and its result is rounded.
    assert np.abs(resized - expected).max() <= 1
