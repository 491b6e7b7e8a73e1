"""A run that is killed at any moment, in every way of cutting, is finished by the next with the same bytes.

A kill is played inside this process; a real SIGKILL of a run with two workers is a test of its own.
"""

import importlib
import random
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tifffile

from emcurate import partials
from emcurate.patches.pathlists import write_path_list
from emcurate.running import ledger as ledgers
from tests.kills import differing, killed_after, tree
from tests.textures import make_texture, write_sections

crop_patches = importlib.import_module("raw.crop_patches")

FLAGS = ("-cs", "16", "--min-size", "1", "--from-volumes", "-s", "16", "-p", "1")
IN_SHARDS = ("--store", "tar", "--shard-size", "9")
MOMENTS = 8  # of each way's 30 to 180, at which it is killed here


@pytest.fixture(autouse=True)
def partial_files_are_those_of_dead_processes_and_all_is_noted_at_once(monkeypatch):
    monkeypatch.setattr(ledgers, "NOTED_SECONDS", -1.0)
    monkeypatch.setattr(partials, "_is_dead", lambda match, alone: True)


def times(directory):
    return {path: path.stat().st_mtime_ns for path in directory.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Two volumes, and two lists of some of their patches: one of the first volume's alone."""
    root = tmp_path_factory.mktemp("killed")
    (root / "volumes").mkdir()
    of = {"axes": "ZYX", "unit": "nm"}
    small, thick = make_texture((3, 33, 33)), make_texture((3, 33, 50)).astype(np.uint16) * 200
    for name, array, z in (("fly.tif", small, 10), ("wing.tif", thick, 40)):
        metadata = {**of, "spacing": z}
        tifffile.imwrite(root / "volumes" / name, array, imagej=True, resolution=(0.1, 0.1), metadata=metadata)
    assert crop_patches.main([str(root / "volumes"), str(root / "all"), *FLAGS]) == 0
    names = sorted(path.name for path in (root / "all").glob("*.tiff"))
    write_path_list(root / "some", [f"/x/{name}" for name in names if name.startswith("fly")][::5])
    write_path_list(root / "others", [f"/x/{name}" for name in names][1::7])
    return root


FILES, HASHES = (), ("--hashes-only",)
SOME, OTHERS = ("--only", "some"), ("--only", "others")
OVERWRITE, TURNED = ("--overwrite",), ("--orientations",)


@pytest.mark.parametrize(
    "ways",
    [
        (FILES,),
        (HASHES,),
        (SOME,),
        (IN_SHARDS,),
        ((*IN_SHARDS, *SOME),),
        (HASHES, FILES),
        (HASHES, SOME),
        (HASHES, (*IN_SHARDS, *SOME)),
        (HASHES, SOME, OTHERS),
        ((*HASHES, *TURNED), (*SOME, *TURNED)),
        ((*HASHES, *TURNED), (*IN_SHARDS, *SOME, *TURNED)),
        (HASHES, (*IN_SHARDS, *SOME), (*IN_SHARDS, *OTHERS)),
        (SOME, HASHES),
        (FILES, (*IN_SHARDS, *OVERWRITE)),
        (FILES, (*IN_SHARDS, *SOME, *OVERWRITE)),
        (IN_SHARDS, (*SOME, *OVERWRITE)),
    ],
    ids=lambda ways: ", then ".join(" ".join(way) or "files" for way in ways),
)
def test_a_killed_run_is_finished_by_the_next_as_if_nothing_had_happened(root, tmp_path, ways):
    def run(way, out):
        words = [str(root / word) if word in ("some", "others") else word for word in way]
        return crop_patches.main([str(root / "volumes"), str(out), *FLAGS, *words])

    before, whole, killed = tmp_path / "before", tmp_path / "whole", tmp_path / "killed"
    before.mkdir()
    for way in ways[:-1]:
        assert run(way, before) == 0
    shutil.copytree(before, whole)
    with killed_after(np.inf) as changes:
        assert run(ways[-1], whole) == 0
    expected = tree(whole)
    for moment in random.Random(0).sample(range(1, len(changes)), MOMENTS):
        shutil.copytree(before, killed)
        with killed_after(moment):
            run(ways[-1], killed)
        assert run(ways[-1], killed) == 0
        assert tree(killed) == expected
        finished = times(killed)
        assert run([word for word in ways[-1] if word != "--overwrite"], killed) == 0
        assert times(killed) == finished
        shutil.rmtree(killed)


def test_the_one_shard_of_a_killed_run_is_known_to_its_table(tmp_path, capsys):
    (tmp_path / "sections").mkdir()
    sections = write_sections(tmp_path / "sections", 1, (40, 40), ["cell"])
    command = [str(sections), str(tmp_path / "out"), "-cs", "16", "-p", "1", *IN_SHARDS]
    with killed_after(np.inf) as changes:
        assert crop_patches.main(command) == 0
    expected = tree(tmp_path / "out")
    for moment in range(len(changes)):
        shutil.rmtree(tmp_path / "out")
        with killed_after(moment):
            crop_patches.main(command)
        is_there = bool(list((tmp_path / "out").glob(".emcurate/*.parts/*.parquet")))
        capsys.readouterr()
        assert crop_patches.main(command) == 0
        assert not differing(tree(tmp_path / "out"), expected), moment
        assert not (is_there and " 1 sections cut" in capsys.readouterr().out)


def test_what_a_killed_run_had_hashed_is_not_hashed_again(root, tmp_path, capsys):
    out = tmp_path / "out"
    with killed_after(np.inf) as changes:
        crop_patches.main([str(root / "volumes"), str(out), *FLAGS, "--hashes-only"])
    total = int(capsys.readouterr().out.split(" sections cut")[0].split()[-1])
    shutil.rmtree(out)
    with killed_after(len(changes) // 2):
        crop_patches.main([str(root / "volumes"), str(out), *FLAGS, "--hashes-only"])
    assert crop_patches.main([str(root / "volumes"), str(out), *FLAGS, "--hashes-only"]) == 0
    assert 0 < int(capsys.readouterr().out.split(" sections cut")[0].split()[-1]) < total


@pytest.mark.parametrize("way", [FILES, HASHES, IN_SHARDS], ids=["files", "hashes", "shards"])
def test_a_run_with_workers_survives_a_kill(tmp_path, root, request, way):
    volumes, out, whole = tmp_path / "volumes", tmp_path / "out", tmp_path / "whole"
    volumes.mkdir()
    tifffile.imwrite(volumes / "fly.tif", make_texture((40, 64, 130)), photometric="minisblack")
    flags = ["-cs", "16", "--from-volumes", "-a", "0", *way]
    assert crop_patches.main([str(volumes), str(whole), *flags, "-p", "1"]) == 0
    script = request.config.rootpath / "raw" / "crop_patches.py"
    process = subprocess.Popen(
        [sys.executable, str(script), str(volumes), str(out), *flags, "-p", "2"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    # Until something has been made; a run that is faster than this has ended, and then that is rerun.
    while process.poll() is None and not (list(out.glob("*.t*")) or list(out.rglob("*-*.parquet"))):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 20
    while tree(out) != tree(whole) and time.monotonic() < deadline:
        assert crop_patches.main([str(volumes), str(out), *flags, "-p", "1"]) == 0
    assert tree(out) == tree(whole)


@pytest.mark.parametrize("damage", ["cut off", "flipped", "emptied", "no table", "another's", "nulls"])
def test_a_damaged_part_of_a_killed_run_costs_time_and_nothing_else(root, tmp_path, damage):
    out = tmp_path / "out"
    with killed_after(np.inf) as changes:
        crop_patches.main([str(root / "volumes"), str(out), *FLAGS, "--hashes-only"])
    expected = tree(out)
    shutil.rmtree(out)
    with killed_after(len(changes) * 3 // 4):
        crop_patches.main([str(root / "volumes"), str(out), *FLAGS, "--hashes-only"])
    parts = sorted((out / ".emcurate" / "crop_patches.parts").glob("*.parquet"))
    assert len(parts) > 1
    for part in parts:
        data = bytearray(part.read_bytes())
        if damage == "flipped":
            for at in range(4, len(data) // 2, 97):
                data[at] ^= 255
        replaced = {"cut off": data[: len(data) // 2], "flipped": data, "emptied": b"", "no table": b"PAR1" * 9}
        if damage == "nulls":
            table = pq.read_table(part)
            without = [pa.nulls(len(table), field.type) for field in table.schema]
            pq.write_table(pa.Table.from_arrays(without, schema=table.schema), part)
            continue
        part.write_bytes(replaced.get(damage, (root / "all" / "wing_patches.parquet").read_bytes()))
    assert crop_patches.main([str(root / "volumes"), str(out), *FLAGS, "--hashes-only"]) == 0
    assert tree(out) == expected


def test_a_shard_that_is_lost_after_a_kill_costs_no_table(root, tmp_path):
    out = tmp_path / "out"
    command = [str(root / "volumes"), str(out), *FLAGS, *IN_SHARDS]
    with killed_after(np.inf) as changes:
        crop_patches.main(command)
    expected = tree(out)
    lost = 0
    for moment in range(len(changes) // 3, len(changes), 5):
        shutil.rmtree(out)
        with killed_after(moment):
            crop_patches.main(command)
        for shard in sorted(out.glob("*.tar"))[:1]:
            shard.unlink()
            lost += 1
        assert crop_patches.main(command) == 0
        assert tree(out) == expected, moment
    assert lost
