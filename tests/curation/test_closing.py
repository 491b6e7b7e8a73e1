from pathlib import Path

from emcurate.curation.closing import DATASETS_SHOWN, Counts, format_datasets, format_stages, format_table
from emcurate.reporting.page import StageRun


def test_a_table_has_a_line_a_dataset_and_one_of_all():
    counts = {"fly": Counts(3, 1200, 4, 200, 1000, 10, 990, 5), "wing": Counts(1, 2, 0, 0, 2, 0, 2, 0)}
    lines = format_datasets(counts)
    assert lines[0].split("  ")[0] == "dataset" and "left out small" in lines[0]
    assert [line.split() for line in lines[1:]] == [
        ["fly", "3", "1,200", "4", "200", "1,000", "10", "990", "5"],
        ["wing", "1", "2", "0", "0", "2", "0", "2", "0"],
        ["all", "4", "1,202", "4", "200", "1,002", "10", "992", "5"],
    ]
    assert len({len(line) for line in lines}) == 1
    assert format_datasets({}) == []
    assert len(format_datasets({"fly": Counts()})) == 2  # nothing to be summed up


def test_of_many_datasets_the_largest_are_shown_and_the_others_counted_together():
    counts = {f"d{number:04}": Counts(patches=number) for number in range(1000)}
    lines = format_datasets(counts)
    assert len(lines) == 1 + DATASETS_SHOWN + 2
    shown = [line.split()[0] for line in lines[1 : DATASETS_SHOWN + 1]]
    assert shown == [f"d{number:04}" for number in range(1000 - DATASETS_SHOWN, 1000)]
    rest = 1000 - DATASETS_SHOWN
    assert lines[-2].startswith(f"{rest} more datasets") and lines[-2].split()[4] == f"{sum(range(rest)):,}"
    assert lines[-1].split()[2] == f"{sum(range(1000)):,}"


def test_long_names_are_cut_short_and_stages_that_ran_twice_are_added_up(tmp_path):
    assert format_table(["name", "n"], [["x" * 99, 1]])[1].split() == [f"{'x' * 31}…", "1"]
    ran = [
        StageRun("crop_patches", "", 1.0, ""),
        StageRun("deduplicate", "", 2.0, ""),
        StageRun("crop_patches", "", 0.5, ""),
    ]
    lines = format_stages(ran, dict.fromkeys(("crop_patches", "deduplicate"), Path(tmp_path)))
    assert [line.split() for line in lines[1:]] == [["crop_patches", "1.5", "0.0"], ["deduplicate", "2.0", "0.0"]]
