"""Ways of scoring, by the names that are printed beside every number; no torch.

Shape letters: T rows of one video, N rows of all, V videos, C classes, R replicates of a bootstrap.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from heads import metrics
from heads.metrics_bootstrap import (
    Counts,
    resampled_conditional_map,
    resampled_gap,
    resampled_map,
    resampled_mean,
    resampled_yt8m_map,
    rows_of_videos,
)
from heads.metrics_conditional import Window
from heads.metrics_ranking import Ties
from stores.errors import VlError

LOWER_THRESHOLD = 0.3  # at which STAN's author reports precision, recall and F1


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

    @cached_property
    def pooled(self) -> tuple[NDArray[Any], NDArray[np.int8]]:
        """(N, C) scores and labels of all rows."""
        return np.concatenate(self.scores), np.concatenate(self.labels)

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


Measure = Callable[[Answers], Mapping[str, float]]
Resample = Callable[[Answers, Counts], NDArray[np.float64]]


@dataclass(frozen=True)
class Protocol:
    """A way of scoring, by the name that is printed beside every number it gives."""

    level: Literal["row", "video"]  # a row store may be scored as video too: by the maximum over its rows
    text: str
    measure: Measure  # the first value is the score
    resample: Resample  # (R,) that score in the replicates of a bootstrap
    rows: Literal["stored", "points", "windows"] = "stored"  # points: Charades' 25 times; windows: overlapping ones
    unknown: bool = False  # whether labels of -1 can be left out
    probabilities: bool = False  # whether scores must lie in [0, 1]
    chance: bool = False  # whether a mean over classes of the share of positives is what chance gives


def conditional(taus: Sequence[int], window: Window) -> Protocol:
    """Action-conditional scores at each of `taus`; the AP of the first is the score.

    Raises:
        ScoringError: `official` has no window for a tau of 1.
    """
    if window == "official" and 1 in taus:
        raise ScoringError(
            "the official window of tau 1 holds no earlier row; it is the paper's of tau 0. Leave 1 out."
        )

    def measure(answers: Answers) -> dict[str, float]:
        values: dict[str, float] = {}
        for tau in taus:
            found = metrics.action_conditional(answers.scores, answers.labels, tau, window=window)
            ending = f"_tau{tau}" if len(taus) > 1 else ""
            values |= {f"{name}{ending}": value for name, value in _main_first("map", found).items()}
        return values

    present = ["where another is present (tau 0)"] if 0 in taus else []
    later = ", ".join(str(tau) for tau in taus if tau)
    span = "[t - tau, t]" if window == "paper" else "[t - tau + 1, t]"
    absent = [f"where another is absent and was present in {span} (tau {later})"] if later else []
    return Protocol(
        "row",
        f"AP of one class at the rows {' or '.join(present + absent)}, mean over the pairs that occur",
        measure,
        lambda a, counts: resampled_conditional_map(a.scores, a.labels, counts, taus[0], window),
        probabilities=True,
    )


def _main_first(name: str, values: Mapping[str, float]) -> dict[str, float]:
    return {name: values[name], **values}


def _weighted(answers: Answers) -> dict[str, float]:
    """At both thresholds."""
    lower = metrics.weighted_metrics(*answers.pooled, threshold=LOWER_THRESHOLD)
    named = {f"{name}_{LOWER_THRESHOLD}": lower[name] for name in ("precision", "recall", "f1")}
    return metrics.weighted_metrics(*answers.pooled) | named


def _mstct(answers: Answers) -> dict[str, float]:
    """Videos that are too short are counted, for the original says nothing of them."""
    score = metrics.mstct_25_map(answers.scores, answers.labels)
    if np.isnan(score):
        raise ScoringError(f"mstct-25 needs videos of more than {metrics.MSTCT_ROWS} rows; there is none.")
    return {"map": score, "too_short": sum(len(table) <= metrics.MSTCT_ROWS for table in answers.scores)}


def _resampled_mstct(answers: Answers, counts_VR: Counts) -> NDArray[np.float64]:
    rows = [metrics.mstct_25_rows(len(table)) for table in answers.scores]
    scores, labels = (
        [table[at] for table, at in zip(tables, rows, strict=True)] for tables in (answers.scores, answers.labels)
    )
    pooled = np.concatenate(scores), np.concatenate(labels)
    return resampled_map(*pooled, rows_of_videos(scores), counts_VR, "in order", empty=0.0)


def _resampled(ties: Ties = "together", empty: float = np.nan, *, weighted: bool = False) -> Resample:
    """Of a mean over classes of AP over pooled rows."""

    def resample(answers: Answers, counts_VR: Counts) -> NDArray[np.float64]:
        return resampled_map(*answers.pooled, answers.video_N, counts_VR, ties, empty=empty, weighted=weighted)

    return resample


def _resampled_charades(answers: Answers, counts_VR: Counts) -> NDArray[np.float64]:
    scores_VC, labels_VC = answers.pooled
    scores_VC = metrics.unlabelled_last(scores_VC, labels_VC)
    return resampled_map(scores_VC, labels_VC, answers.video_N, counts_VR, "in order")


def _resampled_rows(metric: Callable[[NDArray[Any], NDArray[Any]], float]) -> Resample:
    """Of a metric that is a mean over rows: each video's own value says all about it."""

    def resample(answers: Answers, counts_VR: Counts) -> NDArray[np.float64]:
        values = [metric(scores, labels) for scores, labels in zip(answers.scores, answers.labels, strict=True)]
        return resampled_mean(np.array(values), np.bincount(answers.video_N, minlength=len(values)), counts_VR)

    return resample


