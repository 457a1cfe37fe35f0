"""From predictions of anybody and labels to a number under a named protocol; no torch.

Scores and labels meet by the times of the rows, and by the names of the classes.

Shape letters: N rows of all videos, C classes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np
from numpy.typing import NDArray

from heads import metrics
from heads.answers import label_columns, read_answers, window_set, with_missing
from heads.coverage import Coverage, choose_split, column_names, cover, require_covered
from heads.detections import read_detections
from heads.grids import find_grid
from heads.metrics_bootstrap import Counts, Interval, draw_videos
from heads.metrics_conditional import Window
from heads.metrics_detection import TIOUS
from heads.prediction_files import open_predictions
from heads.predictions import Level, Predictions
from heads.protocols import (
    PROTOCOLS,
    Answers,
    Detections,
    Protocol,
    ScoringError,
    Threshold,
    conditional,
    detection,
    with_threshold,
)
from heads.report import Report, number, with_interval
from stores.label_files import read_labels
from stores.labels import Boundary, LabelAt, Labels
from stores.names import printable

CONDITIONAL: Mapping[str, Window] = {"action-conditional": "paper", "action-conditional-official": "official"}
LEVEL_PROTOCOLS: Mapping[Level, str] = {"row": "frame-map", "video": "video-map", "segment": "detection"}
MAX_JSON = 1 << 30  # bytes of a run's labels.json


@dataclass(frozen=True)
class Question:
    """What to score, and how; None takes what the prediction or the labels say."""

    labels: Path | None = None
    classes: Path | None = None  # names of the labels' classes, and of columns that have none
    split: str | None = None  # train, val, test, another subset of the labels, or all; None: see `score_store`
    protocol: str | None = None
    label_at: LabelAt | None = None
    boundary: Boundary | None = None
    allow_missing: bool = False
    taus: tuple[int, ...] = ()  # of the action-conditional protocols; none: 0
    resamples: int = 0  # of the bootstrap over videos; 0: none
    seed: int = 0  # of the bootstrap
    fps: float | None = None  # rows a second, for predictions that do not say where their rows lie
    rows_of: Path | None = None  # STORE or STORE:SET whose rows those are
    common_with: tuple[Path, ...] = ()  # other predictions: only videos that all of them score
    threshold: Threshold | None = None  # from which probability on a class is predicted
    tuned_on: str = ""  # where that is from
    tious: tuple[float, ...] = ()  # of detection; none: 0.1 to 0.9
    segments_from_rows: float | None = None  # detection: runs of rows from this score on
    allow_constant: bool = True  # warn of scores that rank nothing; the command refuses them unless told


def label_options(label_at: str | None, boundary: str | None) -> tuple[LabelAt | None, Boundary | None]:
    """The two options about labels, if they have values that there are."""
    for option, value, allowed in (
        ("--label-at", label_at, get_args(LabelAt)),
        ("--boundary", boundary, get_args(Boundary)),
    ):
        if value is not None and value not in allowed:
            raise ScoringError(f"{option} is {', '.join(allowed)}, not '{printable(value)}'.")
    return cast("LabelAt | None", label_at), cast("Boundary | None", boundary)


def score_store(path: Path, question: Question) -> Report:
    """Score the store or file at `path`: the split that was predicted, or else the test videos of the labels.

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
    with open_predictions(path) as predictions:
        return _score(predictions, question)


def held_videos(path: Path) -> list[str]:
    """The ids of the videos that have scores there."""
    with open_predictions(path) as predictions:
        return list(predictions)


def videos_to_score(path: Path, question: Question) -> list[str]:
    """Ids, in the labels, of the videos that the question is about and that have scores."""
    with open_predictions(path) as predictions:
        _, coverage = _covered(predictions, read_their_labels(path, predictions.facts, question), question)
    return list(coverage.pairs.values())


def _covered(predictions: Predictions, labels: Labels, question: Question) -> tuple[str, Coverage]:
    split = choose_split(labels, predictions, question.split)
    others = [held_videos(other) for other in question.common_with]
    own = question.labels is not None
    return split, cover(predictions, labels, split, own_labels=own, common_with=others)


