"""Addresses as people and Neuroglancer write them, and what is never shown of one."""

from __future__ import annotations

import os
import pickle

import pytest

from emcurate import naming
from emcurate.addresses import N5, PRECOMPUTED, ZARR, hide_secrets, parse_address


@pytest.mark.parametrize(
    ("text", "shown", "format", "inner", "name"),
    [
        ("https://h.org/a/fly.ome.zarr", "https://h.org/a/fly.ome.zarr", "", "", "fly"),
        ("HTTPS://h.org/fly.zarr/", "https://h.org/fly.zarr", "", "", "fly"),
        ("s3://bucket/x/cell.n5/em/raw/s0", "s3://bucket/x/cell.n5::/em/raw/s0", "", "em/raw/s0", "cell"),
        ("s3://bucket/x/cell.n5::/em/raw", "s3://bucket/x/cell.n5::/em/raw", "", "em/raw", "cell"),
        ("precomputed://gs://b/fafb/v14/jpeg", "precomputed://gs://b/fafb/v14/jpeg", PRECOMPUTED, "", "v14"),
        ("gs://b/minnie65/em", "gs://b/minnie65/em", "", "", "minnie65"),
        ("gs://bucket/8_8_8", "gs://bucket/8_8_8", "", "", "8_8_8"),
        ("gs://bucket", "gs://bucket", "", "", "bucket"),
        ("zarr3://http://h:80/v1.5", "zarr://http://h:80/v1.5", ZARR, "", "v1.5"),
        ("https://h/x/|zarr2:", "zarr://https://h/x", ZARR, "", "x"),
        ("gs://b/x/|neuroglancer-precomputed:", "precomputed://gs://b/x", PRECOMPUTED, "", "x"),
        ("n5://https://h/a%20b", "n5://https://h/a%20b", N5, "", "a b"),
        ("https://h/..%2fetc", "https://h/..%2fetc", "", "", "..%2fetc"),
    ],
)
def test_an_address_tells_where_what_and_which_dataset(text, shown, format, inner, name):
    address = parse_address(text)
    assert (str(address), address.format, address.inner, address.name) == (shown, format, inner, name)
    assert parse_address(str(address)) == address
    assert naming.check_dataset_name(address.name)


@pytest.mark.parametrize(
    "text", ["corpus/a.zarr", "/a/b.h5::/x", "C:\\a", "a b.n5", "s3:/x", "zarr:x", "a|b.tif", "| a |"]
)
def test_a_path_is_no_address(text):
    assert parse_address(text) is None


@pytest.mark.parametrize(
    "text",
    [
        *("file:///etc/passwd", "ftp://h/a", "https://", "https:///a", "http://h:port/a", "https://h/a b", "zarr://a"),
        *("https://h/a|what:", "https://h/a.zarr/../../b", "https://h/a.zarr::/../b", "https://h/%2e%2e/a"),
    ],
)
def test_what_is_no_address_of_a_volume_is_refused(text):
    with pytest.raises(naming.GrammarError):
        parse_address(text)


def test_a_password_or_token_is_given_on_but_never_shown():
    address = parse_address("https://user:word@h.org/a.zarr?token=key#part")
    for text in (str(address), repr(address), os.fspath(address), f"{address}", address.name, address.server):
        assert not any(secret in text for secret in ("user", "word", "token", "key", "part"))
    assert parse_address(address.full) == address
    assert pickle.loads(pickle.dumps(address)).url == "https://user:word@h.org/a.zarr?token=key"  # noqa: S301
    said = "could not read https://user:word@h.org/a.zarr/0?token=key nor token=key nor http://a:b@c/d?e=f"
    assert address.hide(said) == "could not read https://h.org/a.zarr/0 nor … nor http://c/d"
    assert hide_secrets("--voldir s3://a:b@c/d") == "--voldir s3://c/d"
