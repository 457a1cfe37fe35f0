"""Predicted segments and ground truth of the videos to score, and segments made from rows by a rule; no torch.

Shape letters: T rows of one video, C classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from heads.grids import Grid
from heads.metrics_detection import Segments
from heads.predictions import Predictions
from heads.protocol import Detections, ScoringError
from stores.labels import IGNORED, Labels
from stores.names import printable

RULE = "Give --segments-from-rows THRESHOLD: runs of rows from the threshold on, scored by their mean"


def segments_of_rows(scores_TC: NDArray[np.floating], times_T2: NDArray[np.float64], threshold: float) -> Segments:
    """For each class the runs of rows at or above the threshold, with the mean of their scores.

    A run ends where the next row does not begin by the time the last one ends.

    >>> scores = np.array([[0.2], [0.6], [0.8], [0.1]])
    >>> found = segments_of_rows(scores, np.array([[0, 1], [1, 2], [2, 3], [3, 4]], float), 0.5)
    >>> found.spans.tolist(), found.scores.round(3).tolist()
    ([[1.0, 3.0]], [0.7])
    """
    above_CT = (scores_TC >= threshold).T
    joined_T = np.concatenate([[False], times_T2[1:, 0] <= times_T2[:-1, 1] + 1e-6])
    before_CT = np.zeros_like(above_CT)
    before_CT[:, 1:] = above_CT[:, :-1] & joined_T[1:]
    classes, first = np.nonzero(above_CT & ~before_CT)
    after_CT = np.zeros_like(above_CT)
    after_CT[:, :-1] = above_CT[:, 1:] & joined_T[1:]
    _, last = np.nonzero(above_CT & ~after_CT)
    sums_TC = np.concatenate([np.zeros((1, scores_TC.shape[1])), np.cumsum(scores_TC, axis=0, dtype=np.float64)])
    means = (sums_TC[last + 1, classes] - sums_TC[first, classes]) / (last + 1 - first)
    return Segments(classes, np.stack([times_T2[first, 0], times_T2[last, 1]], axis=1), means)


def read_detections(
    predictions: Predictions,
    classes: tuple[str, ...],
    labels: Labels,
    pairs: Mapping[str, str],
    missing: Iterable[str],
    grid: Grid | None,
    threshold: float | None,
    tious: Sequence[float],
) -> tuple[Detections, tuple[str, ...]]:
    """Segments in the order of the labels' classes, and notes on what plays no part; missing videos have none.

    Raises:
        ScoringError: rows without a rule that makes segments of them, or no class is shared.
    """
    if predictions.level == "row" and threshold is None:
        raise ScoringError(f"detection needs segments, but {printable(predictions.path)} has scores of rows. {RULE}.")
    if predictions.level == "segment" and threshold is not None:
        raise ScoringError(f"{printable(predictions.path)} has segments already. Leave --segments-from-rows out.")
    place = {name: index for index, name in enumerate(labels.classes)}
    column_C = np.array([place.get(name, -1) for name in classes], np.intp)
    if (column_C < 0).all():
        raise ScoringError(
            f"predictions and labels share no class: '{printable(classes[0])}' against "
            f"'{printable(labels.classes[0])}'. Give --classes the file with the names."
        )
    found, foreign = [], 0
    for video, label_id in pairs.items():
        if threshold is None:
            segments = predictions.segments(video)
        else:
            table, times = predictions.read(video)
            if times is None:
                assert grid is not None, "rows without times were refused"
                times = grid.of(video, len(table), labels.videos[label_id].duration)
            if not (times[:, 1] > times[:, 0]).all():
                raise ScoringError(
                    f"the rows of '{printable(video)}' are points in time, of which no segment is made. Give start and "
                    "end of every row."
                )
            if not np.isfinite(table).all():
                raise ScoringError(f"scores of '{printable(video)}' are nan or infinite. Predict that video again.")
            segments = segments_of_rows(table, times, threshold)
        column_D = column_C[segments.classes] if len(segments.classes) else np.empty(0, np.intp)
        known_D = column_D >= 0
        foreign += int((~known_D).sum())
        found.append(Segments(column_D[known_D], segments.spans[known_D], segments.scores[known_D]))
    named = [*pairs.values(), *missing]
    empty = Segments(np.empty(0, np.intp), np.empty((0, 2)), np.empty(0))
    found += [empty] * (len(named) - len(found))
    truth = [_truth(labels, video) for video in named]
    durations = [labels.videos[video].duration or 0.0 for video in named]
    detections = Detections(labels.classes, named, [], [], truth, durations, None, found, tuple(tious))
    return detections, tuple(_notes(detections, labels, foreign, classes))


def _truth(labels: Labels, video: str) -> list[tuple[int, float, float]]:
    entry = labels.videos[video]
    return [
        (int(index), float(start), float(end))
        for index, (start, end) in zip(entry.classes, entry.spans, strict=True)
        if index != IGNORED
    ]


def _notes(detections: Detections, labels: Labels, foreign: int, classes: tuple[str, ...]) -> Iterable[str]:
    entries = [labels.videos[video] for video in detections.videos]
    if foreign:
        strange = sorted(set(classes) - set(labels.classes))
        yield f"{foreign} segments of classes that the labels do not have are left out, '{printable(strange[0])}' first"
    if ignored := sum(int((entry.classes == IGNORED).sum()) for entry in entries):
        yield f"{ignored} stretches that nobody annotated play no part: what is found there counts as wrong"
    empty = sum(int(((entry.classes != IGNORED) & (entry.spans[:, 1] <= entry.spans[:, 0])).sum()) for entry in entries)
    if empty:
        yield f"{empty} labels end no later than they start and count as absent"
    if untimed := sum(len(entry.video_level) for entry in entries):
        yield f"{untimed} labels of whole videos have no times and play no part"
