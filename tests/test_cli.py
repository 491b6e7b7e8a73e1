import argparse
import dataclasses
import re
import warnings
from pathlib import Path
from typing import Literal

import pytest

import emcurate
from emcurate import cli
from emcurate.errors import DataWarning, InputError
from emcurate.patches.pathlists import write_path_list
from emcurate.running import streams
from emcurate.running.jobs import progress
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


def test_what_libraries_warn_of_is_not_said_and_what_data_are_like_is(parser, recwarn):
    def run(**arguments):
        warnings.warn("Corrupt EXIF data", UserWarning, stacklevel=1)
        warnings.warn("odd data", DataWarning, stacklevel=1)
        return Report("stage")

    assert cli.run_stage(run, parser, []) == 0
    assert [str(warning.message) for warning in recwarn] == ["odd data"]


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
        (MemoryError("8 GiB"), "enough memory for the work, found too little"),
        (RuntimeError("can't start new thread"), "enough memory for the work, found too little"),
        (ImportError("libx.so: failed to map segment from shared object"), "found too little (libx.so: failed"),
        (ImportError("libx.so: cannot allocate memory in static TLS block"), "found too little (libx.so"),
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


def report_of_all_kinds(number, rescale):
    report = Report("stage")
    report.count("patches", 3)
    report.warn("odd")
    report.note("look here")
    report.leave_out(Path("a.txt"), "not an image", "leave it")
    report.fail("a.tif: bad")
    return report


def test_quiet_says_only_what_is_wrong_and_the_log_has_everything(parser, tmp_path, capsys):
    log = tmp_path / "log.txt"
    assert cli.run_stage(report_of_all_kinds, parser, ["--quiet", "--log", str(log)]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == ["warning: odd", "Failed:", "  a.tif: bad"]
    first, *rest = log.read_text().splitlines()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\S* \$ stage\.py.*", first)
    said = ["warning: odd", "not read: a.txt: not an image; leave it", "look here"]
    assert rest == [*said, "stage: 3 patches, 1 not read, 1 failed.", "Failed:", "  a.tif: bad"]
    # The next run in this process is not quiet, and keeps no log; one that does adds to it.
    assert cli.run_stage(report_of_all_kinds, parser, []) == 1
    assert capsys.readouterr().out.splitlines() == [*said[1:], rest[3]]
    assert len(log.read_text().splitlines()) == 7
    assert cli.run_stage(report_of_all_kinds, parser, ["--log", str(log)]) == 1
    assert len(log.read_text().splitlines()) == 14


def test_no_progress_is_shown_where_it_is_to_be_quiet(capsys):
    for quiet in (False, True):
        streams.speech.quiet = quiet
        assert list(progress([1, 2], total=2, label="stage", unit="file")) == [1, 2]
        streams.speech.end()
        assert ("stage" in capsys.readouterr().err) != quiet


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_log_that_cannot_be_written_stops_nothing_and_is_said(parser, capsys):
    assert cli.run_stage(report_of_all_kinds, parser, ["--log", "/dev/full"]) == 1
    captured = capsys.readouterr()
    assert "look here" in captured.out
    assert captured.err.splitlines()[-1] == "stage: the log could not be written: No space left on device"


def test_wrong_arguments_leave_nothing_quiet(parser, tmp_path, capsys):
    with pytest.raises(SystemExit):
        cli.run_stage(report_of_all_kinds, parser, ["--quiet", "--number", "x"])
    assert not streams.speech.quiet
    for path in (tmp_path, tmp_path / "none" / "log.txt"):
        with pytest.raises(SystemExit):
            cli.run_stage(report_of_all_kinds, parser, ["--log", str(path)])
        assert "argument --log: " in capsys.readouterr().err


def test_every_script_tells_its_version(parser, capsys):
    with pytest.raises(SystemExit) as caught:
        parser.parse_args(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"emcurate {emcurate.__version__}\n"


def write_header(directory, stage, product):
    (directory / ".emcurate").mkdir(parents=True)
    (directory / ".emcurate" / f"{stage}.jsonl").write_text(f'{{"stage":"{stage}","product":"{product}"}}\n')


def test_a_directory_of_another_stage_is_a_wrong_argument(tmp_path):
    write_header(tmp_path / "sections", "cleanup2d", "sections")
    write_header(tmp_path / "patches", "crop_patches", "patches")
    (tmp_path / "unknown").mkdir()
    kind = cli.results("patches", "crop_patches.py")
    assert kind(str(tmp_path / "patches")) == tmp_path / "patches"
    assert kind(str(tmp_path / "unknown")) == tmp_path / "unknown"
    found = "expected patches, found sections, which cleanup2d made; name what crop_patches.py wrote to"
    with pytest.raises(argparse.ArgumentTypeError, match=found):
        kind(str(tmp_path / "sections"))
    # While flags are checked before anything runs, what is there may be replaced, and what is not will be made.
    with cli.as_if_made(tmp_path):
        assert kind(str(tmp_path / "sections")) == tmp_path / "sections"
        assert cli.path_list(str(tmp_path / "to come")) == tmp_path / "to come"


def test_what_is_no_path_list_or_no_labels_is_a_wrong_argument(tmp_path):
    (tmp_path / "results").mkdir()
    write_path_list(tmp_path / "results" / "deduplicated_fpaths.npz", ["/a-LOC-2d_0_0.tiff"])
    assert cli.path_list(str(tmp_path / "results" / "deduplicated_fpaths.npz"))
    with pytest.raises(argparse.ArgumentTypeError, match=r"name \S*/results/deduplicated_fpaths\.npz$"):
        cli.path_list(str(tmp_path / "results"))
    (tmp_path / "labels.json").write_text("{}")
    with pytest.raises(argparse.ArgumentTypeError, match=r"patch_quality_labels\.npy, found a \.json file$"):
        cli.label_file(str(tmp_path / "labels.json"))
    (tmp_path / "patch_quality_labels.npy").write_bytes(b"")
    with pytest.raises(argparse.ArgumentTypeError, match=r"name \S*/patch_quality_labels\.npy$"):
        cli.label_file(str(tmp_path / "labels.json"))


def test_planes_that_swallow_directories_say_so(parser, capsys):
    parser.add_argument("directory")
    parser.add_argument("-a", nargs="+", type=cli.plane)
    assert parser.parse_args(["x", "-a", "0", "2"]).a == [0, 2]
    wrong = {("-a", "0", "x"): "put --axes after the directories, or -- before them", ("x", "-a", "3"): "found '3'"}
    for words, said in wrong.items():
        with pytest.raises(SystemExit):
            parser.parse_args(words)
        assert said in capsys.readouterr().err
