"""What jobs warn of: the `DataWarning`s of each job by themselves, whichever process or thread it runs in."""

from __future__ import annotations

import contextlib
import threading
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from emcurate.errors import DataWarning

# In a thread that shares this process with others: what its present job has warned of.
_here = threading.local()


@contextlib.contextmanager
def hear() -> Iterator[list[str]]:
    """Collect what a job warns of; the list is complete once the block has ended."""
    heard: list[str] = []
    if hasattr(_here, "heard"):
        _here.heard = heard
        yield heard
        return
    with warnings.catch_warnings(record=True) as caught:
        _heed_only_data_warnings()
        yield heard
    heard += [str(warning.message) for warning in caught if issubclass(warning.category, DataWarning)]


@contextlib.contextmanager
def without_chatter() -> Iterator[None]:
    """Let a user hear no warning of a library, in whatever of a run is no job."""
    with warnings.catch_warnings():
        _heed_only_data_warnings()
        yield


@contextlib.contextmanager
def start_threads(count: int) -> Iterator[ThreadPoolExecutor]:
    """Give threads for jobs that `hear`; their filters are set here, since Python's belong to all threads together."""
    with warnings.catch_warnings():
        _heed_only_data_warnings()
        show = warnings.showwarning

        def keep(message: Warning | str, *about: Any, **more: Any) -> None:
            heard: list[str] | None = getattr(_here, "heard", None)
            if heard is None:  # of the main thread, meanwhile
                show(message, *about, **more)
            else:
                heard.append(str(message))

        warnings.showwarning = keep
        threads = ThreadPoolExecutor(count, thread_name_prefix="jobs", initializer=_stand_apart)
        try:
            yield threads
        finally:
            threads.shutdown(cancel_futures=True)


def _stand_apart() -> None:
    _here.heard = []


def _heed_only_data_warnings() -> None:
    # Libraries chatter about files that are fine; what matters is said by a DataWarning.
    warnings.simplefilter("ignore")
    warnings.simplefilter("always", DataWarning)
