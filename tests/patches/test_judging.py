"""Which patches are left out by measures alone."""

import numpy as np
import pytest

from emcurate.patches.judging import BLANK, BLURRED, REASONS, TOO_SATURATED, UNKNOWN, WITHIN, Rules, explain, judge

RNG = np.random.default_rng(3)
GOOD = {"mean": 120, "deviation": 30, "entropy": 7, "blur": 0.3, "saturated": 0}


def rows(count, **changed):
    """Measures of patches that are alike but for some noise."""
    found = np.tile(list((GOOD | changed).values()), (count, 1)).astype(float)
    found[:, 2:4] += RNG.normal(0, [0.05, 0.01], (count, 2))
    return found


def verdicts(*parts, rules=Rules(), datasets=None):
    measures = np.concatenate(parts)
    numbers = (
        np.zeros(len(measures), int) if datasets is None else np.repeat(np.arange(len(parts)), list(map(len, parts)))
    )
    names = ["fly"] if datasets is None else datasets
    judged = judge(measures, numbers, names, rules)
    words = [*REASONS, "kept", "unknown"]
    return [words[place] for place in judged.verdicts], judged, explain(judged, measures, numbers, names)


@pytest.mark.parametrize(
    "changed, expected",
    [
        ({"entropy": 4.5}, BLANK),
        ({"entropy": 5.5}, "kept"),
        ({"saturated": 0.6}, TOO_SATURATED),
        ({"saturated": 0.4}, "kept"),
        ({"blur": 0.7}, BLURRED),
        ({"blur": 0.5}, "kept"),
        ({"blur": 0.9, "entropy": 3}, BLANK),
    ],
)
def test_what_is_unlike_its_dataset_is_left_out(changed, expected):
    found, _, why = verdicts(rows(50), rows(1, **changed))
    assert found == ["kept"] * 50 + [expected]
    assert why[0] == "within the limits of its dataset"
    assert expected == "kept" or why[-1].startswith(f"{expected}: ")


def test_what_is_usual_in_a_dataset_is_kept_however_blurred_saturated_or_flat():
    for changed in ({"blur": 0.8}, {"saturated": 0.9}, {"entropy": 3}):
        assert set(verdicts(rows(50, **changed))[0]) == {"kept"}


def test_blank_patches_are_found_where_most_are_blank():
    found, *_ = verdicts(rows(400, entropy=4.5), rows(60))
    assert found == [BLANK] * 400 + ["kept"] * 60


def test_noise_of_blank_patches_says_nothing_of_how_sharp_the_others_are():
    found, judged, _ = verdicts(rows(300, entropy=3, blur=0.1), rows(100, blur=0.65))
    assert found == [BLANK] * 300 + ["kept"] * 100
    assert judged.limits["fly"].most_blur > 0.65


def test_a_patch_of_hardly_more_than_one_grey_value_is_always_blank():
    assert set(verdicts(rows(50, entropy=0.3))[0]) == {BLANK}


def test_datasets_have_limits_of_their_own_and_small_ones_are_judged_together():
    found, judged, _ = verdicts(
        rows(40), rows(40, entropy=4), rows(15), rows(10, entropy=6.6), rows(1, entropy=2),
        datasets=["a", "b", "c", "d", "e"],
    )  # fmt: skip
    assert found == ["kept"] * 105 + [BLANK]
    assert judged.together == {"c", "d", "e"}
    assert judged.limits["c"] == judged.limits["e"] != judged.limits["a"]


def test_thresholds_are_settable_and_one_turns_them_off():
    spoilt = [rows(1, saturated=1.0), rows(1, blur=1.0), rows(1, entropy=4)]
    off = Rules(blank_bits=9, saturated_above=1, blurred_above=1.1)
    assert set(verdicts(rows(50), *spoilt, rules=off)[0]) == {"kept"}
    strict = Rules(blank_bits=0.5, saturated_above=0.01, blurred_above=0.4)
    found, *_ = verdicts(rows(50), rows(1, entropy=6), rows(1, saturated=0.05), rows(1, blur=0.45), rules=strict)
    assert found[50:] == [BLANK, TOO_SATURATED, BLURRED]


def test_patches_of_which_nothing_is_known_are_neither_kept_nor_given_a_reason():
    found, judged, why = verdicts(rows(30), np.full((2, 5), np.nan))
    assert found[30:] == ["unknown"] * 2 and why[30:] == ["", ""]
    assert judged.verdicts[-1] == UNKNOWN and judged.verdicts[0] == WITHIN and not judged.kept[30:].any()
    assert judge(np.full((2, 5), np.nan), np.zeros(2, int), ["fly"], Rules()).limits == {}


def test_a_patch_too_narrow_to_have_a_blur_is_not_blurred():
    narrow = rows(1)
    narrow[:, 3] = np.nan
    assert set(verdicts(rows(30), narrow)[0]) == {"kept"}
