"""What measures say of patches, beside cleanvision, where that is installed."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest

from emcurate.patches.measures import measure_patch
from emcurate.patches.reading import read_patch

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
CROP, COUNT = 96, 12


@pytest.fixture(scope="module")
def benchmark():
    pytest.importorskip("cleanvision")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        patch.delenv("EMCURATE_DATA", raising=False)
        yield importlib.import_module("measures")
    for name in ("measures", "history", "measuring"):
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def kinds(benchmark, tmp_path_factory):
    return benchmark.write_kinds(tmp_path_factory.mktemp("patches"), CROP, COUNT)


@pytest.fixture(scope="module")
def flags(benchmark, kinds):
    paths = [path for some in kinds.values() for path in some]
    return benchmark.flag_by_measures(paths)[0], benchmark.flag_by_cleanvision(paths)[0]


@pytest.mark.parametrize("issue", ["blank", "dark", "bright"])
def test_both_flag_the_same_patches(flags, kinds, issue):
    ours, theirs = (found[issue] for found in flags)
    assert (ours == theirs).mean() >= 0.95
    at = list(kinds).index(issue) * COUNT
    assert ours[at : at + COUNT].all() and theirs[at : at + COUNT].all()
    assert not ours[:COUNT].any()


def test_every_blurred_patch_is_found_and_none_that_is_sharp(flags):
    ours, _ = flags
    assert ours["blurred"][-COUNT:].all()
    assert not ours["blurred"][:COUNT].any()


def test_the_entropy_is_the_same(benchmark, kinds):
    from cleanvision import Imagelab

    paths = kinds["fine"]
    lab = Imagelab(filepaths=list(map(str, paths)))
    lab.find_issues({"low_information": {}}, n_jobs=1, verbose=False)
    ours = [measure_patch(read_patch(path))["entropy"] / 10 for path in paths]
    np.testing.assert_allclose(lab.issues.loc[list(map(str, paths)), "low_information_score"], ours)
