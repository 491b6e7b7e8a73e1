"""Videos to volumes: frames, formats, voxel sizes, and videos that break off."""

from __future__ import annotations

import importlib
import shutil
import subprocess
import sys
import tracemalloc

import cv2
import mrcfile
import nrrd
import numpy as np
import pytest
import SimpleITK as sitk
import tifffile

from emcurate.volumes.formats import tiff
from emcurate.volumes.formats.mrc import read_header
from emcurate.volumes.volume import open_volume

stage = importlib.import_module("preprocess.vid2stack")

HEIGHT, WIDTH = 48, 64
FRAMES = np.random.default_rng(9).integers(0, 256, (12, HEIGHT, WIDTH)).astype(np.uint8)

# For tests in which something else than OpenCV gives the frames.
STANDS_FOR_A_VIDEO = b"RIFF\0\0\0\0AVI "


@pytest.fixture
def viddir(tmp_path):
    directory = tmp_path / "videos"
    directory.mkdir()
    return directory


def write(path, frames=FRAMES, codec="FFV1"):
    """Write a video; FFV1 keeps every grey value."""
    writer = cv2.VideoWriter(
        str(path), cv2.VideoWriter_fourcc(*codec), 10, (frames.shape[2], frames.shape[1]), frames.ndim > 3
    )
    assert writer.isOpened()
    for frame in frames:
        writer.write(frame)
    writer.release()
    return path


def decode(path):
    """Decode a whole video the plain way, as BT.601 grey."""
    capture, frames = cv2.VideoCapture(str(path)), []
    while (read := capture.read())[0]:
        blue, green, red = np.moveaxis(read[1].astype(int), -1, 0)
        frames.append(((299 * red + 587 * green + 114 * blue + 500) // 1000).astype(np.uint8))
    return np.stack(frames)


def run(viddir, *flags):
    return stage.main([str(viddir), "-p", "1", *map(str, flags)])


@pytest.mark.parametrize("form", ["tif", "nrrd", "mrc"])
@pytest.mark.parametrize("voxel_size", [None, (40, 4.5, 4)])
def test_frames_become_slices_that_every_program_reads(viddir, tmp_path, form, voxel_size):
    write(viddir / "a ö.avi")
    flags = [] if voxel_size is None else ["--voxel-size", *voxel_size]
    assert run(viddir, "-o", tmp_path / "out", "--format", form, *flags) == 0
    path = tmp_path / "out" / f"a ö.{form}"
    volume = open_volume(path)
    assert volume.dtype == np.uint8
    np.testing.assert_array_equal(volume.read(), FRAMES)
    assert volume.voxel_size_nm == (voxel_size and pytest.approx(voxel_size))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(path))), FRAMES)
    if form == "tif":
        np.testing.assert_array_equal(tifffile.imread(path), FRAMES)
        with tifffile.TiffFile(path) as file:
            assert file.is_imagej and not file.is_bigtiff
            assert file.series[0].axes == "ZYX"
            assert file.imagej_metadata["slices"] == file.imagej_metadata["images"] == len(FRAMES)
    elif form == "nrrd":
        np.testing.assert_array_equal(nrrd.read(str(path))[0].T, FRAMES)
    else:
        header = read_header(path)
        assert not header.signed and "IMOD stamp" in header.reason
        assert header.record["rms"] == pytest.approx(FRAMES.std())
        with mrcfile.open(path) as file:
            np.testing.assert_array_equal(file.data.view(np.uint8), FRAMES)
            assert (file.header.dmin, file.header.dmax) == (FRAMES.min(), FRAMES.max())


def test_volumes_lie_beside_their_videos_by_default_and_suffixes_have_any_case(viddir):
    write(viddir / "b.mp4", codec="mp4v").rename(viddir / "b.MP4")
    write(viddir / "c.mkv")
    write(viddir / "d.MOV".lower(), codec="mp4v").rename(viddir / "d.MOV")
    write(viddir / "e.avi").rename(viddir / "e.AvI")
    assert run(viddir) == 0
    assert sorted(path.name for path in viddir.glob("*.tif")) == ["b.tif", "c.tif", "d.tif", "e.tif"]
    for name in ("b.MP4", "d.MOV"):
        np.testing.assert_array_equal(open_volume((viddir / name).with_suffix(".tif")).read(), decode(viddir / name))


