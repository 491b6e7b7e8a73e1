"""Volumes on servers: read as the same files here are, and what is said where a server does not give them."""

from __future__ import annotations

import json
import os
import pickle

import numpy as np
import pytest
import zarr

from emcurate.addresses import parse_address
from emcurate.errors import InputError
from emcurate.volumes.corpus import fingerprint_volume
from emcurate.volumes.formats import stores
from emcurate.volumes.views import View
from emcurate.volumes.volume import open_volume
from tests.volumes.chunked_volumes import write_ome_zarr
from tests.volumes.n5_volumes import write_n5_array
from tests.volumes.precomputed_volumes import write_precomputed
from tests.volumes.test_precomputed import write_sharded
from tests.web import send, serve_directory

VOXELS = np.random.default_rng(9).integers(1, 256, (11, 20, 27)).astype(np.uint8)


@pytest.fixture
def impatient(monkeypatch):
    """Servers are asked again at once."""
    monkeypatch.setattr(stores, "FIRST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(stores, "LONGEST_PAUSE_SECONDS", 0.02)
    stores.context.cache_clear()
    yield
    stores.context.cache_clear()


@pytest.fixture
def site(tmp_path, impatient):
    with serve_directory(tmp_path) as (url, found):
        found.url = url
        yield found


def write_n5(path):
    for level in (0, 1):
        write_n5_array(path / "em" / f"s{level}", VOXELS[:: level + 1], {"downsamplingFactors": [1, 1, level + 1]})
    resolution = {"pixelResolution": {"dimensions": [4, 8, 30], "unit": "nm"}}
    (path / "em" / "attributes.json").write_text(json.dumps(resolution))
    return path


FORMATS = {
    "ome_zarr_0.4": ("a.ome.zarr", lambda path: write_ome_zarr(path, VOXELS)),
    "ome_zarr_0.5": ("a.zarr", lambda path: write_ome_zarr(path, VOXELS, version="0.5")),
    "sharded": ("a.zarr", lambda path: write_ome_zarr(path, VOXELS, version="0.5", shards=(16, 16, 16))),
    "n5": ("a.n5/em", lambda path: write_n5(path.parent)),
    "n5_array": ("a.n5/em/s0", lambda path: write_n5(path.parent.parent)),
    "precomputed": ("a", lambda path: write_precomputed(path, [VOXELS, VOXELS[::2]], [(4, 8, 30), (8, 8, 30)])),
}


@pytest.mark.parametrize("form", FORMATS)
def test_a_volume_reads_as_the_same_files_here_do(tmp_path, site, form):
    name, write = FORMATS[form]
    write(tmp_path / name)
    store, _, inner = name.partition("/")
    here = open_volume(tmp_path / (f"{store}::/{inner}" if inner else store))
    there = open_volume(parse_address(f"{site.url}/{name}"))
    assert (there.name, there.shape, there.dtype, there.voxel_size_nm) == (
        "a",
        here.shape,
        here.dtype,
        here.voxel_size_nm,
    )
    assert (there.levels, there.voxel_size_nm) == (here.levels, (30, 8, 8) if "zarr" in name else (30, 8, 4))
    sent = pickle.dumps(there)
    assert len(sent) < 2000
    np.testing.assert_array_equal(pickle.loads(sent).read(), VOXELS)  # noqa: S301 - written one line above
    box = slice(2, 9, 3), slice(5, 17), slice(1, 27, 5)
    np.testing.assert_array_equal(there.read(*box), VOXELS[box])


def test_levels_channels_and_times_are_chosen_there_too(tmp_path, site):
    array = np.stack([VOXELS, 255 - VOXELS])[None]
    write_ome_zarr(tmp_path / "a.zarr", array, "tczyx", [1, 1, 30, 8, 8])
    address = parse_address(f"{site.url}/a.zarr")
    with pytest.raises(InputError, match="found 2 along axis c; choose one with --channel 0 to 1"):
        open_volume(address)
    volume = open_volume(address, view=View(level=1, channel=0, time=0, inverted=True))
    np.testing.assert_array_equal(volume.read(), 255 - VOXELS[::2, ::2, ::2])
    assert volume.voxel_size_nm == (60, 16, 16)
    write_n5(tmp_path / "a.n5")
    found = open_volume(parse_address(f"{site.url}/a.n5::/em"), view=View(pixel_size_nm=100))
    assert (found.levels, found.voxel_size_nm) == (2, (60, 8, 4))


def test_an_array_named_in_its_address_is_the_level_that_its_image_says(tmp_path, site):
    write_ome_zarr(tmp_path / "a.zarr" / "image", VOXELS)
    for place in (parse_address(f"{site.url}/a.zarr/image/s1"), tmp_path / "a.zarr::/image/s1"):
        volume = open_volume(place)
        assert volume.voxel_size_nm == (60, 16, 16)
        np.testing.assert_array_equal(volume.read(), VOXELS[::2, ::2, ::2])
        with pytest.raises(InputError, match="give one of the two"):
            open_volume(place, view=View(level=0))


def test_several_images_of_one_store_are_named(tmp_path, site):
    for name in ("first", "second"):
        write_ome_zarr(tmp_path / "a.zarr" / name, VOXELS)
    zarr.open_group(tmp_path / "a.zarr", mode="a", zarr_format=2)
    zarr.consolidate_metadata(tmp_path / "a.zarr")
    for place in (parse_address(f"{site.url}/a.zarr"), tmp_path / "a.zarr"):
        with pytest.raises(InputError, match=r"found 2: first, second; name one, such as .*a\.zarr::/first"):
            open_volume(place)
    np.testing.assert_array_equal(open_volume(parse_address(f"{site.url}/a.zarr::/second")).read(), VOXELS)


def test_several_multiscales_of_one_group_are_named_by_their_arrays(tmp_path):
    path = write_ome_zarr(tmp_path / "a.zarr", VOXELS)
    text = json.loads((path / ".zattrs").read_text())
    other = json.loads(json.dumps(text["multiscales"][0]).replace('"s0"', '"s1"'))
    (path / ".zattrs").write_text(json.dumps({"multiscales": [*text["multiscales"], other]}))
    with pytest.raises(InputError, match=r"one image \(multiscales\), found 2: s0, s1; name one"):
        open_volume(path)
    assert open_volume(tmp_path / "a.zarr::/s0").voxel_size_nm == (30, 8, 8)


def test_the_format_is_told_by_the_metadata_or_by_the_address(tmp_path, site):
    path = write_ome_zarr(tmp_path / "both", VOXELS)
    write_precomputed(path, [255 - VOXELS], [(1, 1, 1)])
    with pytest.raises(InputError, match=r"those of zarr and precomputed; say which is meant, such as zarr://http"):
        open_volume(parse_address(f"{site.url}/both"))
    np.testing.assert_array_equal(open_volume(parse_address(f"zarr://{site.url}/both")).read(), VOXELS)
    np.testing.assert_array_equal(open_volume(parse_address(f"precomputed://{site.url}/both")).read(), 255 - VOXELS)


@pytest.mark.parametrize("name", ["nothing", "nothing.zarr", "nothing.n5", "a.h5", "scan.tif"])
def test_where_there_is_nothing_that_is_said(site, name):
    with pytest.raises(InputError, match=r"found (none|a single file)"):
        open_volume(parse_address(f"{site.url}/{name}"))


def answer_with(status):
    return lambda handler, count: send(handler, b"no", status)


@pytest.mark.parametrize("status", [401, 403, 429, 500, 503, 302])
def test_a_server_that_refuses_or_fails_is_named_after_some_tries(tmp_path, site, status):
    write_ome_zarr(tmp_path / "a.zarr", VOXELS)
    site.answers["*"] = answer_with(status)
    with pytest.raises(InputError, match=rf"{site.url}/a\.zarr: .*{status}"):
        open_volume(parse_address(f"{site.url}/a.zarr?token=SECRET"))
    tries = stores.RETRIES + 1 if status in (429, 500, 503) else 1
    assert set(site.requests.values()) == {tries}


def test_metadata_that_a_server_refuses_count_as_missing_where_others_are_there(tmp_path, site):
    write_ome_zarr(tmp_path / "a.zarr", VOXELS)
    site.answers["*"] = lambda handler, count: (
        "as usual" if (tmp_path / handler.path.lstrip("/")).is_file() else send(handler, b"", 403)
    )
    np.testing.assert_array_equal(open_volume(parse_address(f"{site.url}/a.zarr")).read(), VOXELS)


def test_a_server_that_fails_now_and_then_is_asked_again(tmp_path, site):
    write_ome_zarr(tmp_path / "a.zarr", VOXELS)
    site.answers["*"] = lambda handler, count: "as usual" if count > 2 else send(handler, b"", 503)
    np.testing.assert_array_equal(open_volume(parse_address(f"{site.url}/a.zarr")).read(), VOXELS)


def cut_off(handler, count):
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b"x" * 10)


