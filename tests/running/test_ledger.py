"""Whose files are these: what is done, refused, replaced, removed, made again, and who owns a name."""

import json
import os
import shutil
from pathlib import Path

import pytest

from emcurate import writing
from emcurate.errors import InputError
from emcurate.outputs import Output, digest_bytes, fingerprint, foresee, note_output
from emcurate.running import comparison
from emcurate.running import verification as ledgers
from emcurate.running.ledger import Ledger
from emcurate.running.ledger_file import LedgerFile
from emcurate.running.locks import release_locks
from emcurate.running.report import Report
from emcurate.running.sources import Source
from tests.ledgers import forge
from tests.power import on_disk

PARAMETERS = {"crop_size": 224, "limits": (1, 2)}


class Stage:
    """A stage that writes `copies` files for each input: {key}-{number}.txt with the input's text."""

    def __init__(self, tmp_path, name="copy", product="copies"):
        self.inputs, self.out = tmp_path / "inputs", tmp_path / "out"
        self.inputs.mkdir(exist_ok=True)
        self.out.mkdir(exist_ok=True)
        self.name, self.product = name, product

    def add(self, key, text="text"):
        (self.inputs / key).write_text(text)

    def run(self, *how, **flags):
        """Run to the end, however it ends; see `do`."""
        try:
            return self.do(*how, **flags)
        finally:
            release_locks()

    def do(self, copies=1, parameters=PARAMETERS, keys=None, settings=None, stop_after=None, is_part=False, **flags):
        """Return the report, what was done and why, and what was found done."""
        report = Report(self.name)
        ledger = Ledger(
            self.out, self.name, parameters, product=self.product, owner_of=lambda name: name.rpartition("-")[0] or None
        )
        paths = {path.name: path for path in sorted(self.inputs.iterdir()) if keys is None or path.name in keys}
        sources = {
            key: Source(path, fingerprint(path), key.partition(".")[0], settings=settings or {}, is_part=is_part)
            for key, path in paths.items()
        }
        if is_part:
            sources = {
                key: Source(s.path, s.fingerprint, s.dataset, owner=self.inputs, is_part=True)
                for key, s in sources.items()
            }
        plan = ledger.plan(sources, report, root=self.inputs, **flags)
        for at, key in enumerate(plan.todo):
            if at == stop_after:
                for number in range(copies - 1):
                    self.write(key, number, paths[key], ledger)
                return report, plan.todo, plan.done
            outputs = []
            try:
                for number in range(copies):
                    outputs.append(self.write(key, number, paths[key], ledger))
            except InputError as error:
                report.fail(error)
                continue
            ledger.finish(key, outputs)
        return report, plan.todo, plan.done

    def write(self, key, number, path, ledger):
        target = self.out / f"{key}-{number}.txt"
        data = path.read_bytes()
        writing.write_once(target, data, overwrite=ledger.replaces(key))
        return note_output(target, self.out, data)

    def tree(self):
        return {path.name: path.read_text() for path in self.out.glob("*.txt")}

    def times(self):
        return {path.name: path.stat().st_mtime_ns for path in self.out.glob("*.txt")}


@pytest.fixture
def stage(tmp_path):
    stage = Stage(tmp_path)
    stage.add("a")
    stage.add("b")
    return stage


def test_what_is_done_is_not_done_again(stage):
    assert stage.run()[1] == {"a": "new", "b": "new"}
    report, todo, done = stage.run()
    assert (todo, done) == ({}, ["a", "b"])
    assert not report.failures and not report.warnings


def test_a_rerun_writes_nothing_into_the_ledger(stage):
    stage.run()
    before = (stage.out / ".emcurate" / "copy.jsonl").read_bytes()
    stage.run()
    assert (stage.out / ".emcurate" / "copy.jsonl").read_bytes() == before


def test_the_ledger_says_what_came_of_what_with_which_parameters(stage):
    stage.run(copies=2, settings={"voxel_size": [1, 2, 3]})
    lines = [json.loads(line) for line in (stage.out / ".emcurate" / "copy.jsonl").read_text().splitlines() if line]
    assert lines[0]["stage"] == "copy" and lines[0]["parameters"] == {"crop_size": 224, "limits": [1, 2]}
    (entry,) = [line for line in lines if line.get("state") == "done" and line["input"] == "a"]
    assert entry["source"] == str(stage.inputs / "a")
    assert entry["settings"] == {"voxel_size": [1, 2, 3]}
    assert [output[0] for output in entry["outputs"]] == ["a-0.txt", "a-1.txt"]
    name, size, mtime, digest = entry["outputs"][0]
    assert (size, mtime) == (4, (stage.out / name).stat().st_mtime_ns)
    assert digest == digest_bytes(b"text")


