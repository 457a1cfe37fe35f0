"""Scores of multi-label predictions under named protocols, with NumPy alone and in float64.

Every function takes anybody's predictions: scores may be logits or probabilities unless a threshold is
involved, then they are probabilities. A nan among them is an error. Entries labelled -1 (nobody knows) are
left out of the average precision of their class.

Shape letters: N rows of all videos, V videos, T rows of one video, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from heads.metrics_conditional import action_conditional, action_conditional_pair
from heads.metrics_ranking import average_precisions, by_class, checked, mean_of_known
from heads.metrics_tagging import (
    global_average_precision,
    hit_at_1,
    multilabel_metrics,
    precision_at_equal_recall,
    weighted_metrics,
    yt8m_map,
)

__all__ = [
    "action_conditional",
    "action_conditional_pair",
    "apmeter_map",
    "average_precision",
    "charades_localize_map",
    "charades_video_map",
    "class_average_precision",
    "frame_map",
    "global_average_precision",
    "hit_at_1",
    "mstct_25_map",
    "multilabel_metrics",
    "precision_at_equal_recall",
    "top1_accuracy",
    "video_map",
    "weighted_metrics",
    "yt8m_map",
]

CHARADES_POINTS = 25  # times of each video at which Charades localisation asks
MSTCT_ROWS = 25  # rows of each video that MS-TCT's approximation of it takes


def average_precision(scores: ArrayLike, labels: ArrayLike) -> float:
    """Area under the precision-recall curve of one class, in [0, 1].

    Args:
        scores: (N,) any real numbers; only their order matters, so logits will do.
        labels: (N,) 1 where the class is present, 0 where not, -1 where nobody knows.

    Returns:
        Sum over thresholds of precision times the gain in recall; nan if no row is positive.

    Raises:
        ValueError: a score is nan, a label is none of these, or the two lengths differ.

    Source: the definition of scikit-learn's average_precision_score, without interpolation.

    >>> average_precision(np.array([0.9, 0.8, 0.7, 0.6]), np.array([1, 0, 1, 0]))
    0.8333333333333333
    """
    scores_N, labels_N = checked(scores, labels, ndim=1, unknown=True)
    return float(average_precisions(scores_N[None], labels_N[None])[0])


def class_average_precision(scores: ArrayLike, labels: ArrayLike) -> NDArray[np.float64]:
    """`average_precision` of every class.

    Args:
        scores: (N, C) any real numbers.
        labels: (N, C) 0, 1 or -1.

    Returns:
        (C,) in [0, 1]; nan for classes without positives.
    """
    return by_class(*checked(scores, labels, unknown=True))


def frame_map(scores: ArrayLike, labels: ArrayLike) -> float:
    """f-mAP over all steps: every real row of every video pooled once; mean over classes with positives.

    Args:
        scores: (N, C) any real numbers.
        labels: (N, C) 0, 1 or -1.

    Returns:
        A number in [0, 1]; nan if no class has a positive.

    >>> frame_map(np.array([[0.9, 0.2], [0.1, 0.3]]), np.array([[1, 0], [0, 0]]))
    1.0
    """
    return mean_of_known(class_average_precision(scores, labels))


def video_map(scores: ArrayLike, labels: ArrayLike) -> float:
    """Mean AP over videos; mean over classes with positives. (V, C) and the rest as in `frame_map`."""
    return mean_of_known(class_average_precision(scores, labels))


def charades_video_map(scores: ArrayLike, labels: ArrayLike) -> float:
    """Charades' own video mAP: videos without any action are forced to the end of every ranking.

    Args:
        scores: (V, C) any real numbers.
        labels: (V, C) 0, 1 or -1.

    Returns:
        Mean over classes with positives of the precision at each positive's rank, ties in the order given.

    Source: Charades_v1_classify.m.
    """
    scores_VC, labels_VC = checked(scores, labels, unknown=True)
    return mean_of_known(by_class(unlabelled_last(scores_VC, labels_VC), labels_VC, "in order"))


def unlabelled_last(scores: NDArray[Any], labels: NDArray[Any]) -> NDArray[Any]:
    """The (V, C) scores, with -inf for every class of a video without any action."""
    unlabelled_V = ~(labels == 1).any(axis=1)
    return np.where(unlabelled_V[:, None], -np.inf, scores)


def apmeter_map(scores: ArrayLike, labels: ArrayLike) -> float:
    """f-mAP as the `apmeter` of super-events, TGM and MS-TCT has it, for comparison with what they print.

    Args:
        scores: (N, C) any real numbers.
        labels: (N, C) 0 or 1.

    Returns:
        Mean over all classes of the precision at each positive's rank; a class without positives counts 0. nan
        without rows. Ties are in the order given, where the original leaves theirs to an unstable sort.

    Source: apmeter.py and Evaluation.py of MS-TCT. Differs from it: float64 instead of float32.
    """
    scores_NC, labels_NC = checked(scores, labels)
    if not scores_NC.size:
        return float("nan")
    return float(np.nan_to_num(by_class(scores_NC, labels_NC, "in order")).mean())


def mstct_25_map(scores: Sequence[NDArray[Any]], labels: Sequence[NDArray[Any]]) -> float:
    """MS-TCT's approximation of Charades localisation: `apmeter_map` over 25 rows of every video.

    Args:
        scores: (T, C) any real numbers of each video.
        labels: (T, C) 0 or 1 of each video.

    Returns:
        As `apmeter_map`; nan if no video has more than 25 rows, for the others are left out.

    Raises:
        ValueError: as `apmeter_map`, or the numbers of videos differ.

    Source: sampled_25_inference of MS-TCT: rows 1, 1 + k, 1 + 2k, .. with k = floor(T / 25), the first 25 of them.
    """
    if len(scores) != len(labels):
        raise ValueError(f"{len(scores)} videos have scores, {len(labels)} have labels")
    tables = [checked(of_video, truth) for of_video, truth in zip(scores, labels, strict=True)]
    chosen = [(s[rows], y[rows]) for s, y in tables if len(rows := mstct_25_rows(len(s)))]
    if not chosen:
        return float("nan")
    return apmeter_map(np.concatenate([s for s, _ in chosen]), np.concatenate([y for _, y in chosen]))


def mstct_25_rows(num_rows: int) -> NDArray[np.intp]:
    """Indices of the 25 rows that `mstct_25_map` takes of so many; none of 25 or fewer.

    >>> mstct_25_rows(51)[:3].tolist(), len(mstct_25_rows(51)), len(mstct_25_rows(25))
    ([1, 3, 5], 25, 0)
    """
    if num_rows <= MSTCT_ROWS:
        return np.arange(0)
    return np.arange(1, num_rows, num_rows // MSTCT_ROWS)[:MSTCT_ROWS]


def top1_accuracy(scores: ArrayLike, classes: ArrayLike) -> float:
    """Share of videos whose highest class (the first, if tied) is the right one; nan without videos.

    Args:
        scores: (V, C) any real numbers.
        classes: (V,) index of the right class.

    Raises:
        ValueError: a score is nan, a class is none of the C, or the lengths differ.
    """
    scores_VC, classes_V = np.asarray(scores), np.asarray(classes)
    if scores_VC.ndim != 2 or classes_V.shape != scores_VC.shape[:1]:
        raise ValueError(f"scores are (V, C) and classes (V,), not {scores_VC.shape} and {classes_V.shape}")
    if np.isnan(scores_VC).any():
        raise ValueError(f"{int(np.isnan(scores_VC).sum())} of {scores_VC.size} scores are nan")
    if not len(classes_V):
        return float("nan")
    if not (classes_V.min() >= 0 and classes_V.max() < scores_VC.shape[1]):
        raise ValueError(f"classes lie in 0 to {scores_VC.shape[1] - 1}, not {classes_V.min()}, {classes_V.max()}")
    return float((scores_VC.argmax(axis=1) == classes_V).mean())


def charades_localize_map(
    scores: Sequence[NDArray[Any]],
    segments: Sequence[Sequence[tuple[int, float, float]]],
    durations: ArrayLike,
) -> float:
    """Charades' own localisation mAP: 25 equally spaced times of every video.

    Args:
        scores: (T, C) any real numbers of each video; T may differ, and 0 stands for a missing prediction.
        segments: `(class, start, end)` in seconds of each video; both ends belong to it.
        durations: (V,) seconds.

    Time j of a video is j/25 of its duration, for which row floor(j * T / 25) speaks.

    Returns:
        Mean over classes with positives of the precision at each positive's rank, ties in the order given.

    Raises:
        ValueError: lengths or numbers of classes differ, a score is nan, a class is none of the C.

    Source: Charades_v1_localize.m; missing predictions are -inf, unlabelled steps are not masked.
    """
    durations_V = np.asarray(durations, np.float64)
    if not len(scores) == len(segments) == len(durations_V):
        raise ValueError(f"{len(scores)} videos have scores, {len(segments)} segments, {len(durations_V)} durations")
    if not len(scores):
        return float("nan")
    num_classes = scores[0].shape[1]
    points = np.arange(CHARADES_POINTS)
    pooled_scores, pooled_labels = [], []
    for table, spans, duration in zip(scores, segments, durations_V, strict=True):
        if table.ndim != 2 or table.shape[1] != num_classes:
            raise ValueError(f"scores are (T, {num_classes}) for all videos, not {table.shape}")
        rows = points * len(table) // CHARADES_POINTS
        pooled_scores.append(table[rows] if len(table) else np.full((CHARADES_POINTS, num_classes), -np.inf))
        pooled_labels.append(_at_times(points / CHARADES_POINTS * duration, spans, num_classes))
    together = checked(np.concatenate(pooled_scores), np.concatenate(pooled_labels))
    return mean_of_known(by_class(*together, "in order"))


def _at_times(
    times: NDArray[np.float64], spans: Sequence[tuple[int, float, float]], num_classes: int
) -> NDArray[np.int8]:
    """(T, C) 1 where start <= time <= end of a span of the class."""
    table = np.zeros((len(times), num_classes), np.int8)
    if len(spans):
        classes, starts, ends = np.asarray(spans, np.float64).T
        if not (classes.min() >= 0 and classes.max() < num_classes):
            raise ValueError(f"classes lie in 0 to {num_classes - 1}, not {classes.min():g}, {classes.max():g}")
        step, span = np.nonzero((times[:, None] >= starts) & (times[:, None] <= ends))
        table[step, classes[span].astype(np.intp)] = 1
    return table
