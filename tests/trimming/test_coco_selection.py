"""The published draw of COCO images."""

from emcurate.trimming.coco_selection import select_images


def test_selection_is_pinned():
    # So that the rule and its literal twin cannot drift together, nor with another numpy.
    labels = {i: [3] if i % 3 else [1] for i in range(1, 31)}
    assert sorted(select_images(labels, 3, 6).images) == [1, 9, 18, 23, 24, 26]
    assert sorted(select_images(labels, 3, 6, seed=1).images) == [3, 5, 10, 18, 24, 25]
