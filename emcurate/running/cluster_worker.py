"""What the workers of a cluster are sent before anything of emcurate is known to be there.

These functions travel with their code: a worker without emcurate can still say so, and a scheduler needs Dask alone.
"""

from __future__ import annotations

from typing import Any


def look_around(python: str, function: bytes, paths: list[str]) -> dict[str, Any]:
    """Return this worker's versions of Python and emcurate, what the function lacks, and the paths it cannot see."""
    import os
    import platform

    state: dict[str, Any] = {"python": ".".join(platform.python_version_tuple()[:2]), "lacks": ""}
    state["hidden"] = [path for path in paths if not os.path.lexists(path)]
    try:
        from emcurate import __version__

        state["emcurate"] = __version__
    except Exception as error:
        return {**state, "emcurate": f"none ({type(error).__name__}: {error})"}
    if state["python"] == python:  # code of another Python cannot be tried
        import cloudpickle

        try:
            cloudpickle.loads(function)
        except Exception as error:
            state["lacks"] = f"{type(error).__name__}: {error}"
    return state


def run_task(function: bytes, jobs: bytes, seconds: float) -> bytes:
    """Do a chunk of jobs; all of it packed, since neither the scheduler nor Dask has to understand it."""
    import cloudpickle

    from emcurate.running.chunks import run_chunk

    answer: bytes = cloudpickle.dumps(run_chunk(cloudpickle.loads(function), cloudpickle.loads(jobs), seconds))
    return answer
