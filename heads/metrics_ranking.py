"""Average precision, the number under most of the others: many rankings at once, ties and unknowns included.

Shape letters: K rankings, N entries of each; V videos, C classes.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Ties = Literal["together", "in order"]
BLOCK = 1 << 21  # entries ranked at once: about 150 MB of temporaries


class Ranking(NamedTuple):
    """Entries by falling score; entries of equal score count as one step of the threshold."""

    hits_KN: NDArray[np.bool_]  # whether the entry is positive
    found_KN: NDArray[np.float64]  # positives down to the entry, those tied with it included
    passed_KN: NDArray[np.float64]  # entries down to it, likewise


def rank(scores_KN: NDArray[Any], labels_KN: NDArray[Any], ties: Ties = "together") -> Ranking:
    """Rank every row of `scores_KN`; labels of -1 are passed over. Ties `in order` stay in their order."""
    in_order = ties == "in order"
    order_KN = np.argsort(-scores_KN, axis=1, kind="stable" if in_order else None)
    labels_KN = np.take_along_axis(labels_KN, order_KN, 1)
    hits_KN = labels_KN > 0
    found_KN = np.cumsum(hits_KN, axis=1, dtype=np.float64)
    passed_KN = np.cumsum(labels_KN >= 0, axis=1, dtype=np.float64)
    if not in_order and scores_KN.shape[1]:
        sorted_KN = np.take_along_axis(scores_KN, order_KN, 1)
        ends_KN = np.ones(sorted_KN.shape, bool)  # the last entry of each run of equal scores
        ends_KN[:, :-1] = sorted_KN[:, 1:] != sorted_KN[:, :-1]
        last_KN = np.where(ends_KN, np.arange(sorted_KN.shape[1]), sorted_KN.shape[1])
        last_KN = np.minimum.accumulate(last_KN[:, ::-1], axis=1)[:, ::-1]
        found_KN = np.take_along_axis(found_KN, last_KN, 1)
        passed_KN = np.take_along_axis(passed_KN, last_KN, 1)
    return Ranking(hits_KN, found_KN, passed_KN)


def average_precisions(
    scores_KN: NDArray[Any],
    labels_KN: NDArray[Any],
    ties: Ties = "together",
    positives_K: NDArray[Any] | None = None,
) -> NDArray[np.float64]:
    """(K,) mean over the positives of the precision where each is found; nan where there is none.

    `positives_K` is given where more positives exist than stand in the ranking: the others count as never found.
    """
    ranking = rank(scores_KN, labels_KN, ties)
    precision_KN = ranking.found_KN / np.maximum(ranking.passed_KN, 1)
    sums_K = np.where(ranking.hits_KN, precision_KN, 0).sum(axis=1)
    if positives_K is None:
        positives_K = ranking.hits_KN.sum(axis=1)
    result_K = np.full(len(sums_K), np.nan)
    np.divide(sums_K, positives_K, out=result_K, where=positives_K > 0)
    return result_K


def by_class(scores: NDArray[Any], labels: NDArray[Any], ties: Ties = "together") -> NDArray[np.float64]:
    """(C,) average precision of every column of checked tables, some columns at a time."""
    num_rows, num_classes = scores.shape
    step = max(1, BLOCK // max(num_rows, 1))
    parts = []
    for first in range(0, num_classes, step):
        scores_KN, labels_KN = (np.ascontiguousarray(table[:, first : first + step].T) for table in (scores, labels))
        if ties == "together":
            parts += [_tied_precision(row, truth) for row, truth in zip(scores_KN, labels_KN, strict=True)]
        else:
            parts += average_precisions(scores_KN, labels_KN, ties).tolist()
    return np.array(parts, np.float64)


def _tied_precision(scores_N: NDArray[Any], labels_N: NDArray[Any]) -> float:
    """What `average_precisions` gives with ties together, for one long ranking.

    No entry is followed to its place: what stands at or above a positive is counted in sorted scores, which takes
    a quarter of the time of an argsort.
    """
    found_P = np.sort(scores_N[labels_N > 0])
    if not found_P.size:
        return float("nan")
    known_N = labels_N >= 0
    passed_N = np.sort(scores_N if known_N.all() else scores_N[known_N])
    above_P = len(found_P) - np.searchsorted(found_P, found_P)
    return float((above_P / (len(passed_N) - np.searchsorted(passed_N, found_P))).mean())


def mean_of_known(values: NDArray[np.float64]) -> float:
    """Mean of what is not nan; nan if nothing is left."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")


def checked(
    scores: Any, labels: Any, *, ndim: int = 2, unknown: bool = False, probabilities: bool = False
) -> tuple[NDArray[Any], NDArray[np.int8]]:
    """Scores as floats that sort as given, labels as int8.

    Raises:
        ValueError: shapes differ, a score is nan or (for probabilities) outside [0, 1], a label is not 0 or 1
            (or -1 where `unknown` labels are allowed).
    """
    scores, labels = np.asarray(scores), np.asarray(labels)
    if scores.shape != labels.shape or scores.ndim != ndim:
        raise ValueError(
            f"scores and labels must be {ndim}-dimensional and alike, not {scores.shape} and {labels.shape}"
        )
    if scores.dtype not in (np.float32, np.float64):
        scores = scores.astype(np.float64)
    if np.isnan(scores).any():
        raise ValueError(f"{int(np.isnan(scores).sum())} of {scores.size} scores are nan")
    if probabilities and scores.size and not (scores.min() >= 0 and scores.max() <= 1):
        raise ValueError(f"probabilities lie in [0, 1], not in [{scores.min():g}, {scores.max():g}]")
    allowed = (labels == 0) | (labels == 1)
    if unknown:
        allowed |= labels == -1
    if not allowed.all():
        wrong = labels[~allowed].flat[0]
        raise ValueError(f"labels are 0 or 1{', or -1 for unknown' if unknown else ''}, not {wrong}")
    return scores, labels.astype(np.int8)
