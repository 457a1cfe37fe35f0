"""Scores and labels of the videos to score, joined by the times of rows and the names of classes; no torch.

Shape letters: T rows of one video, N rows of all, C classes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heads import metrics
from heads.grids import Grid
from heads.predictions import MAX_CELLS, Predictions
from heads.protocol import Answers, Protocol, ScoringError
from stores.labels import IGNORED, Boundary, LabelAt, Labels, match_videos
from stores.names import printable
from stores.spec import FeatureSet, FeatureStore, Granularity

WINDOWS = "windows"  # the set of the scores of overlapping windows, beside their averages


def score_set(path: Path, store: FeatureStore) -> FeatureSet:
    """The set of the store that holds scores, whatever its name; ScoringError if none or several do."""
    held = [name for name in store if store[name].spec.granularity is Granularity.SCORE]
    if len(held) > 1:
        held = [name for name in held if name != WINDOWS]
    if len(held) != 1:
        what = f"{len(held)} sets of scores" if held else "features, no scores"
        raise ScoringError(f"{printable(path)} holds {what}. 'vl predict' makes a store of scores from features.")
    features = store[held[0]]
    if len(features.spec.classes) != features.spec.row_shape[-1] or len(features.spec.row_shape) != 1:
        raise ScoringError(
            f"{printable(path)} has {len(features.spec.classes)} class names for rows of shape "
            f"{features.spec.row_shape}. Predict again."
        )
    return features


def window_set(path: Path, store: FeatureStore, protocol: str) -> FeatureSet:
    """The scores of overlapping windows; ScoringError, saying how to get them, if the store has none."""
    if WINDOWS not in store:
        raise ScoringError(
            f"{protocol} needs the scores of every window, but {printable(path)} holds their averages alone. Predict "
            "with --keep-windows, or train with --set keep_windows=true."
        )
    return store[WINDOWS]


def label_columns(classes: tuple[str, ...], labels: Labels, videos: Iterable[str]) -> NDArray[np.intp]:
    """(C,) for each class of the scores its column in the labels, -1 where the labels never name it."""
    place = {name: index for index, name in enumerate(labels.classes)}
    columns = np.array([place.get(name, -1) for name in classes], np.intp)
    strange = set(range(len(labels.classes))) - set(columns.tolist())
    if (columns < 0).all():
        raise ScoringError(
            f"scores and labels share no class: '{printable(classes[0])}' against "
            f"'{printable(labels.classes[0])}'. Give --classes the file with the names, or "
            "score with the labels of the training."
        )
    used: set[int] = set()
    for video in videos if strange else ():
        used.update(np.flatnonzero(labels.video(video) == 1).tolist())
    if lost := sorted(strange & used):
        raise ScoringError(
            f"the labels have {len(lost)} classes that the scores do not know, "
            f"'{printable(labels.classes[lost[0]])}' is the first. Predict these "
            "classes too, or score with labels that have the same classes."
        )
    return columns


def _chosen(table: NDArray[np.int8], columns: NDArray[np.intp]) -> NDArray[np.int8]:
    """Label columns in the order of the scores' classes; 0 for a class that the labels never name."""
    return np.where(columns >= 0, table[..., columns], np.int8(0))


def read_answers(
    predictions: Predictions,
    classes: tuple[str, ...],
    windows: FeatureSet | None,
    labels: Labels,
    pairs: Mapping[str, str],
    columns: NDArray[np.intp],
    protocol: Protocol,
    grid: Grid | None,
    at: LabelAt,
    boundary: Boundary,
) -> Answers:
    """What a protocol compares.

    Args:
        predictions: the scores of rows or of whole videos.
        classes: of their columns.
        windows: those of overlapping windows, for a protocol that looks at them.
        labels: of at least the videos of `pairs`.
        pairs: id in the predictions to id in the labels.
        columns: as `label_columns` gives them.
        protocol: says which rows count.
        grid: the times of rows whose file gives none.
        at: where rows are looked up in the labels, for protocols that score rows.
        boundary: which ends of a label count, likewise.

    Raises:
        ScoringError: a score is nan or inf, windows do not belong to the scores, or there are more scores than fit.
    """
    answers = Answers(classes, [], [], [], [], [])
    pool = _Pool(_rows_to_score(predictions, pairs, protocol) if windows is None else 0, len(classes))
    for video, named in pairs.items():
        table, times = _sound(predictions, video, classes)
        duration = labels.videos[named].duration
        if times is None and protocol.level == "row":
            assert grid is not None, "rows without times were refused"
            times = grid.of(video, len(table), duration)
        duration = duration or (float(times[-1, 1]) if times is not None else 0.0)
        if protocol.level == "video":
            table, truth = table.max(axis=0, keepdims=True), labels.video(named)[None]
        elif protocol.rows == "points":
            points = _charades_times(duration)
            assert times is not None, "rows have times here"
            table = table if grid is not None and grid.points else table[_row_at(times, points)]
            truth = labels.rows(named, np.stack([points, points], axis=1), "centre", "inclusive")
        else:
            assert times is not None, "rows have times here"
            truth = labels.rows(named, times, at, boundary)
        truth = _chosen(truth, columns)
        if protocol.probabilities and predictions.partial:
            table = np.maximum(table, 0)  # a class that is not listed
        if windows is not None:
            assert times is not None, "windows have times"
            seen = windows.read(video)
            _require_numbers(video, seen.features, classes)
            table, truth = seen.features, _of_windows(truth, times, seen.times, video)
        table, truth = pool.add(table, truth)
        answers.videos.append(named)
        answers.scores.append(table)
        answers.labels.append(truth)
        answers.segments.append(_segments(labels, named, columns))
        answers.durations.append(duration)
    return dataclasses.replace(answers, whole=pool.tables)


