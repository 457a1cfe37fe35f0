"""How sure a score is: the score of videos drawn again, with replacement, as often as there are videos.

Videos are drawn and never rows: rows of one video resemble each other, so drawing them would promise too much. A
replicate is the data with every row repeated as often as its video was drawn; a class that has no positive left
in a replicate is left out of its mean. Nothing is sorted twice: per ranking, the counts of drawn videos are summed
up to every positive, for all replicates at once.

Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13 (percentile interval); the p-value
counts itself, as Davison and Hinkley, Bootstrap Methods and their Application, 1997, section 4.2.

Shape letters: R replicates, V videos, N rows, C classes, P positives, E ends of thresholds at which positives lie.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heads.metrics_conditional import Window, given_rows, pooled_tables
from heads.metrics_ranking import Ties
from heads.metrics_tagging import top_classes

RESAMPLES = 1000  # the end points of a 95 % interval then vary by about a tenth of its width
LEVEL = 0.95
EXACT = 1 << 24  # float32 counts to here without a gap
PRODUCT_ROWS = 256  # entries of a table of counts a row of data, up to which a matrix product beats running sums
BLOCK = 1 << 22  # numbers handled at once: 16 to 32 MB for each temporary

Counts = NDArray[np.float32]  # (V, R) how often each video was drawn


@dataclass(frozen=True)
class Interval:
    """Where the score lies in the middle 95 % of the replicates."""

    low: float
    high: float
    resamples: int
    videos: int
    undefined: int = 0  # replicates without a score, which are left out

    @classmethod
    def of(cls, values_R: NDArray[np.float64], videos: int) -> Interval:
        """The percentile interval of the replicates' scores; nan to nan if none has a score."""
        known = values_R[~np.isnan(values_R)]
        tail = (1 - LEVEL) / 2
        low, high = np.quantile(known, (tail, 1 - tail)) if known.size else (np.nan, np.nan)
        return cls(float(low), float(high), len(values_R), videos, len(values_R) - known.size)


def draw_videos(videos: int, resamples: int = RESAMPLES, seed: int = 0) -> Counts:
    """(V, R) how often each of the videos is in each replicate; a column sums to their number.

    Raises:
        ValueError: fewer than two videos, of which every replicate would be the same, or no replicate.
    """
    if videos < 2 or resamples < 1:
        raise ValueError(f"{resamples} resamples of {videos} videos say nothing: 1 and 2 are the least")
    random = np.random.default_rng(seed)
    counts_VR = np.empty((videos, resamples), np.float32)
    for replicate in range(resamples):
        counts_VR[:, replicate] = np.bincount(random.integers(videos, size=videos), minlength=videos)
    return counts_VR


def two_sided_p(differences_R: NDArray[np.float64]) -> float:
    """Twice the share of replicates in which the difference is not on its side of 0, at most 1.

    The smallest is 2 / (R + 1): the data themselves count as one replicate. nan where no difference is known.
    """
    known = differences_R[~np.isnan(differences_R)]
    if not known.size:
        return float("nan")
    fewer = min(int((known <= 0).sum()), int((known >= 0).sum()))
    return min(1.0, 2 * (1 + fewer) / (1 + known.size))


def resampled_map(
    scores: NDArray[Any],
    labels: NDArray[Any],
    video_N: NDArray[np.intp],
    counts_VR: Counts,
    ties: Ties = "together",
    *,
    empty: float = np.nan,
    weighted: bool = False,
) -> NDArray[np.float64]:
    """(R,) the mean over classes of average precision.

    Args:
        scores: (N, C) without nan.
        labels: (N, C) 0, 1, or -1 where nobody knows.
        video_N: index of every row's video.
        counts_VR: as `draw_videos` gives them.
        ties: as in `average_precisions`; copies of a row stand in its place.
        empty: what a class without positives counts; nan: it is left out of the mean.
        weighted: weigh each class by its positives, in every replicate.
    """
    replicates = counts_VR.shape[1]
    total_R, weight_R = np.zeros(replicates), np.zeros(replicates)
    for of_class, truth in zip(scores.T, labels.T, strict=True):
        sums_R, positives_R = precision_sums(of_class, truth, video_N, counts_VR, ties)
        present_R = positives_R > 0
        if weighted:
            total_R += sums_R
            weight_R += positives_R
            continue
        total_R += np.where(present_R, sums_R / np.maximum(positives_R, 1), np.nan_to_num(empty))
        weight_R += present_R | (not np.isnan(empty))
    return _ratio(total_R, weight_R)


