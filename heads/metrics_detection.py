"""Temporal action detection: mAP of segments at temporal intersection over union (tIoU).

Source: the evaluation of ActivityNet's detection challenge (eval_detection.py), which THUMOS' follow-ups use too:
per class all predicted segments of all videos in one ranking by score; each takes the ground truth of its video that
it overlaps most and that no better-scored prediction has taken, and is right if their tIoU reaches the threshold;
precision is interpolated (at every recall the highest precision at that recall or beyond), without sampling recall.
Differs from it: predictions of equal score stay in the order given, where the original leaves them to an unstable
sort; ground truth that ends no later than it starts does not exist, where the original counts it as never found.

Shape letters: D predictions and G ground truths of one class, or of one of its videos; K thresholds of tIoU,
V videos, C classes, R replicates of a bootstrap, H predictions that are right at some threshold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

TIOUS = tuple(round(0.1 * step, 1) for step in range(1, 10))
BLOCK = 1 << 22  # counts handled at once: 32 MB for each temporary


class Segments(NamedTuple):
    """What was predicted of one video."""

    classes: NDArray[np.intp]  # (D,)
    spans: NDArray[np.float64]  # (D, 2) start and end in seconds
    scores: NDArray[np.float64]  # (D,)


def detection_average_precision(
    found: Sequence[Segments],
    segments: Sequence[Sequence[tuple[int, float, float]]],
    num_classes: int,
    tious: ArrayLike = TIOUS,
) -> NDArray[np.float64]:
    """Interpolated AP of every class at every tIoU.

    Args:
        found: the predictions of each video.
        segments: `(class, start, end)` in seconds, the ground truth of each video.
        num_classes: C; predictions of other classes are refused.
        tious: (K,) thresholds in (0, 1].

    Returns:
        (K, C) in [0, 1]; nan for a class without ground truth.

    Raises:
        ValueError: a score or time is not finite, a class is none of the C, a threshold is outside (0, 1], or the
            numbers of videos differ.

    >>> truth = [[(0, 0.0, 10.0)]]
    >>> found = [Segments(np.array([0, 0]), np.array([[0.0, 5.0], [0.0, 9.0]]), np.array([0.9, 0.8]))]
    >>> detection_average_precision(found, truth, 1, [0.5, 0.7]).tolist()
    [[1.0], [0.5]]
    """
    tious_K = np.asarray(tious, np.float64)
    return matched_average_precision(match_detections(found, segments, num_classes, tious_K), len(tious_K))


@dataclass(frozen=True, eq=False)
class Matched:
    """The ranking of one class, and which of its entries are right."""

    index: int  # of the class
    video_D: NDArray[np.intp]  # by falling score
    hits_KD: NDArray[np.bool_]
    truth_V: NDArray[np.intp]  # ground truths of each video

    @property
    def num_truth(self) -> int:
        """Ground truths of all videos."""
        return int(self.truth_V.sum())


def match_detections(
    found: Sequence[Segments],
    segments: Sequence[Sequence[tuple[int, float, float]]],
    num_classes: int,
    tious: ArrayLike = TIOUS,
) -> list[Matched]:
    """The ranking of every class; arguments and errors as of `detection_average_precision`."""
    tious_K = np.asarray(tious, np.float64)
    if not tious_K.size or not ((tious_K > 0) & (tious_K <= 1)).all():
        raise ValueError(f"a tIoU lies in (0, 1], not {tious_K.tolist()}")
    if len(found) != len(segments):
        raise ValueError(f"{len(found)} videos have predictions, {len(segments)} have ground truth")
    classes, spans, scores = (
        np.concatenate(parts) if parts else np.empty(0) for parts in (list(part) for part in _columns(found))
    )
    spans = spans.reshape(-1, 2)
    video = np.repeat(np.arange(len(found)), [len(of_video.classes) for of_video in found])
    triples = np.array([triple for of_video in segments for triple in of_video], np.float64).reshape(-1, 3)
    truth_video = np.repeat(np.arange(len(segments)), [len(of_video) for of_video in segments])
    real = triples[:, 2] > triples[:, 1]
    triples, truth_video = triples[real], truth_video[real]
    for numbers in (spans, scores, triples):
        if not np.isfinite(numbers).all():
            raise ValueError("times and scores of segments must be finite numbers")
    for indices in (classes, triples[:, 0]):
        if len(indices) and not (indices.min() >= 0 and indices.max() < num_classes):
            raise ValueError(f"classes lie in 0 to {num_classes - 1}, not {indices.min():g}, {indices.max():g}")
    order = np.lexsort((-scores, classes))  # stable: equal scores keep their order
    bounds = np.searchsorted(classes[order], np.arange(num_classes + 1))
    result = []
    for index in range(num_classes):
        ranking = order[bounds[index] : bounds[index + 1]]
        of_class = triples[:, 0] == index
        truth_G2, truth_video_G = triples[of_class, 1:], truth_video[of_class]
        video_D = video[ranking].astype(np.intp)
        hits_KD = _hits(spans[ranking], video_D, truth_G2, truth_video_G, tious_K)
        counts_V = np.bincount(truth_video_G, minlength=len(found)).astype(np.intp)
        result.append(Matched(index, video_D, hits_KD, counts_V))
    return result


def matched_average_precision(matched: Sequence[Matched], num_tious: int) -> NDArray[np.float64]:
    """(K, C) interpolated AP of every ranking; nan where a class has no ground truth."""
    result_KC = np.full((num_tious, len(matched)), np.nan)
    for of_class in matched:
        for k, hits_D in enumerate(of_class.hits_KD if of_class.num_truth else ()):
            ranks_H = np.flatnonzero(hits_D) + 1
            precision_H = np.arange(1, len(ranks_H) + 1) / ranks_H
            result_KC[k, of_class.index] = _interpolated(precision_H).sum() / of_class.num_truth
    return result_KC


def _columns(found: Sequence[Segments]) -> tuple[Any, Any, Any]:
    return tuple(zip(*found, strict=True)) if found else ((), (), ())  # type: ignore[return-value]


def _hits(
    spans_D2: NDArray[np.float64],
    video_D: NDArray[np.intp],
    truth_G2: NDArray[np.float64],
    truth_video_G: NDArray[np.intp],
    tious_K: NDArray[np.float64],
) -> NDArray[np.bool_]:
    """(K, D) whether each prediction, by falling score, takes a ground truth of its video."""
    hits_KD = np.zeros((len(tious_K), len(video_D)), bool)
    by_video = np.argsort(video_D, kind="stable")
    bounds = np.searchsorted(video_D[by_video], np.arange(truth_video_G.max(initial=-1) + 2))
    for video in np.unique(truth_video_G):
        ranking = by_video[bounds[video] : bounds[video + 1]]
        iou_DG = temporal_iou(spans_D2[ranking], truth_G2[truth_video_G == video])
        near = np.flatnonzero(iou_DG.max(axis=1, initial=0) >= tious_K.min())
        if iou_DG.shape[1] == 1 and len(near):  # the first that reaches the threshold takes it
            reach_KD = iou_DG[near, 0] >= tious_K[:, None]
            k = np.flatnonzero(reach_KD.any(axis=1))
            hits_KD[k, ranking[near[reach_KD[k].argmax(axis=1)]]] = True
            continue
        taken_KG = np.zeros((len(tious_K), iou_DG.shape[1]), bool)
        for place in near:
            free_KG = np.where(taken_KG, -1.0, iou_DG[place])
            best_K = free_KG.argmax(axis=1)
            k = np.flatnonzero(free_KG.max(axis=1) >= tious_K)
            taken_KG[k, best_K[k]] = True
            hits_KD[k, ranking[place]] = True
    return hits_KD


def temporal_iou(spans_D2: NDArray[np.float64], truth_G2: NDArray[np.float64]) -> NDArray[np.float64]:
    """(D, G) length of what two spans share, over the length of what either covers; 0 where both are empty.

    >>> temporal_iou(np.array([[0.0, 4.0]]), np.array([[2.0, 6.0], [4.0, 5.0]])).tolist()
    [[0.3333333333333333, 0.0]]
    """
    shared_DG = np.minimum(spans_D2[:, None, 1], truth_G2[:, 1]) - np.maximum(spans_D2[:, None, 0], truth_G2[:, 0])
    shared_DG = np.maximum(shared_DG, 0)
    either_DG = (spans_D2[:, 1] - spans_D2[:, 0])[:, None] + (truth_G2[:, 1] - truth_G2[:, 0]) - shared_DG
    iou_DG: NDArray[np.float64] = np.divide(shared_DG, either_DG, out=np.zeros_like(shared_DG), where=either_DG > 0)
    return iou_DG


def _interpolated(precision_H: NDArray[np.float64]) -> NDArray[np.float64]:
    """Along the first axis, the highest precision here or later."""
    return np.maximum.accumulate(precision_H[::-1], axis=0)[::-1]


def resampled_detection_map(matched: Sequence[Matched], counts_VR: NDArray[np.float32]) -> NDArray[np.float64]:
    """(R,) the mean over thresholds and classes with ground truth of interpolated AP, where videos are drawn again.

    A prediction finds ground truth of its own video alone, so that what is right stays right in every replicate.
    The w copies of a prediction that is right end one recall step each, at which the highest precision to come is
    that after the last copy or beyond: they count w times that.
    """
    replicates = counts_VR.shape[1]
    total_R, classes_R = np.zeros(replicates), np.zeros(replicates)
    for of_class in matched:
        truth_R = of_class.truth_V @ counts_VR.astype(np.float64)
        rows_H = np.flatnonzero(of_class.hits_KD.any(axis=0))
        classes_R += truth_R > 0
        step = max(1, BLOCK // max(1, len(of_class.video_D)))
        for first in range(0, replicates if rows_H.size else 0, step):
            part = slice(first, first + step)
            counts_DR = counts_VR[of_class.video_D, part].astype(np.float64)
            passed_HR = np.cumsum(counts_DR, axis=0)[rows_H]
            sums_R = np.zeros(counts_DR.shape[1])
            for hits_D in of_class.hits_KD:
                here_H = hits_D[rows_H]
                drawn_HR = counts_DR[rows_H[here_H]]
                precision_HR = np.cumsum(drawn_HR, axis=0) / np.maximum(passed_HR[here_H], 1)
                sums_R += (drawn_HR * _interpolated(precision_HR)).sum(axis=0)
            total_R[part] += sums_R / len(of_class.hits_KD) / np.maximum(truth_R[part], 1)
    result_R = np.full(replicates, np.nan)
    np.divide(total_R, classes_R, out=result_R, where=classes_R > 0)
    return result_R
