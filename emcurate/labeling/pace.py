"""How fast somebody labels."""

from __future__ import annotations

from collections import deque

# What counts: labels given lately, without pauses.
SECONDS_REMEMBERED = 300.0
LONGEST_PAUSE = 30.0

# Seconds of labelling below which a rate would be a guess.
SHORTEST = 20.0


class Pace:
    """Labels a minute over the last minutes of labelling; pauses do not count.

    >>> pace = Pace()
    >>> for second in range(0, 60, 2):
    ...     pace.add(1, float(second))
    >>> round(pace.per_minute())
    30
    """

    def __init__(self) -> None:
        self._steps: deque[tuple[float, int]] = deque()  # seconds since the label before, and labels
        self._seconds = 0.0
        self._last: float | None = None

    def add(self, count: int, now: float) -> None:
        """Note labels given now, in seconds of any clock."""
        if self._last is not None:
            # After a pause the time that the label itself took is not known.
            step = now - self._last
            if step <= LONGEST_PAUSE:
                self._steps.append((step, count))
                self._seconds += step
        self._last = now
        while self._steps and self._seconds - self._steps[0][0] >= SECONDS_REMEMBERED:
            self._seconds -= self._steps.popleft()[0]

    def per_minute(self) -> float | None:
        """Return labels a minute, or None as long as there are too few to tell."""
        if self._seconds < SHORTEST:
            return None
        return 60 * sum(count for _, count in self._steps) / self._seconds
