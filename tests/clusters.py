"""Real Dask clusters to test with: a scheduler and workers, each a process of its own, as on several machines."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

SECONDS = 60


class DaskCluster:
    """A scheduler, and the workers it is given; everything is killed at the end of a ``with`` block.

    Parameters
    ----------
    directory : Path
        Where the processes run and write their logs.
    root : Path
        The repository, which the workers import emcurate from.
    settings : str
        Dask's settings, as environment variables.
    """

    def __init__(self, directory, root, **settings):
        self.directory = directory
        self._environment = {**os.environ, "PYTHONPATH": str(root)}
        self.workers = []
        # The scheduler gets no emcurate: it needs none.
        described = directory / "scheduler.json"
        options = ["--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--no-show", "--scheduler-file"]
        environment = {**os.environ, "PYTHONPATH": str(make_broken_package(directory / "no emcurate")), **settings}
        self.scheduler = self._start("scheduler", [*options, str(described)], environment)
        wait_until(lambda: described.exists() and described.read_text())
        self.address = json.loads(described.read_text())["address"]

    def add_worker(self, *options, package=None, directory=None):
        """Start a worker, perhaps with a package of its own or in another directory; return its process."""
        environment = dict(self._environment)
        if package:
            environment["PYTHONPATH"] = f"{package}{os.pathsep}{environment['PYTHONPATH']}"
        scratch = ["--nthreads", "1", "--no-dashboard", "--local-directory", str(self.directory)]
        worker = self._start(
            "worker", [self.address, *scratch, *(options or ["--no-nanny"])], environment, directory or self.directory
        )
        self.workers.append(worker)
        return worker

    def wait_for_workers(self, count):
        """Return when so many workers are there."""
        from distributed import Client

        with Client(self.address, set_as_default=False) as client:
            client.wait_for_workers(count, timeout=SECONDS)

    def _start(self, name, options, environment, directory=None):
        with open(self.directory / f"{name} {time.monotonic()}.log", "wb") as log:
            return subprocess.Popen(
                [sys.executable, "-m", f"distributed.cli.dask_{name}", *options],
                env=environment,
                cwd=directory or self.directory,
                stdout=log,
                stderr=log,
                start_new_session=True,  # so that a nanny goes together with its worker
            )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in [*self.workers, self.scheduler]:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(SECONDS)


def make_broken_package(directory, name="emcurate", text="raise ImportError('gone')"):
    """Make a package that is not the real one, for PYTHONPATH; return its directory."""
    (directory / name).mkdir(parents=True)
    (directory / name / "__init__.py").write_text(text)
    return directory


def wait_until(condition):
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def count_files(directory, pattern):
    return len(list(Path(directory).glob(pattern)))