def test_colour_becomes_luminance(viddir):
    colours = np.random.default_rng(2).integers(0, 256, (3, HEIGHT, WIDTH, 3)).astype(np.uint8)
    path = write(viddir / "c.avi", colours, codec="MJPG")
    assert run(viddir) == 0
    np.testing.assert_array_equal(open_volume(viddir / "c.tif").read(), decode(path))
    blue_green_red = np.array([[[10, 20, 30]]], np.uint8)
    assert stage.grey_of_frame(blue_green_red).tolist() == [[round(0.114 * 10 + 0.587 * 20 + 0.299 * 30)]]


@pytest.mark.parametrize("form", ["tif", "nrrd", "mrc"])
def test_a_video_of_one_frame_is_a_volume_of_one_slice(viddir, form):
    write(viddir / "still.avi", FRAMES[:1])
    assert run(viddir, "--format", form) == 0
    volume = open_volume(viddir / f"still.{form}")
    assert volume.shape == (1, HEIGHT, WIDTH)
    np.testing.assert_array_equal(volume.read(), FRAMES[:1])


def test_the_real_video(real_data, tmp_path):
    assert stage.main([str(real_data / "video"), "-o", str(tmp_path)]) == 0
    volume = open_volume(tmp_path / "Figure-3-Loop-Motion.tif")
    assert volume.shape == (14, 550, 420)
    np.testing.assert_array_equal(volume.read(), decode(real_data / "video" / "Figure-3-Loop-Motion.mp4"))


class ShortCapture:
    """A video that announces more frames than it has."""

    def __init__(self, frames, announced):
        self.frames, self.announced = iter(frames), announced

    def isOpened(self):
        return True

    def get(self, what):
        sizes = {cv2.CAP_PROP_FRAME_WIDTH: WIDTH, cv2.CAP_PROP_FRAME_HEIGHT: HEIGHT}
        return float(sizes.get(what, self.announced))

    def read(self):
        frame = next(self.frames, None)
        return frame is not None, frame

    def release(self):
        pass


def test_fewer_frames_than_announced_are_written_with_a_warning(viddir, monkeypatch, capsys):
    (viddir / "a.avi").write_bytes(STANDS_FOR_A_VIDEO)
    monkeypatch.setattr(cv2, "VideoCapture", lambda *_: ShortCapture(FRAMES[:7], 12))
    assert run(viddir) == 0
    np.testing.assert_array_equal(open_volume(viddir / "a.tif").read(), FRAMES[:7])
    assert "7 frames were decoded of 12 announced; the volume has 7 slices" in capsys.readouterr().err


