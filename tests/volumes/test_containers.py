"""Videos that are cut off, or no videos: found by their containers' own structure."""

import struct
from importlib import import_module

import cv2
import numpy as np
import pytest
import tifffile

from emcurate.errors import InputError
from emcurate.volumes.containers import find_missing
from tests.textures import make_texture

FRAMES = make_texture((8, 48, 64))


@pytest.fixture(scope="module", params=["avi", "mp4"])
def film(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("film") / f"film.{request.param}"
    writer = cv2.VideoWriter(
        str(path), cv2.VideoWriter_fourcc(*{"avi": "MJPG", "mp4": "mp4v"}[request.param]), 5, (64, 48)
    )
    for frame in FRAMES:
        writer.write(np.repeat(frame[..., None], 3, axis=-1))
    writer.release()
    assert find_missing(path) == 0
    return path


def test_a_video_that_is_cut_off_is_never_taken_without_a_word(film, tmp_path, capsys):
    videos, data = tmp_path / "videos", film.read_bytes()
    videos.mkdir()
    (videos / film.name).write_bytes(data)
    lengths = [0, 1, 8, 100, *range(len(data) // 12, len(data), len(data) // 12), *range(len(data) - 12, len(data))]
    for length in lengths:
        (videos / f"cut{length:06}{film.suffix}").write_bytes(data[:length])
    assert import_module("preprocess.vid2stack").main([str(videos), "-o", str(tmp_path / "out"), "-p", "1"]) == 1
    warned, _, failed = capsys.readouterr().err.partition("Failed:")
    whole = tifffile.imread(tmp_path / "out" / "film.tif")
    assert whole.shape == FRAMES.shape and "film." + film.suffix[1:] not in warned + failed
    for length in lengths:
        name = f"cut{length:06}"
        stack = tmp_path / "out" / f"{name}.tif"
        # A film without its index may be whole, but nobody knows before it is said.
        assert f"{name}{film.suffix}: expected" in failed or (f"{name}{film.suffix}: " in warned and stack.exists())


@pytest.mark.parametrize(
    "text",
    [
        b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile:///secret.mp4\n",
        b"ffconcat version 1.0\nfile /secret.mp4\n",
        b"<?xml version='1.0'?><MPD><BaseURL>/secret.mp4</BaseURL></MPD>",
        b"[playlist]\nFile1=/secret.mp4\n",
        b"v=0\no=- 0 0 IN IP4 127.0.0.1\n",
        b"",
    ],
)
def test_text_that_names_other_files_is_no_video(tmp_path, capsys, text):
    for suffix in ("avi", "mp4", "mov", "mkv", "m4v"):
        (tmp_path / f"a.{suffix}").write_bytes(text)
        with pytest.raises(InputError, match=r"a video \(MP4, MOV, AVI, MKV\)"):
            find_missing(tmp_path / f"a.{suffix}")


@pytest.mark.parametrize(
    ("data", "missing"),
    [
        (b"RIFF" + struct.pack("<I", 100) + bytes(100), 0),
        (b"RIFF" + struct.pack("<I", 100) + bytes(90), 10),
        (b"RIFF" + struct.pack("<I", 4) + b"AVI " + b"RIFF" + struct.pack("<I", 40) + bytes(30), 10),
        (
            b"RIFF" + struct.pack("<I", 0) + b"AVI " + bytes(50),
            0,
        ),  # a recording that was never finished
        (struct.pack(">I", 16) + b"ftypisom" + bytes(4) + struct.pack(">I", 50) + b"mdat" + bytes(20), 22),
        (struct.pack(">I", 16) + b"ftypisom" + bytes(4) + struct.pack(">I", 0) + b"mdat" + bytes(20), 0),
        (struct.pack(">I", 16) + b"ftypisom" + bytes(4) + struct.pack(">I4sQ", 1, b"mdat", 1 << 40), (1 << 40) - 16),
        (struct.pack(">I", 16) + b"ftypisom" + bytes(4) + struct.pack(">I4sQ", 1, b"mdat", 0), 0),
        (b"\x1a\x45\xdf\xa3" + bytes(50), 0),
    ],
)
def test_what_is_missing(tmp_path, data, missing):
    (tmp_path / "a.mp4").write_bytes(data)
    assert find_missing(tmp_path / "a.mp4") == missing
