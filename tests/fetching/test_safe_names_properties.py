"""Names from files never lead out of their directory, whatever they are."""

import os
from pathlib import Path

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from emcurate.fetching.safe_names import EscapeError, check_relative, join_inside

NAMES = st.text(max_size=20) | st.lists(st.sampled_from(["..", ".", "a", "", "b c", "C:", "\\", "way"])).map("/".join)
ANYWHERE = settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])


@example("a/..")
@example("../a")
@example("/a")
@example("C:a")
@example("a\0b")
@ANYWHERE
@given(NAMES)
def test_what_is_let_through_stays_inside(tmp_path, name):
    try:
        assert check_relative(name) == name
    except EscapeError:
        return
    assert os.path.normpath(tmp_path / name).startswith(f"{tmp_path}{os.sep}")
    assert not Path(name).is_absolute() and ".." not in Path(name).parts


@ANYWHERE
@given(NAMES)
def test_links_on_the_way_lead_nowhere_else(tmp_path, name):
    inside = tmp_path / "inside"
    inside.mkdir(exist_ok=True)
    if not (inside / "way").is_symlink():
        (inside / "way").symlink_to(tmp_path)
    try:
        path = join_inside(inside, name)
    except EscapeError:
        return
    assert path.resolve().is_relative_to(inside.resolve())
