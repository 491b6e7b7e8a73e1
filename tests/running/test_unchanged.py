"""An input that is replaced or written over while a run reads it is named, and what came of it counts for nothing."""

import importlib
import os

import mrcfile
import numpy as np
import pytest

from emcurate.addresses import Address
from emcurate.running.unchanged import Unchanged, find_state
from tests.kills import differing, tree
from tests.textures import make_texture, write_sections

crop_patches = importlib.import_module("raw.crop_patches")
cross_section3d = importlib.import_module("raw.cross_section3d")


def write(path, seed):
    with mrcfile.new(path, overwrite=True) as mrc:
        mrc.set_data(make_texture((40, 40, 40), seed=seed).astype(np.int8))


def replace(path, other):
    other.replace(path)


def write_over(path, other):
    with path.open("r+b") as file:
        file.write(other.read_bytes())


CHANGES = {"replaced": replace, "written over": write_over}
STAGES = {
    "files": (crop_patches, "cut", ["--from-volumes", "-cs", "10"]),
    "shards": (crop_patches, "cut", ["--from-volumes", "-cs", "10", "--store", "tar", "--shard-size", "100"]),
    "hashes": (crop_patches, "cut", ["--from-volumes", "-cs", "10", "--hashes-only"]),
    "sections": (cross_section3d, "cut_sections", []),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("name", STAGES)
def test_a_volume_that_changes_while_it_is_read_is_named_and_nothing_counts_as_done(
    tmp_path, monkeypatch, capsys, name, change
):
    stage, function, more = STAGES[name]
    volumes, out = tmp_path / "volumes", tmp_path / "out"
    volumes.mkdir()
    write(volumes / "ant.mrc", 0)
    write(volumes / "bee.mrc", 1)
    write(tmp_path / "other.mrc", 2)
    did, left = getattr(stage, function), [2]

    def disturbed(job):
        left[0] -= 1
        if not left[0]:
            CHANGES[change](volumes / "bee.mrc", tmp_path / "other.mrc")
        return did(job)

    monkeypatch.setattr(stage, function, disturbed)
    command = [str(volumes), str(out), "-p", "1", *more]
    assert stage.main(command) == 1
    err = capsys.readouterr().err
    told = f"{volumes / 'bee.mrc'}: expected the input that this run began with, found that it was changed"
    assert err.count(told) == 1 and "ant" not in err.rpartition("Failed:")[2]
    monkeypatch.undo()
    assert stage.main(command) == 1 and "bee.mrc" in capsys.readouterr().err
    assert stage.main([*command, "--overwrite"]) == 0
    assert stage.main([*command[:1], str(tmp_path / "fresh"), *command[2:]]) == 0
    assert not differing(tree(out), tree(tmp_path / "fresh"))


def test_a_section_that_changes_while_it_is_read_is_named(tmp_path, monkeypatch, capsys):
    (tmp_path / "sections").mkdir()
    sections = write_sections(tmp_path / "sections", 3, (40, 40), ["cell"])
    path = sorted(sections.glob("*.tiff"))[1]
    did = crop_patches.cut

    def disturbed(job):
        done = did(job)
        os.utime(path, (1, 1))
        return done

    monkeypatch.setattr(crop_patches, "cut", disturbed)
    assert crop_patches.main([str(sections), str(tmp_path / "out"), "-cs", "10", "-p", "1"]) == 1
    assert f"{path}: expected the input that this run began with" in capsys.readouterr().err


def test_states_of_what_is_no_file_and_of_files_in_others(tmp_path):
    (tmp_path / "a.h5").write_text("a")
    inside, gone, address = tmp_path / "a.h5::" / "raw", tmp_path / "gone", Address("https://host/volume.zarr")
    watched = Unchanged([inside, gone, address, tmp_path])
    assert find_state(inside) == find_state(tmp_path / "a.h5") is not None
    assert find_state(gone) is None and find_state(address) is None
    assert watched.find_changed([inside, gone, address, tmp_path, tmp_path / "unknown"]) == set()
    (tmp_path / "a.h5").write_text("other")
    gone.write_text("there")
    assert watched.find_changed([inside, gone, address, tmp_path]) == {inside, gone, tmp_path}
