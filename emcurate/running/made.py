"""Sequences of things that are made when they are asked for: millions of jobs, of which a few are there at once."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import TypeVar, overload

T = TypeVar("T", covariant=True)


class MadeWhenAsked(Sequence[T]):
    """A sequence whose things are made by their places; say how many there are, and how each is made."""

    @abstractmethod
    def make(self, index: int) -> T:
        """Return the thing at a place, 0 or more and less than the length."""

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> list[T]: ...
    def __getitem__(self, index: int | slice) -> T | list[T]:
        if isinstance(index, slice):
            return [self.make(i) for i in range(*index.indices(len(self)))]
        place = index + len(self) if index < 0 else index
        if not 0 <= place < len(self):
            raise IndexError(f"{index} of {len(self)}")
        return self.make(place)

    def __iter__(self) -> Iterator[T]:
        return map(self.make, range(len(self)))
