import pytest
from hypothesis import given
from hypothesis import strategies as st

from emcurate import naming
from emcurate.naming import GrammarError, ImageSection, Patch, Subvolume, VolumeSection

# Anything a file system takes, spaces, dots, underscores and non-ASCII letters included, without the mark itself.
names = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=30).filter(
    lambda name: naming.MARK not in f"-{name}-"
)
numbers = st.integers(0, 10**6)


@pytest.mark.parametrize(
    ("filename", "stem"),
    [
        ("a.png", "a"),
        ("scan.v2.tif", "scan.v2"),
        ("brain.nii.gz", "brain"),
        ("EMD-3197.map.bz2", "EMD-3197"),
        ("cell.ome.tif", "cell"),
        ("cell.OME.TIFF", "cell"),
        ("cell.ome.zarr", "cell"),
        ("two words_ö.mrc", "two words_ö"),
        ("notes.gz", "notes"),
        ("no extension", "no extension"),
    ],
)
def test_extension_is_stripped(filename, stem):
    assert naming.strip_extension(filename) == stem


@pytest.mark.parametrize(
    ("section", "stem"),
    [
        (ImageSection("grid"), "grid-LOC-2d"),
        (ImageSection("tilts", "07 b"), "tilts-LOC-2d-07 b"),
        (VolumeSection("fly", 2, 7, 3), "fly-LOC-2_007"),
    ],
)
def test_section_names(section, stem):
    assert section.stem == stem
    assert naming.parse_section(stem) == section


def test_patch_of_an_image_whose_name_ends_in_numbers():
    patch = naming.parse_patch("g-LOC-2d-a_1_2_224_0")
    assert patch == Patch(ImageSection("g", "a_1_2"), 224, 0)


@given(dataset=names, image=st.none() | names, y=numbers, x=numbers)
def test_patches_of_images_survive_a_round_trip(dataset, image, y, x):
    patch = Patch(ImageSection(dataset, image), y, x)
    assert naming.parse_patch(patch.stem) == patch


@given(dataset=names, plane=st.integers(0, 2), index=numbers, width=st.integers(7, 9), y=numbers, x=numbers)
def test_patches_of_volumes_survive_a_round_trip(dataset, plane, index, width, y, x):
    patch = Patch(VolumeSection(dataset, plane, index, width), y, x)
    assert naming.parse_patch(patch.stem) == patch


@given(dataset=names, start=st.tuples(numbers, numbers, numbers), isotropic=st.booleans())
def test_subvolumes_survive_a_round_trip(dataset, start, isotropic):
    subvolume = Subvolume(dataset, isotropic, start, "xzy", (7, 7, 7))
    assert naming.parse_subvolume(subvolume.stem) == subvolume


@pytest.mark.parametrize("stem", ["", "plain", "-LOC-2d", "a-LOC-", "a-LOC-3_1", "a-LOC-0_x", "a-LOC-2d-", "a-LOC-0"])
def test_other_names_are_no_sections(stem):
    with pytest.raises(GrammarError, match="expected"):
        naming.parse_section(stem)


@pytest.mark.parametrize("stem", ["a-LOC-2d", "a-LOC-2d_1", "a-LOC-2d_1_x", "a_1_2"])
def test_other_names_are_no_patches(stem):
    with pytest.raises(GrammarError, match="expected"):
        naming.parse_patch(stem)


@pytest.mark.parametrize("stem", ["a-LOC-3d-ISO-1_2_zyx", "a-LOC-3d-ISO-1_2_3_zyy", "a-LOC-2d"])
def test_other_names_are_no_subvolumes(stem):
    with pytest.raises(GrammarError, match="expected"):
        naming.parse_subvolume(stem)


@pytest.mark.parametrize(("size", "width"), [(1, 1), (10, 1), (11, 2), (250, 3), (1000, 3), (1001, 4)])
def test_index_width_is_that_of_the_largest_index(size, width):
    assert naming.index_width(size) == width


def test_dataset_name_must_not_hold_the_mark():
    with pytest.raises(GrammarError, match="-LOC-"):
        naming.check_dataset_name("a-LOC-b")
