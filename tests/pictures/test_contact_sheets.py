"""Contact sheets show every patch in its place, with what was decided about it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from emcurate.images.sections import write_section
from emcurate.patches.reading import read_patch
from emcurate.pictures import contact_sheets
from emcurate.pictures.contact_sheets import Group, Mark, Tile
from emcurate.pictures.group_sheets import GroupSheet, draw_group_sheet
from tests.patch_sets import pack

RED = Mark("red", (250, 10, 20))
SIDE = 40


def grey(value, shape=(SIDE, SIDE)):
    return np.full(shape, value, np.uint8)


def render(groups, **options):
    return np.asarray(contact_sheets.render_contact_sheet("A title", groups, tile_pixels=SIDE, **options)).astype(int)


def count_pixels(sheet, colour):
    return int((sheet == np.array(colour)).all(axis=-1).sum())


def test_each_patch_is_drawn_at_tile_size_in_rows():
    values = [60, 70, 80, 90, 100]
    sheet = render([Group("greys of several values", [Tile(grey(v)) for v in values])], columns=2)
    places = []
    for value in values:
        rows, columns = np.nonzero((sheet == value).all(axis=-1))
        assert len(rows) >= SIDE * SIDE
        places.append((np.median(rows), np.median(columns)))
    (y0, x0), (y1, x1), (y2, x2) = places[:3]
    assert y0 == y1 and x0 < x1
    assert y2 > y0 and x2 == x0


def test_a_mark_is_a_frame_and_a_word():
    plain = render([Group("one", [Tile(grey(90))])])
    marked = render([Group("one", [Tile(grey(90), mark=RED)])])
    assert count_pixels(plain, RED.colour) == 0
    frame = 4 * SIDE * contact_sheets.FRAME_PIXELS
    assert count_pixels(marked, RED.colour) > frame
    other_word = render([Group("one", [Tile(grey(90), mark=Mark("RED", RED.colour))])])
    assert not np.array_equal(marked, other_word)


def test_proportions_are_kept():
    sheet = render([Group("one", [Tile(grey(90, (10, 20)))])])
    patch = (sheet == 90).all(axis=-1)
    # Letters have a few such pixels too, but no row or column full of them.
    assert ((patch.sum(axis=1) >= SIDE).sum(), (patch.sum(axis=0) >= SIDE // 2).sum()) == (SIDE // 2, SIDE)


def test_captions_and_titles_change_the_picture():
    patch = grey(90)
    sheets = [
        render([Group(title, [Tile(patch, caption)])])
        for title, caption in [("one", ""), ("one", "0.98"), ("one", "0.12"), ("two", "0.12")]
    ]
    assert sheets[0].shape[0] < sheets[1].shape[0]
    assert not np.array_equal(sheets[1], sheets[2])
    assert not np.array_equal(sheets[2], sheets[3])


def test_files_are_read_and_what_cannot_be_read_is_crossed_out(tmp_path):
    write_section(tmp_path / "good.tiff", grey(90))
    (tmp_path / "bad.tiff").write_bytes(b"II*\0nothing")
    tiles = [Tile(tmp_path / name) for name in ("good.tiff", "bad.tiff", "missing.tiff")]
    destination = tmp_path / "sheet.png"
    contact_sheets.draw_contact_sheet(destination, "A title", [Group("files", tiles)], tile_pixels=SIDE)
    sheet = np.asarray(Image.open(destination).convert("RGB")).astype(int)
    assert count_pixels(sheet, (90, 90, 90)) >= SIDE * SIDE
    assert count_pixels(sheet, contact_sheets.FAINT) > 4 * SIDE
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bad.tiff", "good.tiff", "sheet.png"]


def test_an_empty_group_and_no_group_at_all_still_give_a_picture():
    assert render([]).shape[0] < render([Group("nothing here", [])]).shape[0]


def test_too_many_tiles_are_left_out_and_the_sheet_says_so(monkeypatch):
    monkeypatch.setattr(contact_sheets, "TILES_AT_MOST", 3)
    groups = [Group("a", [Tile(grey(60))] * 2), Group("b", [Tile(grey(70))] * 2), Group("c", [Tile(grey(80))])]
    sheet = render(groups)
    shown = [count_pixels(sheet, (v, v, v)) // (SIDE * SIDE) for v in (60, 70, 80)]
    assert shown == [2, 1, 0]
    assert contact_sheets._limit(groups)[1] == 2


@pytest.mark.parametrize("text", ["short", "a-very-long-dataset-name-LOC-0_0042_224_448", "名前" * 40])
def test_text_is_cut_in_the_middle_to_its_room(text):
    font = contact_sheets._font(13)
    shortened = contact_sheets._shorten(text, font, 120)
    assert font.getlength(shortened) <= 120
    if shortened != text:
        start, end = shortened.split("…")
        assert text.startswith(start) and text.endswith(end) and end
    else:
        assert font.getlength(text) <= 120


def longest_that_fits(text, font, width):
    """One letter less at a time."""
    for kept in range(len(text), 1, -1):
        candidate = text if kept == len(text) else f"{text[: kept // 3]}…{text[len(text) - (kept - kept // 3) :]}"
        if np.ceil(font.getlength(candidate)) <= width:
            return candidate
    return "…"


@pytest.mark.parametrize("seed", range(20))
def test_as_many_letters_are_kept_as_fit(seed):
    random = np.random.default_rng(seed)
    text = "".join(random.choice(list("AVTijl. -_WäµLOC名0123456789"), random.integers(0, 60)))
    font = contact_sheets._font(13)
    for width in (1, 20, 60, 120, 168, 300):
        assert contact_sheets._shorten(text, font, width) == longest_that_fits(text, font, width)


def test_quick_compression_loses_nothing_and_little_room(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (20, SIDE, SIDE), np.uint8)
    groups = [Group("noise", [Tile(patch, "some words", RED) for patch in noise])]
    contact_sheets.draw_contact_sheet(tmp_path / "quick.png", "A title", groups, tile_pixels=SIDE)
    sheet = contact_sheets.render_contact_sheet("A title", groups, tile_pixels=SIDE)
    sheet.save(tmp_path / "usual.png")
    assert (tmp_path / "quick.png").stat().st_size < 1.2 * (tmp_path / "usual.png").stat().st_size
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "quick.png")), np.asarray(sheet))


def test_sheets_of_patches_in_shards_are_those_of_files(tmp_path):
    (tmp_path / "patches").mkdir()
    names = [f"fly-LOC-0_0_0_{x}" for x in range(5)]
    paths = [tmp_path / "patches" / f"{name}.tiff" for name in names]
    for value, path in enumerate(paths):
        write_section(path, grey(50 * value))
    members = [Path(member) for member in pack(paths, tmp_path / "shards", per_shard=2)]

    def draw(places, **options):
        return render([Group("g", [Tile(place) for place in places])], **options)

    np.testing.assert_array_equal(draw(members, read=read_patch), draw(paths))
    assert not np.array_equal(draw(members), draw(paths))
    of_shards = [str(member.relative_to(tmp_path / "shards").with_suffix("")) for member in members]
    for directory, stems in (("patches", names), ("shards", of_shards)):
        groups = [[(stem, bits) for bits, stem in enumerate(stems)]]
        draw_group_sheet(GroupSheet(tmp_path / f"{directory}.png", tmp_path / directory, "t", groups, read=read_patch))
    assert (tmp_path / "patches.png").read_bytes() == (tmp_path / "shards.png").read_bytes()