@pytest.mark.parametrize(
    "answer", [cut_off, answer_with(200), answer_with(403), answer_with(500)], ids=["cut off", "wrong", "403", "500"]
)
def test_chunks_that_do_not_come_whole_are_errors_and_tell_no_secret(tmp_path, site, answer):
    write_ome_zarr(tmp_path / "a.zarr", VOXELS)
    volume = open_volume(parse_address(f"http://user:WORD@{site.url[7:]}/a.zarr?token=SECRET"))
    site.answers["/a.zarr/s0/1.1.1"] = answer
    with pytest.raises(InputError, match="chunks that can be decoded") as caught:
        volume.read()
    assert "SECRET" not in str(caught.value) and "WORD" not in str(caught.value)
    assert volume.read(slice(0, 8)).any()


def test_a_missing_chunk_is_the_fill_value_or_an_error_where_there_is_none(tmp_path, site):
    path = write_ome_zarr(tmp_path / "a.zarr", VOXELS, fill_value=7)
    (path / "s0" / "1.1.1").unlink()
    assert (open_volume(parse_address(f"{site.url}/a.zarr")).read()[8:, 8:16, 8:16] == 7).all()
    metadata = path / "s0" / ".zarray"
    metadata.write_text(json.dumps(json.loads(metadata.read_text()) | {"fill_value": None}))
    with pytest.raises(InputError, match="is missing"):
        open_volume(parse_address(f"{site.url}/a.zarr")).read()


