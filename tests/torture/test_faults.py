"""The tortures of faults and of damaged state in their short forms; and that they would notice."""

from pathlib import Path

import pytest

from emcurate.running import comparison, ledger_file
from emcurate.running import ledger as ledgers
from tests.quick import make_stages_quick
from tests.torture import faults, state, syscalls

pytestmark = pytest.mark.skipif(not syscalls.are_seen(), reason="this system does not ask about changes of files")

SEED = "0"
MOMENTS = 5  # of the tens to thousands that each command has
DAMAGES = 3  # of the hundreds that each kind has

POWER_CUT = "the power is cut"


@pytest.fixture(scope="module", autouse=True)
def quick_stages_that_note_everything_at_once():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ledgers, "NOTED_SECONDS", -1.0)
        make_stages_quick(patch.setattr)
        yield


@pytest.fixture(scope="module")
def faulty(tmp_path_factory):
    return faults.Torture(SEED, tmp_path_factory.mktemp("faults"))


@pytest.fixture(scope="module")
def damaged(tmp_path_factory):
    return state.Torture(SEED, tmp_path_factory.mktemp("state"))


@pytest.mark.parametrize(
    "name",
    ["mrc2byte in place", "cleanup2d, over others", "crop_patches into shards", "deduplicate"],
)
def test_whatever_a_change_of_a_file_ends_with_the_same_command_finishes_it(faulty, name):
    said = faulty.torture(name, MOMENTS)
    found, faulty.findings = faulty.findings, []
    assert not found, "\n".join(found)
    assert "changes; " in said


@pytest.mark.parametrize("name", ["cleanup2d", "crop_patches"])
def test_damaged_state_is_mended_or_named(damaged, name):
    said = damaged.torture(name, DAMAGES)
    found, damaged.findings = damaged.findings, []
    assert not found, "\n".join(found)
    assert "mended" in said


def test_the_torture_notices_a_stage_that_does_not_wait_for_the_disk(faulty, monkeypatch):
    monkeypatch.setattr(ledger_file, "sync_outputs", lambda directory, names: None)
    faulty.torture("cleanup2d", MOMENTS, [POWER_CUT])
    found, faulty.findings = faulty.findings, []
    assert any("noted as done what the disk does not have" in finding for finding in found)


def test_the_torture_notices_a_stage_that_does_not_look_at_its_results(damaged, monkeypatch):
    monkeypatch.setattr(comparison, "find_damaged", lambda directory, outputs: [])
    damaged.name, damaged.command, damaged.more = "cleanup2d", damaged.commands["cleanup2d"], ()
    assert damaged.learn()
    whole = damaged.keep(state.FINISHED)
    damaged.try_damage(whole, Path("image 1-LOC-2d.tiff"), "emptied", state.write(b""), state.FINISHED)
    found, damaged.findings = damaged.findings, []
    assert any("differ from a run without harm" in finding for finding in found)
