"""Sections of volumes: which indices and planes, the voxels in them, reruns, and what cannot be used."""

from __future__ import annotations

import importlib
import shutil
import subprocess
import sys

import mrcfile
import nibabel
import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
import tifffile

from emcurate import naming
from emcurate.volumes import scratch, sections
from emcurate.volumes.volume import open_volume

stage = importlib.import_module("raw.cross_section3d")

SHAPE = (11, 13, 101)
BYTES = np.random.default_rng(3).integers(0, 256, SHAPE).astype(np.uint8)


@pytest.fixture
def voldir(tmp_path):
    directory = tmp_path / "volumes"
    directory.mkdir()
    return directory


@pytest.fixture
def savedir(tmp_path):
    return tmp_path / "sections"


def write(path, array=BYTES, voxel_size=(10, 10, 10), **options):
    z, y, x = voxel_size
    metadata = {"axes": "ZYX", "unit": "nm", "spacing": z}
    tifffile.imwrite(path, array, imagej=True, resolution=(1 / x, 1 / y), metadata=metadata, **options)


def run(voldir, savedir, *flags):
    return stage.main([str(voldir), str(savedir), "-p", "1", *map(str, flags)])


def contents(savedir):
    return {path.name: path.read_bytes() for path in savedir.glob("*.tiff")}


def names(savedir):
    return sorted(path.name for path in savedir.glob("*.tiff"))


def test_sections_equal_slices_of_the_volume_for_each_plane(voldir, savedir):
    write(voldir / "fly.tif")
    assert run(voldir, savedir) == 0
    assert len(names(savedir)) == sum(SHAPE)
    for plane, width in enumerate((2, 2, 3)):
        for index in range(SHAPE[plane]):
            section = tifffile.imread(savedir / f"fly-LOC-{plane}_{index:0{width}d}.tiff")
            np.testing.assert_array_equal(section, np.take(BYTES, index, axis=plane))


@pytest.mark.parametrize(
    ("size", "spacing", "expected"),
    [
        (1, 1, [0]),
        (1, 5, [0]),
        (5, 1, [0, 1, 2, 3, 4]),
        (5, 2, [0, 2, 4]),
        (6, 2, [0, 2, 4, 5]),
        (11, 10, [0, 10]),
        (11, 20, [0, 10]),
        (12, 10, [0, 10, 11]),
    ],
)
def test_section_indices_hold_the_first_and_the_last(size, spacing, expected):
    assert [index for indices in sections.section_indices(size, spacing) for index in indices] == expected


@pytest.mark.parametrize("slab_bytes", [1, 400, 1 << 27])
@pytest.mark.parametrize("slab_sections", [1, 3, 64])
def test_slabs_cover_every_section_once_and_hold_no_more_than_they_may(
    tmp_path, monkeypatch, slab_bytes, slab_sections
):
    monkeypatch.setattr(sections, "SLAB_BYTES", slab_bytes)
    monkeypatch.setattr(sections, "SLAB_SECTIONS", slab_sections)
    write(tmp_path / "v.tif")
    volume = open_volume(tmp_path / "v.tif")
    slabs = list(sections.divide(volume, (0, 1, 2), 4))
    for plane in range(3):
        indices = [index for at, slab in slabs if at == plane for index in slab]
        assert indices == sorted({*range(0, SHAPE[plane], 4), SHAPE[plane] - 1})
        section_bytes = BYTES.size // SHAPE[plane]
        assert all(len(slab) == 1 or len(slab) * section_bytes <= slab_bytes for at, slab in slabs if at == plane)
    assert max(len(slab) for _, slab in slabs) <= slab_sections


