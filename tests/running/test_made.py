"""Things that are made when they are asked for, against a list of them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emcurate.running.made import MadeWhenAsked


class Squares(MadeWhenAsked):
    def __init__(self, count):
        self.count, self.made = count, []

    def __len__(self):
        return self.count

    def make(self, index):
        self.made.append(index)
        return index**2


ends = st.none() | st.integers(-12, 12)


@given(st.integers(0, 9), ends, ends, st.none() | st.integers(-4, 4).filter(bool))
def test_it_is_a_sequence_like_a_list(count, start, stop, step):
    squares, listed = Squares(count), [index**2 for index in range(count)]
    assert list(squares) == listed and squares[start:stop:step] == listed[start:stop:step]
    assert [squares[index] for index in range(-count, count)] == [listed[index] for index in range(-count, count)]
    for index in (count, -count - 1):
        with pytest.raises(IndexError):
            squares[index]


def test_only_what_is_asked_for_is_made():
    squares = Squares(10**12)
    assert squares[-1] == (10**12 - 1) ** 2 and next(iter(squares)) == 0 and 49 in squares
    assert squares.made == [10**12 - 1, 0, *range(8)]
