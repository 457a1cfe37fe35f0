"""What labels are like: how many, how long, which classes occur together, and what follows what.

Shape letters: C classes, U subsets, S segments of one video, P classes of one video, E stretches between events.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stores.labels import IGNORED, LabelError, Labels, VideoLabels
from stores.names import printable

Matrix = NDArray[np.float64]
MAX_MATRIX = 2000  # classes; more would take gigabytes
MAX_CELLS = 100_000_000  # rows times classes of one video
MAX_PART = 4_000_000  # stretches times classes looked at in one go
ORDER = ("train", "val", "test")


@dataclass(frozen=True)
class SubsetStatistics:
    """One subset, or all videos."""

    name: str
    videos: int
    empty: int  # videos without any label
    segments: int
    segments_per_video: float
    max_classes: int  # different classes in one video
    hours: float | None  # of the videos whose duration is known; None if no duration is
    labels_per_row: float | None  # on a grid of `rate` rows a second; None where no time is known


@dataclass(frozen=True, eq=False)
class Statistics:
    """Counts are of everything in the file; times are of segments that end after they start."""

    classes: tuple[str, ...]
    subsets: tuple[SubsetStatistics, ...]
    videos_CU: NDArray[np.int64]  # videos that have the class, by subset
    segments_CU: NDArray[np.int64]
    total_C: Matrix  # seconds
    mean_C: Matrix  # seconds, nan without a segment
    median_C: Matrix
    together_CC: Matrix | None  # [i, j]: share of i's time in which j is too; of its videos where no time is known
    follows_CC: Matrix | None  # [i, j]: share of i's segments after whose end a j starts within `within` seconds
    rate: float  # rows a second
    within: float  # seconds

    def to_dict(self) -> dict[str, Any]:
        """As JSON types; pairs of classes only where they are not zero."""
        return {
            "rate": self.rate,
            "within": self.within,
            "subsets": [vars(subset) for subset in self.subsets],
            "classes": [self._class(index) for index in range(len(self.classes))],
            "pairs": [
                {"class": self.classes[i], "other": self.classes[j], "together": together, "follows": follows}
                for i, j, together, follows in self.pairs()
            ],
        }

    def _class(self, index: int) -> dict[str, Any]:
        times = (self.total_C[index], self.mean_C[index], self.median_C[index])
        total, mean, median = (None if math.isnan(value) else float(value) for value in times)
        names = [subset.name for subset in self.subsets]
        return {
            "class": self.classes[index],
            "videos": dict(zip(names, self.videos_CU[index].tolist(), strict=True)),
            "segments": dict(zip(names, self.segments_CU[index].tolist(), strict=True)),
            "seconds": total,
            "mean": mean,
            "median": median,
        }

    def pairs(self) -> list[tuple[int, int, float, float | None]]:
        """(i, j, together, follows) of all pairs of which one is not zero; a class with itself only if it follows."""
        if self.together_CC is None:
            return []
        together = np.nan_to_num(self.together_CC)
        follows = None if self.follows_CC is None else np.nan_to_num(self.follows_CC)
        some = (together > 0) & ~np.eye(len(together), dtype=bool)
        some = some if follows is None else some | (follows > 0)
        return [
            (i, j, float(together[i, j]), None if follows is None else float(follows[i, j]))
            for i, j in np.argwhere(some).tolist()
        ]


def statistics(labels: Labels, rate: float = 3.0, within: float = 10.0) -> Statistics:
    """Statistics of `labels`, by subset and class.

    Args:
        labels: at least one video.
        rate: rows a second of the grid on which labels per row are counted: T = floor(rate * duration) rows at
            k * duration / T, the grid of the field at 3; a video without a duration ends with its last segment.
        within: seconds in which a class follows another.

    Raises:
        LabelError: a number is not positive, or a video is so long that its rows cannot be counted.
    """
    for name, value in (("rate", rate), ("within", within)):
        if not 0 < value < math.inf:
            raise LabelError(f"{name} must be positive, not {value}.")
    found = {entry.subset or "none" for entry in labels.videos.values()}
    names = [*(name for name in ORDER if name in found), *sorted(found - set(ORDER))]
    groups = {name: [v for v, entry in labels.videos.items() if (entry.subset or "none") == name] for name in names}
    groups = {**(groups if names != ["none"] else {}), "all": list(labels.videos)}
    count = len(labels.classes)
    videos_CU, segments_CU = np.zeros((2, count, len(groups)), np.int64)
    for column, videos in enumerate(groups.values()):
        for video in videos:
            entry = labels.videos[video]
            segments_CU[:, column] += np.bincount(entry.classes[entry.classes != IGNORED], minlength=count)
            videos_CU[list(_present(entry)), column] += 1
    lengths = _lengths(labels)
    rows = _positives_and_rows(labels, rate) if labels.timed else {}
    return Statistics(
        labels.classes,
        tuple(_subset(name, labels, videos, rows) for name, videos in groups.items()),
        videos_CU,
        segments_CU,
        np.array([values.sum() for values in lengths]),
        np.array([values.mean() if len(values) else np.nan for values in lengths]),
        np.array([np.median(values) if len(values) else np.nan for values in lengths]),
        together(labels) if count <= MAX_MATRIX else None,
        follows(labels, within) if count <= MAX_MATRIX and labels.timed else None,
        rate,
        within,
    )


def _present(entry: VideoLabels) -> set[int]:
    return {*entry.classes[entry.classes != IGNORED].tolist(), *entry.video_level}


def _forward(entry: VideoLabels) -> tuple[NDArray[np.int32], Matrix]:
    """Classes and spans of the segments that last."""
    real = (entry.spans[:, 1] > entry.spans[:, 0]) & (entry.classes != IGNORED)
    return entry.classes[real], entry.spans[real]


def _lengths(labels: Labels) -> list[Matrix]:
    """Of every class the lengths of its segments, in seconds."""
    found = [_forward(entry) for entry in labels.videos.values()]
    class_S = np.concatenate([classes for classes, _ in found]) if found else np.zeros(0, np.int32)
    length_S = np.concatenate([spans[:, 1] - spans[:, 0] for _, spans in found]) if found else np.zeros(0)
    order = np.argsort(class_S, kind="stable")
    bounds = np.searchsorted(class_S[order], np.arange(len(labels.classes) + 1))
    return [length_S[order[first:last]] for first, last in itertools.pairwise(bounds)]


def _positives_and_rows(labels: Labels, rate: float) -> dict[str, tuple[int, int]]:
    """Video -> how many labels its rows have, and how many rows are labelled."""
    counts = {}
    for video, entry in labels.videos.items():
        duration = entry.duration if entry.duration is not None else float(entry.spans.max(initial=0.0))
        if duration * rate * max(len(labels.classes), 1) > MAX_CELLS:
            raise LabelError(
                f"'{printable(video)}' lasts {duration:.6g} s: {rate} rows a second are too many. Give a lower --rate."
            )
        table_NC = labels.rows(video, np.zeros((math.floor(rate * duration), 2)), "start", duration=duration)
        counts[video] = int((table_NC == 1).sum()), int((table_NC != -1).any(axis=1).sum())
    return counts


def _subset(name: str, labels: Labels, videos: list[str], rows: dict[str, tuple[int, int]]) -> SubsetStatistics:
    entries = [labels.videos[video] for video in videos]
    segments = sum(int((entry.classes != IGNORED).sum()) for entry in entries)
    durations = [entry.duration for entry in entries if entry.duration is not None]
    positives, labelled = (sum(rows[video][at] for video in videos) if rows else 0 for at in (0, 1))
    return SubsetStatistics(
        name,
        len(videos),
        sum(not (len(entry.classes) or entry.video_level) for entry in entries),
        segments,
        segments / len(videos) if videos else 0.0,
        max((len(_present(entry)) for entry in entries), default=0),
        sum(durations) / 3600 if durations else None,
        positives / labelled if labelled else None,
    )


def together(labels: Labels) -> Matrix:
    """(C, C): [i, j] is the share of the seconds of class i in which class j is there too; nan where i never is.

    Where no time is known, the share of the videos with i that have j.
    """
    count = len(labels.classes)
    seconds_CC = np.zeros((count, count))
    for entry in labels.videos.values():
        if labels.timed:
            present_P, shared_PP = _shared_seconds(*_forward(entry))
        else:
            present_P = np.array(sorted(entry.video_level), np.int64)
            shared_PP = np.ones((len(present_P), len(present_P)))
        seconds_CC[np.ix_(present_P, present_P)] += shared_PP
    whole_C = np.diag(seconds_CC).copy()
    whole_C[whole_C == 0] = np.nan
    return np.asarray(seconds_CC / whole_C[:, None])


def _shared_seconds(class_S: NDArray[np.int32], spans_S2: Matrix) -> tuple[NDArray[np.int64], Matrix]:
    """The classes of a video, and (P, P) the seconds in which two of them are there at once."""
    present_P, column_S = np.unique(class_S, return_inverse=True)
    events_E = np.unique(spans_S2)
    length_E = np.diff(events_E)
    shared_PP = np.zeros((len(present_P), len(present_P)))
    first_S, last_S = (np.searchsorted(events_E, spans_S2[:, end]) for end in (0, 1))
    step = max(1, MAX_PART // max(len(present_P), 1))
    for begin in range(0, len(length_E), step):
        end = min(begin + step, len(length_E))
        change = np.zeros((len(present_P), end - begin + 1))
        inside = (first_S < end) & (last_S > begin)
        np.add.at(change, (column_S[inside], np.clip(first_S[inside] - begin, 0, None)), 1)
        np.add.at(change, (column_S[inside], np.clip(last_S[inside], None, end) - begin), -1)
        active_PE = (np.cumsum(change, axis=1)[:, :-1] > 0).astype(np.float64)
        shared_PP += (active_PE * length_E[begin:end]) @ active_PE.T
    return present_P.astype(np.int64), shared_PP


def follows(labels: Labels, within: float) -> Matrix:
    """(C, C): [i, j] is the share of i's segments after whose end a segment of j starts, `within` seconds at most.

    A start at the very end counts; nan where i has no segment.
    """
    count = len(labels.classes)
    followed_CC, segments_C = np.zeros((count, count)), np.zeros(count)
    for entry in labels.videos.values():
        class_S, spans_S2 = _forward(entry)
        segments_C += np.bincount(class_S, minlength=count)
        for other in np.unique(class_S).tolist():
            starts = np.sort(spans_S2[class_S == other, 0])
            next_S = np.append(starts, np.inf)[np.searchsorted(starts, spans_S2[:, 1])]
            near = next_S - spans_S2[:, 1] <= within
            followed_CC[:, other] += np.bincount(class_S[near], minlength=count)
    segments_C[segments_C == 0] = np.nan
    return np.asarray(followed_CC / segments_C[:, None])
