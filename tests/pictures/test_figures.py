"""Figures have the size asked for, and a file appears only when it is complete."""

import numpy as np
import pytest
from PIL import Image, ImageColor

from emcurate.pictures import figures


def draw(values):
    figure = figures.new_figure(3, 2)
    figure.add_subplot().plot(values, color=figures.BLUE, linewidth=9)
    return figure


def test_a_figure_has_its_inches_times_the_resolution_and_the_palettes_colour(tmp_path):
    figures.save_figure(draw([1, 2, 1]), tmp_path / "figure.png")
    with Image.open(tmp_path / "figure.png") as image:
        assert image.size == (3 * figures.DOTS_PER_INCH, 2 * figures.DOTS_PER_INCH)
        pixels = np.asarray(image.convert("RGB"))
        # Nothing but the resolution is noted, so that a new version of a library makes no new file.
        assert set(image.info) == {"dpi"}
    assert (pixels == ImageColor.getrgb(figures.BLUE)).all(axis=-1).sum() > 500


def test_the_same_figure_gives_the_same_bytes_and_another_one_others():
    assert figures.encode_figure(draw([1, 2])) == figures.encode_figure(draw([1, 2]))
    assert figures.encode_figure(draw([1, 2])) != figures.encode_figure(draw([2, 1]))


def test_a_figure_that_cannot_be_drawn_leaves_the_earlier_file(tmp_path):
    path = tmp_path / "figure.png"
    figures.save_figure(draw([1, 2]), path)
    before = path.read_bytes()
    broken = draw([1, 2])
    broken.axes[0].set_title("$\\nonsense$")
    with pytest.raises(ValueError, match="nonsense"):
        figures.save_figure(broken, path)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["figure.png"]
