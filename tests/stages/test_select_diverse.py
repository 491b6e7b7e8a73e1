"""Selecting: even over structures, nested budgets, the same after a kill, and told of in the account of all patches."""

import csv
import importlib
import shutil

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from sklearn.metrics.pairwise import cosine_similarity

from emcurate.diversity import hierarchy, kmeans
from emcurate.images.sections import write_section
from emcurate.patches.features import FEATURES_FILE, write_features
from emcurate.patches.joined import Results, write_joined
from emcurate.patches.names import as_names
from emcurate.patches.pathlists import PathList, write_path_list
from emcurate.patches.selected import SELECTED_FILE
from emcurate.running.locks import release_locks
from tests.patch_sets import pack

select_diverse = importlib.import_module("filtered.select_diverse")
export = importlib.import_module("data_prep.export")

LIST, COUNTS = "diverse_fpaths.npz", "diverse_counts.csv"


class Set:
    """Patches of one common structure, `fly`, and of five rare ones, `worm`; their list and their features."""

    def __init__(self, directory, count=300, rare=60):
        random = np.random.default_rng(0)
        patches = directory / "patches"
        patches.mkdir(parents=True)
        self.names = [f"fly-LOC-0_{i:04d}_0_0" for i in range(count)] + [f"worm-LOC-0_{i:04d}_0_0" for i in range(rare)]
        self.paths = []
        for name in self.names:
            path = patches / f"{name}.tiff"
            write_section(path, random.integers(0, 256, (8, 8), np.uint8))
            self.paths.append(str(path))
        structures = random.normal(size=(6, 16)) * 3
        of = np.r_[np.zeros(count, int), 1 + np.arange(rare) % 5]
        self.features = (structures[of] + random.normal(size=(count + rare, 16))).astype(np.float16)
        self.fpaths, self.table = directory / "fpaths.npz", directory / "embed" / FEATURES_FILE
        write_path_list(self.fpaths, self.paths)
        self.table.parent.mkdir()
        self.write(self.table, np.arange(count + rare))

    def write(self, path, rows, model="made up"):
        names = as_names([self.names[i] for i in rows]).cast(pa.string())
        features = self.features[rows]
        write_features(path, names, 16, features.__getitem__, {"model": model}, overwrite=True)


@pytest.fixture(scope="module")
def patches(tmp_path_factory):
    return Set(tmp_path_factory.mktemp("set"))


def run(patches, savedir, *flags, fpaths=None, table=None):
    words = [fpaths or patches.fpaths, table or patches.table, savedir, *flags]
    try:
        return select_diverse.main([*map(str, words)])
    finally:
        release_locks()


def read(savedir):
    return pd.read_parquet(savedir / SELECTED_FILE)


def selected(savedir):
    return [path.rpartition("/")[2].removesuffix(".tiff") for path in PathList(savedir / LIST)]


