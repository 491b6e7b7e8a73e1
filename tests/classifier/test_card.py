"""A card says how weights are to be used."""

import hashlib
import json

import pytest

from emcurate.classifier import card
from emcurate.errors import InputError

BODY = bytes(range(256)) * 64
NAME = "patch_quality_classifier_nn.pth"


def test_a_card_says_how_weights_are_used(tmp_path):
    path = tmp_path / NAME
    path.write_bytes(BODY)
    bare = card.describe_weights(path)
    assert (bare.input_format, bare.threshold) == (card.InputFormat(224), 0.5)
    other = card.InputFormat(96, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    card.write_card(path, other, 0.25, {"best_epoch": 3})
    assert card.describe_weights(path) == card.Weights(path, hashlib.sha256(BODY).hexdigest(), other, 0.25)
    assert json.loads(path.with_suffix(".json").read_text())["best_epoch"] == 3


def test_a_card_of_other_weights_and_a_damaged_one_are_refused(tmp_path):
    path = tmp_path / NAME
    path.write_bytes(BODY)
    card.write_card(path, card.InputFormat(), 0.5, {})
    path.write_bytes(BODY[::-1])
    with pytest.raises(InputError, match="copy weights and card together"):
        card.describe_weights(path)
    path.with_suffix(".json").write_text('{"weights_sha256": "')
    with pytest.raises(InputError, match="another or damaged file"):
        card.describe_weights(path)


def test_missing_weights_are_named(tmp_path):
    with pytest.raises(InputError, match="no such file; check --weights"):
        card.describe_weights(tmp_path / "none.pth")
