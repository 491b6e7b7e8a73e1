"""MRC files made unsigned: what is judged, what is written, and that other programs read the same."""

from __future__ import annotations

import bz2
import gzip
import importlib
import shutil
import subprocess
import sys

import mrcfile
import numpy as np
import pytest
import SimpleITK as sitk

from emcurate.volumes import unsigned
from emcurate.volumes.formats.mrc import read_header
from emcurate.volumes.volume import open_volume

stage = importlib.import_module("preprocess.mrc2byte")

SHAPE = (5, 12, 17)
RNG = np.random.default_rng(5)
SIGNED = RNG.integers(-128, 128, SHAPE).astype(np.int8)
IMOD = 1146047817


@pytest.fixture
def mrcdir(tmp_path):
    directory = tmp_path / "maps"
    directory.mkdir()
    return directory


def imod_words(path, byte_order):
    """IMOD's stamp and flags, the header's words at bytes 152 and 156."""
    return np.frombuffer(path.read_bytes()[152:160], f"{byte_order}i4").tolist()


def write(path, array=SIGNED, *, stamp=None, order="<", low=None, high=None, labels=(), extended=b""):
    with mrcfile.new(path) as file:
        file.set_data(array.astype(array.dtype.newbyteorder(order)))
        file.voxel_size = (4, 5, 40)
        file.header.origin = (1, -2, 3)
        file.set_extended_header(np.frombuffer(extended, "V1"))
        file.header.exttyp = b"SERI"
        for label in labels:
            file.add_label(label)
        if low is not None:
            file.header.dmin, file.header.dmax = low, high
    if order == ">":
        swap(path, array)
    if stamp is not None:
        data = bytearray(path.read_bytes())
        data[152:160] = np.array([IMOD, stamp], f"{order}i4").tobytes()
        path.write_bytes(data)
    return path


def swap(path, array):
    """Turn a little-endian file of single bytes, which mrcfile cannot write big-endian, into a big-endian one."""
    data = path.read_bytes()
    record = np.frombuffer(data[:1024], mrcfile.dtypes.HEADER_DTYPE)[0]
    big = np.zeros((), mrcfile.dtypes.HEADER_DTYPE.newbyteorder(">"))
    for name in record.dtype.names:
        big[name] = record[name]
    big["machst"] = (0x11, 0x11, 0, 0)
    path.write_bytes(big.tobytes() + data[1024:])


def run(mrcdir, *flags):
    return stage.main([str(mrcdir), "-p", "1", *map(str, flags)])


def read_itk(path):
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


def assert_unsigned(path, expected):
    """Our reader and ITK read the same unsigned values, and the header says what they are."""
    volume = open_volume(path)
    found = volume.read()
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, expected)
    itk = read_itk(path)
    assert itk.dtype == np.uint8
    np.testing.assert_array_equal(itk, expected)
    header = read_header(path)
    assert header.mode == 0
    stamp, flags = imod_words(path, header.byte_order)
    assert stamp == 1146047817 and not flags & 1
    record = header.record
    assert (record["dmin"], record["dmax"]) == (expected.min(), expected.max())
    assert record["dmean"] == pytest.approx(expected.mean())
    assert record["rms"] == pytest.approx(expected.std())


def test_signed_bytes_get_128_added_in_place(mrcdir, capsys):
    path = write(mrcdir / "a ö.mrc", labels=["first"], extended=b"extended" * 20)
    assert run(mrcdir) == 0
    assert_unsigned(path, (SIGNED.astype(int) + 128).astype(np.uint8))
    out = capsys.readouterr().out
    assert "mode 0, signed bytes (no IMOD stamp, header minimum -128 and maximum 127" in out
    assert "1 files made unsigned." in out


def test_everything_else_in_the_header_is_kept_and_a_label_added(mrcdir):
    path = write(mrcdir / "a.mrc", labels=["first", "second"], extended=b"extended" * 20)
    with open(path, "ab") as file:
        file.write(b"trailer")
    before = path.read_bytes()
    assert run(mrcdir) == 0
    after = path.read_bytes()
    assert len(after) == len(before) and after.endswith(b"trailer")
    assert after[1024:1184] == before[1024:1184] == b"extended" * 20
    changed = [at for at in range(1024) if before[at] != after[at]]
    allowed = [range(76, 88), range(152, 160), range(216, 224), range(224 + 80 * 3, 224 + 80 * 4)]
    assert all(any(at in places for places in allowed) for at in changed)
    with mrcfile.open(path, permissive=True) as file:
        labels = [label.strip() for label in file.get_labels()]
        assert file.voxel_size.tolist() == pytest.approx((4, 5, 40))
        assert file.header.origin.tolist() == (1, -2, 3)
    assert labels[1:3] == ["first", "second"]
    assert labels[3] == "emcurate mrc2byte: signed bytes made unsigned by adding 128"


