"""From a store of scores and labels to a number under a named protocol; no torch.

Scores and labels meet by the times of the rows, and by the names of the classes.

Shape letters: T rows of one video, N rows of all, V videos, C classes, G positions on a grid.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from heads import metrics
from heads.answers import label_columns, read_answers, score_set, window_set, with_missing
from heads.metrics_bootstrap import Counts, Interval, draw_videos
from heads.metrics_conditional import Window
from heads.protocols import PROTOCOLS, Answers, Protocol, ScoringError, conditional
from heads.report import Report, number, with_interval
from stores import open_store
from stores.label_files import SUBSETS, read_labels
from stores.labels import Boundary, LabelAt, Labels, match_videos
from stores.names import printable
from stores.spec import FeatureSet, FeatureStore

CONDITIONAL: Mapping[str, Window] = {"action-conditional": "paper", "action-conditional-official": "official"}
MAX_JSON = 1 << 30  # bytes of a run's labels.json


@dataclass(frozen=True)
class Question:
    """What to score, and how; None takes what the prediction or the labels say."""

    labels: Path | None = None
    classes: Path | None = None  # names of the labels' classes
    split: str | None = None  # train, val, test, another subset of the labels, or all; None: see `score_store`
    protocol: str | None = None
    label_at: LabelAt | None = None
    boundary: Boundary | None = None
    allow_missing: bool = False
    taus: tuple[int, ...] = ()  # of the action-conditional protocols; none: 0
    resamples: int = 0  # of the bootstrap over videos; 0: none
    seed: int = 0  # of the bootstrap


def label_options(label_at: str | None, boundary: str | None) -> tuple[LabelAt | None, Boundary | None]:
    """The two options about labels, if they have values that there are."""
    for option, value, allowed in (
        ("--label-at", label_at, get_args(LabelAt)),
        ("--boundary", boundary, get_args(Boundary)),
    ):
        if value is not None and value not in allowed:
            raise ScoringError(f"{option} is {', '.join(allowed)}, not '{printable(value)}'.")
    return cast("LabelAt | None", label_at), cast("Boundary | None", boundary)


def newest_run(folder: Path) -> Path:
    """The run in `folder` that finished last.

    Raises:
        ScoringError: none has finished.
    """
    results = [path for path in folder.glob("*/result.json") if path.is_file()]
    if not results:
        begun = sorted(path.parent.name for path in folder.glob("*/config.json"))
        hint = f"; {printable(begun[-1])} is not finished" if begun else ""
        raise ScoringError(
            f"there is no finished run in {printable(folder)}{hint}. 'vl train-head' makes one; or name a store "
            "of scores."
        )
    return max(results, key=lambda path: (path.stat().st_mtime_ns, path.parent.name)).parent


def find_scores(target: Path, split: str | None) -> Path:
    """The store of scores that `target`, a run or a store, stands for; of a run that of `split`, or of test.

    Raises:
        ScoringError: the run has no scores of this split.
    """
    if not (target / "config.json").is_file():
        return target
    split = split or "test"
    path = target / f"{split}.zarr"
    if not path.exists():
        held = ", ".join(sorted(store.stem for store in target.glob("*.zarr"))) or "none"
        finished = "" if (target / "result.json").is_file() else " The run is not finished; train it to its end."
        raise ScoringError(
            f"the run {printable(target)} has no scores of '{printable(split)}' (it has: {held}).{finished}"
        )
    return path


def score_store(path: Path, question: Question) -> Report:
    """Score the store at `path`: the split that was predicted, or else the test videos of the labels.

    Raises:
        ScoringError: labels are missing or do not fit, videos are missing, scores are nan, or the protocol is
            unknown or cannot score these.
    """
    return scored(path, question).report


@dataclass(frozen=True)
class Scored:
    """A report with what it was made of."""

    report: Report
    protocol: Protocol
    answers: Answers


def scored(path: Path, question: Question) -> Scored:
    """As `score_store`, with what the report was made of."""
    store = open_store(path)
    try:
        return _score(path, store, question)
    finally:
        store.close()


def _score(path: Path, store: FeatureStore, question: Question) -> Scored:
    features = score_set(path, store)
    prediction = store.attachment("prediction") or {}
    labels = _labels(path, prediction, question)
    level = _level(features, prediction)
    name, protocol = _protocol(question, level)
    windows = window_set(path, store, name) if protocol.rows == "windows" else None
    at: LabelAt = question.label_at or prediction.get("label_at") or labels.label_at
    boundary: Boundary = question.boundary or prediction.get("boundary") or "strict"
    split = _split(labels, prediction, question)
    pairs, missing, extra = _coverage(features, prediction, labels, split, question.labels is not None)
    if missing and not question.allow_missing:
        shown = ", ".join(f"'{printable(video)}'" for video in missing[:3])
        raise ScoringError(
            f"{len(pairs)} of {len(pairs) + len(missing)} videos of '{printable(split)}' have scores in "
            f"{printable(path)}; {shown}{' and others' if len(missing) > 3 else ''} have none. Predict them, or "
            "give --allow-missing to score the rest."
        )
    if not pairs:
        raise ScoringError(f"{printable(path)} has scores of no video of '{printable(split)}' that has labels.")
    columns = label_columns(features.spec.classes, labels, pairs.values())
    answers = read_answers(features, windows, labels, pairs, columns, protocol, at, boundary)
    if protocol.rows == "points":
        answers = with_missing(answers, labels, missing, columns)
    table_NC, labels_NC = answers.pooled
    _require_fit(name, protocol, table_NC, labels_NC)
    values = protocol.measure(answers)
    report = Report(
        path=path,
        protocol=name,
        text=protocol.text,
        values=values,
        chance=_chance(labels_NC, masked=name == "charades-video-map") if protocol.chance else None,
        taken=_taken(protocol, at, boundary),
        split=split,
        scored=len(pairs),
        missing=tuple(missing),
        extra=extra,
        rows=len(table_NC),
        classes=answers.classes,
        positives=tuple(int(count) for count in (labels_NC == 1).sum(axis=0)),
        average_precision=tuple(number(value) for value in answers.average_precision),
        random_weights=bool(prediction.get("random_weights") or features.spec.random_weights),
        warnings=(*_seen_in_training(split, prediction), *_constant(table_NC, answers.classes)),
    )
    if question.resamples:
        values_R = protocol.resample(answers, draw(answers, question))
        report = with_interval(report, Interval.of(values_R, len(answers.videos)))
    return Scored(report, protocol, answers)


def draw(answers: Answers, question: Question) -> Counts:
    """How often each video is drawn; the same for the same number of videos."""
    if len(answers.videos) < 2:
        raise ScoringError("a bootstrap draws videos, and there is only one. Score it without --bootstrap.")
    return draw_videos(len(answers.videos), question.resamples, question.seed)


def _labels(path: Path, prediction: Mapping[str, Any], question: Question) -> Labels:
    """From the option, else from the prediction, else from the run in whose folder the store lies."""
    if question.labels is not None:
        return read_labels(question.labels, question.classes)
    if isinstance(prediction.get("labels"), dict):
        return Labels.from_dict(prediction["labels"])
    beside = path.parent / "labels.json"
    if (path.parent / "config.json").is_file() and beside.is_file():
        if beside.stat().st_size > MAX_JSON:
            raise ScoringError(f"{printable(beside)} is larger than {MAX_JSON >> 30} GiB.")
        try:
            document = json.loads(beside.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            raise ScoringError(f"{printable(beside)} is no sound json. Give --labels a label file.") from error
        return Labels.from_dict(document)
    raise ScoringError(f"{printable(path)} has no labels with it. Give --labels a label file.")


def _level(features: FeatureSet, prediction: Mapping[str, Any]) -> str:
    """Row or video, as the prediction says, else by whether any video has more than one row."""
    if prediction.get("level") in ("row", "video"):
        return str(prediction["level"])
    return "row" if any(features.entry(video).num_rows > 1 for video in features) else "video"


def _protocol(question: Question, level: str) -> tuple[str, Protocol]:
    name = question.protocol or ("frame-map" if level == "row" else "video-map")
    if name not in PROTOCOLS:
        raise ScoringError(f"there is no protocol '{printable(name)}'. There are: {', '.join(PROTOCOLS)}.")
    if PROTOCOLS[name].level == "row" and level == "video":
        raise ScoringError(f"{name} needs scores of rows, but these are of whole videos. Try --protocol video-map.")
    if not question.taus:
        return name, PROTOCOLS[name]
    if name not in CONDITIONAL:
        raise ScoringError(f"--tau is for --protocol action-conditional; {name} has none.")
    return name, conditional(question.taus, CONDITIONAL[name])


def _split(labels: Labels, prediction: Mapping[str, Any], question: Question) -> str:
    """What was asked for, else what was predicted, else the test videos of the labels, else all."""
    return question.split or str(prediction.get("split") or ("test" if labels.has_subsets else "all"))


def _coverage(
    features: FeatureSet, prediction: Mapping[str, Any], labels: Labels, split: str, own_labels: bool
) -> tuple[dict[str, str], list[str], int]:
    """Store id -> label id of the videos to score; those without scores; how many scores nobody asked for.

    The videos of a split are those that a label file given for scoring puts there; else those that the prediction
    was to cover; else those that the labels put there.
    """
    held = [video for video in features if features.entry(video).num_rows]
    wanted = [
        video
        for video, entry in labels.videos.items()
        if split == "all" or (entry.subset and _same_subset(entry.subset, split))
    ]
    covers = isinstance(prediction.get("expected"), list) and prediction.get("split") == split
    if covers and not (own_labels and wanted):
        expected = [str(video) for video in prediction["expected"]]
        pairs = match_videos(expected, labels.videos).pairs
        if without := [video for video in expected if video not in pairs]:
            raise ScoringError(
                f"{len(without)} videos of '{printable(split)}' have no labels, '{printable(without[0])}' first."
            )
        there = set(held)
        scored = {video: pairs[video] for video in expected if video in there}
        return scored, [video for video in expected if video not in scored], len(there) - len(scored)
    if not wanted:
        raise ScoringError(f"the labels have no video of subset '{printable(split)}'. Score --split all, or another.")
    matched = match_videos(held, wanted)
    return matched.pairs, list(matched.only_labels), len(matched.only_store)


def _same_subset(one: str, other: str) -> bool:
    return SUBSETS.get(one.lower(), one.lower()) == SUBSETS.get(other.lower(), other.lower())


def _require_fit(name: str, protocol: Protocol, scores: NDArray[Any], labels: NDArray[np.int8]) -> None:
    if not protocol.unknown and (unknown := int((labels < 0).sum())):
        raise ScoringError(
            f"{name} cannot leave out the {unknown} labels that are unknown; frame-map and video-map can."
        )
    if protocol.probabilities and not (scores.min() >= 0 and scores.max() <= 1):
        raise ScoringError(
            f"{name} needs probabilities, but the scores lie in [{scores.min():.3g}, {scores.max():.3g}]."
        )


def _chance(labels: NDArray[np.int8], *, masked: bool) -> float:
    """Mean over classes with positives of their share of positives: the AP of constant scores."""
    if masked:
        labels = labels[(labels == 1).any(axis=1)]
    positives_C, known_C = (labels == 1).sum(axis=0), (labels >= 0).sum(axis=0)
    present = positives_C > 0
    return float((positives_C[present] / known_C[present]).mean()) if present.any() else float("nan")


def _taken(protocol: Protocol, at: LabelAt, boundary: Boundary) -> str:
    if protocol.level == "video":
        return "of whole videos"
    if protocol.rows == "points":
        return f"at {metrics.CHARADES_POINTS} times of every video, boundaries inclusive"
    where = {"centre": "at the centre of rows", "start": "at k * duration / rows", "overlap": "that rows overlap"}[at]
    return f"{where}, boundaries {boundary}"


def _seen_in_training(split: str, prediction: Mapping[str, Any]) -> tuple[str, ...]:
    if split == "all" and prediction.get("head"):
        return ("videos that the head was trained on may be among these",)
    return ()


def _constant(scores: NDArray[Any], classes: Sequence[str]) -> tuple[str, ...]:
    if len(scores) < 2:
        return ()
    constant_C = (scores == scores[0]).all(axis=0)
    if constant_C.all():
        return ("all rows have the same scores: nothing was learned, or nothing was predicted",)
    if constant_C.any():
        names = [printable(name) for name, constant in zip(classes, constant_C, strict=True) if constant]
        return (f"{len(names)} classes have one score in all rows: {', '.join(names[:5])}",)
    return ()


def position_only_scores(
    labels: Sequence[ArrayLike],
    times: Sequence[ArrayLike],
    wanted: ArrayLike,
    *,
    relative: bool = False,
    bins: int = 100,
) -> NDArray[np.float64]:
    """What knowing nothing but the time gives: how often each class is present there in the training videos.

    A floor for every head: one that is no better has learned when things happen, not what is seen.

    Args:
        labels: (T, C) 0, 1 or -1 (left out) of each training video.
        times: (T, 2) seconds of the same rows.
        wanted: (N, 2) seconds of the rows to score, of one video.
        relative: compare shares of the duration (the end of the last row) instead of seconds.
        bins: positions of the grid, from 0 to the longest training video (or to 1); later times take the last.

    Returns:
        (N, C) probabilities: the share of positives at that position, smoothed by one row at the overall share, so
        that a position no training row has gives the overall share.
    """
    tables = [np.asarray(table) for table in labels]
    points = [_positions(np.asarray(rows, np.float64), relative) for rows in times]
    if not tables or len(tables) != len(points):
        raise ValueError(f"{len(tables)} training videos have labels, {len(points)} have times")
    longest = 1.0 if relative else max(float(rows.max(initial=0)) for rows in points) * (1 + 1e-9)
    scale = bins / longest if longest > 0 else 0.0
    labels_NC = np.concatenate(tables)
    place_N = np.minimum((np.concatenate(points) * scale).astype(np.intp), bins - 1)
    positives_GC, known_GC = np.zeros((2, bins, labels_NC.shape[1]))
    np.add.at(positives_GC, place_N, labels_NC == 1)
    np.add.at(known_GC, place_N, labels_NC >= 0)
    overall_C = positives_GC.sum(axis=0) / np.maximum(known_GC.sum(axis=0), 1)
    share_GC = (positives_GC + overall_C) / (known_GC + 1)
    asked_N = (_positions(np.asarray(wanted, np.float64), relative) * scale).astype(np.intp)
    scores_NC: NDArray[np.float64] = share_GC[np.clip(asked_N, 0, bins - 1)]
    return scores_NC


def _positions(times: NDArray[np.float64], relative: bool) -> NDArray[np.float64]:
    """(T,) centres of rows, in seconds or as shares of the end of the last row."""
    centres: NDArray[np.float64] = times.mean(axis=1)
    return centres / times[-1, 1] if relative and len(times) else centres
