"""Ways of scoring, by the names that are printed beside every number; no torch.

Shape letters: C classes, R replicates of a bootstrap.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

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
from heads.metrics_detection import TIOUS, resampled_detection_map
from heads.metrics_ranking import Ties
from heads.protocol import Answers, Detections, Protocol, Resample, ScoringError
from stores.names import printable

__all__ = [
    "PROTOCOLS",
    "Answers",
    "Detections",
    "Protocol",
    "ScoringError",
    "Threshold",
    "conditional",
    "detection",
    "with_threshold",
]

THRESHOLD = 0.5
LOWER_THRESHOLD = 0.3  # at which STAN's author reports precision, recall and F1


Threshold = float | Mapping[str, float]
"""From which probability on a class is predicted: one for all, or one for each name."""


def _of_classes(answers: Answers, threshold: Threshold) -> float | NDArray[np.float64]:
    """The threshold, or (C,) those of the classes of the answers."""
    if isinstance(threshold, float | int):
        return threshold
    return np.array([threshold[name] for name in answers.classes])


def conditional(taus: Sequence[int], window: Window, threshold: Threshold = THRESHOLD) -> Protocol:
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
            cut = _of_classes(answers, threshold)
            found = metrics.action_conditional(answers.scores, answers.labels, tau, cut, window)
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
        thresholds=True,
    )


def multilabel(threshold: Threshold = THRESHOLD) -> Protocol:
    """LRAP and the losses of MLAD's Table 2."""
    return Protocol(
        "row",
        f"LRAP over rows, and the losses of MLAD's Table 2 at {_shown(threshold)}",
        lambda a: _main_first("lrap", metrics.multilabel_metrics(*a.pooled, threshold=_of_classes(a, threshold))),
        _resampled_rows(lambda scores, labels: metrics.multilabel_metrics(scores, labels)["lrap"]),
        probabilities=True,
        thresholds=True,
    )


def weighted(threshold: Threshold | None = None) -> Protocol:
    """STAN's scores: at 0.5 and, as its author, 0.3; or at another threshold alone."""
    at = f"thresholds {THRESHOLD} and {LOWER_THRESHOLD}" if threshold is None else _shown(threshold)
    return Protocol(
        "video",
        f"AP over videos weighted by class frequency; precision, recall and F1 at {at}",
        lambda a: _weighted(a) if threshold is None else _weighted_at(a, threshold),
        _resampled(weighted=True),
        probabilities=True,
        thresholds=True,
    )


def detection(tious: Sequence[float] = TIOUS) -> Protocol:
    """Segments against segments, as ActivityNet's challenge; the mean over all tIoU is the score."""
    shown = ", ".join(f"{tiou:g}" for tiou in tious)
    return Protocol(
        "segment",
        f"mean over tIoU {shown} of interpolated AP of segments, each ground truth found once, as ActivityNet",
        lambda a: _detection(a),
        lambda a, counts: resampled_detection_map(_detections(a).matched, counts),
    )


def _detections(answers: Answers) -> Detections:
    assert isinstance(answers, Detections), "scoring reads segments for this protocol"
    return answers


def _detection(answers: Answers) -> dict[str, float]:
    found = _detections(answers)
    known_KC = found.precision_KC[:, found.positives > 0]
    means = known_KC.mean(axis=1).tolist() if known_KC.size else [float("nan")] * len(found.tious)
    named = {f"map_{tiou:g}": value for tiou, value in zip(found.tious, means, strict=True)}
    return {"map": float(np.mean(means)), **named}


def with_threshold(name: str, threshold: Threshold, taus: Sequence[int], windows: Mapping[str, Window]) -> Protocol:
    """The protocol of that name at another threshold.

    Raises:
        ScoringError: it has none.
    """
    if name in windows:
        return conditional(taus or (0,), windows[name], threshold)
    if name == "multilabel":
        return multilabel(threshold)
    if name == "weighted":
        return weighted(threshold)
    having = ", ".join(known for known, protocol in PROTOCOLS.items() if protocol.thresholds)
    raise ScoringError(f"a threshold is for --protocol {having}; {printable(name)} has none.")


def _shown(threshold: Threshold) -> str:
    if isinstance(threshold, float | int):
        return f"threshold {threshold:g}"
    values = sorted(threshold.values())
    return f"a threshold for each class, {values[0]:.3g} to {values[-1]:.3g}"


def _main_first(name: str, values: Mapping[str, float]) -> dict[str, float]:
    return {name: values[name], **values}


def _weighted(answers: Answers) -> dict[str, float]:
    """At both thresholds."""
    lower = metrics.weighted_metrics(*answers.pooled, threshold=LOWER_THRESHOLD)
    named = {f"{name}_{LOWER_THRESHOLD}": lower[name] for name in ("precision", "recall", "f1")}
    return metrics.weighted_metrics(*answers.pooled) | named


def _weighted_at(answers: Answers, threshold: Threshold) -> dict[str, float]:
    return metrics.weighted_metrics(*answers.pooled, threshold=_of_classes(answers, threshold))


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
    "multilabel": multilabel(),
    "weighted": weighted(),
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
    "detection": detection(),
}
