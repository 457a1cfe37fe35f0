"""What is scored, and what a way of scoring is; no torch.

Shape letters: T rows of one video, N rows of all, V videos, C classes, K thresholds of tIoU, R bootstrap replicates.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from heads import metrics
from heads.metrics_bootstrap import Counts, rows_of_videos
from heads.metrics_detection import TIOUS, Matched, Segments, match_detections, matched_average_precision
from stores.errors import VlError


class ScoringError(VlError):
    """Scores that cannot be scored as asked."""


@dataclass(frozen=True)
class Answers:
    """Scores and labels of the videos that are scored, on the rows that the protocol looks at."""

    classes: tuple[str, ...]
    videos: list[str]  # ids in the labels
    scores: list[NDArray[Any]]  # (T, C) each; one row a video where whole videos are scored
    labels: list[NDArray[np.int8]]  # (T, C) each: 1, 0, or -1 for unknown
    segments: list[list[tuple[int, float, float]]]  # class, start, end in seconds
    durations: list[float]  # seconds
    whole: tuple[NDArray[Any], NDArray[np.int8]] | None = None  # all rows, where the tables are their parts

    @cached_property
    def pooled(self) -> tuple[NDArray[Any], NDArray[np.int8]]:
        """(N, C) scores and labels of all rows."""
        return self.whole or (np.concatenate(self.scores), np.concatenate(self.labels))

    @property
    def num_rows(self) -> int:
        """Rows that are scored."""
        return len(self.pooled[0])

    @cached_property
    def positives(self) -> NDArray[np.intp]:
        """(C,) how often each class is there in what is scored."""
        return np.asarray((self.pooled[1] == 1).sum(axis=0), np.intp)

    @cached_property
    def video_N(self) -> NDArray[np.intp]:
        """(N,) the index of every row's video."""
        return rows_of_videos(self.scores)

    @cached_property
    def average_precision(self) -> NDArray[np.float64]:
        """(C,) of all rows, ties together; nan for classes without positives."""
        return metrics.class_average_precision(*self.pooled)

    @property
    def mean_average_precision(self) -> float:
        """What `frame_map` and `video_map` give; the long part is shared with the table of classes."""
        known = self.average_precision[~np.isnan(self.average_precision)]
        return float(known.mean()) if known.size else float("nan")

    @cached_property
    def right_classes(self) -> NDArray[np.intp]:
        """(V,) the one class of every video.

        Raises:
            ScoringError: a video has none or several.
        """
        labels_VC = self.pooled[1] == 1
        if (wrong := int((labels_VC.sum(axis=1) != 1).sum())) > 0:
            raise ScoringError(
                f"top1 needs one class a video, but {wrong} of {len(labels_VC)} videos have none or several. "
                "Choose another --protocol."
            )
        classes_V: NDArray[np.intp] = labels_VC.argmax(axis=1)
        return classes_V


@dataclass(frozen=True)
class Detections(Answers):
    """Predicted segments and ground truth; `scores` and `labels` stay empty."""

    found: list[Segments] = field(default_factory=list)  # of each video
    tious: tuple[float, ...] = TIOUS

    @cached_property
    def matched(self) -> list[Matched]:
        """What is right, class by class."""
        return match_detections(self.found, self.segments, len(self.classes), self.tious)

    @cached_property
    def precision_KC(self) -> NDArray[np.float64]:
        """(K, C) AP of every class at every tIoU; nan for classes without ground truth."""
        return matched_average_precision(self.matched, len(self.tious))

    @cached_property
    def average_precision(self) -> NDArray[np.float64]:
        """(C,) the mean over all tIoU."""
        return np.asarray(self.precision_KC.mean(axis=0), np.float64)

    @property
    def num_rows(self) -> int:
        """Segments that are scored."""
        return sum(len(of_video.classes) for of_video in self.found)

    @cached_property
    def positives(self) -> NDArray[np.intp]:
        """(C,) ground truths of each class."""
        return np.array([of_class.num_truth for of_class in self.matched], np.intp)


Measure = Callable[[Answers], Mapping[str, float]]
Resample = Callable[[Answers, Counts], NDArray[np.float64]]


@dataclass(frozen=True)
class Protocol:
    """A way of scoring, by the name that is printed beside every number it gives."""

    level: Literal["row", "video", "segment"]  # rows may be scored as videos too: by the maximum over them
    text: str
    measure: Measure  # the first value is the score
    resample: Resample  # (R,) that score in the replicates of a bootstrap
    rows: Literal["stored", "points", "windows"] = "stored"  # points: Charades' 25 times; windows: overlapping ones
    unknown: bool = False  # whether labels of -1 can be left out
    probabilities: bool = False  # whether scores must lie in [0, 1]
    thresholds: bool = False  # whether predictions at a threshold are among the values
    chance: bool = False  # whether a mean over classes of the share of positives is what chance gives
