"""Cubes drawn from volumes, as small volumes that the other stages take."""

from __future__ import annotations

import importlib
import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import tifffile

from emcurate import naming
from emcurate.volumes.volume import open_volume
from tests.results import contents
from tests.textures import make_texture
from tests.volumes.chunked_volumes import write_ome_zarr
from tests.web import send, serve_directory

sample_rois = importlib.import_module("preprocess.sample_rois")
crop_patches = importlib.import_module("raw.crop_patches")

BIG = make_texture((64, 96, 128)).astype(np.uint16) * 200 + 1
BIG[:, :, 64:] = 0
SMALL = make_texture((40, 40, 36))


@pytest.fixture
def sources(tmp_path):
    (tmp_path / "volumes").mkdir()
    write_ome_zarr(tmp_path / "volumes" / "big.zarr", BIG, scale=(8.0, 8.0, 8.0), chunks=(16, 16, 16))
    tifffile.imwrite(tmp_path / "volumes" / "small.tif", SMALL, compression="zlib")
    return tmp_path / "volumes"


def sample(sources, outdir, *flags):
    return sample_rois.main([str(sources), str(outdir), "--size", "16", "-p", "1", *flags])


def cubes_of(outdir, name):
    return {path: naming.parse_region(path.stem) for path in sorted(outdir.glob(f"{name}-ROI-*.nrrd"))}


def test_cubes_are_those_of_their_place_with_voxel_size_and_none_of_padding(tmp_path, sources):
    out = tmp_path / "out"
    assert sample(sources, out, "--count", "30") == 0
    big, small = cubes_of(out, "big"), cubes_of(out, "small")
    assert (len(big), len(small)) == (22, 8)  # two a side of the small one, the rest of the other
    taken = np.zeros(BIG.shape, int)
    for cubes, array in ((big, BIG), (small, SMALL)):
        for path, region in cubes.items():
            box = tuple(slice(at, at + 16) for at in region.start)
            cube = open_volume(path)
            np.testing.assert_array_equal(cube.read(), array[box])
            assert cube.dtype == array.dtype
            assert cube.voxel_size_nm == ((8, 8, 8) if array is BIG else None)
            if array is BIG:
                taken[box] += 1
                assert (array[box] != 0).mean() >= 0.7
    assert taken.max() == 1


def test_what_was_drawn_stays_and_a_larger_budget_adds_to_it(tmp_path, sources, capsys):
    out = tmp_path / "out"
    assert sample(sources, out, "--count", "10", "--seed", "3") == 0
    before = contents(out)
    assert sample(sources, out, "--count", "10", "--seed", "3") == 0
    assert contents(out) == before
    assert "0 cubes written, 10 cubes already done" in capsys.readouterr().out
    assert sample(sources, out, "--count", "20", "--seed", "3", "-p", "2") == 0
    more = contents(out)
    assert len(more) == 20 and before.items() <= more.items()
    assert sample(sources, tmp_path / "same", "--count", "20", "--seed", "3") == 0
    assert contents(tmp_path / "same") == more
    assert sample(sources, tmp_path / "other", "--count", "20", "--seed", "4") == 0
    assert contents(tmp_path / "other").keys() != more.keys()
    assert sample(sources, out, "--count", "20", "--seed", "4") == 1
    assert "results made with seed 4" in capsys.readouterr().err
    assert sample(sources, out, "--count", "10", "--seed", "3", "--overwrite") == 0
    assert contents(out) == before


def test_an_interrupted_run_goes_on(tmp_path, sources, monkeypatch):
    out = tmp_path / "out"
    assert sample(sources, tmp_path / "whole", "--count", "8") == 0
    save, saved = sample_rois.save_cube, []

    def save_some(job):
        if len(saved) == 3:
            raise KeyboardInterrupt
        saved.append(job.key)
        return save(job)

    monkeypatch.setattr(sample_rois, "save_cube", save_some)
    assert sample(sources, out, "--count", "8") == 130
    monkeypatch.setattr(sample_rois, "save_cube", lambda job: saved.append(job.key) or save(job))
    assert sample(sources, out, "--count", "8") == 0
    assert len(saved) == len(set(saved)) == 8
    assert contents(out) == contents(tmp_path / "whole")


def test_a_budget_in_gigabytes_is_shared_evenly(tmp_path, sources):
    out = tmp_path / "out"
    assert sample(sources, out, "--gb", "0.00005") == 0  # 50,000 bytes, of cubes of 8,192 and 4,096
    assert (len(cubes_of(out, "big")), len(cubes_of(out, "small"))) in {(3, 6), (4, 4), (3, 5)}
    assert sum(open_volume(path).read().nbytes for path in out.glob("*.nrrd")) <= 50_000


