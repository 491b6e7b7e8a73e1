"""Keys that a person may choose."""

import pytest

from emcurate.errors import InputError
from emcurate.labeling.keys import ACTIONS, choose_keys


def test_without_a_choice_every_action_has_a_key_of_its_own():
    keys = choose_keys({})
    assert keys.keys() == ACTIONS.keys()
    assert len(set(keys.values())) == len(keys)


def test_chosen_keys_are_taken_whatever_their_case_and_the_others_stay():
    keys = choose_keys({"informative": "1", "uninformative": "K", "unsure": "space", "toggle": "Backspace"})
    assert (keys["informative"], keys["uninformative"], keys["unsure"], keys["toggle"]) == (
        "1",
        "k",
        "Space",
        "Backspace",
    )
    assert keys["undo"] == "z"
    assert choose_keys({"informative": "u", "uninformative": "i"})["informative"] == "u", "two may change places"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"informativ": "1"}, "expected actions of informative, .* found 'informativ'"),
        ({"informative": "ArrowLeft"}, "expected a letter a to z, a digit, .* for informative, found 'ArrowLeft'"),
        ({"informative": "é"}, "found 'é'"),
        ({"informative": ""}, "found ''"),
        ({"informative": 1}, "found 1"),
        ({"informative": "z"}, "found z for informative and undo; choose another key for undo|for informative"),
        ({"unsure": "1", "none": "1"}, "found 1 for unsure and none"),
    ],
)
def test_keys_that_cannot_be_are_refused_with_what_can(given, message):
    with pytest.raises(InputError, match=message):
        choose_keys(given)
