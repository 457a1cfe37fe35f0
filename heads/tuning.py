"""Thresholds for each class, chosen on validation predictions and never on what is scored; no torch."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np

from heads.coverage import same_subset
from heads.metrics_thresholds import best_thresholds
from heads.prediction_files import open_predictions
from heads.protocols import PROTOCOLS, THRESHOLD, ScoringError
from heads.scoring import Question, read_their_labels, scored, videos_to_score
from stores.names import printable


def with_tuned_thresholds(question: Question, validation: Path, paths: Iterable[Path]) -> Question:
    """The question with the threshold of each class that gives the best F1 on validation predictions.

    All their videos that have labels count. A class without positives among them keeps 0.5.

    Args:
        question: as it will be asked of what is scored.
        validation: predictions for videos of validation.
        paths: what will be scored.

    Raises:
        ScoringError: the validation predictions are those that are scored, share videos with them, or are of test
            videos; the protocol has no thresholds; or the predictions cannot be scored under it.
    """
    name = question.protocol
    if name is None or name not in PROTOCOLS or not PROTOCOLS[name].thresholds:
        having = ", ".join(known for known, protocol in PROTOCOLS.items() if protocol.thresholds)
        raise ScoringError(f"--tune-thresholds-on is for --protocol {having}.")
    asked = replace(question, split="all", allow_missing=True, resamples=0, taus=(), common_with=())
    side = scored(validation, asked)
    tuned = set(side.answers.videos)
    _require_no_test(validation, asked, tuned)
    for path in paths:
        _require_apart(validation, path, question, tuned)
    values = best_thresholds(*side.answers.pooled)
    unseen = int(np.isnan(values).sum())
    kept = f"; {unseen} classes without positives there keep {THRESHOLD:g}" if unseen else ""
    return replace(
        question,
        threshold={
            known: THRESHOLD if np.isnan(value) else float(value)
            for known, value in zip(side.answers.classes, values.tolist(), strict=True)
        },
        tuned_on=f"thresholds tuned for F1 on {len(tuned)} videos of {printable(validation)}{kept}",
    )


def _require_no_test(validation: Path, question: Question, tuned: set[str]) -> None:
    """ScoringError if what thresholds were tuned on was predicted for test, or is test in the labels."""
    with open_predictions(validation) as predictions:
        labels = read_their_labels(validation, predictions.facts, question)
        split = str(predictions.facts.get("split") or "")
    subsets = {video: entry.subset for video, entry in labels.videos.items() if video in tuned}
    tested = sorted(video for video, subset in subsets.items() if subset and same_subset(subset, "test"))
    if split == "test" or tested:
        shown = f"'{printable(tested[0])}' is a test video" if tested else "they are of the split test"
        raise ScoringError(
            f"{printable(validation)} cannot set thresholds: {shown}. Tune on validation, never on test."
        )


def _require_apart(validation: Path, path: Path, question: Question, tuned: set[str]) -> None:
    """ScoringError if `path` holds the predictions, or scores for the videos, that thresholds were tuned on."""
    both = f"{printable(validation)} cannot set thresholds for {printable(path)}"
    files = validation.is_file() and path.is_file()
    if validation.resolve() == path.resolve() or (files and _digest(validation) == _digest(path)):
        raise ScoringError(f"{both}: they are the same predictions. Give predictions for validation videos.")
    if shared := sorted(tuned.intersection(videos_to_score(path, question))):
        raise ScoringError(
            f"{both}: {len(shared)} videos are in both, '{printable(shared[0])}' first. "
            "Give predictions for validation videos."
        )


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
