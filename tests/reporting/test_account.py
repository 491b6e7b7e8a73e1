"""The account that curate.py leaves of all patches: true after every run, and nobody else's file."""

import os

import pandas as pd
import pytest

import curate
from emcurate.outputs import digest_file

PATCHES = "patches.parquet"


@pytest.fixture
def run(small_corpus, tmp_path):
    def run(*flags):
        words = ["--images", str(small_corpus / "images"), "--out", str(tmp_path / "out"), "-p", "1"]
        return curate.main([*words, "--until", "deduplicate", *flags])

    return run


def test_the_account_follows_the_stages_and_is_left_alone_when_nothing_is_new(run, tmp_path, capsys):
    path = tmp_path / "out" / PATCHES
    assert run("-cs", "32", "-d", "4") == 0
    first, time = digest_file(path), path.stat().st_mtime_ns
    assert run("-cs", "32", "-d", "4") == 0
    assert path.stat().st_mtime_ns == time
    count = len(pd.read_parquet(path))
    assert f"{count:,} patches accounted for" in capsys.readouterr().out
    assert run("-cs", "32", "-d", "30") == 0
    assert digest_file(path) != first
    # As one of a fresh run, but for when the sections that were cut were written.
    again = pd.read_parquet(path)
    groups = pd.concat(pd.read_csv(file) for file in (tmp_path / "out" / "deduplicate").glob("*.csv"))
    expected = groups.set_index("patch")["exemplar"]
    assert again.set_index("patch")["exemplar"].to_dict() == expected.to_dict()
    assert run("--overwrite", "-cs", "40", "-d", "30") == 0
    assert len(pd.read_parquet(path)) < count


def test_a_users_own_file_of_that_name_stays(run, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    path = tmp_path / "out" / PATCHES
    path.write_text("mine")
    assert run("-cs", "32") == 1
    assert str(path) in capsys.readouterr().err.splitlines()[-1]
    assert path.read_text() == "mine"
    assert (tmp_path / "out" / "deduplicate" / "deduplicated_fpaths.npz").is_dir()
    assert run("-cs", "32", "--overwrite") == 0
    assert len(pd.read_parquet(path)) > 0


def test_a_damaged_account_is_noticed_and_made_again(run, tmp_path, capsys):
    path = tmp_path / "out" / PATCHES
    assert run("-cs", "32") == 0
    whole, time = path.read_bytes(), path.stat().st_mtime_ns
    path.write_bytes(whole[:-1] + b"x")
    os.utime(path, ns=(time, time))
    assert curate.main(["--out", str(tmp_path / "out"), "--verify"]) == 1
    assert str(path) in capsys.readouterr().err
    assert run("-cs", "32") == 0
    assert path.read_bytes() == whole
    assert curate.main(["--out", str(tmp_path / "out"), "--verify"]) == 0


def test_results_among_inputs_stay_no_inputs(small_corpus, tmp_path):
    for name in ("images", "volumes"):
        (tmp_path / name).symlink_to(small_corpus / name)
    out = tmp_path / "all"
    out.mkdir()
    for path in (small_corpus / "images").iterdir():
        (out / path.name).symlink_to(path)
    words = ["--images", str(out), "--out", str(out), "-p", "1", "-cs", "32", "--until", "deduplicate"]
    for _ in range(2):
        assert curate.main(words) == 0
        assert len(set(pd.read_parquet(out / PATCHES)["dataset"])) == len(list((small_corpus / "images").iterdir()))