@pytest.mark.parametrize("damage", ["delete", "truncate", "append", "flip"])
def test_a_damaged_output_is_made_again_without_a_flag_and_nothing_else(stage, damage):
    stage.run(copies=2)
    before, times = stage.tree(), stage.times()
    victim = stage.out / "a-1.txt"
    if damage == "delete":
        victim.unlink()
    else:
        text = {"truncate": "te", "append": "text!", "flip": "tezt"}[damage]
        victim.write_text(text)
        os.utime(victim, ns=(1, 1))
    report, todo, done = stage.run(copies=2)
    assert todo == {"a": "a-1.txt missing or damaged"}
    assert done == ["b"] and not report.failures
    assert stage.tree() == before
    assert {name: time for name, time in stage.times().items() if name != "a-1.txt"} == {
        name: time for name, time in times.items() if name != "a-1.txt"
    }


def test_a_directory_in_the_place_of_a_result_is_named(stage):
    stage.run()
    (stage.out / "a-0.txt").unlink()
    (stage.out / "a-0.txt").mkdir()
    report, _, done = stage.run()
    assert "found a directory of that name" in report.failures[0]
    assert done == ["b"]


def test_copied_results_with_other_times_are_still_done(stage, tmp_path):
    stage.run(copies=2)
    shutil.copytree(stage.out, tmp_path / "copy", copy_function=shutil.copyfile)
    stage.out = tmp_path / "copy"
    assert stage.run(copies=2)[1:] == ({}, ["a", "b"])