def _score(predictions: Predictions, question: Question) -> Scored:
    path, facts = predictions.path, predictions.facts
    labels = read_their_labels(path, facts, question)
    name, protocol = _protocol(question, predictions)
    at: LabelAt = question.label_at or facts.get("label_at") or labels.label_at
    boundary: Boundary = question.boundary or facts.get("boundary") or "strict"
    split, coverage = _covered(predictions, labels, question)
    require_covered(predictions, coverage, split, allow_missing=question.allow_missing)
    pairs, missing = coverage.pairs, coverage.missing
    classes, named = column_names(predictions, labels, question.classes)
    grid = find_grid(predictions, protocol, name, question.fps, question.rows_of, question.label_at)
    notes = [note for note in (named, grid.text if grid else "") if note]
    warnings = list(predictions.notes)
    if (question.fps is not None or question.rows_of is not None) and not (grid and grid.told):
        warnings.append("--fps and --rows-of were not used: the file or the protocol says where its rows lie")
    answers: Answers
    if protocol.level == "segment":
        tious, rule = question.tious or TIOUS, question.segments_from_rows
        answers, told = read_detections(predictions, classes, labels, pairs, missing, grid, rule, tious)
        warnings += told
    else:
        windows = None
        if protocol.rows == "windows":
            if predictions.store is None:
                raise ScoringError(f"{name} needs the scores of every window, which only stores of vl hold.")
            windows = window_set(path, predictions.store, name)
        columns = label_columns(classes, labels, pairs.values())
        answers = read_answers(predictions, classes, windows, labels, pairs, columns, protocol, grid, at, boundary)
        if protocol.rows == "points":
            answers = with_missing(answers, labels, missing, columns)
        _require_fit(name, protocol, *answers.pooled)
        if not predictions.partial:  # of which most classes are unlisted in most videos
            warnings += constant_scores(answers, allowed=question.allow_constant)
    if question.threshold is not None:
        absent = [
            known for known in classes if not isinstance(question.threshold, float) and known not in question.threshold
        ]
        if absent:
            raise ScoringError(f"no threshold was tuned for the class '{printable(absent[0])}'.")
    values = protocol.measure(answers)
    notes += [*_common_notes(question, coverage), *filter(None, [question.tuned_on])]
    report = Report(
        path=path,
        protocol=name,
        text=protocol.text,
        values=values,
        chance=_chance(answers.pooled[1], masked=name == "charades-video-map") if protocol.chance else None,
        taken=_taken(protocol, at, boundary, question),
        split=split,
        scored=len(pairs),
        missing=missing,
        extra=len(coverage.extra),
        rows=answers.num_rows,
        classes=answers.classes,
        positives=tuple(int(count) for count in answers.positives),
        average_precision=tuple(number(value) for value in answers.average_precision),
        random_weights=bool(facts.get("random_weights") or predictions.random_weights),
        warnings=(*_seen_in_training(split, facts), *warnings),
        kind=predictions.kind,
        notes=tuple(notes),
        unknown=coverage.unknown,
        columns=_class_columns(answers, question),
    )
    if question.resamples:
        values_R = protocol.resample(answers, draw(answers, question))
        report = with_interval(report, Interval.of(values_R, len(answers.videos)))
    return Scored(report, protocol, answers)


def _common_notes(question: Question, coverage: Coverage) -> list[str]:
    if not question.common_with:
        return []
    others = " and ".join(printable(other) for other in question.common_with)
    return [f"only the {len(coverage.pairs)} videos that {others} scores too; {coverage.left_out} left out"]


def _class_columns(answers: Answers, question: Question) -> dict[str, tuple[float | None, ...]]:
    """What the table of classes holds besides the AP."""
    if isinstance(answers, Detections):
        rows = zip(answers.tious, answers.precision_KC, strict=True)
        return {f"ap_{tiou:g}": tuple(number(value) for value in values) for tiou, values in rows}
    if isinstance(question.threshold, Mapping):
        return {"threshold": tuple(question.threshold[name] for name in answers.classes)}
    return {}


def draw(answers: Answers, question: Question) -> Counts:
    """How often each video is drawn; the same for the same number of videos."""
    if len(answers.videos) < 2:
        raise ScoringError("a bootstrap draws videos, and there is only one. Score it without --bootstrap.")
    return draw_videos(len(answers.videos), question.resamples, question.seed)


def read_their_labels(path: Path, prediction: Mapping[str, Any], question: Question) -> Labels:
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


def _protocol(question: Question, predictions: Predictions) -> tuple[str, Protocol]:
    level = predictions.level
    name = question.protocol or predictions.protocol or LEVEL_PROTOCOLS[level]
    if name not in PROTOCOLS:
        raise ScoringError(f"there is no protocol '{printable(name)}'. There are: {', '.join(PROTOCOLS)}.")
    wanted = PROTOCOLS[name].level
    if level == "segment" and wanted != "segment":
        raise ScoringError(f"{name} needs scores of {wanted}s, but these are segments. Try --protocol detection.")
    if level == "video" and wanted != "video":
        raise ScoringError(
            f"{name} needs scores of {wanted}s, but these are of whole videos. Try --protocol video-map."
        )
    if question.taus and name not in CONDITIONAL:
        raise ScoringError(f"--tau is for --protocol action-conditional; {name} has none.")
    if name != "detection" and (question.tious or question.segments_from_rows is not None):
        raise ScoringError(f"--tiou and --segments-from-rows are for --protocol detection; {name} has none.")
    if question.threshold is not None:
        return name, with_threshold(name, question.threshold, question.taus, CONDITIONAL)
    if question.tious:
        return name, detection(question.tious)
    return name, conditional(question.taus, CONDITIONAL[name]) if question.taus else PROTOCOLS[name]


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


def _taken(protocol: Protocol, at: LabelAt, boundary: Boundary, question: Question) -> str:
    if protocol.level == "segment":
        rule = question.segments_from_rows
        made = "" if rule is None else f"; segments are runs of rows from {rule:g} on, scored by their mean"
        return f"as segments{made}"
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


def constant_scores(answers: Answers, *, allowed: bool) -> tuple[str, ...]:
    """Warnings of scores that rank nothing: classes with one score in all rows, videos with one for all classes.

    Raises:
        ScoringError: there are some and they are not allowed.
    """
    scores_NC, classes = answers.pooled[0], answers.classes
    found = []
    if len(scores_NC) > 1:
        constant_C = (scores_NC == scores_NC[0]).all(axis=0)
        if constant_C.all():
            found.append("all rows have the same scores: nothing was learned, or nothing was predicted")
        elif constant_C.any():
            names = [printable(name) for name, constant in zip(classes, constant_C, strict=True) if constant]
            found.append(f"{len(names)} classes have one score in all rows: {', '.join(names[:5])}")
    if len(classes) > 1 and not found:
        tables = zip(answers.videos, answers.scores, strict=True)
        same = [video for video, table in tables if (table == table.flat[0]).all() and np.isfinite(table.flat[0])]
        if same:
            shown = ", ".join(f"'{printable(video)}'" for video in same[:5])
            found.append(f"{len(same)} videos have one score for all classes and rows: {shown}")
    if found and not allowed:
        raise ScoringError(f"{found[0]}. Predict again, or give --allow-constant to score them as they are.")
    return tuple(found)
