import pytest

from emcurate.errors import InputError
from emcurate.running.ledger import Entry, Ledger

PARAMETERS = {"crop_size": 224, "limits": (1, 2)}


@pytest.fixture
def ledger(tmp_path):
    ledger = Ledger(tmp_path, "stage")
    ledger.record("a", Entry("10 bytes", PARAMETERS, 2))
    return ledger


def test_finished_inputs_survive(tmp_path, ledger):
    again = Ledger(tmp_path, "stage").plan({"a": "10 bytes", "b": "5 bytes"}, PARAMETERS, {"a": 2})
    assert (again.new, again.stale, again.done) == (["b"], {}, ["a"])


def test_noting_the_same_again_writes_nothing(ledger):
    before = ledger.path.read_bytes()
    ledger.record("a", Entry("10 bytes", PARAMETERS, 2))
    assert ledger.path.read_bytes() == before


def test_lost_outputs_are_made_again(ledger):
    assert ledger.plan({"a": "10 bytes"}, PARAMETERS, {"a": 1}).new == ["a"]


def test_changed_input_and_parameters_are_told_apart(ledger):
    assert ledger.plan({"a": "11 bytes"}, PARAMETERS, {"a": 2}).stale == {"a": "its input has changed"}
    other = {**PARAMETERS, "crop_size": 64}
    plan = ledger.plan({"a": "10 bytes"}, other, {"a": 2})
    assert plan.stale == {"a": "parameters changed, from crop_size 224 to crop_size 64"}
    with pytest.raises(InputError, match=r"crop_size 64.*crop_size 224.*--overwrite"):
        ledger.refuse_other_parameters(plan, other)


def test_a_line_cut_off_by_a_kill_costs_that_line_only(tmp_path, ledger):
    with open(ledger.path, "a") as file:
        file.write('\n{"input": "b", "finger')
    again = Ledger(tmp_path, "stage")
    again.record("c", Entry("x", PARAMETERS, 1))
    assert set(Ledger(tmp_path, "stage").entries) == {"a", "c"}
