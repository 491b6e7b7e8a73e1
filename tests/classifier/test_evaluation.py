"""Metrics agree with plain loops over all pairs and all patches, and with scikit-learn where they are not its own."""

import numpy as np
import pytest
import scipy
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
    result = evaluation.evaluate(scores, truth, 0.5)
    # A score at the threshold is not above it.
    assert result.confusion == [[4, 1], [2, 2]]
    assert result.accuracy == 6 / 9
    assert result.count == 9
    # In order with the five below each of the four: 5, 4, 3.5, 1.
    assert result.auc == 13.5 / 20
    assert result.auc_interval[0] < result.auc < result.auc_interval[1]


def test_one_class_predicted_still_gives_a_table_of_two():
    result = evaluation.evaluate(np.array([0.6, 0.7, 0.8]), np.array([True, False, True]), 0.5)
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


def shares(scores, truth):
    """For each positive the share of negatives below it, for each negative that of positives above, by plain loops."""

    def order(a, b):
        return 1.0 if a > b else 0.5 if a == b else 0.0

    positive, negative = scores[truth], scores[~truth]
    above = [sum(order(a, b) for b in negative) / len(negative) for a in positive]
    below = [sum(order(a, b) for a in positive) / len(positive) for b in negative]
    return np.array(above), np.array(below)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_the_variances_are_those_of_delong_over_all_pairs(seed, ties):
    scores, truth = make_scores(seed, count=60, ties=ties)
    above, below = shares(scores, truth)
    # DeLong, DeLong and Clarke-Pearson (1988), equation 4, term by term.
    area = won_pairs(scores, truth)
    expected = [sum((share - area) ** 2 for share in part) / (len(part) - 1) / len(part) for part in (above, below)]
    np.testing.assert_allclose(evaluation.delong_variances(scores, truth), expected, rtol=1e-12)
    assert metrics.roc_auc_score(truth, scores) == pytest.approx(area) == pytest.approx(above.mean())


def test_the_logit_interval_is_that_of_the_formula_written_out():
    scores, truth = make_scores(1, count=40)
    above, below = shares(scores, truth)
    area = above.mean()
    one, other = above.var(ddof=1) / len(above), below.var(ddof=1) / len(below)
    freedom = (one + other) ** 2 / (one**2 / (len(above) - 1) + other**2 / (len(below) - 1))
    logits = scipy.special.logit(area) + np.array([-1, 1]) * scipy.stats.t.ppf(0.975, freedom) * np.sqrt(
        one + other
    ) / (area * (1 - area))
    np.testing.assert_allclose(evaluation.delong_interval(scores, truth), scipy.special.expit(logits), rtol=1e-9)


@pytest.mark.parametrize(("positives", "negatives"), [(10, 10), (3, 50), (1, 1), (40, 2)])
def test_where_nothing_is_out_of_order_the_interval_is_the_exact_one_of_pairs_used_once(positives, negatives):
    truth = np.arange(positives + negatives) < positives
    pairs = min(positives, negatives)
    exact = scipy.stats.binomtest(pairs, pairs).proportion_ci(0.95, method="exact")
    assert evaluation.delong_interval(truth.astype(float), truth) == pytest.approx((exact.low, 1))
    assert evaluation.delong_interval(1 - truth.astype(float), truth) == pytest.approx((0, 1 - exact.low))
    low, high = evaluation.auc_interval(truth.astype(float), truth)
    assert low <= exact.low + 1e-9 and high == 1


def test_scores_that_are_all_alike_leave_the_area_open():
    truth = np.arange(20) % 2 == 0
    low, high = evaluation.auc_interval(np.full(20, 0.5), truth)
    assert low < 0.25 and high > 0.75


@pytest.mark.parametrize("area", [0.0, 0.03, 0.5, 0.9, 0.999, 1.0])
def test_newcombes_limits_are_where_the_area_is_just_as_far_off_as_chance_has_it(area):
    m, n, z = 12, 30, scipy.stats.norm.ppf(0.975)
    low, high = evaluation.newcombe_interval(area, m, n)
    grid = np.linspace(0, 1, 200001)[1:-1]
    mean = (m + n) / 2 - 1
    variance = grid * (1 - grid) / (m * n) * (1 + mean * (1 - grid) / (2 - grid) + mean * grid / (1 + grid))
    inside = grid[np.abs(area - grid) <= z * np.sqrt(variance)]
    assert (low, high) == pytest.approx((inside.min(), inside.max()), abs=1e-5)
    mirrored = evaluation.newcombe_interval(1 - area, m, n)
    assert mirrored == pytest.approx((1 - high, 1 - low))


def draw_scores(random, family, area, positives, negatives):
    """Scores of two classes whose true area is known."""
    if family == "exponential":
        high = random.exponential(area / (1 - area), positives), random.exponential(1, negatives)
    else:
        spread = {"normal": 1, "spread": 2}[family]
        shift = np.sqrt(1 + spread**2) * scipy.stats.norm.ppf(area)
        high = random.normal(shift, spread, positives), random.normal(0, 1, negatives)
    return np.concatenate(high), np.arange(positives + negatives) < positives


# Each family with each area and with each of the numbers, which is a third of all that can be put together.
@pytest.mark.parametrize(
    ("family", "positives", "negatives", "area"),
    [
        ("normal", 10, 10, 0.7), ("normal", 10, 100, 0.95), ("normal", 50, 50, 0.99),
        ("spread", 10, 10, 0.95), ("spread", 10, 100, 0.99), ("spread", 50, 50, 0.7),
        ("exponential", 10, 10, 0.99), ("exponential", 10, 100, 0.7), ("exponential", 50, 50, 0.95),
    ],
)  # fmt: skip
def test_an_interval_of_95_percent_holds_the_true_area_that_often(family, positives, negatives, area):
    random = np.random.default_rng([positives, negatives, int(100 * area)])
    draws, held = 300, 0
    for _ in range(draws):
        low, high = evaluation.auc_interval(*draw_scores(random, family, area, positives, negatives))
        assert low < high
        held += low <= area <= high
    # By chance alone one in a thousand draws would fall below this if 95 % were the truth.
    assert held >= scipy.stats.binom.ppf(0.001, draws, 0.95)


def test_one_class_has_no_area():
    with pytest.raises(ValueError, match="both classes"):
        evaluation.area_under_roc(np.array([0.1, 0.9]), np.array([True, True]))
