"""Metrics agree with scikit-learn, and the bootstrap with a plain loop."""

import numpy as np
import pytest
from sklearn import calibration, metrics

from emcurate.classifier import evaluation


def make_scores(seed, count=200, ties=False):
    random = np.random.default_rng(seed)
    truth = random.random(count) < 0.3
    scores = np.clip(random.normal(0.4 + 0.2 * truth, 0.2), 0, 1)
    return (np.round(scores, 1) if ties else scores), truth


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_area_and_curve_are_those_of_scikit_learn(seed, ties):
    scores, truth = make_scores(seed, ties=ties)
    assert evaluation.area_under_roc(scores, truth) == pytest.approx(metrics.roc_auc_score(truth, scores))
    ours = evaluation.roc_curve(scores, truth)
    theirs = metrics.roc_curve(truth, scores, drop_intermediate=False)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b)


def test_accuracy_and_confusion():
    scores, truth = make_scores(0, ties=True)
    result = evaluation.evaluate(scores, truth, 0.5, seed=0)
    assert result.accuracy == pytest.approx(metrics.accuracy_score(truth, scores > 0.5))
    assert result.confusion == metrics.confusion_matrix(truth, scores > 0.5).tolist()
    assert result.auc_interval[0] < result.auc < result.auc_interval[1]


def test_calibration_is_that_of_scikit_learn():
    scores, truth = make_scores(1, count=500)
    mean, share, count = evaluation.calibration_curve(scores, truth)
    expected_share, expected_mean = calibration.calibration_curve(truth, scores, n_bins=10)
    np.testing.assert_allclose(mean, expected_mean)
    np.testing.assert_allclose(share, expected_share)
    assert count.sum() == len(scores)


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
