"""Metrics agree with plain loops over all pairs and all patches, and with scikit-learn where they are not its own."""

import numpy as np
import pytest
from sklearn import calibration, metrics

from emcurate.classifier import evaluation


def make_scores(seed, count=200, ties=False):
    random = np.random.default_rng(seed)
    truth = random.random(count) < 0.3
    scores = np.clip(random.normal(0.4 + 0.2 * truth, 0.2), 0, 1)
    return (np.round(scores, 1) if ties else scores), truth


def won_pairs(scores, truth):
    """Mann and Whitney's statistic: pairs of a positive and a negative that are in order, ties counting half."""
    pairs = [(a, b) for a in scores[truth] for b in scores[~truth]]
    return sum(1.0 if a > b else 0.5 if a == b else 0.0 for a, b in pairs) / len(pairs)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_the_area_is_the_share_of_pairs_in_order_to_the_last_digit(seed, ties):
    scores, truth = make_scores(seed, ties=ties)
    # Of two epochs with equal areas the one with the lower loss is kept: no rounding error may decide.
    assert evaluation.area_under_roc(scores, truth) == won_pairs(scores, truth)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_each_point_of_the_curve_has_the_rates_of_its_threshold(seed, ties):
    scores, truth = make_scores(seed, ties=ties)
    false, true, thresholds = evaluation.roc_curve(scores, truth)
    assert (false[0], true[0], thresholds[0]) == (0, 0, np.inf)
    assert thresholds[1:].tolist() == sorted(set(scores), reverse=True)
    for point, threshold in enumerate(thresholds):
        assert false[point] == pytest.approx(np.mean(scores[~truth] >= threshold))
        assert true[point] == pytest.approx(np.mean(scores[truth] >= threshold))


def test_accuracy_and_confusion_of_a_table_made_by_hand():
    scores = np.array([0.9, 0.6, 0.5, 0.2, 0.8, 0.4, 0.1, 0.5, 0.3])
    truth = np.array([True, True, True, True, False, False, False, False, False])
    result = evaluation.evaluate(scores, truth, 0.5, seed=0)
    # A score at the threshold is not above it.
    assert result.confusion == [[4, 1], [2, 2]]
    assert result.accuracy == 6 / 9
    assert result.count == 9
    # In order with the five below each of the four: 5, 4, 3.5, 1.
    assert result.auc == 13.5 / 20
    assert result.auc_interval[0] < result.auc < result.auc_interval[1]


def test_one_class_predicted_still_gives_a_table_of_two():
    result = evaluation.evaluate(np.array([0.6, 0.7, 0.8]), np.array([True, False, True]), 0.5, seed=0)
    assert result.confusion == [[0, 1], [0, 2]]


def test_calibration_is_that_of_scikit_learn_but_for_its_borders():
    scores, truth = make_scores(1, count=500)
    mean, share, count = evaluation.calibration_curve(scores, truth)
    expected_share, expected_mean = calibration.calibration_curve(truth, scores, n_bins=10)
    np.testing.assert_allclose(mean, expected_mean)
    np.testing.assert_allclose(share, expected_share)
    assert count.sum() == len(scores)


def test_a_score_on_a_border_counts_in_the_upper_bin_and_empty_bins_are_left_out():
    scores = np.array([0.0, 0.5, 0.5, 0.52, 0.49, 1.0])
    mean, share, count = evaluation.calibration_curve(scores, np.array([False, True, False, True, False, True]))
    np.testing.assert_allclose(mean, [0, 0.49, 1.52 / 3, 1])
    np.testing.assert_allclose(share, [0, 0, 2 / 3, 1])
    assert count.tolist() == [1, 1, 3, 1]
    # As in the histogram drawn below the curve.
    assert [n for n in np.histogram(scores, np.linspace(0, 1, 11))[0] if n] == [1, 1, 3, 1]


def test_the_interval_is_that_of_a_plain_bootstrap():
    scores, truth = make_scores(2)
    random = np.random.default_rng(5)
    areas = []
    for _ in range(2000):
        chosen = np.concatenate([random.choice(np.flatnonzero(truth == v), (truth == v).sum()) for v in (0, 1)])
        areas.append(metrics.roc_auc_score(truth[chosen], scores[chosen]))
    np.testing.assert_allclose(
        evaluation.bootstrap_auc(scores, truth, seed=0), np.quantile(areas, [0.025, 0.975]), atol=0.01
    )
    assert evaluation.bootstrap_auc(scores, truth, seed=0) == evaluation.bootstrap_auc(scores, truth, seed=0)


def test_one_class_has_no_area():
    with pytest.raises(ValueError, match="both classes"):
        evaluation.area_under_roc(np.array([0.1, 0.9]), np.array([True, True]))