def test_the_last_of_ten_labels_gives_way(mrcdir):
    path = write(mrcdir / "a.mrc", labels=[f"label {index}" for index in range(9)])
    assert run(mrcdir) == 0
    with mrcfile.open(path, permissive=True) as file:
        labels = file.get_labels()
    assert len(labels) == 10
    assert labels[8].strip() == "label 7" and labels[9].startswith("emcurate")


@pytest.mark.parametrize("order", ["<", ">"])
def test_colours_become_grey_bytes_and_what_follows_them_is_kept(mrcdir, tmp_path, capsys, order):
    colours = RNG.integers(0, 256, (*SHAPE, 3)).astype(np.uint8)
    path = write(mrcdir / "rgb.mrc", stamp=0, order=order, extended=b"x" * 80)
    data = bytearray(path.read_bytes()[: 1024 + 80])
    data[12:16] = np.array([16], f"{order}i4").tobytes()
    path.write_bytes(bytes(data) + colours.tobytes() + b"trailer")
    assert run(mrcdir, "-o", tmp_path / "out") == 0
    assert "mode 16, RGB voxels; converted, which loses information" in capsys.readouterr().out
    red, green, blue = np.moveaxis(colours.astype(int), -1, 0)
    expected = ((299 * red + 587 * green + 114 * blue + 500) // 1000).astype(np.uint8)
    result = (tmp_path / "out" / "rgb.mrc").read_bytes()
    assert len(result) == 1024 + 80 + expected.size + len(b"trailer")
    assert result.endswith(b"x" * 80 + expected.tobytes() + b"trailer")
    assert_unsigned(tmp_path / "out" / "rgb.mrc", expected)
    assert run(mrcdir, "--overwrite") == 0
    assert path.read_bytes() == result


@pytest.mark.parametrize("stamp", [1, 1 + 4, 1 + 2 + 8])
@pytest.mark.parametrize("order", ["<", ">"])
def test_imod_signed_bit_is_cleared_and_other_flags_kept(mrcdir, stamp, order):
    path = write(mrcdir / "a.mrc", stamp=stamp, order=order)
    assert run(mrcdir) == 0
    header = read_header(path)
    assert header.byte_order == order
    assert imod_words(path, order)[1] == stamp & ~(1 + 8)  # 8 says that there is no RMS, and now there is
    np.testing.assert_array_equal(open_volume(path).read(), SIGNED.astype(int) + 128)


def test_a_second_run_changes_nothing_and_says_so(mrcdir, capsys):
    path = write(mrcdir / "a.mrc")
    assert run(mrcdir) == 0
    before, time = path.read_bytes(), path.stat().st_mtime_ns
    capsys.readouterr()
    assert run(mrcdir) == 0
    assert (path.read_bytes(), path.stat().st_mtime_ns) == (before, time)
    out = capsys.readouterr().out
    assert "unsigned bytes (IMOD stamp with the signed bit clear); left alone" in out
    assert "mrc2byte: 1 already unsigned and left alone." in out


@pytest.mark.parametrize("judged", [{"stamp": 0}, {"low": 0, "high": 255}, {"low": 0, "high": 100}])
def test_unsigned_bytes_are_left_alone(mrcdir, judged):
    path = write(mrcdir / "a.mrc", **judged)
    before = path.read_bytes()
    assert run(mrcdir) == 0
    assert path.read_bytes() == before


@pytest.mark.parametrize("dtype", ["i2", "f4", "u2", "f2"])
def test_other_types_need_a_flag(mrcdir, tmp_path, capsys, dtype):
    array = (RNG.random(SHAPE) * 200 + 5).astype(dtype)
    path = write(mrcdir / "a.map", array)
    before = path.read_bytes()
    assert run(mrcdir) == 1
    error = capsys.readouterr().err
    assert "use -o OUTDIR to keep the original, or --overwrite to replace it" in error
    assert path.read_bytes() == before
    assert run(mrcdir, "-o", tmp_path / "out", "--rescale", "minmax") == 0
    assert path.read_bytes() == before
    values = array.astype(float)
    expected = np.rint((values - values.min()) * 255 / np.ptp(values)).astype(np.uint8)
    assert_unsigned(tmp_path / "out" / "a.map", expected)
    assert run(mrcdir, "--overwrite", "--rescale", "minmax") == 0
    assert_unsigned(path, expected)
    assert path.read_bytes() == (tmp_path / "out" / "a.map").read_bytes()


def test_outdir_gets_every_file_and_a_rerun_does_nothing(mrcdir, tmp_path, capsys):
    write(mrcdir / "signed.mrc")
    write(mrcdir / "unsigned.rec", stamp=0)
    out = tmp_path / "out"
    assert run(mrcdir, "-o", out) == 0
    np.testing.assert_array_equal(open_volume(out / "signed.mrc").read(), SIGNED.astype(int) + 128)
    np.testing.assert_array_equal(open_volume(out / "unsigned.rec").read(), SIGNED.view(np.uint8))
    times = {path.name: path.stat().st_mtime_ns for path in out.glob("*.*")}
    capsys.readouterr()
    assert run(mrcdir, "-o", out) == 0
    assert "mrc2byte: 2 already done." in capsys.readouterr().out
    assert times == {path.name: path.stat().st_mtime_ns for path in out.glob("*.*")}
    assert run(mrcdir, "-o", out, "--rescale", "minmax") == 1
    assert "--overwrite" in capsys.readouterr().err


def test_a_file_of_the_users_in_outdir_is_not_replaced(mrcdir, tmp_path, capsys):
    write(mrcdir / "a.mrc")
    out = tmp_path / "out"
    out.mkdir()
    (out / "a.mrc").write_bytes(b"mine")
    assert run(mrcdir, "-o", out) == 1
    assert "a file with other content" in capsys.readouterr().err
    assert (out / "a.mrc").read_bytes() == b"mine"
    assert run(mrcdir, "-o", out, "--overwrite") == 0
    assert_unsigned(out / "a.mrc", (SIGNED.astype(int) + 128).astype(np.uint8))


@pytest.mark.parametrize(("suffix", "pack"), [(".gz", gzip.compress), (".bz2", bz2.compress)])
def test_compressed_files_go_to_outdir_uncompressed(mrcdir, tmp_path, capsys, suffix, pack):
    plain = write(mrcdir / "a.mrc", extended=b"x" * 80)
    (mrcdir / f"a.mrc{suffix}").write_bytes(pack(plain.read_bytes()))
    plain.unlink()
    assert run(mrcdir) == 1
    assert "an uncompressed file to change in place, found a compressed one; use -o OUTDIR" in capsys.readouterr().err
    assert run(mrcdir, "-o", tmp_path / "out") == 0
    result = tmp_path / "out" / "a.mrc"
    assert_unsigned(result, (SIGNED.astype(int) + 128).astype(np.uint8))
    assert result.read_bytes()[1024:1104] == b"x" * 80


def test_two_files_of_one_output_name_are_refused(mrcdir, tmp_path, capsys):
    write(mrcdir / "a.mrc")
    (mrcdir / "a.mrc.gz").write_bytes(gzip.compress((mrcdir / "a.mrc").read_bytes()))
    assert run(mrcdir, "-o", tmp_path / "out") == 1
    failed = capsys.readouterr().err.split("Failed:\n")[1]
    assert f"{mrcdir / 'a.mrc'}: expected a name of its own, found {mrcdir / 'a.mrc.gz'} of the same name" in failed
    assert len(failed.splitlines()) == 2
    assert not (tmp_path / "out" / "a.mrc").exists()


def test_dry_run_prints_the_audit_and_writes_nothing(mrcdir, tmp_path, capsys):
    write(mrcdir / "a.mrc", stamp=1)
    write(mrcdir / "b.mrc", stamp=0)
    write(mrcdir / "c.map", SIGNED.astype(np.float32))
    before = {path.name: path.read_bytes() for path in mrcdir.iterdir()}
    assert run(mrcdir, "--dry-run") == 0
    lines = capsys.readouterr().out.splitlines()
    assert (
        lines[0]
        == f"{mrcdir / 'a.mrc'}: mode 0, signed bytes (IMOD stamp with the signed bit set); to be 128 added to each"
    )
    assert lines[1] == f"{mrcdir / 'b.mrc'}: mode 0, unsigned bytes (IMOD stamp with the signed bit clear); left alone"
    assert lines[2].startswith(f"{mrcdir / 'c.map'}: mode 2, float32 voxels; to be converted")
    assert lines[2].endswith("only with -o OUTDIR or --overwrite")
    assert run(mrcdir, "--dry-run", "-o", tmp_path / "out", "--overwrite") == 0
    assert before == {path.name: path.read_bytes() for path in mrcdir.iterdir()}
    assert not (tmp_path / "out").exists()


def test_permissions_and_links_are_kept(mrcdir, tmp_path):
    path = write(tmp_path / "real.mrc")
    path.chmod(0o640)
    (mrcdir / "link.mrc").symlink_to(path)
    assert run(mrcdir) == 0
    assert (mrcdir / "link.mrc").is_symlink()
    assert path.stat().st_mode & 0o777 == 0o640
    assert not read_header(path).signed


def test_a_failure_half_way_leaves_the_original(mrcdir, monkeypatch, capsys):
    path = write(mrcdir / "a.mrc")
    before = path.read_bytes()

    def fail(plane):
        raise MemoryError("no more")

    monkeypatch.setattr(unsigned, "shift_to_unsigned", fail)
    assert run(mrcdir) == 1
    assert "enough memory" in capsys.readouterr().err
    assert path.read_bytes() == before
    assert [entry.name for entry in mrcdir.iterdir()] == ["a.mrc"]


def test_a_file_that_another_run_has_made_unsigned_meanwhile_is_not_shifted_twice(mrcdir, monkeypatch, capsys):
    path = write(mrcdir / "a.mrc")
    real = stage.read_header

    def read_and_be_overtaken(path):
        header = real(path)
        with monkeypatch.context() as patch:
            patch.setattr(stage, "read_header", real)
            stage.make_unsigned(stage.ByteJob(path, path, stage.Rescale(), False, False))
        return header

    monkeypatch.setattr(stage, "read_header", read_and_be_overtaken)
    assert run(mrcdir) == 1
    assert f"{path}: expected a file that nobody else writes, found one that has changed" in capsys.readouterr().err
    assert_unsigned(path, SIGNED.astype(int) + 128)
    assert [entry.name for entry in mrcdir.iterdir()] == ["a.mrc"]


def test_two_runs_in_place_are_told_apart(mrcdir, root, monkeypatch, capsys):
    write(mrcdir / "a.mrc")
    real, said = stage.make_unsigned, []

    def start_another(job):
        command = [sys.executable, str(root / "preprocess" / "mrc2byte.py"), str(mrcdir), "-p", "1"]
        said.append(subprocess.run(command, capture_output=True, text=True))
        return real(job)

    monkeypatch.setattr(stage, "make_unsigned", start_another)
    assert run(mrcdir) == 0
    assert said[0].returncode == 1
    assert f"{mrcdir}: expected no other run that writes there" in said[0].stderr
    assert_unsigned(mrcdir / "a.mrc", SIGNED.astype(int) + 128)


def test_bad_files_are_named_and_the_others_done(mrcdir, capsys):
    good = write(mrcdir / "good.mrc")
    (mrcdir / "zero.mrc").write_bytes(b"")
    (mrcdir / "text.map").write_text("not a map" * 200)
    (mrcdir / "cut.mrc").write_bytes(good.read_bytes()[:-5])
    data = bytearray(good.read_bytes())
    data[12:16] = np.array([4], "<i4").tobytes()
    (mrcdir / "complex.mrc").write_bytes(data)
    before = (mrcdir / "cut.mrc").read_bytes()
    assert run(mrcdir) == 1
    captured = capsys.readouterr()
    failed = captured.err.split("Failed:\n")[1]
    for name in ("zero.mrc", "text.map", "cut.mrc", "complex.mrc"):
        assert f"{mrcdir / name}: expected" in failed
    assert "1 files made unsigned, 4 failed." in captured.out
    assert (mrcdir / "cut.mrc").read_bytes() == before


def test_a_directory_without_mrc_files_and_outdir_in_place(mrcdir, capsys):
    assert run(mrcdir) == 1
    assert f"{mrcdir}: expected MRC files" in capsys.readouterr().err
    write(mrcdir / "a.mrc")
    assert run(mrcdir, "-o", mrcdir) == 1
    assert "leave -o out to work in place" in capsys.readouterr().err


def test_real_maps(real_data, tmp_path):
    mrcdir = tmp_path / "maps"
    mrcdir.mkdir()
    for name in ("EMD-3001.map", "EMD-3197.map.bz2", "emd_3197.map.gz"):
        shutil.copy(real_data / "mrc" / name, mrcdir)
    out = tmp_path / "out"
    assert run(mrcdir, "-o", out) == 0
    for name, original in (("EMD-3001.map", "EMD-3001.map"), ("EMD-3197.map", "EMD-3197.map.bz2")):
        with mrcfile.open(mrcdir / original, permissive=True) as file:
            values = file.data.astype(float)
        expected = np.rint((values - values.min()) * 255 / np.ptp(values)).astype(np.uint8)
        np.testing.assert_array_equal(open_volume(out / name).read(), expected)
        np.testing.assert_array_equal(np.sort(read_itk(out / name), axis=None), np.sort(expected, axis=None))


def test_the_script_runs_from_anywhere(mrcdir, tmp_path, root):
    write(mrcdir / "a.mrc")
    script = [sys.executable, str(root / "preprocess" / "mrc2byte.py"), "maps", "-p", "1"]
    done = subprocess.run(script, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "1 files made unsigned." in done.stdout