def test_a_really_cut_off_video(viddir, real_data, capsys):
    data = (real_data / "video" / "Figure-3-Loop-Motion.mp4").read_bytes()
    (viddir / "cut.mp4").write_bytes(data[: len(data) // 2])
    assert run(viddir) == 0
    shape = open_volume(viddir / "cut.tif").shape
    assert 0 < shape[0] < 14
    assert f"{shape[0]} frames were decoded of 14 announced" in capsys.readouterr().err


@pytest.mark.parametrize("announced", [0, -1, 5])
def test_a_wrong_announcement_loses_no_frame(viddir, monkeypatch, announced):
    (viddir / "a.avi").write_bytes(STANDS_FOR_A_VIDEO)
    monkeypatch.setattr(cv2, "VideoCapture", lambda *_: ShortCapture(FRAMES, announced))
    assert run(viddir) == 0
    np.testing.assert_array_equal(open_volume(viddir / "a.tif").read(), FRAMES)


def test_large_volumes_become_bigtiff(viddir, monkeypatch):
    write(viddir / "a.avi")
    monkeypatch.setattr(tiff, "CLASSIC_TIFF_BYTES", FRAMES.size - 1)
    assert run(viddir, "--voxel-size", 40, 4, 4) == 0
    with tifffile.TiffFile(viddir / "a.tif") as file:
        assert file.is_bigtiff
    np.testing.assert_array_equal(tifffile.imread(viddir / "a.tif"), FRAMES)
    assert open_volume(viddir / "a.tif").voxel_size_nm == pytest.approx((40, 4, 4))


@pytest.mark.parametrize("form", ["tif", "nrrd", "mrc"])
def test_memory_does_not_grow_with_the_length(viddir, monkeypatch, form):
    (viddir / "a.avi").write_bytes(STANDS_FOR_A_VIDEO)

    def peak(length):
        frames = (np.full((HEIGHT, WIDTH), index % 256, np.uint8) for index in range(length))
        monkeypatch.setattr(cv2, "VideoCapture", lambda *_: ShortCapture(frames, length))
        tracemalloc.start()
        assert run(viddir, "--format", form, "--overwrite") == 0
        high = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return high

    peak(20)
    short, long = peak(20), peak(2000)
    assert long - short < 300 * HEIGHT * WIDTH  # of the 1980 frames more


def test_frames_that_change_their_size_are_an_error(viddir, monkeypatch, capsys):
    (viddir / "a.avi").write_bytes(STANDS_FOR_A_VIDEO)
    monkeypatch.setattr(cv2, "VideoCapture", lambda *_: ShortCapture([FRAMES[0], FRAMES[1, :40]], 2))
    assert run(viddir) == 1
    assert "expected frames of 64 x 48 pixels, found one of 64 x 40 pixels" in capsys.readouterr().err
    assert not list(viddir.glob("*.tif"))


def test_bad_videos_are_named_and_the_others_done(viddir, capsys):
    write(viddir / "good.avi")
    (viddir / "zero.mp4").write_bytes(b"")
    (viddir / "text.mov").write_text("no video")
    (viddir / "cut.avi").write_bytes((viddir / "good.avi").read_bytes()[:200])
    write(viddir / "x-LOC-y.avi")
    write(viddir / "twice.avi")
    shutil.copy(viddir / "twice.avi", viddir / "twice.mkv")
    assert run(viddir) == 1
    captured = capsys.readouterr()
    failed = captured.err.split("Failed:\n")[1]
    for name in ("zero.mp4", "text.mov", "cut.avi", "x-LOC-y.avi"):
        assert f"{viddir / name}: expected" in failed
    assert f"{viddir}: expected one file of a name, found one name with several, such as twice.avi" in failed
    assert len(failed.splitlines()) == 5
    assert "zero.mp4: expected a video (MP4, MOV, AVI, MKV), found an empty file" in failed
    assert "text.mov: expected a video (MP4, MOV, AVI, MKV), found one that begins as no video does" in failed
    assert "cut.avi: expected a video with frames, found none that OpenCV can decode in 200 bytes" in failed
    assert [path.name for path in viddir.glob("*.tif")] == ["good.tif"]
    assert not [path for path in viddir.iterdir() if path.name.endswith(".partial")]


def test_a_rerun_does_nothing_and_other_voxel_sizes_are_refused(viddir, capsys):
    write(viddir / "a.avi")
    assert run(viddir, "--voxel-size", 40, 4, 4) == 0
    assert run(viddir, "--voxel-size", 40, 4, 4, "--format", "mrc") == 1
    error = capsys.readouterr().err
    assert "format mrc" in error and "format tif" in error
    time = (viddir / "a.tif").stat().st_mtime_ns
    capsys.readouterr()
    assert run(viddir, "--voxel-size", 40, 4, 4) == 0
    assert "vid2stack: 0 volumes written, 1 already done." in capsys.readouterr().out
    assert run(viddir) == 1
    assert "--overwrite" in capsys.readouterr().err
    assert (viddir / "a.tif").stat().st_mtime_ns == time
    assert run(viddir, "--overwrite") == 0
    assert open_volume(viddir / "a.tif").voxel_size_nm is None
    capsys.readouterr()
    assert run(viddir, "--format", "mrc", "--overwrite") == 0
    assert "other inputs" not in capsys.readouterr().err
    assert [path.name for path in viddir.iterdir() if path.suffix in (".tif", ".mrc")] == ["a.mrc"]


def test_a_file_of_the_users_is_not_replaced(viddir, capsys):
    write(viddir / "a.avi")
    (viddir / "a.tif").write_bytes(b"mine")
    for _ in range(3):
        assert run(viddir) == 1
        assert "a file with other content" in capsys.readouterr().err
        assert (viddir / "a.tif").read_bytes() == b"mine"
    (viddir / "a.tif").unlink()
    assert run(viddir) == 0


def test_a_directory_without_videos_and_wrong_arguments(viddir, capsys):
    (viddir / "note.txt").write_text("no video")
    assert run(viddir) == 1
    assert f"{viddir}: expected videos (.mp4, .avi" in capsys.readouterr().err
    with pytest.raises(SystemExit) as caught:
        run(viddir, "--format", "gif")
    assert caught.value.code == 2


def test_the_script_runs_from_anywhere(viddir, tmp_path, root):
    write(viddir / "a.avi")
    script = [sys.executable, str(root / "preprocess" / "vid2stack.py"), "videos", "-o", "out", "-p", "2"]
    done = subprocess.run(script, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "1 volumes written" in done.stdout
    assert (tmp_path / "out" / "a.tif").exists()
