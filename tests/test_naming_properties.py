"""The -LOC- grammar for any name at all: what is formatted is parsed back, and what is no name is refused in words."""

import string

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from emcurate import naming

# What file systems take: any letters but a slash and zero, among them ones that only look like digits.
LETTERS = st.characters(blacklist_characters="/\0", blacklist_categories=["Cs"])
NAMES = st.text(LETTERS, min_size=1, max_size=30) | st.text("-LOC_0123456789.2d", min_size=1, max_size=30)
ANYTHING = st.text(st.characters(), max_size=60) | st.text("-LOC_0123456789.2d3ISANxyz", max_size=60)
NUMBERS = st.integers(0, 10**9)
IMAGES = st.builds(naming.ImageSection, NAMES, st.none() | NAMES)
VOLUMES = st.builds(naming.VolumeSection, NAMES, st.integers(0, 2), st.integers(0, 10**6), st.integers(1, 9))


def is_good(name):
    try:
        return naming.check_dataset_name(name) == name
    except naming.GrammarError:
        return False


@given(IMAGES | VOLUMES)
def test_a_section_is_parsed_back(section):
    assume(is_good(section.dataset))
    found = naming.parse_section(section.stem)
    assert found.stem == section.stem
    assert found == section or isinstance(section, naming.VolumeSection)
    if isinstance(section, naming.VolumeSection):
        assert (found.dataset, found.plane, found.index) == (section.dataset, section.plane, section.index)


@given(IMAGES | VOLUMES, NUMBERS, NUMBERS)
def test_a_patch_is_parsed_back(section, y, x):
    assume(is_good(section.dataset))
    found = naming.parse_patch(naming.Patch(section, y, x).stem)
    assert (found.section.stem, found.y, found.x) == (section.stem, y, x)


@given(
    NAMES,
    st.booleans(),
    st.tuples(NUMBERS, NUMBERS, NUMBERS),
    st.permutations("xyz"),
    st.tuples(*[st.integers(1, 9)] * 3),
    st.none() | st.tuples(NUMBERS, NUMBERS, NUMBERS),
)
def test_a_subvolume_is_parsed_back(name, isotropic, start, axes, widths, extent):
    assume(is_good(name))
    stem = naming.Subvolume(name, isotropic, start, "".join(axes), widths, extent).stem
    found = naming.parse_subvolume(stem)
    assert (found.stem, found.dataset, found.start, found.extent) == (stem, name, start, extent)


@given(st.lists(IMAGES | VOLUMES, min_size=2, max_size=2), st.tuples(*[NUMBERS] * 4))
def test_two_patches_never_share_a_name(sections, corners):
    assume(all(is_good(section.dataset) for section in sections))
    first, second = naming.Patch(sections[0], *corners[:2]), naming.Patch(sections[1], *corners[2:])
    if first.stem == second.stem:
        assert naming.parse_patch(first.stem) == naming.parse_patch(second.stem)
        assert (first.y, first.x) == (second.y, second.x)


@example("a-LOC-0_²")
@example("a-LOC-0_٣")
@example("a-LOC-2d_1_२")
@example("a-LOC-2d_07_0")
@example("a-LOC-3d-ISO-0_0_0_zyx_01x1x1")
@example(f"a-LOC-0_{'9' * 5000}")
@example(f"a-LOC-2d_{'9' * 5000}_0")
@given(ANYTHING)
def test_what_is_no_name_is_refused_in_words(text):
    for parse in (naming.parse_section, naming.parse_patch, naming.parse_subvolume, naming.check_dataset_name):
        try:
            found = parse(text)
        except naming.GrammarError as error:
            assert error.expected and error.found
        else:
            # Whatever was understood is written the same way: no two spellings of one place.
            assert getattr(found, "stem", found) == text


@given(ANYTHING)
def test_a_stripped_name_is_the_beginning_of_the_name_and_never_empty(name):
    stem = naming.strip_extension(name)
    assert name.startswith(stem)
    assert stem or not name


@given(NAMES, st.sampled_from(["nii.gz", "mrc.bz2", "ome.tif", "OME.TIFF", "tif", "h5"]))
def test_an_extension_is_taken_off_whole(name, extension):
    assume(not name.endswith((".", *string.whitespace)) and name.strip())
    assert naming.strip_extension(f"{name}.{extension}") in (name, f"{name}.{extension}")


@given(st.text(max_size=80))
def test_a_name_that_is_short_enough_leaves_room_for_the_longest_result(name):
    try:
        naming.check_length(name)
    except naming.GrammarError:
        assert len(name.encode()) > naming.MOST_NAME_BYTES
        return
    largest = 1 << 20
    widths = (7, 7, 7)
    box = naming.Subvolume(name, False, (largest,) * 3, "zyx", widths, (9999,) * 3)
    assert len(f"{box.stem}.npy".encode()) <= 255


@pytest.mark.parametrize(("first", "second"), [("É", "e\u0301"), ("ß", "ẞ"), ("İ", "i")])
def test_folding_twice_changes_nothing(first, second):
    for name in (first, second):
        assert naming.fold(naming.fold(name)) == naming.fold(name)