def precision_sums(
    scores_N: NDArray[Any],
    labels_N: NDArray[Any],
    video_N: NDArray[np.intp],
    counts_VR: Counts,
    ties: Ties = "together",
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Of one ranking and every replicate: (R,) precisions summed over its positives, and (R,) its positives."""
    known_N = np.flatnonzero(labels_N >= 0)
    order_N = known_N[np.argsort(-scores_N[known_N], kind="stable")]
    hits_P = np.flatnonzero(labels_N[order_N] > 0)
    replicates = counts_VR.shape[1]
    sums_R, positives_R = np.zeros(replicates), np.zeros(replicates)
    if not hits_P.size:
        return sums_R, positives_R
    video_P = video_N[order_N[hits_P]]
    ends_E, first_E = hits_P, np.arange(len(hits_P))  # in order, each positive is a threshold of its own
    if ties == "together":
        sorted_N = scores_N[order_N]
        ends_E, first_E = np.unique(np.searchsorted(-sorted_N, -sorted_N[hits_P], "right") - 1, return_index=True)
    up_to = _Counter(video_N[order_N], ends_E, counts_VR)
    step = max(1, BLOCK // len(hits_P))
    for first in range(0, replicates, step):
        part = slice(first, first + step)
        drawn_ER = np.add.reduceat(up_to.counts_VR[video_P, part], first_E, axis=0).astype(np.float64)
        found_ER = np.cumsum(drawn_ER, axis=0)
        passed_ER = up_to.passed(part)
        if ties == "together":
            sums_R[part] = (drawn_ER * found_ER / np.maximum(passed_ER, 1)).sum(axis=0)
        else:
            sums_R[part] = _copies_in_order(drawn_ER, found_ER, passed_ER).sum(axis=0)
        positives_R[part] = found_ER[-1]
    return sums_R, positives_R


class _Counter:
    """How many rows stand down to each end of a ranking, in every replicate."""

    def __init__(self, video_N: NDArray[np.intp], ends_E: NDArray[np.intp], counts_VR: Counts) -> None:
        videos, rows = len(counts_VR), len(video_N)
        exact = rows * float(counts_VR.max(initial=0)) < EXACT
        self.counts_VR: NDArray[Any] = counts_VR if exact else counts_VR.astype(np.float64)
        self._video_N, self._ends_E = video_N, ends_E
        self._table_EV: NDArray[Any] | None = None
        if len(ends_E) * videos <= min(PRODUCT_ROWS * rows, BLOCK * 4):
            end_N = np.searchsorted(ends_E, np.arange(ends_E[-1] + 1))  # the first end that a row does not exceed
            cells = np.bincount(end_N * videos + video_N[: len(end_N)], minlength=len(ends_E) * videos)
            self._table_EV = cells.reshape(len(ends_E), videos).cumsum(axis=0).astype(self.counts_VR.dtype)

    def passed(self, part: slice) -> NDArray[np.float64]:
        """(E, R) for some of the replicates."""
        counts_VR = self.counts_VR[:, part]
        if self._table_EV is not None:
            product_ER: NDArray[np.float64] = (self._table_EV @ counts_VR).astype(np.float64)
            return product_ER
        replicates = counts_VR.shape[1]
        passed_ER = np.empty((len(self._ends_E), replicates))
        before_R = np.zeros(replicates)
        step = max(1, BLOCK // replicates)
        for first in range(0, int(self._ends_E[-1]) + 1, step):
            running_NR = counts_VR[self._video_N[first : first + step]].cumsum(axis=0, dtype=np.float64) + before_R
            inside = slice(*np.searchsorted(self._ends_E, (first, first + len(running_NR))))
            passed_ER[inside] = running_NR[self._ends_E[inside] - first]
            before_R = running_NR[-1]
        return passed_ER


def _copies_in_order(
    drawn_ER: NDArray[np.float64], found_ER: NDArray[np.float64], passed_ER: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Precision at the rank of each copy of a positive, summed over its copies.

    With F positives among P entries before them, copy k has (F + k) / (P + k) = 1 + (F - P) / (P + k), so the sum
    over k = 1 .. w is w + (F - P) (H(P + w) - H(P)), with harmonic numbers H.
    """
    harmonic = np.concatenate([[0.0], np.cumsum(1 / np.arange(1, int(passed_ER.max(initial=0)) + 1))])
    passed = passed_ER.astype(np.intp)
    before = (passed_ER - drawn_ER).astype(np.intp)
    sums_ER: NDArray[np.float64] = drawn_ER + (found_ER - passed_ER) * (harmonic[passed] - harmonic[before])
    return sums_ER


def resampled_mean(values_V: NDArray[np.float64], sizes_V: NDArray[Any], counts_VR: Counts) -> NDArray[np.float64]:
    """(R,) the mean over rows of what is a mean over rows of each video, `sizes_V` rows each."""
    counts_VR = counts_VR.astype(np.float64)
    return _ratio((np.nan_to_num(values_V) * sizes_V) @ counts_VR, sizes_V @ counts_VR)


def resampled_gap(
    scores: NDArray[Any], labels: NDArray[Any], counts_VR: Counts, top_k: int = 20
) -> NDArray[np.float64]:
    """(R,) `global_average_precision` of (V, C) scores and labels."""
    top_VK = top_classes(scores, top_k)
    top_scores, top_labels = (np.take_along_axis(table, top_VK, 1).ravel() for table in (scores, labels))
    top_labels = np.where(top_scores == -np.inf, 0, top_labels)
    video_N = np.repeat(np.arange(len(scores)), top_VK.shape[1])
    sums_R, _ = precision_sums(top_scores, top_labels, video_N, counts_VR)
    return _ratio(sums_R, (labels == 1).sum(axis=1) @ counts_VR.astype(np.float64))


def resampled_yt8m_map(
    scores: NDArray[Any], labels: NDArray[Any], counts_VR: Counts, top_k: int = 20
) -> NDArray[np.float64]:
    """(R,) `yt8m_map` of (V, C) scores and labels."""
    outside_VC = np.ones(scores.shape, bool)
    np.put_along_axis(outside_VC, top_classes(scores, top_k), False, 1)
    kept = np.where(outside_VC | (scores == -np.inf), np.int8(-1), labels)
    positives_CR = (labels == 1).T.astype(np.float64) @ counts_VR.astype(np.float64)
    total_R = np.zeros(counts_VR.shape[1])
    for of_class, truth, positives_R in zip(scores.T, kept.T, positives_CR, strict=True):
        sums_R, _ = precision_sums(of_class, truth, np.arange(len(scores)), counts_VR)
        total_R += sums_R / np.maximum(positives_R, 1)
    return _ratio(total_R, (positives_CR > 0).sum(axis=0))


def resampled_conditional_map(
    probs: Sequence[NDArray[Any]],
    labels: Sequence[NDArray[Any]],
    counts_VR: Counts,
    tau: int = 0,
    window: Window = "paper",
) -> NDArray[np.float64]:
    """(R,) `map` of `action_conditional`: the mean over the pairs that occur in the replicate."""
    probs_NC, labels_NC = pooled_tables(probs, labels)
    given_NC = given_rows([np.asarray(table) for table in labels], labels_NC.shape[1], tau, window)
    video_N = rows_of_videos(labels)
    total_R, pairs_R = np.zeros((2, counts_VR.shape[1]))
    for j in range(labels_NC.shape[1]):
        rows = np.flatnonzero(given_NC[:, j])
        for i in np.flatnonzero(labels_NC[rows].any(axis=0)):
            if i != j:
                sums_R, positives_R = precision_sums(probs_NC[rows, i], labels_NC[rows, i], video_N[rows], counts_VR)
                total_R += sums_R / np.maximum(positives_R, 1)
                pairs_R += positives_R > 0
    return _ratio(total_R, pairs_R)


def rows_of_videos(tables: Sequence[NDArray[Any]]) -> NDArray[np.intp]:
    """(N,) for every row of all tables the index of its table."""
    return np.repeat(np.arange(len(tables)), [len(table) for table in tables])


def _ratio(part_R: NDArray[np.float64], whole_R: NDArray[Any]) -> NDArray[np.float64]:
    """The ratio, and nan where whole is 0."""
    ratio_R = np.full(len(part_R), np.nan)
    np.divide(part_R, whole_R, out=ratio_R, where=np.asarray(whole_R) > 0)
    return ratio_R