class _Pool:
    """Rows of all videos in one table each, of which the videos' own are parts, so that none lies there twice."""

    def __init__(self, rows: int, classes: int) -> None:
        if rows * classes > MAX_CELLS:
            raise ScoringError(
                f"{rows} rows of {classes} classes are more than the {MAX_CELLS} scores that fit. Score a part of the "
                "videos (--split, --common-with)."
            )
        self._rows, self._classes, self._filled = rows, classes, 0
        self._scores: NDArray[Any] | None = None
        self._labels = np.empty((rows, classes), np.int8)

    def add(self, table: NDArray[Any], truth: NDArray[np.int8]) -> tuple[NDArray[Any], NDArray[np.int8]]:
        """The two, copied into the tables if those have been planned."""
        if not self._rows:
            return table, truth
        if self._scores is None:
            self._scores = np.empty((self._rows, self._classes), table.dtype)
        if np.promote_types(self._scores.dtype, table.dtype) != self._scores.dtype:
            self._scores = None  # videos of several dtypes: they are pooled at the end
            self._rows = 0
            return table, truth
        part = slice(self._filled, self._filled + len(table))
        self._scores[part], self._labels[part] = table, truth
        self._filled = part.stop
        return self._scores[part], self._labels[part]

    @property
    def tables(self) -> tuple[NDArray[Any], NDArray[np.int8]] | None:
        """Both, if they hold all that was added."""
        return (self._scores, self._labels) if self._scores is not None and self._filled == self._rows else None


def _rows_to_score(predictions: Predictions, pairs: Mapping[str, str], protocol: Protocol) -> int:
    if protocol.level == "video":
        return len(pairs)
    if protocol.rows == "points":
        return len(pairs) * metrics.CHARADES_POINTS
    return sum(predictions.num_rows(video) for video in pairs)


def _sound(
    predictions: Predictions, video: str, classes: tuple[str, ...]
) -> tuple[NDArray[Any], NDArray[np.float64] | None]:
    table, times = predictions.read(video)
    _require_numbers(video, table, classes, partial=predictions.partial)
    return table, times


def _require_numbers(video: str, table: NDArray[Any], classes: tuple[str, ...], *, partial: bool = False) -> None:
    """ScoringError, naming video and class, if a score is nan or infinite; unlisted classes are -inf by intention."""
    sound = np.isfinite(table) | (table == -np.inf) if partial else np.isfinite(table)
    if not sound.all():
        row, column = np.unravel_index(int(np.argmin(sound)), table.shape)
        kind = "nan" if np.isnan(table[row, column]) else "infinite"
        raise ScoringError(
            f"{int((~sound).sum())} scores of '{printable(video)}' are {kind}, the first in row {row}, class "
            f"'{printable(classes[column])}'. Predict that video again."
        )


def _of_windows(
    truth_TC: NDArray[np.int8], times_T2: NDArray[np.float64], seen_N2: NDArray[np.float64], video: str
) -> NDArray[np.int8]:
    """(N, C) labels of the rows that windows saw; padded steps, which stand for no time at the end, have none."""
    real_N = ~(seen_N2 == times_T2[-1, 1]).all(axis=1)
    row_N = np.searchsorted(times_T2[:, 0], seen_N2[real_N, 0])
    if row_N.max(initial=0) >= len(times_T2) or not np.array_equal(times_T2[row_N], seen_N2[real_N]):
        raise ScoringError(f"the windows of '{printable(video)}' have other times than its scores. Predict again.")
    labels_NC = np.zeros((len(seen_N2), truth_TC.shape[1]), np.int8)
    labels_NC[real_N] = truth_TC[row_N]
    return labels_NC


def with_missing(answers: Answers, labels: Labels, missing: Iterable[str], columns: NDArray[np.intp]) -> Answers:
    """Charades localisation counts videos without scores: they come last in every ranking."""
    answers = dataclasses.replace(answers, whole=None)
    ids = match_videos(missing, labels.videos).pairs
    for named in ids.values():
        duration = labels.videos[named].duration
        if duration is None:
            raise ScoringError(f"'{printable(named)}' has no scores, and its labels have no duration.")
        times = _charades_times(duration)
        truth = labels.rows(named, np.stack([times, times], axis=1), "centre", "inclusive")
        answers.videos.append(named)
        answers.scores.append(np.full((len(times), len(columns)), -np.inf))
        answers.labels.append(_chosen(truth, columns))
        answers.segments.append(_segments(labels, named, columns))
        answers.durations.append(duration)
    return answers


def _charades_times(duration: float) -> NDArray[np.float64]:
    return np.arange(metrics.CHARADES_POINTS) / metrics.CHARADES_POINTS * duration


def _row_at(rows: NDArray[np.float64], times: NDArray[np.float64]) -> NDArray[np.intp]:
    """For each time the last row that has begun by then, and the first row before any has."""
    return np.maximum(np.searchsorted(rows[:, 0], times, side="right") - 1, 0)


def _segments(labels: Labels, video: str, columns: NDArray[np.intp]) -> list[tuple[int, float, float]]:
    place = {int(column): index for index, column in enumerate(columns) if column >= 0}
    entry = labels.videos[video]
    return [
        (place[int(index)], float(start), float(end))
        for index, (start, end) in zip(entry.classes, entry.spans, strict=True)
        if index != IGNORED and int(index) in place
    ]
