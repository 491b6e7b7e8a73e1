"""Names of datasets that lie in directories, whatever lies above their corpus."""

import pytest

from emcurate.running.claims import name_directory


@pytest.mark.parametrize(("inside", "name"), [("fly/slices", "fly"), ("images/frames", "frames"), ("a 1.5", "a 1.5")])
def test_a_corpus_that_is_moved_keeps_the_names_of_its_datasets(tmp_path, inside, name):
    for above in ("here", "specimen/raw", "images/data"):
        directory = tmp_path / above / inside
        directory.mkdir(parents=True)
        assert name_directory(directory) == name
