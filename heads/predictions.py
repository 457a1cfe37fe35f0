"""Predictions of anybody, whatever file they came in, as scoring reads them; no torch.

`heads.prediction_files` opens them; one file a format, `heads/predictions_*.py`, reads them. A reader refuses what
is not sound with one line; it never fills a gap, and never says where rows lie in time unless the file does.

Shape letters: T rows of one video, C classes, D segments of one video.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from heads.metrics_detection import Segments
from heads.protocols import ScoringError
from stores.names import printable
from stores.spec import FeatureSet, FeatureStore

MAX_BYTES = 8 << 30  # of arrays, or of a text file
MAX_CELLS = 1 << 30  # of scores that are pooled: 4 GB of float32
MAX_CLASSES = 20_000  # as in label files

Level = Literal["row", "video", "segment"]
Times = Literal["own", "none", "points"]  # points: the rows are Charades' 25 times
Table = tuple[NDArray[Any], NDArray[np.float64] | None]


class PredictionError(ScoringError):
    """A file of predictions that is not sound, or not of a form that is known."""


@dataclass(eq=False)
class Predictions:
    """What was predicted; `with` closes the file."""

    path: Path
    kind: str  # the format, for people
    level: Level
    num_classes: int
    classes: tuple[str, ...] | None = None  # of the columns; None: the file numbers them
    coded: bool = False  # whether numbers are those of the benchmark's classes, from 0 on
    times: Times = "own"
    partial: bool = False  # whether a video lists some classes only; the others are -inf
    protocol: str | None = None  # the only one that the format was made for
    facts: Mapping[str, Any] = field(default_factory=dict)  # about how they were made
    random_weights: bool = False
    store: FeatureStore | None = None
    notes: tuple[str, ...] = ()  # what the reader has to say

    def __enter__(self) -> Predictions:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the file back."""

    def __iter__(self) -> Iterator[str]:
        """Ids of the videos that have scores."""
        raise AssertionError("every reader says which videos it has")

    def num_rows(self, video: str) -> int:
        """Rows of `video`; 1 of scores of whole videos."""
        raise AssertionError("every reader of rows counts them")

    def read(self, video: str) -> Table:
        """(T, C) scores, and (T, 2) seconds in order if the file gives any."""
        raise AssertionError("every reader of rows reads them")

    def segments(self, video: str) -> Segments:
        """The predicted segments of `video`, with indices of `classes`."""
        raise AssertionError("every reader of segments reads them")


@dataclass(eq=False)
class TablePredictions(Predictions):
    """Rows, or one row a video, that lie in memory."""

    tables: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    seconds: Mapping[str, NDArray[np.float64]] | None = None

    def __iter__(self) -> Iterator[str]:
        return iter(self.tables)

    def num_rows(self, video: str) -> int:
        """Rows of `video`."""
        return len(self.tables[video])

    def read(self, video: str) -> Table:
        """Its scores and times, in order of time."""
        table = self.tables[video]
        return (table, None) if self.seconds is None else in_order(self.path, video, table, self.seconds[video])


@dataclass(eq=False)
class SegmentPredictions(Predictions):
    """Segments that lie in memory."""

    found: Mapping[str, Segments] = field(default_factory=dict)

    def __iter__(self) -> Iterator[str]:
        return iter(self.found)

    def segments(self, video: str) -> Segments:
        """Its segments."""
        return self.found[video]


@dataclass(eq=False)
class StorePredictions(Predictions):
    """A store of scores, ours or one that was imported."""

    features: FeatureSet | None = None

    def __iter__(self) -> Iterator[str]:
        assert self.features is not None
        return (video for video in self.features if self.features.entry(video).num_rows)

    def num_rows(self, video: str) -> int:
        """Rows of `video`."""
        assert self.features is not None
        return self.features.entry(video).num_rows

    def read(self, video: str) -> Table:
        """Its scores and times."""
        assert self.features is not None
        return self.features.read(video)

    def close(self) -> None:
        """Give the files back."""
        assert self.store is not None
        self.store.close()


def seconds_of(path: Path, times: NDArray[Any]) -> NDArray[np.float64]:
    """(N, 2) starts and ends from as many of them, or from (N,) points in time.

    Raises:
        PredictionError: the shape is another, a time is not finite, or a row ends before it starts.
    """
    if times.dtype.kind not in "fiu" or times.ndim > 2 or (times.ndim == 2 and times.shape[1] != 2) or not times.ndim:
        raise PredictionError(f"{printable(path)}: times are (N, 2) or (N,) seconds, not {times.dtype} {times.shape}.")
    seconds: NDArray[np.float64] = times.astype(np.float64)
    if seconds.ndim == 1:
        seconds = np.stack([seconds, seconds], axis=1)
    sound_N = np.isfinite(seconds).all(axis=1)
    sound_N &= seconds[:, 1] >= seconds[:, 0]
    if not sound_N.all():
        row = int(np.argmin(sound_N))
        shown = " to ".join(f"{value:g}" for value in seconds[row])
        raise PredictionError(f"{printable(path)}, row {row} of the times: {shown} s is no stretch of time.")
    return seconds


def in_order(path: Path, video: str, table: NDArray[Any], seconds: NDArray[np.float64]) -> Table:
    """Both in order of time; PredictionError if two rows stand for the same time."""
    steps = np.diff(seconds[:, 0])
    if (steps < 0).any():
        order = np.lexsort((seconds[:, 1], seconds[:, 0]))
        table, seconds = table[order], seconds[order]
        steps = np.diff(seconds[:, 0])
    same = (steps == 0) & (np.diff(seconds[:, 1]) == 0)
    if same.any():
        start, end = seconds[int(np.argmax(same))]
        raise PredictionError(
            f"{printable(path)} has two rows for '{printable(video)}' at {start:g} to {end:g} s. Keep one."
        )
    return table, seconds


def require_finite(path: Path, what: str, scores: NDArray[Any]) -> None:
    """PredictionError unless all scores of `what` are numbers."""
    if (bad := int((~np.isfinite(scores)).sum())) > 0:
        raise PredictionError(f"{printable(path)}: {bad} scores of {what} are nan or inf. Predict again.")


def require_names(path: Path, names: tuple[str, ...], source: str) -> tuple[str, ...]:
    """`names` itself; PredictionError if one is empty or stands twice."""
    if "" in names:
        raise PredictionError(f"{printable(path)}: class {names.index('')} of {source} has no name.")
    if len(set(names)) < len(names):
        twice = next(name for place, name in enumerate(names) if name in names[:place])
        raise PredictionError(f"{printable(path)}: {source} names the class '{printable(twice)}' twice.")
    if len(names) > MAX_CLASSES:
        raise PredictionError(f"{printable(path)}: {source} has {len(names)} classes, over the {MAX_CLASSES} allowed.")
    return names
