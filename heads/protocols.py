"""Ways of scoring, by the names that are printed beside every number, and the report they make; no torch.

Shape letters: T rows of one video, N rows of all, V videos, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from heads import metrics
from stores.errors import VlError


class ScoringError(VlError):
    """Scores that cannot be scored as asked."""


@dataclass(frozen=True)
class Answers:
    """Scores and labels of the videos that are scored, on the rows that the protocol looks at."""

    classes: tuple[str, ...]
    scores: list[NDArray[Any]]  # (T, C) each; one row a video where whole videos are scored
    labels: list[NDArray[np.int8]]  # (T, C) each: 1, 0, or -1 for unknown
    segments: list[list[tuple[int, float, float]]]  # class, start, end in seconds
    durations: list[float]  # seconds

    @cached_property
    def pooled(self) -> tuple[NDArray[Any], NDArray[np.int8]]:
        """(N, C) scores and labels of all rows."""
        return np.concatenate(self.scores), np.concatenate(self.labels)

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
class Protocol:
    """A way of scoring, by the name that is printed beside every number it gives."""

    level: Literal["row", "video"]  # a row store may be scored as video too: by the maximum over its rows
    text: str
    measure: Callable[[Answers], Mapping[str, float]]  # the first value is the score
    unknown: bool = False  # whether labels of -1 can be left out
    probabilities: bool = False  # whether scores must lie in [0, 1]
    chance: bool = False  # whether a mean over classes of the share of positives is what chance gives


PROTOCOLS: Mapping[str, Protocol] = {
    "frame-map": Protocol(
        "row",
        "AP over all rows of all videos pooled, ties together",
        lambda a: {"map": a.mean_average_precision},
        unknown=True,
        chance=True,
    ),
    "video-map": Protocol(
        "video",
        "AP over videos, ties together",
        lambda a: {"map": a.mean_average_precision},
        unknown=True,
        chance=True,
    ),
    "charades-video-map": Protocol(
        "video",
        "ranked AP over videos as in Charades_v1_classify.m, videos without any action last",
        lambda a: {"map": metrics.charades_video_map(*a.pooled)},
        unknown=True,
        chance=True,
    ),
    "charades-localize-map": Protocol(
        "row",
        "ranked AP at 25 times of every video as in Charades_v1_localize.m",
        lambda a: {"map": metrics.charades_localize_map(a.scores, a.segments, a.durations)},
        chance=True,
    ),
    "action-conditional": Protocol(
        "row",
        "AP of one class at the rows where another is present (tau 0), mean over the pairs that occur",
        lambda a: _main_first("map", metrics.action_conditional(a.scores, a.labels)),
        probabilities=True,
    ),
    "multilabel": Protocol(
        "row",
        "LRAP over rows, and the losses of MLAD's Table 2 at threshold 0.5",
        lambda a: _main_first("lrap", metrics.multilabel_metrics(*a.pooled)),
        probabilities=True,
    ),
    "weighted": Protocol(
        "video",
        "AP over videos weighted by class frequency; precision, recall and F1 at threshold 0.5",
        lambda a: metrics.weighted_metrics(*a.pooled),
        probabilities=True,
    ),
    "top1": Protocol(
        "video",
        "share of videos whose highest class is the right one",
        lambda a: {"accuracy": metrics.top1_accuracy(a.pooled[0], a.right_classes)},
    ),
    "gap": Protocol(
        "video",
        "AP of the 20 highest classes of all videos in one ranking, as YouTube-8M",
        lambda a: {"gap": metrics.global_average_precision(*a.pooled)},
    ),
    "yt8m-map": Protocol(
        "video",
        "AP over the videos in whose 20 highest the class is, as YouTube-8M",
        lambda a: {"map": metrics.yt8m_map(*a.pooled)},
    ),
    "perr": Protocol(
        "video",
        "precision at equal recall rate, as YouTube-8M",
        lambda a: {"perr": metrics.precision_at_equal_recall(*a.pooled)},
        probabilities=True,
    ),
    "hit-at-1": Protocol(
        "video",
        "share of videos whose highest class is one of theirs",
        lambda a: {"hit": metrics.hit_at_1(*a.pooled)},
    ),
}


def _main_first(name: str, values: Mapping[str, float]) -> dict[str, float]:
    return {name: values[name], **values}


@dataclass(frozen=True)
class Report:
    """A score and what it stands on."""

    path: Path
    protocol: str
    text: str
    values: Mapping[str, float]  # the first is the score
    chance: float | None  # mean over classes of their share of positives
    taken: str  # where the labels were looked up
    split: str
    scored: int
    missing: tuple[str, ...]
    extra: int  # videos with scores that are not asked for
    rows: int
    classes: tuple[str, ...]
    positives: tuple[int, ...]  # of each class, in the rows scored
    average_precision: tuple[float | None, ...]  # of each class; None where it has no positive
    random_weights: bool
    warnings: tuple[str, ...] = field(default=())

    @property
    def score(self) -> float:
        """The number."""
        return next(iter(self.values.values()))

    def to_dict(self) -> dict[str, Any]:
        """As JSON types; a number that does not exist is null."""
        return {
            "path": str(self.path),
            "protocol": self.protocol,
            "score": number(self.score),
            "values": {name: number(value) for name, value in self.values.items()},
            "chance": number(self.chance),
            "labels_taken": self.taken,
            "split": self.split,
            "videos_scored": self.scored,
            "videos_expected": self.scored + len(self.missing),
            "missing": list(self.missing),
            "rows": self.rows,
            "random_weights": self.random_weights,
            "warnings": list(self.warnings),
            "classes": [
                {"class": name, "positives": positives, "ap": value}
                for name, positives, value in zip(self.classes, self.positives, self.average_precision, strict=True)
            ],
        }


def number(value: float | None) -> float | None:
    """What JSON can hold: no nan."""
    return None if value is None or np.isnan(value) else float(value)