PROTOCOLS: Mapping[str, Protocol] = {
    "frame-map": Protocol(
        "row",
        "AP over all rows of all videos pooled, ties together",
        lambda a: {"map": a.mean_average_precision},
        _resampled(),
        unknown=True,
        chance=True,
    ),
    "video-map": Protocol(
        "video",
        "AP over videos, ties together",
        lambda a: {"map": a.mean_average_precision},
        _resampled(),
        unknown=True,
        chance=True,
    ),
    "charades-video-map": Protocol(
        "video",
        "ranked AP over videos as in Charades_v1_classify.m, videos without any action last",
        lambda a: {"map": metrics.charades_video_map(*a.pooled)},
        _resampled_charades,
        unknown=True,
        chance=True,
    ),
    "charades-localize-map": Protocol(
        "row",
        "ranked AP at 25 times of every video as in Charades_v1_localize.m",
        lambda a: {"map": metrics.charades_localize_map(a.scores, a.segments, a.durations)},
        _resampled("in order"),
        rows="points",
        chance=True,
    ),
    "action-conditional": conditional((0,), "paper"),
    "action-conditional-official": conditional((0,), "official"),
    "multilabel": Protocol(
        "row",
        "LRAP over rows, and the losses of MLAD's Table 2 at threshold 0.5",
        lambda a: _main_first("lrap", metrics.multilabel_metrics(*a.pooled)),
        _resampled_rows(lambda scores, labels: metrics.multilabel_metrics(scores, labels)["lrap"]),
        probabilities=True,
    ),
    "weighted": Protocol(
        "video",
        "AP over videos weighted by class frequency; precision, recall and F1 at thresholds 0.5 and 0.3",
        _weighted,
        _resampled(weighted=True),
        probabilities=True,
    ),
    "top1": Protocol(
        "video",
        "share of videos whose highest class is the right one",
        lambda a: {"accuracy": metrics.top1_accuracy(a.pooled[0], a.right_classes)},
        _resampled_rows(lambda scores, labels: metrics.top1_accuracy(scores, labels.argmax(axis=1))),
    ),
    "gap": Protocol(
        "video",
        "AP of the 20 highest classes of all videos in one ranking, as YouTube-8M",
        lambda a: {"gap": metrics.global_average_precision(*a.pooled)},
        lambda a, counts: resampled_gap(*a.pooled, counts),
    ),
    "yt8m-map": Protocol(
        "video",
        "AP over the videos in whose 20 highest the class is, as YouTube-8M",
        lambda a: {"map": metrics.yt8m_map(*a.pooled)},
        lambda a, counts: resampled_yt8m_map(*a.pooled, counts),
    ),
    "perr": Protocol(
        "video",
        "precision at equal recall rate, as YouTube-8M",
        lambda a: {"perr": metrics.precision_at_equal_recall(*a.pooled)},
        _resampled_rows(metrics.precision_at_equal_recall),
        probabilities=True,
    ),
    "hit-at-1": Protocol(
        "video",
        "share of videos whose highest class is one of theirs",
        lambda a: {"hit": metrics.hit_at_1(*a.pooled)},
        _resampled_rows(metrics.hit_at_1),
    ),
    "apmeter": Protocol(
        "row",
        "ranked AP over all rows pooled as apmeter.py, classes without positives count 0; for comparison",
        lambda a: {"map": metrics.apmeter_map(*a.pooled)},
        _resampled("in order", empty=0.0),
        chance=True,
    ),
    "mstct-25": Protocol(
        "row",
        "apmeter over 25 rows of every video of more than 25, as MS-TCT's sampled_25; for comparison",
        _mstct,
        _resampled_mstct,
    ),
    "mlad-slide": Protocol(
        "row",
        "AP over the rows of all overlapping windows, padded steps as negatives, as MLAD's slide mode; for comparison",
        lambda a: {"map": a.mean_average_precision},
        _resampled(),
        rows="windows",
        chance=True,
    ),
}
