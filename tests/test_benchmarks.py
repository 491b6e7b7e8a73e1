import argparse
import ast
import importlib
import re
import sys
import types
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"

SCRIPTS = sorted(BENCHMARKS.glob("*.py"))

# What others use, or what is measured by hand: beside other programs, over hours, or with data of one's own.
NOT_IN_BENCH = {"history", "measuring", "published", "floor", "load", "diversity"}


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_a_benchmark_uses_what_there_is(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    modules = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "emcurate":
            if node.module.startswith("emcurate.classifier"):
                pytest.importorskip("torch")
            module = importlib.import_module(node.module)
            for name in (alias.name for alias in node.names):
                if not hasattr(module, name):
                    modules[name] = importlib.import_module(f"{node.module}.{name}")
                elif isinstance(getattr(module, name), types.ModuleType):
                    modules[name] = getattr(module, name)
    used = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)]
    for node in used:
        if node.value.id in modules and isinstance(node.ctx, ast.Load):
            assert hasattr(modules[node.value.id], node.attr), f"line {node.lineno}"


def test_make_bench_runs_every_benchmark(root):
    (listed,) = re.findall(r"^BENCHMARKS := (.*)$", (root / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert set(listed.split()) == {path.stem for path in SCRIPTS} - NOT_IN_BENCH


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
