"""The published draw of COCO images, and the report about it."""

import pytest

from emcurate.errors import InputError
from emcurate.trimming.coco import select_records
from emcurate.trimming.coco_selection import REPORT_COLUMNS, merge_report, select_images

HEAD = ",".join(REPORT_COLUMNS)
TRAIN, NEW_TRAIN, VAL = (
    f"{name},3,car,{number},2,no,9,2,no" for name, number in (("train", 5), ("train", 6), ("val", 7))
)


def test_selection_is_pinned():
    # So that the rule and its literal twin cannot drift together, nor with another numpy.
    labels = {i: [3] if i % 3 else [1] for i in range(1, 31)}
    assert sorted(select_images(labels, 3, 6).images) == [1, 9, 18, 23, 24, 26]
    assert sorted(select_images(labels, 3, 6, seed=1).images) == [3, 5, 10, 18, 24, 25]


@pytest.mark.parametrize(
    ("earlier", "split", "row", "expected"),
    [
        ([], "val", VAL, [VAL]),
        ([HEAD, VAL], "train", NEW_TRAIN, [NEW_TRAIN, VAL]),
        ([HEAD, TRAIN], "val", VAL, [TRAIN, VAL]),
        ([HEAD, TRAIN, VAL], "train", NEW_TRAIN, [NEW_TRAIN, VAL]),
        ([HEAD, TRAIN, VAL[:-9]], "train", NEW_TRAIN, [NEW_TRAIN]),
        (["something else"], "train", NEW_TRAIN, [NEW_TRAIN]),
    ],
)
def test_a_splits_rows_take_the_place_of_its_earlier_ones(earlier, split, row, expected):
    text = "".join(f"{line}\n" for line in earlier)
    assert merge_report(text, split, [row.split(",")]).splitlines() == [HEAD, *expected]


def test_a_last_line_that_was_cut_off_is_no_row():
    assert merge_report(f"{HEAD}\n{TRAIN}\n{VAL[:-1]}", "train", []).splitlines() == [HEAD]


def test_a_record_that_is_no_utf8_is_named(tmp_path):
    path = tmp_path / "instances.json"
    around = b'{"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": [%s]}'
    path.write_bytes(around % b'{"image_id": 1, "category_id": 3, "note": "caf\xe9"}')
    with pytest.raises(InputError, match=r"instances\.json: .* found a record that is none"):
        select_records([path], [1])