@pytest.mark.parametrize("spacing", [1, 3, 1000])
def test_the_bytes_do_not_depend_on_processes_or_slabs(voldir, tmp_path, monkeypatch, spacing):
    write(voldir / "plain.tif")
    tifffile.imwrite(voldir / "packed.tif", BYTES.astype(np.int16) * 7, compression="zlib", photometric="minisblack")
    for index, plane in enumerate(BYTES):
        (voldir / "slices").mkdir(exist_ok=True)
        tifffile.imwrite(voldir / "slices" / f"{index}.tif", plane)
    assert run(voldir, tmp_path / "one", "-s", spacing) == 0
    assert stage.main([str(voldir), str(tmp_path / "two"), "-p", "2", "-s", str(spacing)]) == 0
    monkeypatch.setattr(sections, "SLAB_BYTES", 1)
    monkeypatch.setattr(scratch, "BATCH_VOXELS", 1)
    assert run(voldir, tmp_path / "three", "-s", spacing) == 0
    assert contents(tmp_path / "one") == contents(tmp_path / "two") == contents(tmp_path / "three")
    assert len(contents(tmp_path / "one")) == 3 * sum(len({*range(0, size, spacing), size - 1}) for size in SHAPE)
    assert not [path for path in (tmp_path / "one").iterdir() if path.name.endswith(".partial")]


@pytest.mark.parametrize(
    ("flags", "planes", "message"),
    [
        ((), {0}, "anisotropic; only plane 0 (xy) is cut"),
        (("--anisotropy", 10), {0, 1, 2}, ""),
        (("--voxel-size", 5, 5, 5), {0, 1, 2}, ""),
        (("--axes", 0), {0}, ""),
        (("-a", 2, 1), set(), "nothing is cut, since --axes leaves plane 0 (xy) out"),
        (("-a", 2, 1, "--anisotropy", 9), {1, 2}, ""),
    ],
)
def test_planes_of_an_anisotropic_volume(voldir, savedir, capsys, flags, planes, message):
    write(voldir / "a.tif", voxel_size=(40, 4, 4))
    assert run(voldir, savedir, "-s", 50, *flags) == 0
    assert {int(name.split("-LOC-")[1][0]) for name in names(savedir) if "LOC" in name} == planes
    out = capsys.readouterr().out
    assert message in out and ("anisotropic" in out) == bool(message)


def test_an_unknown_voxel_size_is_isotropic_with_a_warning(voldir, savedir, capsys):
    tifffile.imwrite(voldir / "a.tif", BYTES, photometric="minisblack")
    assert run(voldir, savedir, "-s", 50) == 0
    assert {name.split("-LOC-")[1][0] for name in names(savedir)} == {"0", "1", "2"}
    captured = capsys.readouterr()
    assert f"{voldir / 'a.tif'}: the voxel size is unknown" in captured.err
    assert "--voxel-size Z Y X" in captured.err
    assert run(voldir, savedir.with_name("other"), "-s", 50, "--voxel-size", 10, 10, 10) == 0
    assert "unknown" not in capsys.readouterr().err


def test_one_scale_a_volume_never_one_a_section(voldir, savedir):
    ramp = np.arange(11, dtype=np.float32)[:, None, None] * np.ones((1, 4, 5), np.float32)
    tifffile.imwrite(voldir / "ramp.tif", ramp, photometric="minisblack")
    assert run(voldir, savedir) == 0
    for index in range(11):
        section = tifffile.imread(savedir / f"ramp-LOC-0_{index:02d}.tiff")
        assert np.unique(section).tolist() == [round(index * 25.5)]


def test_rescale_flags_reach_the_pixels(voldir, savedir, capsys):
    array = (BYTES.astype(np.uint16) + 1000)[:, :5, :6]
    tifffile.imwrite(voldir / "v.tif", array, photometric="minisblack")
    assert run(voldir, savedir, "--rescale", "percentile", "--percentiles", 10, 90) == 0
    low, high = np.percentile(array, [10, 90])
    expected = np.clip(np.rint((array - low) * 255 / (high - low)), 0, 255)
    np.testing.assert_array_equal(tifffile.imread(savedir / "v-LOC-0_03.tiff"), expected[3])
    assert run(voldir, savedir.with_name("dtype")) == 0
    assert "--rescale percentile would use all of them" in capsys.readouterr().err


@pytest.mark.parametrize("shape", [(1, 30, 40), (30, 1, 40), (30, 40, 1), (1, 1, 1)])
def test_a_side_of_1(voldir, savedir, shape):
    array = np.arange(np.prod(shape)).reshape(shape).astype(np.uint8)
    with mrcfile.new(voldir / "thin.mrc") as file:
        file.set_data(array.astype(np.uint16))
    assert run(voldir, savedir) == 0
    assert len(names(savedir)) == sum(shape)
    for plane in range(3):
        (first,) = savedir.glob(f"thin-LOC-{plane}_{'0' * len(str(shape[plane] - 1))}.tiff")
        expected = np.rint(np.take(array.astype(float), 0, axis=plane) * 255 / 65535)
        np.testing.assert_array_equal(tifffile.imread(first).reshape(expected.shape), expected)


