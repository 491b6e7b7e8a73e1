"""Files beside the images of a trimmed COCO set."""

import pytest

from emcurate.trimming.coco_output import grows


@pytest.mark.parametrize(
    ("there", "expected"), [(b"b\n", True), (b"", True), (b"a\nb\n", True), (b"c\n", False), (None, False)]
)
def test_a_list_grows_if_it_only_lacks_lines(tmp_path, there, expected):
    if there is not None:
        (tmp_path / "l").write_bytes(there)
    assert grows(tmp_path / "l", b"a\nb\n") is expected
