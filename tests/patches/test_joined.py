"""The table of all patches, against a naive putting together by pandas, and as other libraries read it."""

import importlib

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tifffile

from emcurate.errors import InputError
from emcurate.patches import joined
from emcurate.patches.decided import DECIDED_FILE, encode_decided
from emcurate.patches.joined import Addition, Results, write_joined
from emcurate.patches.labels import CODE_INFORMATIVE, CODE_NONE, CODE_UNINFORMATIVE
from emcurate.patches.pathlists import PathList
from emcurate.patches.tables import TABLE_SUFFIX
from tests.textures import make_texture

cleanup2d = importlib.import_module("raw.cleanup2d")
crop_patches = importlib.import_module("raw.crop_patches")
deduplicate = importlib.import_module("deduplicated.deduplicate")

THRESHOLD = 0.4


def main(stage, *arguments):
    assert stage.main([*map(str, arguments), "-p", "1"]) == 0


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """Patches of a volume and of a group of images, deduplicated and, but for two, decided."""
    work = tmp_path_factory.mktemp("work")
    (work / "volumes").mkdir()
    (work / "images" / 'a "b", c').mkdir(parents=True)
    tifffile.imwrite(work / "volumes" / "fly ö.tif", make_texture((9, 40, 70)), imagej=True)
    for index in range(3):
        tifffile.imwrite(work / "images" / 'a "b", c' / f"m{index}.tif", make_texture((1, 50, 33), seed=index // 2)[0])
    main(cleanup2d, work / "images", work / "sections")
    main(crop_patches, work / "volumes", work / "patches", "--from-volumes", "-cs", 16)
    main(crop_patches, work / "sections", work / "patches", "-cs", 16)
    main(deduplicate, work / "patches", work / "groups", "-d", 6)
    paths = PathList(work / "groups" / "deduplicated_fpaths.npz")[:-2]
    random = np.random.default_rng(0)
    scores, codes = random.random(len(paths)).astype(np.float32), np.full(len(paths), CODE_NONE, np.uint8)
    codes[::5], codes[1::5], scores[2::5] = CODE_INFORMATIVE, CODE_UNINFORMATIVE, np.nan
    kept = np.where(codes == CODE_NONE, scores > THRESHOLD, codes == CODE_INFORMATIVE).astype(np.uint8)
    (work / DECIDED_FILE).write_bytes(encode_decided([np.array(paths)], scores, codes, kept, THRESHOLD))
    # In another order than that of names: places in a list mean nothing.
    back = encode_decided([np.array(paths[::-1])], scores[::-1], codes[::-1], kept[::-1], THRESHOLD)
    (work / "backwards.parquet").write_bytes(back)
    return work


def results(work):
    return Results((work / "patches",), work / "groups", work / DECIDED_FILE)


def judge(row):
    if pd.isna(row.exemplar):
        return "cut"
    if pd.isna(row.kept):
        return "exemplar" if row.exemplar == row.patch else "duplicate"
    if pd.isna(row.score) and pd.isna(row.label):
        return "unreadable"
    return "informative" if row.kept else "uninformative"


@pytest.fixture(params=[(1 << 17, 1 << 12), (7, 1 << 12), (7, -1), (1 << 17, 40)], ids=["all", "7", "each", "40"])
def piece_rows(request, monkeypatch):
    """Datasets by themselves and together, at once and piece by piece."""
    at_once, few = request.param
    monkeypatch.setattr(joined, "ROWS_AT_ONCE", at_once)
    monkeypatch.setattr(joined, "FEW_ROWS", few)


def test_every_patch_has_one_row_that_says_what_each_stage_made_of_it(work, tmp_path, piece_rows):
    path = tmp_path / "patches.parquet"
    count = write_joined(path, results(work))
    rows = pd.read_parquet(path)
    own = pd.concat(pd.read_parquet(p) for p in sorted((work / "patches").glob(f"*{TABLE_SUFFIX}")))
    groups = pd.concat(pd.read_csv(p, keep_default_na=False) for p in (work / "groups").glob("*_groups.csv"))
    decided = pd.read_parquet(work / DECIDED_FILE)
    naive = own.merge(groups, on="patch", how="left").merge(decided, on="patch", how="left")
    naive["kept"] = naive["kept"].astype(object).where(naive["kept"].notna(), None)
    assert len(naive) == count == len(rows) > 100
    pd.testing.assert_frame_equal(rows[naive.columns], naive, check_dtype=False)
    assert rows["outcome"].tolist() == [judge(row) for row in naive.itertuples()]
    assert set(rows["outcome"]) == {*joined.OUTCOMES} - {"cut", "selected", "passed over"}
    for row in rows.itertuples():
        if row.outcome == "duplicate":
            assert row.why == f"{row.distance} bits from its exemplar"
        elif row.outcome == "exemplar":
            assert row.why == "not judged yet"
        elif row.outcome == "unreadable":
            assert row.why == "it could not be read"
        elif isinstance(row.label, str):
            assert (row.why, row.outcome) == ("labelled so", row.label)
        else:
            side = "above" if row.outcome == "informative" else "not above"
            assert row.why.startswith("score 0.") and row.why.endswith(f" {side} {THRESHOLD}")
            assert float(row.why.split()[1]) == pytest.approx(row.score, abs=1e-6)


def test_many_small_datasets_cost_one_row_group(tmp_path):
    (tmp_path / "images").mkdir()
    for index in range(12):
        tifffile.imwrite(tmp_path / "images" / f"m{index:02}.tif", make_texture((1, 32, 32), seed=index)[0])
    main(cleanup2d, tmp_path / "images", tmp_path / "sections")
    main(crop_patches, tmp_path / "sections", tmp_path / "patches", "-cs", 16)
    main(deduplicate, tmp_path / "patches", tmp_path / "groups", "-d", 6)
    assert write_joined(tmp_path / "patches.parquet", Results((tmp_path / "patches",), tmp_path / "groups")) == 48
    assert pq.read_metadata(tmp_path / "patches.parquet").num_row_groups == 1


def test_places_in_a_list_mean_nothing(work, tmp_path):
    for name in (DECIDED_FILE, "backwards.parquet"):
        write_joined(tmp_path / name, Results((work / "patches",), work / "groups", work / name))
    assert (tmp_path / DECIDED_FILE).read_bytes() == (tmp_path / "backwards.parquet").read_bytes()


def test_what_a_stage_has_not_seen_yet_is_said_to_be_so(work, tmp_path):
    path = tmp_path / "patches.parquet"
    write_joined(path, Results((work / "patches",)))
    assert set(pd.read_parquet(path)["outcome"]) == {"cut"}
    with pytest.raises(InputError, match="a file with other content"):
        write_joined(path, Results((work / "patches",), work / "groups"))
    write_joined(path, Results((work / "patches",), work / "groups"), overwrite=True)
    assert set(pd.read_parquet(path)["outcome"]) == {"exemplar", "duplicate"}


def test_datasets_without_a_table_have_what_names_and_groups_say(work, tmp_path, piece_rows):
    (tmp_path / "patches").mkdir()
    path = tmp_path / "patches.parquet"
    write_joined(path, Results((tmp_path / "patches",), work / "groups"))
    rows = pd.read_parquet(path).sort_values("patch").reset_index(drop=True)
    write_joined(path, Results((work / "patches",), work / "groups"), overwrite=True)
    whole = pd.read_parquet(path).sort_values("patch").reset_index(drop=True)
    said = ["patch", "dataset", "plane", "index", "y", "x", "exemplar", "distance", "outcome", "why"]
    pd.testing.assert_frame_equal(rows[said], whole[said])
    assert rows["height"].isna().all()


def test_columns_that_others_add_come_along(work, tmp_path):
    (tmp_path / "patches").mkdir()
    for source in (work / "patches").glob(f"*{TABLE_SUFFIX}"):
        table = pq.read_table(source)
        if source.name.startswith("fly"):
            table = table.append_column("grain", pa.array(np.arange(len(table)) / 2, pa.float32()))
        pq.write_table(table, tmp_path / "patches" / source.name)
    write_joined(tmp_path / "patches.parquet", Results((tmp_path / "patches",)))
    rows = pd.read_parquet(tmp_path / "patches.parquet")
    fly = rows["dataset"] == "fly ö"
    assert rows["grain"][fly].tolist() == (np.arange(fly.sum()) / 2).tolist()
    assert rows["grain"][~fly].isna().all()


def test_an_addition_speaks_last_and_brings_rows_of_its_own(work, tmp_path, piece_rows):
    write_joined(tmp_path / "before.parquet", results(work))
    before = pd.read_parquet(tmp_path / "before.parquet")
    chosen = before["patch"][::3].tolist()
    known = {
        "patch": [*chosen, "mine-LOC-2d_0_16", "7"],
        "split": ["train"] * (len(chosen) + 2),
        "outcome": ["exported", *[None] * (len(chosen) - 1), "exported", "exported"],
        "why": ["drawn"] * (len(chosen) + 2),
        "height": [None] * len(chosen) + [16, 8],
        "dataset": [None] * (len(chosen) + 1) + ["folder"],
    }
    kinds = {"height": pa.int32()}
    table = pa.table({name: pa.array(values, kinds.get(name, pa.string())) for name, values in known.items()})

    def describe(places):
        some = table.take(pa.array(places))
        return {name: some[name].combine_chunks() for name in some.column_names if name != "patch"}

    addition = Addition({"split": pa.string()}, table["patch"].combine_chunks(), describe)
    write_joined(tmp_path / "after.parquet", results(work), addition)
    after = pd.read_parquet(tmp_path / "after.parquet")
    assert len(after) == len(before) + 2
    both = after.iloc[: len(before)]
    assert both["patch"][both["split"] == "train"].tolist() == chosen
    others = both["patch"] != chosen[0]
    pd.testing.assert_frame_equal(both[others][before.columns], before[others], check_dtype=False)
    assert both[~others][["outcome", "why"]].values.tolist() == [["exported", "drawn"]]
    new = after.iloc[len(before) :].set_index("patch")
    assert new.loc["mine-LOC-2d_0_16", ["dataset", "kind", "y", "x", "height"]].tolist() == ["mine", "2d", 0, 16, 16]
    assert new.loc["7", ["dataset", "height"]].tolist() == ["folder", 8]


def test_pandas_polars_and_duckdb_read_the_same(work, tmp_path):
    duckdb, polars = pytest.importorskip("duckdb"), pytest.importorskip("polars")
    path = tmp_path / "patches.parquet"
    write_joined(path, results(work))
    rows = pd.read_parquet(path)
    for column in ("patch", "hash", "distance", "score", "kept", "outcome"):
        wanted = [None if value is None or value is pd.NA or value != value else value for value in rows[column]]
        assert polars.read_parquet(path)[column].to_list() == wanted
        found = duckdb.sql(f"SELECT {column} FROM '{path}'").fetchall()
        assert [value for (value,) in found] == wanted


@pytest.mark.parametrize("damaged", [DECIDED_FILE, "groups/fly ö_groups.csv", "patches/fly ö_patches.parquet"])
def test_a_damaged_file_is_named_and_nothing_is_left(work, tmp_path, damaged):
    for name in ("patches", "groups", DECIDED_FILE):
        (tmp_path / name).symlink_to(work / name)
    first, _, rest = damaged.partition("/")
    (tmp_path / first).unlink()
    if rest:
        (tmp_path / first).mkdir()
    (tmp_path / damaged).write_bytes(b"patch,none\n" if damaged.endswith("csv") else b"PAR1 broken PAR1")
    with pytest.raises(InputError, match=damaged.rpartition("/")[2].replace("ö", ".")):
        write_joined(tmp_path / "patches.parquet", results(tmp_path))
    assert not list(tmp_path.glob("*partial")) and not (tmp_path / "patches.parquet").exists()
