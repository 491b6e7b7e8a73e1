"""Names of unfinished files: no two processes have the same, and who may sweep them away."""

import os
import subprocess
import sys

from emcurate import partials
from emcurate.partials import partial_path, remove_stale_partials
from emcurate.running.ledger import Ledger
from emcurate.running.locks import hold_lock, holds_alone, release_locks


def test_processes_that_count_alike_on_machines_of_one_name_have_other_names(tmp_path):
    """As in containers: each is process 1 of a machine of the same name, and makes its first file."""
    program = (
        "import itertools, os, socket; os.getpid = lambda: 1; socket.gethostname = lambda: 'box'; "
        "from emcurate import partials; partials._counter = itertools.count(); print(partials.partial_name())"
    )
    names = {
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
        for _ in range(8)
    }
    assert len(names) == 8


def test_a_later_process_of_the_same_number_is_another(tmp_path):
    mine = partial_path(tmp_path)
    left = mine.with_name(mine.name.replace(f"-{os.getpid()}-", f"-{os.getpid()}-1"))
    for path in (mine, left):
        path.touch()
    remove_stale_partials(tmp_path)
    assert mine.exists() and not left.exists()


def test_what_was_left_where_a_stage_keeps_things_for_itself_goes_too(tmp_path):
    for place in (tmp_path / ".emcurate", tmp_path / ".emcurate" / "test", tmp_path / ".emcurate" / "test" / "deeper"):
        place.mkdir()
        mine = partial_path(place)
        mine.touch()
        mine.with_name(mine.name.replace(f"-{os.getpid()}-", f"-{os.getpid()}-1")).touch()
    Ledger(tmp_path, "test", {}, product="things", owner_of=lambda name: None)
    release_locks()
    left = list(tmp_path.rglob("*.partial"))
    assert len(left) == 3 and all(f"-{os.getpid()}-" in path.name for path in left)


def test_what_another_machine_left_goes_once_nobody_else_can_be_writing(tmp_path):
    elsewhere = tmp_path / ".emcurate-other.0a1b2c3d-1-5.ffff.0.partial"
    of_an_older_version = tmp_path / ".emcurate-otherhost-1-0.partial"
    for path in (elsewhere, of_an_older_version):
        path.mkdir() if path == elsewhere else path.touch()
    remove_stale_partials(tmp_path)
    assert elsewhere.exists() and of_an_older_version.exists()
    Ledger(tmp_path, "test", {}, product="things", owner_of=lambda name: None)
    release_locks()
    assert not elsewhere.exists() and not of_an_older_version.exists()


def test_nobody_is_alone_beside_another_stage_that_is_under_way(tmp_path):
    mine, other = tmp_path / ".emcurate" / "mine.lock", tmp_path / ".emcurate" / "other.lock"
    assert not holds_alone(mine)
    hold_lock(mine, tmp_path)
    assert holds_alone(mine)
    program = (
        "import sys; from pathlib import Path; from emcurate.running.locks import hold_lock; "
        "hold_lock(Path(sys.argv[1]), Path()); print('held', flush=True); sys.stdin.read()"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", program, str(other)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    child.stdout.readline()
    assert not holds_alone(mine)
    child.communicate()
    assert holds_alone(mine)
    release_locks()


def test_names_hide_from_listings(tmp_path):
    assert partials.partial_name().startswith(".")
