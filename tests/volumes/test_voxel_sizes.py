import pytest

from emcurate.errors import InputError
from emcurate.images.pixels import Rescale
from emcurate.running.report import Report
from emcurate.volumes.cut_settings import HowToCut
from emcurate.volumes.voxel_sizes import ask_about, ask_about_given, read_voxel_sizes

FLY, WING = ("fly", (40.0, 4.0, 5.0)), ("a b,ö", (8.0, 8.0, 8.0))


@pytest.mark.parametrize(
    "text",
    [
        'fly,40,4,5\n"a b,ö",8,8,8\n',
        'name,z,y,x\nfly,40,4,5\n"a b,ö",8,8,8',
        'x,name,z,y\r\n5,fly,40,4\r\n\r\n8,"a b,ö",8,8\r\n',
        '\ufeffName, Z_nm, Y_nm, X_nm\nfly , 4e1, 4.0, 5\n"a b,ö",8,8,8\n',
    ],
)
def test_a_file_of_voxel_sizes_is_read_with_and_without_the_names_of_its_columns(tmp_path, text):
    path = tmp_path / "sizes.csv"
    path.write_bytes(text.encode())
    assert read_voxel_sizes(path) == (FLY, WING)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (b"", "no line with a size"),
        (b"name,z,y,x\n", "no line with a size"),
        (b'{"fly": [40, 4, 4]}', "found JSON"),
        (b"\xff\xfe\x00", "no text"),
        (b"fly,40,4\n", "3 cells in line 1: 'fly,40,4'"),
        (b"fly;40;4;4\n", "1 cells in line 1"),
        (b"name,z,y,x\n\nfly,40,4,0\n", "above 0 in line 3, found '0'"),
        (b"fly,40,4,four\n", "above 0 in line 1, found 'four'"),
        (b"fly,40,4,nan\n", "found 'nan'"),
        (b"fly,1,1,1\nfly,2,2,2\n", "fly again in line 2"),
    ],
)
def test_a_file_that_says_no_voxel_sizes_is_named_with_what_is_wrong(tmp_path, text, found):
    (tmp_path / "sizes.csv").write_bytes(text)
    with pytest.raises(InputError, match=r"sizes\.csv: expected ") as caught:
        read_voxel_sizes(tmp_path / "sizes.csv")
    assert found in str(caught.value)


def test_a_name_comes_before_the_size_of_all_and_may_be_that_of_the_file():
    sizes = (FLY, ("x.ome.tif", (1, 1, 1)), ("s 1.5", (2, 2, 2)))
    how = HowToCut((0,), 3, 0.2, (9, 9, 9), Rescale("minmax"), voxel_sizes=sizes)
    for dataset, size in {"fly": FLY[1], "x": (1, 1, 1), "s 1.5": (2, 2, 2), "s 1": (2, 2, 2), "fl": (9, 9, 9)}.items():
        assert how.of(dataset) == HowToCut((0,), 3, 0.2, size, Rescale("minmax"))
    # What is said of others makes no difference to a dataset.
    assert how.of("fly").settings == HowToCut((0,), 3, 0.2, FLY[1], Rescale("minmax")).settings


@pytest.mark.parametrize(
    ("size", "words"),
    [
        ((40, 4, 4), None),
        ((0.0392, 0.0448, 0.0459), None),  # a map of a molecule
        ((8, 8, 8), None),
        ((7, 8, 8), None),
        ((0.04, 0.004, 0.004), "are these micrometres? They are taken as nm; in nm it would be --voxel-size 40 4 4"),
        (
            (4, 4, 40),
            "is the order x, y, z? It is taken as z, y, x, with z below x; turned round it would be --voxel-s",
        ),
        ((4e6, 4e6, 4e6), "are these nanometres? 4 mm are much"),
    ],
)
def test_sizes_in_another_unit_or_order_are_asked_about(size, words):
    assert (ask_about(size) or "").startswith(words or "") and bool(ask_about(size)) == bool(words)


def test_what_is_given_is_asked_about_once_and_names_of_nothing_are_named():
    report = Report("test")
    how = HowToCut(voxel_size=(4, 4, 40), voxel_sizes=(("fly", (0.01, 0.01, 0.01)), ("flea", (8, 8, 8))))
    ask_about_given(how, ["fly", "wing"], report)
    first, second, third = report.warnings
    assert first.startswith("--voxel-size, 4 x 4 x 40 nm (z, y, x): is the order x, y, z?")
    assert second.startswith("fly in --voxel-sizes, 0.01 x 0.01 x 0.01 nm (z, y, x): are these micrometres?")
    assert third == "--voxel-sizes: nothing here is called flea; the names here are fly, wing"