def test_padding_that_the_coarse_level_does_not_show_is_left_out_when_it_is_read(tmp_path, capsys):
    array = BIG.copy()
    array[1::2] = 0  # a coarse level of every second plane shows none of it
    write_ome_zarr(tmp_path / "a.zarr", array, scale=(8.0, 8.0, 8.0), chunks=(16, 16, 16))
    out = tmp_path / "out"
    assert sample(tmp_path / "a.zarr", out, "--count", "4") == 0
    said = capsys.readouterr().out
    assert "0 cubes written" in said and "cubes left out as padding" in said and "0 cubes;" in said
    assert sample(tmp_path / "a.zarr", out, "--count", "4") == 0
    assert "left out" not in capsys.readouterr().out  # what was found out is noted
    assert sample(tmp_path / "a.zarr", tmp_path / "half", "--count", "4", "--min-fraction", "0.4") == 0
    assert len(cubes_of(tmp_path / "half", "a")) == 4


def test_a_table_says_what_is_inverted_which_level_and_what_is_padding(tmp_path, sources):
    (tmp_path / "sources.csv").write_text(
        "address,name,level,invert,padding,voxel_size\n"
        "volumes/big.zarr,coarse,1,yes,0,\n"
        f'volumes/small.tif,,,,"{int(SMALL.flat[0])} {int(SMALL.flat[1])}",30 8 8\n'
    )
    out = tmp_path / "out"
    assert sample(tmp_path / "sources.csv", out, "--count", "6", "--min-fraction", "0.5") == 0
    coarse, small = cubes_of(out, "coarse"), cubes_of(out, "small")
    assert coarse and small
    for path, region in coarse.items():
        box = tuple(slice(at, at + 16) for at in region.start)
        np.testing.assert_array_equal(open_volume(path).read(), 65535 - BIG[::2, ::2, ::2][box])
        assert open_volume(path).voxel_size_nm == (16, 16, 16)
    assert all(open_volume(path).voxel_size_nm == (30, 8, 8) for path in small)


def test_cubes_of_a_server_are_named_tables_know_their_place_and_chunks_are_asked_for_once(tmp_path, sources, capsys):
    with serve_directory(sources) as (url, site):
        listed = tmp_path / "sources.txt"
        listed.write_text(f"{url}/big.zarr?token=SECRET\n{url}/nothing.zarr\n")
        out = tmp_path / "out"
        assert sample(listed, out, "--count", "5") == 1
        assert f"{url}/nothing.zarr: expected" in capsys.readouterr().err
        chunks = {path: count for path, count in site.requests.items() if path.rpartition("/")[2][0].isdigit()}
        assert set(chunks.values()) == {1} and len([path for path in chunks if "/s0/" in path]) == 5
    cubes = cubes_of(out, "big")
    assert len(cubes) == 5
    assert crop_patches.main([str(out), str(tmp_path / "patches"), "--from-volumes", "-cs", "16", "-p", "1"]) == 0
    for path, region in cubes.items():
        metadata = pq.read_schema(tmp_path / "patches" / f"{path.stem}_patches.parquet").metadata
        told = json.loads(metadata[b"emcurate.region_of"])
        assert told == {"source": f"{url}/big.zarr", "dataset": "big", "start": list(region.start)}
    assert not [
        path for path in tmp_path.rglob("*") if path.is_file() and path != listed and b"SECRET" in path.read_bytes()
    ]


def test_a_volume_that_a_server_does_not_give_is_named_and_the_others_are_sampled(tmp_path, sources, capsys):
    with serve_directory(sources) as (url, site):
        site.answers["*"] = lambda handler, count: send(handler, b"", 403) if "/s0/0." in handler.path else "as usual"
        listed = tmp_path / "sources.txt"
        listed.write_text(f"{url}/big.zarr\nvolumes/small.tif\n")
        assert sample(listed, tmp_path / "out", "--count", "16") == 1
    assert f"{url}/big.zarr: expected chunks" in capsys.readouterr().err
    assert len(cubes_of(tmp_path / "out", "small")) == 8


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--count", "3", "--gb", "1"], "--gb"),
        (["--count", "0"], "--count"),
        (["--min-fraction", "2"], "--min-fraction"),
        (["--seed", "-1"], "--seed"),
    ],
)
def test_wrong_arguments_end_with_usage(tmp_path, sources, capsys, flags, said):
    with pytest.raises(SystemExit) as ended:
        sample(sources, tmp_path / "out", *flags)
    assert ended.value.code == 2 and said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
