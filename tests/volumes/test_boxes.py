import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emcurate.volumes.boxes import Box, Column, find_candidates, measure_overlap, score_stretches, suppress_overlapping

SHAPE = (100, 60, 70)
boxes = st.builds(
    lambda start, sides, score: Box(start, tuple(a + b for a, b in zip(start, sides, strict=True)), score),
    st.tuples(*[st.integers(0, 30)] * 3),
    st.tuples(*[st.integers(1, 15)] * 3),
    st.integers(1, 5),
)


def overlap_by_voxels(first, second):
    volume = np.zeros((2, 64, 64, 64), bool)
    volume[0][first.slices] = True
    volume[1][second.slices] = True
    return (volume[0] & volume[1]).sum() / (volume[0] | volume[1]).sum()


@given(boxes, boxes)
def test_overlap_equals_counting_voxels(first, second):
    assert measure_overlap(first, second) == pytest.approx(overlap_by_voxels(first, second))


@given(st.lists(boxes, max_size=40), st.sampled_from([0.0, 0.1, 0.5]))
def test_suppression_equals_the_naive_loop(candidates, threshold):
    kept = []
    for box in sorted(candidates, key=lambda b: (-b.score, b.start, b.stop)):
        if all(measure_overlap(box, other) <= threshold for other in kept):
            kept.append(box)
    assert suppress_overlapping(candidates, threshold) == kept


def candidates_of(columns, depth):
    return find_candidates(score_stretches(columns, SHAPE, depth), depth)


@pytest.mark.parametrize(
    ("plane", "start", "stop"),
    [(0, (20, 5, 7), (40, 13, 16)), (1, (5, 20, 7), (13, 40, 16)), (2, (5, 7, 20), (13, 16, 40))],
)
def test_a_column_runs_along_its_planes_axis(plane, start, stop):
    column = Column(plane, y=5, x=7, height=8, width=9)
    assert candidates_of({column: [21, 25, 39, 40]}, depth=20) == [Box(start, stop, 3)]


def test_a_stretch_needs_more_than_a_tenth_of_its_depth():
    column = Column(0, 0, 0, 8, 8)
    assert candidates_of({column: [0, 1]}, depth=20) == []
    assert len(candidates_of({column: [0, 1, 2]}, depth=20)) == 1
    # nz // 10, not nz / 10: at 29, more than two are enough.
    assert len(candidates_of({column: [0, 1, 2]}, depth=29)) == 1
    # A section named twice counts once.
    assert candidates_of({column: [0, 1, 1]}, depth=20) == []


def test_the_last_stretch_ends_with_the_volume():
    column = Column(1, 0, 0, 8, 8)
    (box,) = candidates_of({column: [50, 51, 59]}, depth=25)
    assert (box.start[1], box.stop[1]) == (50, 60)
