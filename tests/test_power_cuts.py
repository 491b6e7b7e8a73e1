"""After a power cut at any moment a stage goes on, and ends with the bytes of a run that nothing happened to.

Nothing is done that the disk does not have: what the ledger says is finished is there, whole.
"""

import importlib
import random
import shutil

import numpy as np
import pytest
import tifffile
from PIL import Image

from emcurate import partials
from emcurate.running import ledger as ledgers
from tests.kills import killed_after, tree
from tests.power import check_noted, on_disk
from tests.textures import make_texture

MOMENTS = 6  # of each stage's dozens, at which the power is cut here


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    root = tmp_path_factory.mktemp("power")
    for directory in ("images", "volumes"):
        (root / directory).mkdir()
    for number in range(8):
        Image.fromarray(make_texture((1, 40, 50), seed=number)[0]).save(root / "images" / f"i{number}.png")
    voxels = make_texture((18, 33, 34)).astype(np.uint16) * 200
    tifffile.imwrite(root / "volumes" / "fly.tif", voxels, imagej=True)
    main("raw.cross_section3d", root / "volumes", root / "sections", "-s", "4", "-p", "1")
    main("raw.crop_patches", root / "sections", root / "patches", "-cs", "16", "-p", "1")
    return root


def main(stage, *arguments):
    return importlib.import_module(stage).main([str(word) for word in arguments])


STAGES = {
    "cleanup2d": ("raw.cleanup2d", "images", ()),
    "cross_section3d": ("raw.cross_section3d", "volumes", ("-s", "4")),
    "files": ("raw.crop_patches", "sections", ("-cs", "16")),
    "hashes": ("raw.crop_patches", "volumes", ("-cs", "16", "-s", "4", "--from-volumes", "--hashes-only")),
    "shards": ("raw.crop_patches", "sections", ("-cs", "16", "--store", "tar", "--shard-size", "9")),
    "deduplicate": ("deduplicated.deduplicate", "patches", ("-d", "4")),
}


@pytest.fixture(autouse=True)
def every_input_is_noted_at_once_and_partial_files_are_those_of_dead_processes(monkeypatch):
    monkeypatch.setattr(ledgers, "NOTED_SECONDS", -1.0)
    monkeypatch.setattr(partials, "_is_dead", lambda match, alone: True)


@pytest.mark.parametrize("name", STAGES)
def test_what_is_noted_is_on_the_disk_and_the_next_run_makes_the_rest(corpus, tmp_path, name):
    stage, source, flags = STAGES[name]
    out, whole = tmp_path / "out", tmp_path / "whole"

    def run(directory):
        return main(stage, corpus / source, directory, *flags, "-p", "1")

    with killed_after(np.inf) as changes:
        assert run(whole) == 0
    expected = tree(whole)
    for moment in random.Random(0).sample(range(1, len(changes)), MOMENTS):
        out.mkdir()
        with on_disk(out) as disk, killed_after(moment):
            run(out)
        disk.cut_power()
        check_noted(out)
        assert run(out) == 0
        assert tree(out) == expected
        shutil.rmtree(out)


@pytest.mark.parametrize("name", STAGES)
def test_a_finished_run_survives_a_power_cut_whole(corpus, tmp_path, name):
    stage, source, flags = STAGES[name]
    out = tmp_path / "out"
    out.mkdir()
    with on_disk(out) as disk:
        assert main(stage, corpus / source, out, *flags, "-p", "1") == 0
        expected = tree(out)
    disk.cut_power()
    assert expected.items() <= tree(out).items()  # what was removed last may be back
    assert main(stage, corpus / source, out, "--verify") == 0
    assert main(stage, corpus / source, out, *flags, "-p", "1") == 0
    assert tree(out) == expected


def test_without_waiting_the_disk_is_never_waited_for(corpus, tmp_path, monkeypatch):
    from emcurate import durability

    monkeypatch.setattr(durability._Wanted, "value", True)
    out = tmp_path / "out"
    out.mkdir()
    with on_disk(out) as disk:
        before = disk.syncs
        assert main("raw.cleanup2d", corpus / "images", out, "-p", "1", "--no-sync") == 0
        assert disk.syncs == before