def test_verify_finds_what_size_and_time_do_not_tell_and_the_next_run_mends_it(stage):
    stage.run(copies=2)
    victim, before = stage.out / "a-1.txt", stage.tree()
    stat = victim.stat()
    victim.write_text("tezt")
    os.utime(victim, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert stage.run(copies=2)[1] == {}
    report = Report("copy")
    ledgers.verify(stage.out, "copy", report)
    assert report.counts == {"files verified": 3}
    (failure,) = report.failures
    assert failure.startswith(f"{victim}: expected the 4 bytes that copy wrote, found other content")
    assert stage.run(copies=2)[1] == {"a": "its results were altered"}
    assert stage.tree() == before
    report = Report("copy")
    ledgers.verify(stage.out, "copy", report)
    assert report.counts == {"files verified": 4} and not report.failures


def test_verify_needs_a_ledger(tmp_path):
    with pytest.raises(InputError, match="results of copy"):
        ledgers.verify(tmp_path, "copy", Report("copy"))


def test_other_parameters_are_refused_and_with_overwrite_replace_everything(stage):
    stage.run(copies=3)
    with pytest.raises(InputError, match=r"made with crop_size 64.*made with crop_size 224.*--overwrite"):
        stage.run(copies=1, parameters={**PARAMETERS, "crop_size": 64})
    assert len(stage.tree()) == 6
    _, todo, _ = stage.run(copies=1, parameters={**PARAMETERS, "crop_size": 64}, overwrite=True)
    assert todo["a"] == "parameters changed, from crop_size 224 to crop_size 64"
    assert set(stage.tree()) == {"a-0.txt", "b-0.txt"}
    assert stage.run(copies=1, parameters={**PARAMETERS, "crop_size": 64})[1] == {}


def test_other_parameters_remove_what_other_directories_inputs_gave_rather_than_mix(stage, tmp_path):
    stage.run()
    other = Stage(tmp_path)
    other.inputs = tmp_path / "more"
    other.inputs.mkdir()
    other.add("c")
    assert other.run()[1] == {"c": "new"}
    assert set(other.tree()) == {"a-0.txt", "b-0.txt", "c-0.txt"}
    other.run(parameters={"crop_size": 1}, overwrite=True)
    assert set(other.tree()) == {"c-0.txt"}


def test_settings_of_one_input_may_differ_from_those_of_another_but_not_change(stage):
    stage.run(keys=["a"], settings={"axes": [0]})
    assert stage.run(keys=["b"], settings={"axes": [0, 1]})[1] == {"b": "new"}
    report, todo, _ = stage.run(keys=["a"], settings={"axes": [1]})
    assert not todo
    assert "made with axes [0], now axes [1]" in report.failures[0]
    assert stage.run(keys=["a"], settings={"axes": [1]}, overwrite=True)[1]


def test_a_changed_input_is_refused_and_with_overwrite_replaced_whole(stage):
    stage.run(copies=3)
    stage.add("a", "longer text")
    report, todo, done = stage.run(copies=1)
    assert (todo, done) == ({}, ["b"])
    assert report.failures[0].startswith(f"{stage.inputs / 'a'}: expected the input that its results")
    assert stage.tree()["a-0.txt"] == "text"
    stage.run(copies=1, overwrite=True)
    assert stage.tree() == {"a-0.txt": "longer text", **{f"b-{n}.txt": "text" for n in range(3)}}


def test_a_changed_input_is_renewed_where_the_stage_does_so_by_itself(stage):
    stage.run()
    stage.add("a", "longer text")
    assert stage.run(renew=True)[1] == {"a": "its input has changed"}
    assert stage.tree()["a-0.txt"] == "longer text"


def test_results_of_gone_inputs_are_named_kept_and_pruned(stage):
    stage.run(copies=2)
    (stage.inputs / "a").unlink()
    report, todo, done = stage.run(copies=2)
    assert (todo, done) == ({}, ["b"]) and not report.failures
    gone = f"what a came of is gone from {stage.inputs}"
    assert report.warnings == [f"{stage.out}: {gone}; the results are still there, and --prune removes them"]
    assert len(stage.tree()) == 4
    report, _, _ = stage.run(copies=2, prune=True)
    assert set(stage.tree()) == {"b-0.txt", "b-1.txt"}
    assert report.counts["inputs gone, their results removed"] == 1
    assert not stage.run(copies=2)[0].warnings


def test_overwriting_removes_results_of_gone_inputs_as_a_fresh_run_has_none(stage):
    stage.run()
    (stage.inputs / "a").unlink()
    stage.run(overwrite=True)
    assert set(stage.tree()) == {"b-0.txt"}


def test_inputs_of_another_directory_are_not_taken_for_gone(stage, tmp_path):
    stage.run()
    other = Stage(tmp_path)
    other.inputs = tmp_path / "more"
    other.inputs.mkdir()
    other.add("c")
    report, _, _ = other.run(prune=True, overwrite=True)
    assert not report.warnings
    assert set(other.tree()) == {"a-0.txt", "b-0.txt", "c-0.txt"}
    # Not even when that directory cannot be seen, such as on a disk that is not there today.
    stage.inputs.rename(tmp_path / "away")
    report, _, _ = other.run(prune=True, overwrite=True)
    assert set(other.tree()) == {"a-0.txt", "b-0.txt", "c-0.txt"}


def test_a_moved_input_directory_is_the_same(stage, tmp_path):
    stage.run()
    stage.inputs = stage.inputs.rename(tmp_path / "elsewhere")
    assert stage.run()[1:] == ({}, ["a", "b"])
    (stage.inputs / "a").unlink()
    assert "what a came of is gone" in stage.run()[0].warnings[0]


def test_parts_gone_from_a_dataset_are_refused_since_the_dataset_has_changed(tmp_path):
    stage = Stage(tmp_path)
    for key in ("fly.0", "fly.1", "wing.0"):
        stage.add(key)
    stage.run(is_part=True)
    (stage.inputs / "fly.1").unlink()
    report, todo, done = stage.run(is_part=True)
    assert (todo, done) == ({}, ["wing.0"])
    assert "results of fly as it now is, found results of 1 parts of it that are gone" in report.failures[0]
    stage.run(is_part=True, overwrite=True)
    assert set(stage.tree()) == {"fly.0-0.txt", "wing.0-0.txt"}


def test_parts_that_wait_for_a_changed_one_are_told(tmp_path):
    stage = Stage(tmp_path)
    for key in ("fly.0", "fly.1", "wing.0"):
        stage.add(key)
    stage.run(is_part=True)
    stage.add("fly.0", "other text")
    for key in ("fly.2", "fly.3", "wing.1"):
        stage.add(key)
    (stage.out / "fly.1-0.txt").unlink()
    report, todo, done = stage.run(is_part=True)
    assert (set(todo), done) == ({"wing.1"}, ["wing.0"])
    assert len(report.failures) == 1
    assert "for which other parts of fly wait: 2 new; 1 fly.1-0.txt missing or damaged" in report.failures[0]


def test_a_name_has_one_owner_across_runs(stage, tmp_path):
    stage.run()
    other = Stage(tmp_path)
    other.inputs = tmp_path / "more"
    other.inputs.mkdir()
    other.add("a", "text of another")
    other.add("B")
    other.add("c")
    for flags in ({}, {"overwrite": True}):
        report, todo, _ = other.run(**flags)
        assert list(todo) == ([] if flags else ["c"])
        assert len(report.failures) == 2
        assert f"{other.inputs / 'a'}: expected a dataset name of its own in {stage.out}" in report.failures[1]
        assert str(stage.inputs / "a") in report.failures[1]
        assert "under the name b" in report.failures[0]  # B and b are one file on many disks
    assert stage.tree()["a-0.txt"] == "text"


def test_overwriting_takes_the_name_of_what_has_left_another_directory_but_not_of_what_is_out_of_reach(stage, tmp_path):
    stage.run(copies=2)
    other = Stage(tmp_path)
    other.inputs = tmp_path / "more"
    other.inputs.mkdir()
    other.add("a", "text of another")
    stage.inputs.rename(tmp_path / "away")
    for mount_point in (False, True):  # what lies there is out of sight, as with a disk that is not mounted
        if mount_point:
            stage.inputs.mkdir()
        assert "a dataset name of its own" in other.run(overwrite=True)[0].failures[0]
    stage.inputs.rmdir()
    (tmp_path / "away").rename(stage.inputs)
    (stage.inputs / "a").unlink()
    assert "a dataset name of its own" in other.run()[0].failures[0]
    assert stage.tree() == {f"{key}-{number}.txt": "text" for key in "ab" for number in range(2)}
    report, todo, _ = other.run(overwrite=True)
    assert not report.failures and set(todo) == {"a"}
    assert report.counts["inputs gone, their results removed"] == 1
    assert stage.tree() == {"a-0.txt": "text of another", "b-0.txt": "text", "b-1.txt": "text"}


def test_the_name_of_what_is_gone_is_not_taken_from_another_stage(stage, tmp_path):
    stage.run()
    (stage.inputs / "a").unlink()
    rival = Stage(tmp_path, name="imitate")
    rival.inputs = tmp_path / "more"
    rival.inputs.mkdir()
    rival.add("a")
    assert "which is gone: --prune on its stage" in rival.run(overwrite=True)[0].failures[0]
    assert set(stage.tree()) == {"a-0.txt", "b-0.txt"}


def test_a_name_has_one_owner_across_stages_that_make_the_same(stage, tmp_path):
    stage.run()
    rival = Stage(tmp_path, name="imitate")
    rival.inputs = tmp_path / "more"
    rival.inputs.mkdir()
    rival.add("a")
    assert "expected a dataset name of its own" in rival.run()[0].failures[0]
    different = Stage(tmp_path, name="describe", product="descriptions")
    different.inputs = rival.inputs
    assert not different.run()[0].failures


def test_an_input_under_another_path_to_the_same_place_is_the_same(stage, tmp_path):
    stage.run()
    (tmp_path / "link").symlink_to(stage.inputs)
    stage.inputs = tmp_path / "link"
    assert stage.run()[1:] == ({}, ["a", "b"])


def test_an_interrupted_run_is_finished(stage):
    stage.run(copies=3, stop_after=1)
    assert len(stage.tree()) == 5
    report, todo, done = stage.run(copies=3)
    assert (todo, done) == ({"b": "interrupted"}, ["a"]) and not report.failures
    assert len(stage.tree()) == 6


def test_what_an_interrupted_run_left_is_not_mixed_with_other_parameters(stage):
    stage.run(copies=3, stop_after=0)
    with pytest.raises(InputError, match="crop_size 224"):
        stage.run(copies=1, parameters={"crop_size": 64})
    stage.run(copies=1, parameters={"crop_size": 64}, overwrite=True)
    assert set(stage.tree()) == {"a-0.txt", "b-0.txt"}


def test_an_input_whose_mending_was_interrupted_is_still_refused_other_settings(stage):
    stage.run(copies=2, settings={"step": 1})
    (stage.out / "a-0.txt").unlink()
    stage.run(copies=1, settings={"step": 1}, stop_after=0)
    report, todo, done = stage.run(copies=1, settings={"step": 2})
    assert (todo, done) == ({}, []) and "made with step 1, now step 2" in report.failures[0]
    assert set(stage.tree()) == {"a-1.txt", "b-0.txt", "b-1.txt"}


def test_a_run_that_made_nothing_binds_nobody_to_its_parameters(stage):
    stage.run(copies=1, stop_after=0)
    assert not stage.tree()
    assert stage.run(parameters={"crop_size": 64})[1] == {"a": "new", "b": "new"}


def test_files_of_users_are_not_overwritten(stage):
    (stage.out / "a-0.txt").write_text("mine")
    report, _, _ = stage.run()
    assert stage.tree()["a-0.txt"] == "mine"
    assert "a-0.txt: expected no such file" in report.failures[0]
    assert stage.tree()["b-0.txt"] == "text"


def test_deleting_the_ledger_is_harmless(stage):
    stage.run(copies=2)
    before, times = stage.tree(), stage.times()
    shutil.rmtree(stage.out / ".emcurate")
    report, todo, _ = stage.run(copies=2)
    assert set(todo.values()) == {"new"} and not report.failures
    assert (stage.tree(), stage.times()) == (before, times)
    assert stage.run(copies=2)[1] == {}


def test_deleting_the_ledger_does_not_let_other_results_stay_in_silence(stage):
    stage.run(copies=3)
    shutil.rmtree(stage.out / ".emcurate")
    for _ in range(2):
        report, _, _ = stage.run(copies=2)
        expected = f"only what this run makes of {stage.inputs / 'a'}"
        assert f"{stage.out / 'a-2.txt'}: expected {expected}" in report.failures[0]
    stage.run(copies=2, overwrite=True)
    assert set(stage.tree()) == {f"{key}-{n}.txt" for key in "ab" for n in range(2)}


@pytest.mark.parametrize("seed", range(8))
def test_a_line_cut_off_or_garbled_costs_that_line_only(stage, seed):
    stage.run()
    path = stage.out / ".emcurate" / "copy.jsonl"
    lines = path.read_bytes().split(b"\n")
    last = max(i for i, line in enumerate(lines) if line)
    lines[last] = [
        lines[last][:20],
        b"\xff\xfe",
        b"null",
        b"[1, 2]",
        b'{"input": 3}',
        b'{"input": "b", "state": "done", "outputs": 3}',
        b'{"input": "b", "state": "done", "outputs": [["x"]]}',
        b'{"input": "b", "state": "odd"}',
    ][seed]
    path.write_bytes(b"\n".join(lines))
    report, todo, done = stage.run()
    assert done == ["a"] and list(todo) == ["b"] and not report.failures
    assert stage.run()[1:] == ({}, ["a", "b"])


def test_odd_letters_in_names_and_paths_are_no_line_ends(tmp_path):
    stage = Stage(tmp_path)
    stage.inputs = tmp_path / "in\u2028puts\x85 é"
    stage.inputs.mkdir()
    stage.add("x\u2028y\x85z")
    stage.run()
    assert stage.run()[1:] == ({}, ["x\u2028y\x85z"])


def test_bytes_in_a_path_that_are_no_text_are_written_down(tmp_path):
    stage = Stage(tmp_path)
    stage.inputs = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    try:
        stage.inputs.mkdir()
    except OSError:
        pytest.skip("this disk takes UTF-8 names only")
    stage.add("a")
    stage.run()
    assert stage.run()[1:] == ({}, ["a"])


def test_a_ledger_of_version_0_1_is_taken_for_none(stage):
    stage.run()
    path = stage.out / ".emcurate" / "copy.jsonl"
    path.write_text('\n{"input": "a", "fingerprint": "x", "parameters": {"crop_size": 1}, "outputs": 1}\n')
    report, todo, _ = stage.run()
    assert set(todo) == {"a", "b"} and not report.failures


def test_an_input_that_failed_leaves_nothing_to_be_named_when_it_goes(stage):
    stage.run(keys=["a"])
    stage.run(keys=["a", "b"], stop_after=0)
    (stage.inputs / "b").unlink()
    report, _, done = stage.run()
    assert (report.warnings, done) == ([], ["a"])


def test_what_an_interrupted_run_left_of_a_gone_input_is_pruned_too(stage):
    stage.run(copies=3, stop_after=0)
    (stage.inputs / "a").unlink()
    report, _, _ = stage.run(copies=3)
    assert "what a came of is gone" in report.warnings[0]
    stage.run(copies=3, prune=True)
    assert set(stage.tree()) == {"b-0.txt", "b-1.txt", "b-2.txt"}


def test_an_input_that_may_grow_renews_its_results_but_not_with_other_parameters(stage):
    def run(text, **parameters):
        stage.add("a", text)
        report = Report("copy")
        ledger = Ledger(stage.out, "copy", parameters, product="copies", owner_of=lambda name: None)
        source = Source(stage.inputs / "a", text, "a", is_renewed=True)
        plan = ledger.plan({"a": source}, report, root=stage.inputs)
        for key in plan.todo:
            ledger.finish(key, [stage.write(key, 0, stage.inputs / key, ledger)])
        return plan.todo

    assert run("one", x=1)
    assert run("one and two", x=1) == {"a": "its input has changed"}
    assert stage.tree() == {"a-0.txt": "one and two"}
    with pytest.raises(InputError, match="x 2"):
        run("one and two", x=2)


@pytest.mark.parametrize("name", ["../victim", "/etc/victim", "sub/../../victim", ""])
def test_a_ledger_cannot_name_files_outside_its_directory(stage, name):
    stage.run()
    path = stage.out / ".emcurate" / "copy.jsonl"
    victim = stage.out.parent / "victim"
    victim.write_text("mine")
    forge(path, "a-0.txt", name)
    (stage.inputs / "a").unlink()
    stage.run(prune=True)
    assert victim.read_text() == "mine"


def test_a_long_ledger_is_written_anew_without_what_was_replaced(stage, monkeypatch):
    from emcurate.running import ledger_file

    monkeypatch.setattr(ledger_file, "LINES_WORTH_COMPACTING", 10)
    for number in range(12):
        stage.add("a", "x" * number)
        stage.run(overwrite=True)
    path = stage.out / ".emcurate" / "copy.jsonl"
    assert len([line for line in path.read_text().splitlines() if line]) < 14
    assert stage.run()[1:] == ({}, ["a", "b"])


def test_many_inputs_are_noted_in_one_go(tmp_path):
    stage = Stage(tmp_path)
    for key in ("a", "b", "c"):
        stage.add(key)

    def start():
        ledger = Ledger(stage.out, "copy", {}, product="copies", owner_of=lambda name: name.rpartition("-")[0] or None)
        sources = {key: Source(stage.inputs / key, "as it was", key) for key in ("a", "b", "c")}
        return ledger, ledger.plan(sources, report, root=stage.inputs)

    report = Report("copy")
    ledger, plan = start()
    (stage.out / "a-0.txt").write_text("text")
    ledger.finish_all({"a": [note_output(stage.out / "a-0.txt", stage.out)], "b": []})
    assert list(plan.todo) == ["a", "b", "c"]
    assert [output.name for output in ledger.outputs_of("a")] == ["a-0.txt"]
    again, plan = start()
    assert (plan.done, list(plan.todo)) == (["a", "b"], ["c"])
    assert again.outputs_of("a") == ledger.outputs_of("a")
    assert report.failures == []


@pytest.mark.parametrize("is_strange", [False, True])
def test_what_was_expected_when_a_run_broke_off_is_its_own_and_what_lay_there_is_not(tmp_path, is_strange):
    # Names that do not tell whose they are: only what was noted does.
    (tmp_path / "in").write_text("in")

    def opened():
        owner_of = {"mine.txt": "in"}.get
        ledger = Ledger(tmp_path, "copy", {}, product="copies", owner_of=owner_of)
        plan = ledger.plan({"in": Source(tmp_path / "in", "1", "in")}, Report("copy"), root=tmp_path)
        return ledger, plan

    if is_strange:
        (tmp_path / "mine.txt").write_text("mine")
    ledger, plan = opened()
    assert plan.todo == {"in": "new"}
    ledger.expect("in", [Output(name, 0, 0, "") for name in ("a.txt", "b.txt", "c.txt")])
    (tmp_path / "a.txt").write_text("a")
    (tmp_path / "b.txt").write_text("b")
    report = Report("copy")
    ledgers.verify(tmp_path, "copy", report)
    (failure,) = report.failures
    assert "3 more files of in, such as a.txt, found a run that was broken off" in failure
    ledger, plan = opened()
    assert plan.todo == {"in": "new" if is_strange else "interrupted"}
    ledger.finish("in", [note_output(tmp_path / "a.txt", tmp_path)])
    left = {path.name for path in tmp_path.glob("*.txt")}
    # One that was expected and is no result now goes; but nothing does as long as there is somebody else's file.
    assert left == ({"a.txt", "b.txt", "mine.txt"} if is_strange else {"a.txt"})


def ledger_of(stage):
    ledger = Ledger(stage.out, "copy", PARAMETERS, product="copies", owner_of=lambda name: name.rpartition("-")[0])
    source = Source(stage.inputs / "a", fingerprint(stage.inputs / "a"), "a")
    ledger.plan({"a": source}, Report("copy"), root=stage.inputs)
    return ledger


def test_what_is_announced_is_known_after_a_kill_until_it_is_finished(tmp_path):
    stage = Stage(tmp_path)
    stage.add("a", "first")
    stage.run()
    (old,) = ledger_of(stage).outputs_of("a")
    new = foresee("a-0.txt", b"second")
    ledger_of(stage).announce("a", [new])
    after = ledger_of(stage)
    assert after.outputs_of("a") == [old, new]
    assert after.replaces("a")
    # It is not done, and is finished as ever.
    assert stage.run()[1] == {"a": "interrupted"}
    assert ledger_of(stage).outputs_of("a") == [old]


def test_nothing_is_announced_over_somebody_elses_file(tmp_path):
    stage = Stage(tmp_path)
    stage.add("a", "text")
    (stage.out / "a-0.txt").write_text("mine")
    ledger_of(stage).announce("a", [foresee("a-0.txt", b"text")])
    assert not ledger_of(stage).replaces("a")
    assert "expected no such file" in stage.run()[0].failures[0]
    assert stage.tree() == {"a-0.txt": "mine"}


@pytest.mark.parametrize("ending", ["jsonl", "lock"])
@pytest.mark.timeout(30)
def test_a_pipe_in_place_of_a_ledger_or_its_lock_is_named_and_not_waited_for(tmp_path, ending):
    (tmp_path / ".emcurate").mkdir()
    path = tmp_path / ".emcurate" / f"copy.{ending}"
    os.mkfifo(path)
    (tmp_path / "a").write_text("a")
    with pytest.raises(InputError, match=rf"copy\.{ending}: expected a file, found a pipe"):
        ledger = Ledger(tmp_path, "copy", {}, product="copies", owner_of=lambda name: None)
        ledger.plan({"a": Source(tmp_path / "a", "1", "a")}, Report("copy"), root=tmp_path)


def test_what_is_removed_is_gone_from_the_disk_before_it_is_forgotten(stage):
    stage.run(copies=2)
    (stage.inputs / "a").unlink()
    with on_disk(stage.out) as disk:
        stage.run(copies=2, prune=True)
        disk.cut_power()
    assert {*stage.tree()} == {"b-0.txt", "b-1.txt"}
    assert stage.run(copies=2)[0].warnings == []


def test_what_is_being_removed_is_not_noted_as_done(stage, monkeypatch):
    stage.run(copies=2)
    (stage.inputs / "a").unlink()
    with monkeypatch.context() as patch, pytest.raises(OSError, match="broken off"):
        patch.setattr(comparison, "remove_result", lambda *_: (_ for _ in ()).throw(OSError("broken off")))
        stage.run(copies=2, prune=True)
    assert LedgerFile(stage.out / ".emcurate" / "copy.jsonl").entries["a"].state != "done"
    stage.run(copies=2, prune=True)
    assert {*stage.tree()} == {"b-0.txt", "b-1.txt"}
