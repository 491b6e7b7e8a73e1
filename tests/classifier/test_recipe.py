"""The published recipe, and what follows from a recipe."""

import math

import numpy as np
import pytest

from emcurate.classifier.recipe import Recipe, balanced_weights, count_batches, iter_batches, learning_rate_at


def test_the_defaults_are_the_published_recipe():
    recipe = Recipe()
    assert (recipe.init, recipe.trained_from, recipe.split, recipe.validation) == ("imagenet", "layer4", "random", 0.15)
    assert (recipe.seed, recipe.optimizer, recipe.learning_rate, recipe.decay) == (1227, "adam", 1e-3, 0)
    assert (recipe.batch_size, recipe.epochs, recipe.image_size, recipe.threshold) == (64, 20, 224, 0.5)
    assert (recipe.brightness, recipe.contrast, recipe.schedule) == (0.2, 0.2, "constant")


def test_from_random_weights_everything_learns_unless_told_otherwise():
    assert Recipe(init="random").trained_from == "all"
    assert Recipe(init="random", finetune_layer="layer3").trained_from == "layer3"


@pytest.mark.parametrize(("count", "size"), [(100, 64), (65, 64), (64, 64), (3, 64), (2, 64), (129, 64), (7, 2)])
def test_batches_hold_every_patch_once_and_never_a_single_one(count, size):
    batches = list(iter_batches(count, size, (1, 2)))
    assert sorted(np.concatenate(batches).tolist()) == list(range(count))
    assert min(map(len, batches)) >= 2
    assert max(map(len, batches)) <= size + 1
    assert len(batches) == count_batches(count, size)


def test_order_depends_on_seed_and_epoch():
    orders = [np.concatenate(list(iter_batches(50, 8, seed))).tolist() for seed in ((1, 1), (1, 1), (1, 2), (2, 1))]
    assert orders[0] == orders[1]
    assert len({tuple(order) for order in orders}) == 3


def test_the_cosine_falls_from_the_full_rate():
    recipe = Recipe(schedule="cosine", epochs=4, learning_rate=1.0)
    rates = [learning_rate_at(epoch, recipe) for epoch in range(1, 5)]
    np.testing.assert_allclose(rates, [1, 0.5 + math.sqrt(0.5) / 2, 0.5, 0.5 - math.sqrt(0.5) / 2])
    assert learning_rate_at(3, Recipe()) == 1e-3


def test_balanced_weights_give_each_class_half():
    truth = np.array([True] * 30 + [False] * 10)
    weights = balanced_weights(truth)
    per_patch = weights[truth.astype(int)]
    assert per_patch[truth].sum() == pytest.approx(per_patch[~truth].sum())
    assert per_patch.sum() == pytest.approx(len(truth))
