"""Metrics of tagging: those of YouTube-8M, the multi-label ones of MLAD's Table 2, and STAN's weighted ones.

Shape letters: V videos, N rows (steps or videos), C classes, K entries of a ranking.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from heads.metrics_ranking import BLOCK, average_precisions, by_class, checked, mean_of_known, rank


def global_average_precision(scores: NDArray[Any], labels: NDArray[Any], top_k: int = 20) -> float:
    """GAP of YouTube-8M: AP of all videos' `top_k` predictions in one ranking.

    Args:
        scores: (V, C) any real numbers, comparable between videos; -inf is no prediction, and never right.
        labels: (V, C) 0 or 1. All positives are in the denominator, also those outside the top.

    Returns:
        A number in [0, 1]; nan if there is no positive.

    Raises:
        ValueError: a score is nan, a label is not 0 or 1, or the shapes differ.

    Source: YouTube-8M's eval_util.py, which shuffles ties; here they enter together.
    """
    scores, labels = checked(scores, labels)
    top_VK = top_classes(scores, top_k)
    top_scores, top_labels = (np.take_along_axis(table, top_VK, 1).reshape(1, -1) for table in (scores, labels))
    top_labels = np.where(top_scores == -np.inf, np.int8(0), top_labels)
    positives = labels.sum(dtype=np.int64)[None]
    return float(average_precisions(top_scores, top_labels, positives_K=positives)[0])


def yt8m_map(scores: NDArray[Any], labels: NDArray[Any], top_k: int = 20) -> float:
    """MAP of YouTube-8M: per class, AP over the predictions that are among their video's `top_k`.

    The denominator is all positives of the class, so a positive outside its video's top is never found; classes
    without positives are dropped. Not the same as `video_map`. Arguments and errors as of GAP.
    """
    scores, labels = checked(scores, labels)
    outside_VC = np.ones(scores.shape, bool)
    np.put_along_axis(outside_VC, top_classes(scores, top_k), False, 1)
    kept = np.where(outside_VC | (scores == -np.inf), np.int8(-1), labels)
    found_C = by_class(scores, kept) * (kept == 1).sum(axis=0)  # sums of precision, nan where nothing is kept
    positives_C = labels.sum(axis=0, dtype=np.int64)
    present = positives_C > 0
    return mean_of_known(np.nan_to_num(found_C[present]) / positives_C[present])


def precision_at_equal_recall(scores: NDArray[Any], labels: NDArray[Any]) -> float:
    """PERR: of each video's as many highest classes as it has labels, the share that is right.

    Args:
        scores: (V, C) probabilities: one of 0 or less is no prediction and never right.
        labels: (V, C) 0 or 1. A video without labels adds 0 and is counted.

    Returns:
        Mean over videos; nan without videos.
    """
    scores, labels = checked(scores, labels)
    order_VC = np.argsort(-scores, axis=1, kind="stable")
    wanted_V = labels.sum(axis=1, dtype=np.int64)
    among_VC = np.arange(scores.shape[1]) < wanted_V[:, None]
    right_VC = (np.take_along_axis(labels, order_VC, 1) == 1) & (np.take_along_axis(scores, order_VC, 1) > 0)
    shares_V = (among_VC & right_VC).sum(axis=1) / np.maximum(wanted_V, 1)
    return mean_of_known(shares_V)


def hit_at_1(scores: NDArray[Any], labels: NDArray[Any]) -> float:
    """Share of videos whose highest class (the first, if tied) is one of their labels; nan without videos."""
    scores, labels = checked(scores, labels)
    if not scores.size:
        return float("nan")
    return float(np.take_along_axis(labels, scores.argmax(axis=1)[:, None], 1).mean())


def multilabel_metrics(
    probs: NDArray[Any], labels: NDArray[Any], threshold: float | NDArray[np.float64] = 0.5
) -> dict[str, float]:
    """Hamming and zero-one loss, ranking loss, coverage, Jaccard scores and LRAP over rows.

    Args:
        probs: (N, C) probabilities.
        threshold: from it on a class is predicted; one for all, or (C,) one for each.
        labels: (N, C) 0 or 1.

    Returns:
        `hamming`, `zero_one` (rows not all right), `ranking` (ties are errors; 0 for rows with no or all
        classes), `coverage` (from 1; 0 for rows without classes), `jaccard_samples` (0 where nothing is there
        and nothing predicted), `jaccard_macro`, `jaccard_micro`, `lrap` (1 for rows with no or all classes).

    Raises:
        ValueError: a probability is nan or outside [0, 1], a label is not 0 or 1, or the shapes differ.

    Source: the definitions of scikit-learn.
    """
    probs, labels = checked(probs, labels, probabilities=True)
    if not probs.size:
        names = "hamming zero_one ranking coverage jaccard_samples jaccard_macro jaccard_micro lrap"
        return dict.fromkeys(names.split(), float("nan"))
    predicted_NC, true_NC = probs >= threshold, labels == 1
    wrong_NC = predicted_NC != true_NC
    both_NC, either_NC = predicted_NC & true_NC, predicted_NC | true_NC
    step = max(1, BLOCK // probs.shape[1])
    parts = [
        _row_rankings(probs[first : first + step], labels[first : first + step]) for first in range(0, len(probs), step)
    ]
    ranking, coverage, lrap = (float(np.concatenate(values).mean()) for values in zip(*parts, strict=True))
    return {
        "hamming": float(wrong_NC.mean()),
        "zero_one": float(wrong_NC.any(axis=1).mean()),
        "ranking": ranking,
        "coverage": coverage,
        "jaccard_samples": float(_share(both_NC.sum(axis=1), either_NC.sum(axis=1)).mean()),
        "jaccard_macro": float(_share(both_NC.sum(axis=0), either_NC.sum(axis=0)).mean()),
        "jaccard_micro": float(_share(both_NC.sum(), either_NC.sum())),
        "lrap": lrap,
    }


def weighted_metrics(
    probs: NDArray[Any], labels: NDArray[Any], threshold: float | NDArray[np.float64] = 0.5
) -> dict[str, float]:
    """Means over classes, each weighted by how often it occurs; the macro mAP beside them.

    Args:
        probs: (N, C) probabilities.
        threshold: from it on a class is predicted; one for all, or (C,) one for each.
        labels: (N, C) 0 or 1.

    Returns:
        `map_weighted`, `map_macro` (over classes with positives), and weighted `precision`, `recall`, `f1`; all
        nan if there is no positive.

    Raises:
        ValueError: a probability is nan or outside [0, 1], a label is not 0 or 1, or the shapes differ.

    Source: STAN's Table 3; precision, recall and F1 as scikit-learn's average="weighted".
    """
    probs, labels = checked(probs, labels, probabilities=True)
    predicted_NC = probs >= threshold
    positives_C = labels.sum(axis=0, dtype=np.int64)
    correct_C = (predicted_NC & (labels == 1)).sum(axis=0)
    predicted_C = predicted_NC.sum(axis=0)
    ap_C = by_class(probs, labels)
    values = {
        "map_weighted": np.nan_to_num(ap_C),  # a class without positives weighs nothing
        "precision": _share(correct_C, predicted_C),
        "recall": _share(correct_C, positives_C),
        "f1": _share(2 * correct_C, predicted_C + positives_C),
    }
    total = positives_C.sum()
    weighted = {
        name: float((value * positives_C).sum() / total) if total else float("nan") for name, value in values.items()
    }
    return {**weighted, "map_macro": mean_of_known(ap_C)}


def top_classes(scores: NDArray[Any], top_k: int) -> NDArray[np.intp]:
    """(V, K) the classes with each video's highest scores, in no order."""
    if top_k < 1:
        raise ValueError(f"top_k is {top_k}, but at least one prediction a video must count")
    if scores.shape[1] <= top_k:
        return np.broadcast_to(np.arange(scores.shape[1]), scores.shape)
    return np.argpartition(-scores, top_k - 1, axis=1)[:, :top_k]


def _row_rankings(probs: NDArray[Any], labels: NDArray[np.int8]) -> tuple[NDArray[np.float64], ...]:
    """Ranking loss, coverage and ranking precision of every row: (N,) each."""
    ranking = rank(probs, labels)
    positives_N = labels.sum(axis=1, dtype=np.int64)
    pairs_N = positives_N * (labels.shape[1] - positives_N)
    above_NC = np.where(ranking.hits_KN, ranking.passed_KN - ranking.found_KN, 0)  # negatives not below
    coverage_N = np.where(ranking.hits_KN, ranking.passed_KN, 0).max(axis=1)
    lrap_N = np.where(pairs_N > 0, average_precisions(probs, labels), 1.0)
    return _share(above_NC.sum(axis=1), pairs_N), coverage_N, lrap_N


def _share(part: Any, whole: Any) -> NDArray[np.float64]:
    """The share `part / whole`, and 0 where whole is 0."""
    return np.asarray(np.where(np.asarray(whole) > 0, part / np.maximum(whole, 1), 0.0))
