import argparse
import dataclasses
from typing import Literal

import pytest

from emcurate import cli
from emcurate.errors import InputError
from emcurate.running.report import Report


@pytest.fixture
def parser():
    parser = cli.make_parser("Do something.\n\nExample: x", "stage.py")
    parser.add_argument("--number", type=int, default=3)
    cli.add_rescale_flags(parser)
    return parser


def test_counts_are_one_line_and_failures_come_last(parser, capsys):
    def run(number, rescale):
        report = Report("stage")
        report.count("patches", 12345 + number)
        report.warn("odd")
        report.warn("odd")
        report.note("look here")
        report.fail("a.tif: bad")
        return report

    assert cli.run_stage(run, parser, []) == 1
    captured = capsys.readouterr()
    assert captured.out.splitlines() == ["look here", "stage: 12,348 patches, 1 failed."]
    assert captured.err.splitlines() == ["warning: odd", "Failed:", "  a.tif: bad"]


def test_many_failures_are_cut_short_and_all_of_them_are_in_a_file(parser, tmp_path, capsys):
    failing = 25

    def run(number, rescale):
        report = Report("stage", directory=tmp_path)
        report.fail_all(f"{at}.tif: bad\nname" for at in range(failing))
        return report

    file = tmp_path / ".emcurate" / "stage.failures.txt"
    assert cli.run_stage(run, parser, []) == 1
    captured = capsys.readouterr()
    assert "25 failed" in captured.out
    lines = captured.err.splitlines()
    assert lines == [
        "Failed:",
        *(rf"  {at}.tif: bad\nname" for at in range(20)),
        f"  ... and 5 more: {file} has all of them",
    ]
    assert file.read_text().splitlines() == [rf"{at}.tif: bad\nname" for at in range(25)]
    failing = 20
    assert cli.run_stage(run, parser, []) == 1
    assert len(capsys.readouterr().err.splitlines()) == 21
    assert not file.exists()


def test_rescale_flags_arrive_as_one_value(parser):
    def run(number, rescale):
        assert rescale.method == "percentile"
        assert rescale.percentiles == (1, 99)
        return Report("stage")

    assert cli.run_stage(run, parser, ["--rescale", "percentile", "--percentiles", "1", "99"]) == 0


@pytest.mark.parametrize(
    ("problem", "words"),
    [
        (InputError("a.tif", "b", "c", "d"), "a.tif: expected b, found c; d"),
        (
            PermissionError(13, "Permission denied", "/secret"),
            "/secret: expected a place that can be read or written, found permission denied; ask its owner",
        ),
        (
            OSError(28, "No space left on device", "/full"),
            ": expected room for the results, found no space left (",
        ),
        (MemoryError("8 GiB"), "out of memory"),
    ],
)
def test_no_tracebacks_for_what_a_user_can_cause(parser, capsys, problem, words):
    def run(**arguments):
        raise problem

    assert cli.run_stage(run, parser, []) == 1
    assert words in capsys.readouterr().err.splitlines()[-1]


def test_interrupt(parser, capsys):
    def run(**arguments):
        raise KeyboardInterrupt

    assert cli.run_stage(run, parser, []) == 130
    assert "run the same command again" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (cli.positive_int, ["1", "20"], ["0", "-1", "1.5", "x", ""]),
        (cli.natural_int, ["0", "7"], ["-1", "x"]),
        (cli.hash_side, ["2", "16"], ["1", "0"]),
        (cli.positive_float, ["0.1", "5"], ["0", "-2", "nan", "inf", "x"]),
        (cli.non_negative_float, ["0", "2.5"], ["-0.1", "nan", "inf"]),
        (cli.fraction, ["0", "1", "0.5"], ["-0.1", "1.1", "nan"]),
        (cli.percentile, ["0", "100", "99.9"], ["-1", "101", "x"]),
    ],
)
def test_number_types(kind, good, bad):
    for text in good:
        assert kind(text) == float(text)
    for text in bad:
        with pytest.raises(argparse.ArgumentTypeError, match="expected"):
            kind(text)


def test_path_types(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    (tmp_path / "dir").mkdir()
    assert cli.existing_directory("dir/../dir") == tmp_path / "dir"
    assert cli.existing_file("file") == tmp_path / "file"
    assert cli.output_directory("new") == tmp_path / "new"
    for kind, text, found in [
        (cli.existing_directory, "file", "a file"),
        (cli.existing_directory, "none", "nothing"),
        (cli.existing_file, "dir", "a directory"),
        (cli.output_directory, "file", "a file"),
    ]:
        with pytest.raises(argparse.ArgumentTypeError, match=f"found {found}"):
            kind(text)


def field_of(default, text, **about):
    keys = ("group", "least", "above", "most", "metavar", "short")
    metadata = {**dict.fromkeys(keys), "text": text, "group": "some", "words": (), **about}
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True)
class Settings:
    mode: Literal["fast", "slow"] = field_of("fast", "how")
    steps: int = field_of(3, "how many", least=2)
    rate: float = field_of(0.5, "how quickly", above=0, most=1, short="-r")
    limit: float | None = field_of(None, "how far", least=0, group="other")
    start: str = field_of("here", "where", words=("here", "there"))
    level: Literal["a", "b"] | None = field_of(None, "which")
    loud: bool = field_of(False, "whether")


@pytest.fixture
def field_parser():
    parser = cli.make_parser("Do something.", "stage.py")
    cli.add_field_flags(parser, "settings", Settings, {"some": "the usual", "other": "the rest"})
    return parser


def test_flags_of_fields_come_back_as_one_value(field_parser, tmp_path):
    assert cli.parse_arguments(field_parser, []) == {"settings": Settings()}
    file = tmp_path / "file"
    file.touch()
    flags = [
        "--mode",
        "slow",
        "--steps",
        "2",
        "-r",
        "1",
        "--limit",
        "0",
        "--start",
        str(file),
        "--level",
        "b",
        "--loud",
    ]
    flags += ["--level", "b", "--loud"]
    expected = Settings("slow", 2, 1.0, 0.0, str(file), "b", True)
    assert cli.parse_arguments(field_parser, flags) == {"settings": expected}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--mode", "odd"], "invalid choice"),
        (["--steps", "1"], "at least 2"),
        (["--steps", "2.5"], "whole number"),
        (["--rate", "0"], "above 0 and at most 1"),
        (["--rate", "1.1"], "at most 1"),
        (["--limit", "-1"], "at least 0"),
        (["--limit", "nan"], "at least 0"),
        (["--start", "nowhere"], "expected a file, found nothing"),
    ],
)
def test_a_value_out_of_a_fields_bounds_ends_with_status_2(field_parser, capsys, flags, message):
    with pytest.raises(SystemExit) as end:
        cli.parse_arguments(field_parser, flags)
    assert end.value.code == 2
    assert message in capsys.readouterr().err


def test_help_tells_a_fields_default_unless_there_is_none(field_parser):
    words = " ".join(field_parser.format_help().split())
    for text in ("how (default: fast)", "how quickly (default: 0.5)", "where (default: here)", "some: the usual"):
        assert text in words
    assert "how far (" not in words and "whether (" not in words
