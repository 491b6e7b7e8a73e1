"""A checkpoint gives back what was kept, or says that it is not what was written."""

import os

import numpy as np
import pytest
import torch

from emcurate.classifier.checkpoints import CHECKPOINT_FILE, open_checkpoint, read_checkpoint
from emcurate.errors import InputError
from emcurate.running.report import Report


def keep(directory, run_id="one"):
    checkpoint = open_checkpoint(directory, run_id, False, False, Report("train_nn"))
    checkpoint.save({"fit": {"epoch": 3}, "network": {"a": torch.arange(50.0)}})
    return checkpoint.path


def test_what_was_kept_comes_back(tmp_path):
    keep(tmp_path)
    report = Report("train_nn")
    saved = open_checkpoint(tmp_path, "one", True, False, report).saved
    assert saved["fit"] == {"epoch": 3}
    assert torch.equal(saved["network"]["a"], torch.arange(50.0))
    assert not report.warnings


def test_every_flipped_bit_and_every_cut_is_noticed(tmp_path):
    path = keep(tmp_path)
    whole = path.read_bytes()
    random = np.random.default_rng(0)
    for place in [0, 30, *random.integers(0, len(whole), 60)]:
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << int(random.integers(8))]) + whole[place + 1 :])
        with pytest.raises(InputError, match="a damaged one"):
            read_checkpoint(path)
        path.write_bytes(whole[:place])
        with pytest.raises(InputError, match="a damaged one"):
            read_checkpoint(path)


def test_one_of_another_training_is_dropped_only_when_asked(tmp_path):
    path = keep(tmp_path)
    with pytest.raises(InputError, match="one of another that was broken off"):
        open_checkpoint(tmp_path, "other", False, False, Report("train_nn"))
    assert path.exists()
    assert open_checkpoint(tmp_path, "other", False, True, Report("train_nn")).saved is None
    assert not path.exists()


def test_a_damaged_one_is_dropped_with_a_warning_unless_it_was_insisted_on(tmp_path):
    path = tmp_path / CHECKPOINT_FILE
    path.write_bytes(b"PK\3\4 as an earlier version wrote them")
    with pytest.raises(InputError, match="leave --resume out"):
        open_checkpoint(tmp_path, "one", True, False, Report("train_nn"))
    report = Report("train_nn")
    assert open_checkpoint(tmp_path, "one", False, False, report).saved is None
    assert "training starts anew" in report.warnings[0] and str(path) in report.warnings[0]


@pytest.mark.timeout(20)
def test_a_checkpoint_that_is_a_pipe_is_named_and_not_waited_for(tmp_path):
    path = tmp_path / CHECKPOINT_FILE
    os.mkfifo(path)
    with pytest.raises(InputError, match="a pipe"):
        read_checkpoint(path)
    path.unlink()
    assert read_checkpoint(path) is None
