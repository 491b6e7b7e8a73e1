"""A card says how weights are to be used."""

import hashlib
import json
import os

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


def write_edited(path, edit):
    card.write_card(path, card.InputFormat(), 0.5, {})
    values = json.loads(path.with_suffix(".json").read_text())
    edit(values)
    path.with_suffix(".json").write_text(json.dumps(values))


@pytest.mark.parametrize(
    ("edit", "found"),
    [
        (lambda values: values["input"].update(image_size=-1), "image_size"),
        (lambda values: values["input"].update(image_size=31), "image_size"),
        (lambda values: values["input"].update(image_size=10**9), "image_size"),
        (lambda values: values["input"].update(image_size=224.5), "image_size"),
        (lambda values: values["input"].update(image_size=True), "image_size"),
        (lambda values: values["input"].update(image_size=[224]), "image_size"),
        (lambda values: values["input"].update(mean=[0.5, 0.5]), "mean"),
        (lambda values: values["input"].update(mean=[0.5, 0.5, float("nan")]), "damaged"),
        (lambda values: values["input"].update(mean=[0.5, 0.5, float("inf")]), "damaged"),
        (lambda values: values["input"].update(mean="abc"), "mean"),
        (lambda values: values["input"].update(std=[0.2, 0, 0.2]), "std"),
        (lambda values: values["input"].update(std=[0.2, -0.2, 0.2]), "std"),
        (lambda values: values.update(threshold=1.5), "threshold"),
        (lambda values: values.update(threshold=-0.1), "threshold"),
        (lambda values: values.update(threshold=float("nan")), "damaged"),
        (lambda values: values.update(threshold="0.5"), "threshold"),
        (lambda values: values.update(threshold=None), "threshold"),
        (lambda values: values.update(input=[]), "input"),
        (lambda values: values.update(input={"input": values["input"]}), "image_size"),
        (lambda values: values.pop("input"), "input"),
        (lambda values: values.update(weights_sha256=3), "weights_sha256"),
    ],
)
def test_a_card_whose_values_cannot_be_is_refused_by_the_value(tmp_path, edit, found):
    path = tmp_path / NAME
    path.write_bytes(BODY)
    write_edited(path, edit)
    with pytest.raises(InputError, match=found) as error:
        card.describe_weights(path)
    assert error.value.path == str(path.with_suffix(".json"))
    assert "copy it again" in error.value.advice


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[" * 100_000,
        b'{"input":' * 100_000,
        b'{"threshold": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b"\xff\xfe{}",
        b"null",
        b'{"threshold": 1e999}',
        b" " * (card.CARD_BYTES + 1),
        b"\0" * 2000,
    ],
)
def test_what_is_no_card_is_refused(tmp_path, content):
    path = tmp_path / NAME
    path.write_bytes(BODY)
    path.with_suffix(".json").write_bytes(content)
    with pytest.raises(InputError, match="another or damaged file"):
        card.describe_weights(path)
    assert card.read_training(path.with_suffix(".json")) == ""


def test_a_pipe_or_a_directory_in_the_place_of_a_card_is_named_at_once(tmp_path):
    path = tmp_path / NAME
    path.write_bytes(BODY)
    os.mkfifo(path.with_suffix(".json"))
    with pytest.raises(InputError, match="a pipe"):
        card.describe_weights(path)
    path.with_suffix(".json").unlink()
    path.with_suffix(".json").mkdir()
    with pytest.raises(InputError, match="a directory"):
        card.describe_weights(path)


def test_what_is_assumed_without_a_card_is_said(tmp_path):
    text = card.describe_assumptions(card.Weights(tmp_path / NAME, "0"))
    for assumed in ("224 × 224", "(0.485, 0.456, 0.406)", "(0.229, 0.224, 0.225)", "threshold 0.5"):
        assert assumed in text


def test_missing_weights_are_named(tmp_path):
    with pytest.raises(InputError, match="no such file; check --weights"):
        card.describe_weights(tmp_path / "none.pth")
