"""What the workers of a cluster are sent before anything of emcurate is known to be there.

These functions travel with their code: a worker without emcurate can still say so, and a scheduler needs Dask alone.
"""

from __future__ import annotations

from typing import Any


def look_around(paths: list[str]) -> dict[str, Any]:
    """Return what this worker has: its version of emcurate, of Python, and those of the paths that it cannot see."""
    import os
    import platform

    try:
        from emcurate import __version__

        found, why = __version__, ""
        import emcurate.running.chunks  # noqa: F401 - what every task needs
    except Exception as error:
        found, why = "none", f"{type(error).__name__}: {error}"
    return {
        "emcurate": found,
        "why": why,
        "python": ".".join(platform.python_version_tuple()[:2]),
        "hidden": [path for path in paths if not os.path.lexists(path)],  # noqa: PTH110
    }


def run_task(function: bytes, jobs: bytes, seconds: float) -> bytes:
    """Do a chunk of jobs; all of it packed, since neither the scheduler nor Dask has to understand it."""
    import cloudpickle

    from emcurate.running.chunks import run_chunk

    answer: bytes = cloudpickle.dumps(run_chunk(cloudpickle.loads(function), cloudpickle.loads(jobs), seconds))
    return answer
