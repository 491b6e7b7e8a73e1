"""The checkpoint of a training: all that is needed to go on after its last finished epoch, in one file.

It is written anew after each epoch, in one step, and the digest of its content stands before it: PyTorch reads tensors
with flipped bits without a word, and a training that went on from such ones would be another.
"""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from emcurate.classifier.network import load_plain
from emcurate.errors import InputError, describe_os_error
from emcurate.files import make_output_directory, read_regular
from emcurate.outputs import digest_bytes
from emcurate.running.report import Report
from emcurate.writing import atomic_path

CHECKPOINT_FILE = "checkpoint.pth"

# What the file begins with; a digest and a line feed follow.
_STAMP = b"emcurate checkpoint 1\n"
_HEAD_BYTES = len(_STAMP) + len(digest_bytes(b"")) + 1


@dataclass
class Checkpoint:
    """Where a training keeps how far it has come, and what an interrupted one has kept there.

    Parameters
    ----------
    path : Path
        The file.
    run_id : str
        Changes whenever the training would be another one.
    saved : dict, optional
        What was found there: tensors and plain values by name, for this very training.
    """

    path: Path
    run_id: str
    saved: dict[str, Any] | None = None

    def save(self, content: dict[str, Any]) -> None:
        """Replace what is kept."""
        buffer = io.BytesIO()
        torch.save({"run_id": self.run_id, **content}, buffer)
        data = buffer.getbuffer()
        with atomic_path(self.path) as partial, open(partial, "wb") as file:
            file.write(_STAMP + digest_bytes(data).encode() + b"\n")
            file.write(data)


def open_checkpoint(workdir: Path, run_id: str, resume: bool, overwrite: bool, report: Report) -> Checkpoint:
    """Return the checkpoint of a training, with what an interrupted one left.

    A damaged one costs the epochs it stood for and nothing else: the report is warned, and training starts anew.

    Parameters
    ----------
    workdir : Path
        The training's own directory.
    run_id : str
        Changes whenever the training would be another one.
    resume : bool
        Whether to insist on going on.
    overwrite : bool
        Whether to drop the checkpoint of another training.
    report : Report

    Raises
    ------
    InputError
        If there is the checkpoint of another training; or, with `resume`, none to go on from.
    """
    path = make_output_directory(workdir) / CHECKPOINT_FILE
    try:
        saved = read_checkpoint(path)
    except InputError as error:
        if resume:
            raise
        report.warn(f"{path}: expected {error.expected}, found {error.found}; training starts anew")
        path.unlink(missing_ok=True)
        saved = None
    if saved is not None and saved.get("run_id") != run_id:
        if not overwrite:
            raise InputError(
                path,
                "the checkpoint of a training with these labels, settings and device",
                "one of another that was broken off",
                "repeat that one's command, use another output directory, or --overwrite to drop it",
            )
        path.unlink()
        saved = None
    if resume and saved is None:
        raise InputError(path, "a checkpoint to go on from", "none", "leave --resume out to train from the start")
    return Checkpoint(path, run_id, saved)


def read_checkpoint(path: Path) -> dict[str, Any] | None:
    """Return what a checkpoint holds; None where there is no such file.

    Raises
    ------
    InputError
        If the file is not, byte for byte, what was written.
    """
    expected, advice = "the checkpoint as it was written", "leave --resume out to train from the start"
    if not os.path.lexists(path):
        return None
    try:
        content = read_regular(path)
    except OSError as error:
        raise describe_os_error(error, path) from None
    data = memoryview(content)[_HEAD_BYTES:]
    if content[:_HEAD_BYTES] != _STAMP + digest_bytes(data).encode() + b"\n":
        raise InputError(path, expected, "a damaged one, or another version's", advice)
    saved = load_plain(io.BytesIO(data), path, expected, advice)
    if not isinstance(saved, dict):
        raise InputError(path, expected, f"a {type(saved).__name__}", advice)
    return saved
