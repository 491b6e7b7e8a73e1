import argparse
import importlib
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"


@pytest.fixture
def history(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    module = importlib.import_module("history")
    monkeypatch.setattr(module, "FILE", tmp_path / "history.csv")
    yield module
    for name in ("history", "measuring"):
        sys.modules.pop(name, None)


def flags(record):
    return argparse.Namespace(record=record, notes="quiet")


def test_a_ratio_that_slid_since_it_was_recorded_is_called_slower(history, capsys):
    history.compare("pipeline", "small", {"sections": 4.0, "files": 2.0}, flags(record=True))
    capsys.readouterr()
    history.compare("pipeline", "small", {"sections": 2.0, "files": 1.9}, flags(record=False))
    printed = capsys.readouterr().out
    assert "-50%" in printed and "-5%" in printed
    assert printed.splitlines()[-1] == "SLOWER than recorded: sections"


def test_what_cores_did_counts_more_than_seconds(history, capsys):
    history.compare("pipeline", "small", {"sections": 4.0}, flags(record=True), {"sections": 3.0})
    history.compare("pipeline", "small", {"sections": 1.0}, flags(record=False), {"sections": 2.9})
    assert "SLOWER" not in capsys.readouterr().out
    history.compare("pipeline", "small", {"sections": 4.0}, flags(record=False), {"sections": 1.0})
    assert "SLOWER" in capsys.readouterr().out


def test_ratios_of_other_setups_are_not_compared(history, capsys):
    history.compare("pipeline", "small", {"sections": 4.0}, flags(record=True))
    history.compare("pipeline", "large", {"sections": 1.0}, flags(record=False))
    assert "SLOWER" not in capsys.readouterr().out


def test_only_asked_for_ratios_are_recorded_the_last_one_counts(history, capsys):
    history.compare("pipeline", "small", {"sections": 4.0}, flags(record=True))
    history.compare("pipeline", "small", {"sections": 1.0}, flags(record=False))
    history.compare("pipeline", "small", {"sections": 2.0}, flags(record=True))
    assert [row["ratio"] for row in history.read_history()] == ["4.00", "2.00"]
    capsys.readouterr()
    history.compare("pipeline", "small", {"sections": 2.0}, flags(record=False))
    assert "+0%" in capsys.readouterr().out
