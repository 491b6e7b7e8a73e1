"""On a cluster every stage writes what it writes here, whoever dies meanwhile; and what is wrong with it is said."""

import importlib
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import tifffile

from emcurate import __version__
from emcurate.diversity import kmeans, points
from emcurate.errors import DataWarning, InputError
from emcurate.partials import partial_path, remove_stale_partials
from emcurate.running import cluster as cluster_module
from emcurate.running.jobs import Workers
from emcurate.running.report import Report
from tests.clusters import DaskCluster, count_files, make_broken_package, wait_until
from tests.patch_sets import make_patch_set
from tests.results import contents
from tests.web import serve

pytest.importorskip("distributed")

IMAGES = 150
needs_proc = pytest.mark.skipif(not Path("/proc/self/cwd").exists(), reason="paths of one process alone are Linux's")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory, root):
    """A cluster of two workers; none of its tests may harm it."""
    with DaskCluster(tmp_path_factory.mktemp("cluster"), root) as started:
        started.add_worker()
        started.add_worker()
        started.wait_for_workers(2)
        yield started


@pytest.fixture
def empty_cluster(tmp_path, root):
    """A scheduler that gives up a task when the first worker has died of it, and no workers yet."""
    (tmp_path / "cluster").mkdir()
    with DaskCluster(tmp_path / "cluster", root, DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES="0") as started:
        yield started


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch = pytest.importorskip("torch")
    from emcurate.classifier.card import InputFormat, write_card
    from emcurate.classifier.network import build_network, save_weights

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "weights.pth"
    save_weights(path, build_network().state_dict())
    write_card(path, InputFormat(image_size=32), 0.5, {})
    return path


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Images that take a second or two in all."""
    directory = tmp_path_factory.mktemp("images")
    pixels = np.random.default_rng(0).integers(0, 65536, (768, 768), dtype=np.uint16)
    for number in range(IMAGES):
        tifffile.imwrite(
            directory / f"{number:03d}.tif",
            np.roll(pixels, number, axis=0),
            compression="zlib",
            compressionargs={"level": 1},
        )
    return directory


@pytest.fixture(scope="module")
def sections(images, tmp_path_factory):
    """What becomes of the images here."""
    return run_here("raw.cleanup2d", images, tmp_path_factory.mktemp("sections"))


def run_here(stage, *arguments):
    """Run a stage with two processes; return its last argument, the output directory."""
    assert importlib.import_module(stage).main([*map(str, arguments), "-p", "2"]) == 0
    return arguments[-1]


def start_cleanup(root, images, out, address):
    command = [sys.executable, str(root / "raw" / "cleanup2d.py"), str(images), str(out), "--scheduler", address]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env={**os.environ, "PYTHONPATH": str(root)})


def test_every_stage_writes_the_same_bytes(cluster, small_corpus, tmp_path, capsys):
    here = tmp_path / "here"
    patches, exemplars = here / "patches", here / "exemplars" / "deduplicated_fpaths.npz"
    runs = (
        ("raw.cleanup2d", [small_corpus / "images"], "sections"),
        ("raw.cross_section3d", [small_corpus / "volumes", "--spacing", "4"], "sections"),
        ("raw.crop_patches", [here / "sections", "--crop_size", "32"], "patches"),
        ("deduplicated.deduplicate", [patches, "--pictures", "all"], "exemplars"),
        ("3d.reconstruct3d", [exemplars, small_corpus / "volumes", "-nz", "16"], "subvolumes"),
        ("preprocess.vid2stack", [small_corpus / "videos", "-o"], "stacks"),
        ("preprocess.mrc2byte", [small_corpus / "volumes", "-o"], "unsigned"),
    )
    for stage, arguments, out in runs:
        main = importlib.import_module(stage).main
        flags = [word for word in arguments if str(word).startswith("-") or str(word).isalnum()]
        inputs = [word for word in arguments if word not in flags]
        last = ["-o"] if flags[-1:] == ["-o"] else []
        flags = [str(word) for word in flags if word != "-o"]
        for place, who in ((here, ["-p", "2"]), (tmp_path / "there", ["--scheduler", cluster.address])):
            place.mkdir(exist_ok=True)
            assert main([*map(str, inputs), *last, str(place / out), *flags, *who]) == 0, capsys.readouterr().err
        assert contents(here / out), stage
        assert contents(here / out) == contents(tmp_path / "there" / out), stage


def test_the_classifier_scores_alike(cluster, weights, tmp_path, capsys):
    classify_nn = importlib.import_module("filtered.classify_nn")
    patches = make_patch_set(tmp_path, count=300)
    Path(patches.paths[7]).write_bytes(b"II*\0")
    common = [str(patches.fpaths), "--weights", str(weights), "--device", "cpu"]
    assert classify_nn.main([*common, str(tmp_path / "here"), "-p", "1"]) == 1
    assert classify_nn.main([*common, str(tmp_path / "there"), "--scheduler", cluster.address]) == 1
    captured = capsys.readouterr()
    assert captured.err.count(f"{patches.paths[7]}: expected") == 2
    assert captured.out.count("299 patches scored") == 2
    assert contents(tmp_path / "here") == contents(tmp_path / "there")
    # The weights went there for the time of the run only, and a run here finds what the cluster scored.
    assert not list((tmp_path / "there").rglob("*.pth"))
    assert classify_nn.main([*common, str(tmp_path / "there"), "-p", "1"]) == 1
    assert "0 patches scored, 299 scored before" in capsys.readouterr().out


def test_features_and_selections_are_alike(cluster, weights, tmp_path, monkeypatch, capsys):
    embed, select_diverse = (importlib.import_module(f"filtered.{name}") for name in ("embed", "select_diverse"))
    monkeypatch.setattr(points, "JOB_ROWS", 64)
    monkeypatch.setattr(kmeans, "JOB_ROWS", 64)
    patches = make_patch_set(tmp_path, count=300)
    ways = {"here": ["-p", "1"], "there": ["--scheduler", cluster.address]}
    for place, who in ways.items():
        words = [str(patches.fpaths), str(tmp_path / place / "embed"), "--weights", str(weights), "--device", "cpu"]
        assert embed.main([*words, *who]) == 0, capsys.readouterr().err
        words = [str(patches.fpaths), str(tmp_path / "here" / "embed"), str(tmp_path / place / "selected")]
        assert select_diverse.main([*words, "--budget", "50", *who]) == 0, capsys.readouterr().err
    assert contents(tmp_path / "here") == contents(tmp_path / "there")
    assert not list((tmp_path / "there").rglob("*.pth"))


def test_a_script_writes_the_same_bytes(cluster, root, images, sections, tmp_path):
    run = start_cleanup(root, images, tmp_path, cluster.address)
    out, error = run.communicate(timeout=60)
    assert (run.returncode, f"{IMAGES} sections written" in out) == (0, True), error
    assert contents(tmp_path) == contents(sections)


def test_a_run_goes_on_when_a_worker_is_killed(empty_cluster, root, images, sections, tmp_path):
    first = empty_cluster.add_worker()
    empty_cluster.add_worker()
    empty_cluster.wait_for_workers(2)
    run = start_cleanup(root, images, tmp_path / "out", empty_cluster.address)
    wait_until(lambda: count_files(tmp_path / "out", "*.tiff") > 5)
    os.kill(first.pid, signal.SIGKILL)
    assert count_files(tmp_path / "out", "*.tiff") < IMAGES
    _, error = run.communicate(timeout=60)
    assert run.returncode == 0, error
    assert contents(tmp_path / "out") == contents(sections)  # nor is what the killed worker was writing left there
    assert contents(run_here("raw.cleanup2d", images, tmp_path / "out")) == contents(sections)


def test_a_scheduler_that_dies_is_named_and_the_next_run_goes_on(empty_cluster, root, images, sections, tmp_path):
    empty_cluster.add_worker()
    run = start_cleanup(root, images, tmp_path / "out", empty_cluster.address)
    wait_until(lambda: count_files(tmp_path / "out", "*.tiff") > 5)
    os.kill(empty_cluster.scheduler.pid, signal.SIGKILL)
    _, error = run.communicate(timeout=60)
    assert run.returncode == 1
    assert f"{empty_cluster.address}: expected the Dask scheduler to stay" in error
    assert "run the same command again" in error and "Traceback" not in error and "Exception ignored" not in error
    assert 5 < count_files(tmp_path / "out", "*.tiff") < IMAGES
    assert contents(run_here("raw.cleanup2d", images, tmp_path / "out")) == contents(sections)


def leave_partial(job):
    """Begin a file and die, the first who comes to it; then find it gone, or that somebody else is at it."""
    number, directory = job
    if number == 4 and not (directory / "died").exists():
        (directory / "died").touch()
        partial_path(directory).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def test_what_a_killed_worker_had_begun_is_swept_up_by_the_run_that_lost_it(empty_cluster, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    remove_stale_partials(out)  # as a stage does with the directory of its results
    for _ in range(2):
        empty_cluster.add_worker()
    jobs = [(number, out) for number in range(30)]
    done = dict(Workers(scheduler=empty_cluster.address).run(leave_partial, jobs, Report("test")))
    assert sorted(done.values()) == list(range(30))
    assert [path.name for path in out.iterdir()] == ["died"]


def square(number):
    if number == 3:
        raise InputError("three.tif", "a number that is not 3", "3", "leave it out")
    if number == 5:
        raise ZeroDivisionError("five")
    if number == 7:
        return threading.Lock()
    if number % 2:
        warnings.warn("odd numbers occur", DataWarning, stacklevel=1)
    return number**2


def test_failures_stay_with_their_inputs(cluster):
    report = Report("test")
    done = dict(Workers(scheduler=cluster.address).run(square, range(500), report))
    assert done == {n: n**2 for n in range(500) if n not in (3, 5, 7)}
    assert report.warnings == ["odd numbers occur"]
    assert len(report.failures) == 3
    for words in ("three.tif: expected a number that is not 3", "ZeroDivisionError: five", "7: square failed with"):
        assert any(words in failure for failure in report.failures)


def die_at_four(number):
    if number == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def test_an_input_that_kills_its_workers_is_named_and_costs_no_other(empty_cluster):
    for _ in range(2):
        empty_cluster.add_worker("--nanny")  # which starts a worker again
    report = Report("test")
    done = dict(Workers(scheduler=empty_cluster.address).run(die_at_four, range(30), report))
    assert sorted(done) == [n for n in range(30) if n != 4]
    assert len(report.failures) == 1
    assert report.failures[0].startswith("4: every worker that began it died")


def test_an_answer_that_went_with_its_worker_is_given_by_another(empty_cluster):
    worker = empty_cluster.add_worker()
    with cluster_module.connect(empty_cluster.address, doze, [0]) as cluster:
        ticket = cluster.submit(doze, [0], 1.0)
        wait_until(lambda: not cluster._ended.empty())
        os.killpg(worker.pid, signal.SIGKILL)
        wait_until(lambda: cluster._running[ticket].status == "lost")
        another = empty_cluster.add_worker()
        [(answered, answer)] = cluster.wait()
    assert answered == ticket
    assert [outcome.value for outcome in answer.outcomes] == [another.pid]


def doze(_):
    time.sleep(0.05)
    return os.getpid()


def test_workers_may_come_later(empty_cluster, capsys):
    processes = []
    waiting = threading.Thread(
        target=lambda: processes.extend(
            pid for _, pid in Workers(scheduler=empty_cluster.address).run(doze, range(60), Report("test"))
        )
    )
    waiting.start()
    wait_until(lambda: "has no workers; waiting" in capsys.readouterr().err)
    empty_cluster.add_worker()
    empty_cluster.add_worker()
    waiting.join(60)
    assert len(processes) == 60
    assert set(processes) == {worker.pid for worker in empty_cluster.workers}


def test_nobody_waits_for_ever_for_a_scheduler_that_hangs(empty_cluster, monkeypatch):
    monkeypatch.setattr(cluster_module, "ANSWER_SECONDS", 1.0)
    monkeypatch.setattr(cluster_module, "GREETING_SECONDS", 2.0)
    empty_cluster.add_worker()
    empty_cluster.wait_for_workers(1)
    done = Workers(scheduler=empty_cluster.address).run(doze, range(200), Report("test"))
    next(done)
    os.kill(empty_cluster.scheduler.pid, signal.SIGSTOP)
    with pytest.raises(InputError, match="expected the Dask scheduler to stay, found no answer any more"):
        list(done)


def test_nobody_waits_for_ever_for_workers(empty_cluster, monkeypatch):
    monkeypatch.setattr(cluster_module, "NO_WORKERS_SECONDS", 0.5)
    with pytest.raises(InputError, match="expected workers, found none for"):
        list(Workers(scheduler=empty_cluster.address).run(doze, range(2), Report("test")))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("emcurate", "raise ImportError('gone')", f"emcurate {__version__}, as here, found none (ImportError: gone)"),
        ("emcurate", "__version__ = '0.0.1'", f"emcurate {__version__}, as here, found 0.0.1"),
        ("tifffile", "raise ImportError('gone')", "all that convert_image needs, found ImportError: gone"),
    ],
)
def test_a_worker_with_other_packages_is_named(empty_cluster, images, tmp_path, capsys, name, text, message):
    empty_cluster.add_worker(package=make_broken_package(tmp_path / "other", name, text))
    cleanup2d = importlib.import_module("raw.cleanup2d")
    assert cleanup2d.main([str(images), str(tmp_path / "out"), "--scheduler", empty_cluster.address]) == 1
    *_, heading, line = capsys.readouterr().err.splitlines()
    assert heading == "Failed:"
    assert line.startswith("  the worker tcp://127.0.0.1:")
    assert line.endswith(f": expected {message}; {cluster_module.ENVIRONMENT_ADVICE}")
    assert not count_files(tmp_path / "out", "*.tiff")


@needs_proc
@pytest.mark.parametrize("hidden", ["images", "out"])
def test_a_worker_that_does_not_see_the_files_is_named(empty_cluster, images, tmp_path, monkeypatch, capsys, hidden):
    # /proc/self/cwd is another directory for each process, as /home may be on each machine.
    (tmp_path / "here" / "out").mkdir(parents=True)
    (tmp_path / "there" / "out").mkdir(parents=True)
    (tmp_path / "here" / "images").symlink_to(images)
    if hidden == "out":
        (tmp_path / "there" / "images").symlink_to(images)
    monkeypatch.chdir(tmp_path / "here")
    empty_cluster.add_worker(directory=tmp_path / "there")
    cleanup2d = importlib.import_module("raw.cleanup2d")
    arguments = ["/proc/self/cwd/images", "/proc/self/cwd/out", "--scheduler", empty_cluster.address]
    assert cleanup2d.main(arguments) == 1
    error = capsys.readouterr().err
    assert f"expected to see /proc/self/cwd/{hidden}" in error and "under the same path" in error
    assert error.count("expected to see") == 1
    assert contents(tmp_path / "here" / "out") == contents(tmp_path / "there" / "out") == {}


@pytest.mark.parametrize(
    ("address", "found"), [("nonsense", "missing port"), ("tcp://127.0.0.1", "missing port"), ("foo://x:1", "'foo'")]
)
def test_an_address_that_is_none_is_named_at_once(root, images, tmp_path, address, found):
    run = start_cleanup(root, images, tmp_path, address)
    _, error = run.communicate(timeout=60)
    assert run.returncode == 1
    assert error.splitlines()[-1].startswith(f"  {address}: expected a Dask scheduler at this address, found")
    assert found in error.splitlines()[-1]


def test_whatever_else_answers_is_no_scheduler(cluster, monkeypatch):
    monkeypatch.setattr(cluster_module, "GREETING_SECONDS", 2.0)
    from distributed import Client

    with Client(cluster.address, set_as_default=False) as client:
        worker = next(iter(client.nthreads()))
    with serve(lambda handler: handler.send_response(200)) as site:
        for address in (worker, site.replace("http://", "tcp://"), "tcp://127.0.0.1:1"):
            with pytest.raises(InputError, match="expected a Dask scheduler at this address"):
                list(Workers(scheduler=address).run(doze, range(2), Report("test")))