@pytest.mark.parametrize("content", [b"<html>log in</html>", b"[]", b"{", b'{"multiscales": 3}', b"\xff\xfe"])
def test_wrong_metadata_are_named(tmp_path, site, content):
    write_ome_zarr(tmp_path / "a.zarr", VOXELS)
    site.answers["/a.zarr/.zattrs"] = lambda handler, count: send(handler, content)
    with pytest.raises(InputError, match=rf"{site.url}/a\.zarr: expected"):
        open_volume(parse_address(f"{site.url}/a.zarr"))


@pytest.mark.parametrize("name", ["../b.zarr/s0", "/etc", "http://elsewhere/s0", "s0?x", "s0#x", 3])
def test_metadata_lead_nowhere_outside_of_the_store(tmp_path, site, name):
    path = write_ome_zarr(tmp_path / "a.zarr", VOXELS)
    text = json.loads((path / ".zattrs").read_text())
    text["multiscales"][0]["datasets"][0]["path"] = name
    (path / ".zattrs").write_text(json.dumps(text))
    with pytest.raises(InputError, match="an array in its own directory"):
        open_volume(parse_address(f"{site.url}/a.zarr"))
    assert not [path for path in site.requests if not path.startswith("/a.zarr/")]


def test_without_a_network_that_is_said(impatient):
    for url, said in (("http://127.0.0.1:9/a.zarr", "connect"), ("https://nowhere.invalid/a.zarr", "resolve")):
        with pytest.raises(InputError, match=f"{said}.*check the address and the network"):
            open_volume(parse_address(url))


def test_the_fingerprint_changes_with_the_metadata_and_with_what_a_server_says_of_chunks(tmp_path, site):
    path = write_ome_zarr(tmp_path / "a.zarr", VOXELS)
    address = parse_address(f"{site.url}/a.zarr")
    seen = [fingerprint_volume(address)]
    assert fingerprint_volume(address) == seen[0]
    os.utime(path / "s0" / "1.1.2", ns=(1, 1))
    seen.append(fingerprint_volume(address))
    (path / ".zattrs").write_text((path / ".zattrs").read_text() + " ")
    seen.append(fingerprint_volume(address))
    assert len(set(seen)) == 3


@pytest.mark.parametrize("form", FORMATS)
def test_the_chunks_that_are_looked_at_are_those_that_there_are(tmp_path, form):
    name, write = FORMATS[form]
    write(tmp_path / name)
    store, _, inner = name.partition("/")
    voxels = open_volume(tmp_path / (f"{store}::/{inner}" if inner else store)).voxels
    keys = voxels.sample_files(4)
    assert len(keys) >= 2
    assert all((tmp_path / store / key).is_file() for key in keys), keys


def test_a_bucket_of_s3_is_read_anonymously(tmp_path, monkeypatch, impatient):
    moto = pytest.importorskip("moto.server")
    boto3 = pytest.importorskip("boto3")
    write_ome_zarr(tmp_path / "a.zarr", VOXELS, version="0.5")
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    try:
        host, port = server.get_host_and_port()
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://{host}:{port}")
        keys = {"aws_access_key_id": "x", "aws_secret_access_key": "x", "region_name": "us-east-1"}
        client = boto3.client("s3", endpoint_url=f"http://{host}:{port}", **keys)
        client.create_bucket(Bucket="bucket")
        for file in tmp_path.rglob("*"):
            if file.is_file():
                key = f"deep/er/{file.relative_to(tmp_path).as_posix()}"
                client.upload_file(str(file), "bucket", key, ExtraArgs={"ACL": "public-read"})
        address = parse_address("s3://bucket/deep/er/a.zarr")
        volume = open_volume(address)
        assert (volume.name, volume.voxel_size_nm) == ("a", (30, 8, 8))
        np.testing.assert_array_equal(volume.read(), VOXELS)
        assert fingerprint_volume(address) == fingerprint_volume(address)
    finally:
        server.stop()


def test_a_bucket_of_google_is_read_by_http(tmp_path, site, monkeypatch):
    write_sharded(tmp_path / "bucket" / "fly")
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", site.url)
    volume = open_volume(parse_address("precomputed://gs://bucket/fly"))
    assert (volume.name, volume.voxel_size_nm) == ("fly", (30, 8, 4))
    np.testing.assert_array_equal(volume.read(), open_volume(tmp_path / "bucket" / "fly").read())