def results(savedir):
    files = [path for path in savedir.rglob("*") if path.is_file() and ".emcurate" not in path.parts]
    return {str(path.relative_to(savedir)): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def made(patches, tmp_path_factory):
    savedir = tmp_path_factory.mktemp("made")
    assert run(patches, savedir, "--budget", "60", "-p", "1") == 0
    return savedir


def test_rare_structures_get_more_than_their_share(made, patches):
    table = read(made)
    assert table["patch"].tolist() == patches.names
    kept = table[table["selected"]]
    assert kept["patch"].tolist() == selected(made) and len(kept) == 60
    assert kept["rank"].max() == 59 and sorted(table["rank"]) == list(range(360))
    share = kept["patch"].str.startswith("worm").mean()
    assert share > 2 * 60 / 360
    with open(made / COUNTS, newline="") as file:
        rows = {row["dataset"]: row for row in csv.DictReader(file)}
    assert int(rows["worm"]["selected"]) == round(60 * share)
    assert float(rows["worm"]["share_before"]) == pytest.approx(60 / 360, abs=1e-4)
    assert (made / "diverse_clusters.png").stat().st_size > 10_000


def test_a_larger_budget_adds_to_a_smaller_one_and_processes_change_nothing(made, patches, tmp_path):
    assert run(patches, tmp_path / "more", "--budget", "100", "-p", "1") == 0
    assert set(selected(made)) < set(selected(tmp_path / "more"))
    assert run(patches, tmp_path / "again", "--budget", "60", "-p", "3") == 0
    assert results(tmp_path / "again") == results(made)


def test_near_duplicates_have_that_cosine_to_one_that_stays(patches, tmp_path):
    assert run(patches, tmp_path / "out", "--near-duplicates", "0.97", "--clusters", "12") == 0
    table = read(tmp_path / "out")
    near = table[table["like"].notna()]
    assert 10 < len(near) < 300 and not near["selected"].any()
    assert table[table["like"].isna()]["selected"].all()
    place = {name: at for at, name in enumerate(patches.names)}
    cosines = cosine_similarity(patches.features.astype(np.float64))
    for row in near.itertuples():
        assert cosines[place[row.patch], place[row.like]] == pytest.approx(row.cosine, abs=1e-4)
        assert row.cosine >= 0.97 and place[row.like] < place[row.patch]
        assert table["selected"][place[row.like]]
    # No two that stay, of one cluster, are as near.
    for _, rows in table[table["selected"]].groupby("cluster"):
        inside = cosines[np.ix_(rows.index, rows.index)] - np.eye(len(rows))
        assert inside.max() < 0.97 + 1e-4
    assert (tmp_path / "out" / "diverse_near_duplicates.png").exists()


def test_shards_give_the_same_choice(made, patches, tmp_path):
    shards = tmp_path / "shards.npz"
    write_path_list(shards, pack(patches.paths, tmp_path / "shards"))
    assert run(patches, tmp_path / "out", "--budget", "60", fpaths=shards) == 0
    assert selected(tmp_path / "out") == selected(made)
    assert (tmp_path / "out" / SELECTED_FILE).read_bytes() == (made / SELECTED_FILE).read_bytes()


def test_a_run_that_was_broken_off_goes_on_and_ends_with_the_same_bytes(made, patches, tmp_path, monkeypatch):
    save = hierarchy.Kept.save
    runs, saved = [], []

    def stop(self, *words, **more):
        save(self, *words, **more)
        saved.append(words)
        if len(saved) == 9:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(hierarchy.Kept, "save", stop)
        assert run(patches, tmp_path / "out", "--budget", "60") == 130
    assert not (tmp_path / "out" / LIST).exists()
    begin = hierarchy.begin
    with monkeypatch.context() as patch:
        patch.setattr(hierarchy, "begin", lambda *words: runs.append(words) or begin(*words))
        assert run(patches, tmp_path / "out", "--budget", "60") == 0
    assert 0 < len(runs) < 2 * 4
    assert results(tmp_path / "out") == results(made)
    assert [path.name for path in (tmp_path / "out" / ".emcurate" / "select_diverse").iterdir()] == ["listed.npy"]


def test_what_a_run_has_kept_that_was_killed_in_the_end_goes(made, patches, tmp_path):
    shutil.copytree(made, tmp_path / "out")
    workdir = tmp_path / "out" / ".emcurate" / "select_diverse"
    (workdir / "00246f1f09e73623").mkdir()
    (workdir / "00246f1f09e73623" / "0-3.centres").write_bytes(b"kept")
    assert run(patches, tmp_path / "out", "--budget", "60") == 0
    assert [path.name for path in workdir.iterdir()] == ["listed.npy"]


def test_a_finished_run_does_nothing_and_other_settings_or_features_are_refused(
    made, patches, tmp_path, capsys, monkeypatch
):
    before = results(made)
    with monkeypatch.context() as patch:
        patch.setattr(kmeans, "begin", None)
        assert run(patches, made, "--budget", "60") == 0
    assert "nothing new" in capsys.readouterr().out
    assert run(patches, made, "--budget", "61") == 1
    assert "expected results made with budget 61, found results made with budget 60" in capsys.readouterr().err
    patches.write(tmp_path / FEATURES_FILE, np.arange(360), model="another")
    assert run(patches, made, "--budget", "60", table=tmp_path) == 1
    assert "another" in capsys.readouterr().err
    assert run(patches, made, "--budget", "60", "--verify") == 0
    assert results(made) == before


def test_a_list_that_was_edited_by_hand_is_not_replaced_by_a_grown_one(patches, tmp_path, capsys):
    fpaths = tmp_path / "fpaths.npz"
    write_path_list(fpaths, patches.paths[:200])
    assert run(patches, tmp_path / "out", "--budget", "20", fpaths=fpaths) == 0
    mine = selected(tmp_path / "out")[:5]
    write_path_list(tmp_path / "out" / LIST, [str(patches.fpaths.parent / "patches" / f"{name}.tiff") for name in mine])
    write_path_list(fpaths, patches.paths)
    assert run(patches, tmp_path / "out", "--budget", "20", fpaths=fpaths) == 1
    assert "edited by hand perhaps" in capsys.readouterr().err
    assert selected(tmp_path / "out") == mine
    assert run(patches, tmp_path / "out", "--budget", "20", "--overwrite", fpaths=fpaths) == 0
    assert len(selected(tmp_path / "out")) == 20


def test_patches_without_features_are_left_out_and_counted(patches, tmp_path, capsys):
    (tmp_path / "some").mkdir()
    patches.write(tmp_path / "some" / FEATURES_FILE, np.arange(3, 360))
    assert run(patches, tmp_path / "out", "--budget", "500", table=tmp_path / "some") == 1
    said = capsys.readouterr()
    assert "found none of 3 of them, which are left out" in said.err
    assert "there are 357 patches to select from" in said.out + said.err
    table = read(tmp_path / "out")
    assert table["reason"][:3].tolist() == ["it has no features"] * 3
    assert not table["selected"][:3].any() and table["selected"][3:].all()
    (tmp_path / "few").mkdir()
    patches.write(tmp_path / "few" / FEATURES_FILE, np.arange(100))
    assert run(patches, tmp_path / "other", "--budget", "5", table=tmp_path / "few") == 1
    assert "expected features of the listed patches, found 260 of 360 patches without" in capsys.readouterr().err


def test_the_account_says_what_was_selected_of_what_the_stages_before_have_left(made, tmp_path):
    groups = tmp_path / "groups"
    groups.mkdir()
    table = read(made)
    names = table["patch"].tolist()
    rows = [[name, name, 0] for name in names if name != "fly-LOC-0_0003_0_0"]
    rows += [["fly-LOC-0_0003_0_0", "fly-LOC-0_0002_0_0", 4], ["fly-LOC-0_9999_0_0", "fly-LOC-0_9999_0_0", 0]]
    for dataset in ("fly", "worm"):
        with open(groups / f"{dataset}_groups.csv", "w", newline="") as file:
            csv.writer(file).writerows(
                [["patch", "exemplar", "distance"], *(r for r in rows if r[0].startswith(dataset))]
            )
    write_joined(tmp_path / "all.parquet", Results(groups=groups, selected=made / SELECTED_FILE))
    account = pd.read_parquet(tmp_path / "all.parquet").set_index("patch")
    assert account.loc["fly-LOC-0_0003_0_0", "outcome"] == "duplicate"
    assert account.loc["fly-LOC-0_9999_0_0", "outcome"] == "exemplar"
    for row in table.itertuples():
        if row.patch != "fly-LOC-0_0003_0_0":
            found = account.loc[row.patch]
            assert found["outcome"] == ("selected" if row.selected else "passed over")
            assert (found["why"], found["rank"], found["cluster"]) == (row.reason, row.rank, row.cluster)
    write_joined(tmp_path / "before.parquet", Results(groups=groups))
    assert "selected" not in pd.read_parquet(tmp_path / "before.parquet").columns


def test_an_export_of_the_selection_tells_of_the_others_too(made, patches, tmp_path):
    assert export.main([str(made / LIST), str(tmp_path / "export"), "--format", "imagefolder", "-p", "1"]) == 0
    account = pd.read_parquet(tmp_path / "export" / "patches.parquet")
    assert account["outcome"].value_counts().to_dict() == {"exported": 60}


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ([], "expected --budget N, --near-duplicates COSINE or both, found neither"),
        (["--budget", "0"], "argument --budget"),
        (["--budget", "5", "--clusters", "5", "10"], "argument --clusters: expected fewer on each level"),
        (["--near-duplicates", "1.5"], "argument --near-duplicates"),
    ],
)
def test_wrong_arguments_end_it(patches, tmp_path, capsys, flags, words):
    with pytest.raises(SystemExit) as ended:
        run(patches, tmp_path / "out", *flags)
    assert ended.value.code == 2 and words in capsys.readouterr().err


def test_other_tables_are_named(patches, tmp_path, capsys):
    pd.DataFrame({"patch": ["a"]}).to_parquet(tmp_path / "t.parquet")
    assert run(patches, tmp_path / "out", "--budget", "5", table=tmp_path / "t.parquet") == 1
    assert "expected a table with `patch` and `features`, found another" in capsys.readouterr().err
