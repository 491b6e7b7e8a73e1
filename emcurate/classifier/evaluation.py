"""How good scores are: accuracy, confusion, ROC, area under it with an interval, and calibration."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

BOOTSTRAP_SAMPLES = 2000
CONFIDENCE = 0.95

# Bootstrap samples drawn at a time, so that their counts take little memory.
SAMPLES_AT_ONCE = 100

CALIBRATION_BINS = 10

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Evaluation:
    """Scores judged against labels. Rows of the confusion matrix are the labels: [[TN, FP], [FN, TP]]."""

    count: int
    accuracy: float
    confusion: list[list[int]]
    auc: float
    auc_interval: tuple[float, float]


def evaluate(scores: npt.NDArray[np.floating], truth: npt.NDArray[np.bool_], threshold: float, seed: int) -> Evaluation:
    """Judge scores, 0..1 and higher for the positive class, against the truth; both (n,).

    Parameters
    ----------
    seed : int
        Of the bootstrap.
    """
    from sklearn.metrics import accuracy_score, confusion_matrix

    predicted = scores > threshold
    return Evaluation(
        count=len(scores),
        accuracy=float(accuracy_score(truth, predicted)),
        confusion=confusion_matrix(truth, predicted, labels=[False, True]).tolist(),
        auc=area_under_roc(scores, truth),
        auc_interval=bootstrap_auc(scores, truth, seed),
    )


def area_under_roc(scores: npt.NDArray[np.floating], truth: npt.NDArray[np.bool_]) -> float:
    """Return the probability that a positive scores above a negative, ties counting half (Mann and Whitney, 1947)."""
    from sklearn.metrics import roc_auc_score

    positives = _refuse_one_class(truth)
    # A whole number of half pairs: without rounding errors, equal areas are equal, and the best epoch is no accident.
    half_pairs = 2 * positives * (len(truth) - positives)
    return float(round(roc_auc_score(truth, scores) * half_pairs) / half_pairs)


def bootstrap_auc(
    scores: npt.NDArray[np.floating],
    truth: npt.NDArray[np.bool_],
    seed: int,
    samples: int = BOOTSTRAP_SAMPLES,
    confidence: float = CONFIDENCE,
) -> tuple[float, float]:
    """Return a percentile bootstrap interval of the area under the ROC curve.

    Positives and negatives are drawn each by themselves, so that every sample has both.
    """
    positives, negatives = _counts(scores, truth)
    rng = np.random.default_rng(seed)
    areas = []
    for start in range(0, samples, SAMPLES_AT_ONCE):
        size = min(SAMPLES_AT_ONCE, samples - start)
        drawn = [rng.multinomial(int(c.sum()), c / c.sum(), size) for c in (positives, negatives)]
        areas.append(_areas(drawn[0], drawn[1]))
    tail = (1 - confidence) / 2
    low, high = np.quantile(np.concatenate(areas), [tail, 1 - tail])
    return float(low), float(high)


def cross_entropy(scores: npt.NDArray[np.floating], truth: npt.NDArray[np.bool_]) -> float:
    """Return the mean binary cross-entropy; a score of 0 or 1 that is wrong costs a lot, but not infinity."""
    right = np.clip(np.where(truth, scores, 1 - scores), np.finfo(float).tiny, None)
    return float(-np.log(right).mean())


def roc_curve(
    scores: npt.NDArray[np.floating], truth: npt.NDArray[np.bool_]
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return false positive rate, true positive rate and threshold of each point, from (0, 0) to (1, 1).

    A point's rates are those of calling positive what scores at least its threshold; the first one's is infinite.
    """
    from sklearn import metrics

    _refuse_one_class(truth)
    false, true, thresholds = metrics.roc_curve(truth, scores, drop_intermediate=False)
    return false, true, thresholds


def calibration_curve(
    scores: npt.NDArray[np.floating], truth: npt.NDArray[np.bool_], bins: int = CALIBRATION_BINS
) -> tuple[FloatArray, FloatArray, npt.NDArray[np.int64]]:
    """Return mean score, share of positives and count of each bin of equal width that is not empty.

    A score on the border of two bins counts in the upper one, as in the histogram drawn below the curve. Therefore
    not scikit-learn's, which counts it in the lower one, and tells no counts.
    """
    place = np.minimum((scores * bins).astype(int), bins - 1)
    count = np.bincount(place, minlength=bins)
    used = count > 0
    mean = np.bincount(place, scores, bins)[used] / count[used]
    share = np.bincount(place, truth, bins)[used] / count[used]
    return mean, share, count[used]


def _refuse_one_class(truth: npt.NDArray[np.bool_]) -> int:
    """Return how many are positive; raise `ValueError` if all are, or none."""
    positives = int(np.count_nonzero(truth))
    if positives in (0, len(truth)):
        raise ValueError("both classes are needed")
    return positives


def _counts(
    scores: npt.NDArray[np.floating], truth: npt.NDArray[np.bool_]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return how many positives and negatives have each of the scores that occur, from the lowest up."""
    _refuse_one_class(truth)
    values, place = np.unique(scores, return_inverse=True)
    return np.bincount(place[truth], minlength=len(values)), np.bincount(place[~truth], minlength=len(values))


def _areas(positives: npt.NDArray[np.int64], negatives: npt.NDArray[np.int64]) -> FloatArray:
    """Return the areas of samples: (s, v) counts at each of v rising scores."""
    below = np.cumsum(negatives, axis=1) - negatives
    won = (positives * (below + 0.5 * negatives)).sum(axis=1)
    area: FloatArray = won / (positives.sum(axis=1) * negatives.sum(axis=1))
    return area
