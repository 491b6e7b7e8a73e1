"""Find, for each of many packed hashes, the first exemplar that is close enough; compiled, on several threads.

Apart from `hashing`, so that the many processes that only make or read hashes need not load a compiler.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import numpy.typing as npt
from numba.extending import intrinsic

from emcurate.patches.hashing import WordArray

# Exemplars compared before looking whether one was close enough: long enough for the vector units, short enough
# that the search stops soon after the first hit.
SEARCH_CHUNK = 512

_THREADS_AT_MOST: int = numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]


def find_first_within(
    queries: WordArray, exemplars: WordArray, distance: int, threads: int = 1
) -> npt.NDArray[np.int64]:
    """Return, for each of (n, words) hashes, the first of (m, words) exemplars within `distance`, or -1.

    The result does not depend on the number of threads.
    """
    numba.set_num_threads(min(threads, _THREADS_AT_MOST))
    return np.asarray(_find_first_within(queries, np.ascontiguousarray(exemplars.T), np.uint64(distance)))


@intrinsic
def _popcount(_context: Any, word: Any) -> Any:
    """Count the ones of a uint64: LLVM's ctpop, which vectorises, where a loop over bits would not."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.ctpop(arguments[0])

    return word(word), generate


def _compile(function: Any) -> Any:
    """Compile a function for several threads; kept on disk for the next run where any place can be written to."""
    try:
        return numba.njit(parallel=True, cache=True)(function)
    except RuntimeError:  # neither beside this file nor in the user's home
        return numba.njit(parallel=True)(function)


@_compile
def _find_first_within(queries: Any, exemplars: Any, distance: Any) -> Any:
    words, count = exemplars.shape
    first = np.full(len(queries), -1, np.int64)
    for q in numba.prange(len(queries)):
        distances = np.empty(SEARCH_CHUNK, np.uint64)
        for start in range(0, count, SEARCH_CHUNK):
            length = min(SEARCH_CHUNK, count - start)
            distances[:length] = 0
            for w in range(words):
                word = queries[q, w]
                for e in range(length):
                    distances[e] += _popcount(word ^ exemplars[w, start + e])  # type: ignore[call-arg]
            hits = 0
            for e in range(length):
                hits += distances[e] <= distance
            if hits:
                for e in range(length):
                    if distances[e] <= distance:
                        first[q] = start + e
                        break
                break
    return first