def test_a_rerun_does_nothing_and_says_so(voldir, savedir, capsys):
    write(voldir / "a.tif")
    assert run(voldir, savedir) == 0
    times = {path.name: path.stat().st_mtime_ns for path in savedir.glob("*.tiff")}
    capsys.readouterr()
    assert run(voldir, savedir) == 0
    assert "cross_section3d: 0 sections written, 1 volumes already done." in capsys.readouterr().out
    assert times == {path.name: path.stat().st_mtime_ns for path in savedir.glob("*.tiff")}


def test_a_new_volume_is_cut_and_the_done_one_left(voldir, savedir, capsys):
    write(voldir / "a.tif")
    assert run(voldir, savedir) == 0
    write(voldir / "b.tif")
    assert run(voldir, savedir) == 0
    assert f"{sum(SHAPE)} sections written, 1 volumes already done, 1 volumes cut." in capsys.readouterr().out


def test_an_interrupted_run_is_finished_with_the_same_bytes(voldir, savedir, tmp_path, monkeypatch, capsys):
    write(voldir / "a.tif")
    assert run(voldir, tmp_path / "whole") == 0
    cut, calls = stage.cut_sections, []

    def cut_a_few(job):
        calls.append(job)
        if len(calls) > 2:
            raise KeyboardInterrupt
        return cut(job)

    monkeypatch.setattr(stage, "cut_sections", cut_a_few)
    assert run(voldir, savedir) == 130
    assert 0 < len(contents(savedir)) < sum(SHAPE)
    monkeypatch.setattr(stage, "cut_sections", cut)
    # Other settings must not be mixed with what the interrupted run left.
    assert run(voldir, savedir, "-s", 5) == 1
    assert "found results made with spacing 1" in capsys.readouterr().err
    assert run(voldir, savedir) == 0
    assert contents(savedir) == contents(tmp_path / "whole")


def test_deleted_sections_are_made_again(voldir, savedir):
    write(voldir / "a.tif")
    assert run(voldir, savedir) == 0
    before = contents(savedir)
    (savedir / "a-LOC-1_03.tiff").unlink()
    assert run(voldir, savedir) == 0
    assert contents(savedir) == before


def test_other_parameters_are_refused_and_with_overwrite_replace_all(voldir, savedir, capsys):
    write(voldir / "a.tif")
    assert run(voldir, savedir) == 0
    assert run(voldir, savedir, "-s", 4) == 1
    error = capsys.readouterr().err
    assert "spacing 4" in error and "--overwrite" in error and "Traceback" not in error
    assert len(contents(savedir)) == sum(SHAPE)
    (savedir / "mine.txt").write_text("mine")
    assert run(voldir, savedir, "-s", 4, "--overwrite") == 0
    assert len(contents(savedir)) == sum(len({*range(0, size, 4), size - 1}) for size in SHAPE)
    assert (savedir / "mine.txt").read_text() == "mine"


def test_a_changed_volume_is_refused_without_overwrite_in_one_line(voldir, savedir, capsys):
    write(voldir / "a.tif")
    assert run(voldir, savedir) == 0
    write(voldir / "a.tif", 255 - BYTES)
    assert run(voldir, savedir) == 1
    error = capsys.readouterr().err
    assert error.count(f"{voldir / 'a.tif'}: expected the input that its results in {savedir} were made of") == 1
    assert run(voldir, savedir, "--overwrite") == 0
    np.testing.assert_array_equal(tifffile.imread(savedir / "a-LOC-0_00.tiff"), 255 - BYTES[0])


def test_bad_volumes_are_named_and_the_others_are_cut(voldir, savedir, capsys):
    write(voldir / "good ö.tif")
    (voldir / "zero.mrc").write_bytes(b"")
    (voldir / "text.nrrd").write_text("no volume")
    write(voldir / "cut.tif")
    (voldir / "cut.tif").write_bytes((voldir / "cut.tif").read_bytes()[:3000])
    write(voldir / "twice.tif")
    shutil.copy(voldir / "twice.tif", voldir / "twice.tiff")
    write(voldir / "x-LOC-y.tif")
    tifffile.imwrite(voldir / "flat.tif", BYTES[0])
    (voldir / "note.txt").write_text("no volume either")
    nibabel.Nifti1Image(BYTES.T, np.eye(4)).to_filename(voldir / "half.nii.gz")
    data = (voldir / "half.nii.gz").read_bytes()
    (voldir / "half.nii.gz").write_bytes(data[: len(data) // 2])
    (voldir / "gone.mrc").symlink_to(voldir / "nowhere")
    assert run(voldir, savedir, "-s", 100) == 1
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    failed = captured.err.split("Failed:\n")[1]
    for name in (
        "zero.mrc",
        "text.nrrd",
        "cut.tif",
        "x-LOC-y.tif",
        "flat.tif",
        "half.nii.gz",
    ):
        assert f"{voldir / name}: expected" in failed
    assert f"{voldir / 'gone.mrc'}: expected a file, found a link that leads nowhere" in failed
    assert f"{voldir}: expected one file of a name, found one name with several, such as twice.tif and twice" in failed
    assert len(failed.splitlines()) == 8
    assert {name.split("-LOC-")[0] for name in contents(savedir)} == {"good ö"}
    assert "1 volumes cut, 1 not read, 8 failed." in captured.out


@pytest.mark.parametrize(
    ("fill", "found"),
    [(lambda d: None, "an empty directory"), (lambda d: (d / "a.txt").write_text("x"), "1 .txt files")],
)
def test_a_directory_without_volumes(voldir, savedir, capsys, fill, found):
    fill(voldir)
    assert run(voldir, savedir) == 1
    assert f"{voldir}: expected volumes" in (error := capsys.readouterr().err) and found in error


def test_voxel_sizes_come_by_name_from_a_file_and_concern_only_the_volumes_named(voldir, savedir, tmp_path, capsys):
    for name in ("fly", "wing", "leg"):
        tifffile.imwrite(voldir / f"{name}.tif", BYTES, photometric="minisblack")
    sizes = tmp_path / "sizes.csv"
    sizes.write_text("name,x,y,z\nfly,4,4,40\nwing.tif,4,4,4\nnobody,1,1,1\n")
    assert run(voldir, savedir, "-s", 50, "--voxel-sizes", sizes) == 0
    planes = {name: {naming.parse_section(n[:-5]).plane for n in names(savedir) if n.startswith(name)} for name in
              ("fly", "wing", "leg")}  # fmt: skip
    assert planes == {"fly": {0}, "wing": {0, 1, 2}, "leg": {0, 1, 2}}
    error = capsys.readouterr().err
    assert "--voxel-sizes: nothing here is called nobody; the names here are fly, leg, wing" in error
    assert "leg.tif: the voxel size is unknown" in error and "wing.tif: the voxel size is unknown" not in error
    before = {path: path.stat().st_mtime_ns for path in savedir.iterdir()}
    # Another size of one is a change to that one, and to no other.
    sizes.write_text("fly,40,4,4\nwing,4,4,4\nleg,4,4,4\n")
    assert run(voldir, savedir, "-s", 50, "--voxel-sizes", sizes) == 1
    failed = capsys.readouterr().err.split("Failed:\n")[1]
    assert "leg.tif" in failed and "fly" not in failed and "wing" not in failed
    assert {path: path.stat().st_mtime_ns for path in savedir.iterdir()} == before


def test_patches_from_volumes_have_the_voxel_size_of_their_name(voldir, tmp_path):
    for name in ("fly", "wing"):
        write(voldir / f"{name}.tif")
    (tmp_path / "sizes.csv").write_text("fly,9,9,9\n")
    flags = ["--from-volumes", "-cs", "32", "--min-size", "1", "-a", "0", "-p", "1"]
    flags += ["--voxel-size", "7", "7", "7", "--voxel-sizes", str(tmp_path / "sizes.csv")]
    crop_patches = importlib.import_module("raw.crop_patches")
    assert crop_patches.main([str(voldir), str(tmp_path / "out"), *flags, "--hashes-only"]) == 0
    tables = {name: pd.read_parquet(tmp_path / "out" / f"{name}_patches.parquet") for name in ("fly", "wing")}
    assert {name: set(table["step_nm"]) for name, table in tables.items()} == {"fly": {9.0}, "wing": {7.0}}


def test_odd_voxel_sizes_of_files_are_asked_about(voldir, savedir, capsys):
    write(voldir / "turned.tif", voxel_size=(4, 40, 40))
    write(voldir / "fine.tif")
    assert run(voldir, savedir, "-s", 100) == 0
    error = capsys.readouterr().err
    assert f"{voldir / 'turned.tif'}: its voxel size is 4 x 40 x 40 nm (z, y, x): is the order x, y, z?" in error
    assert "fine.tif" not in error


def test_a_wrong_file_of_voxel_sizes_is_a_wrong_argument(voldir, savedir, tmp_path, capsys):
    (tmp_path / "sizes.json").write_text('{"fly": [40, 4, 4]}')
    with pytest.raises(SystemExit) as caught:
        run(voldir, savedir, "--voxel-sizes", tmp_path / "sizes.json")
    assert caught.value.code == 2
    assert "sizes.json: expected a csv of name,z,y,x, found JSON; write a csv" in capsys.readouterr().err


@pytest.mark.parametrize("flags", [["-a", "3"], ["-s", "0"], ["--voxel-size", "1", "2"], ["--anisotropy", "-1"]])
def test_wrong_arguments(voldir, savedir, capsys, flags):
    with pytest.raises(SystemExit) as caught:
        run(voldir, savedir, *flags)
    assert caught.value.code == 2
    assert "usage" in capsys.readouterr().err


def test_sections_may_be_written_among_the_volumes(voldir, capsys):
    write(voldir / "a.tif")
    savedir = voldir / "sections"
    assert run(voldir, savedir) == 0
    assert run(voldir, savedir) == 0
    assert "0 sections written, 1 volumes already done." in capsys.readouterr().out


def test_sections_are_not_written_into_the_volumes_own_directory(voldir, capsys):
    write(voldir / "a.tif")
    assert run(voldir, voldir) == 1
    assert "expected a directory of its own for the results" in capsys.readouterr().err
    assert [path.name for path in voldir.iterdir()] == ["a.tif"]


def test_five_packings_of_real_slices_give_the_same_sections(real_data, voldir, savedir):
    shutil.copytree(real_data / "flyem_medulla_slices", voldir / "s")
    array = open_volume(voldir / "s").read()
    tifffile.imwrite(voldir / "t.tif", array, compression="zlib", photometric="minisblack")
    with mrcfile.new(voldir / "m.mrc") as file:
        file.set_data(array.view(np.int8))
    image = sitk.GetImageFromArray(array)
    sitk.WriteImage(image, str(voldir / "n.nrrd"))
    sitk.WriteImage(image, str(voldir / "i.nii.gz"))
    header = bytearray((voldir / "m.mrc").read_bytes())
    header[152:160] = np.array([1146047817, 0], "<i4").tobytes()  # IMOD's stamp: the bytes are unsigned
    (voldir / "m.mrc").write_bytes(header)
    assert stage.main([str(voldir), str(savedir), "-s", "60", "--voxel-size", "10", "10", "10"]) == 0
    made = contents(savedir)
    assert len(made) == 5 * 3 * 6
    for name, data in made.items():
        if name.startswith("s-LOC-"):
            plane, index = (int(part) for part in name[6:-5].split("_"))
            np.testing.assert_array_equal(tifffile.imread(savedir / name), np.take(array, index, axis=plane))
            assert all(made[other + name[1:]] == data for other in "tmni")


def test_the_script_runs_from_anywhere(voldir, tmp_path, root):
    write(voldir / "a.tif")
    script = [sys.executable, str(root / "raw" / "cross_section3d.py")]
    done = subprocess.run(
        [*script, "volumes", "out", "-s", "9", "-p", "2"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "1 volumes cut." in done.stdout
    assert (tmp_path / "out" / "a-LOC-0_10.tiff").exists()
