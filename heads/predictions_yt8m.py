"""YouTube-8M's submission csv: `VideoId,LabelConfidencePairs`, with pairs as `17 0.91 23 0.5`, usually 20 a video."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from heads.predictions import MAX_CLASSES, PredictionError, Predictions, Table
from heads.predictions_csv import is_number, rows_of
from stores.names import printable
from stores.yt8m import NUM_CLASSES


@dataclass(eq=False)
class PairPredictions(Predictions):
    """Some classes of every video; what a video does not list is -inf, that is no prediction."""

    pairs: dict[str, tuple[NDArray[np.intp], NDArray[np.float64]]] = field(default_factory=dict)

    def __iter__(self):  # type: ignore[no-untyped-def]
        return iter(self.pairs)

    def num_rows(self, video: str) -> int:
        """One."""
        return 1

    def read(self, video: str) -> Table:
        """(1, C) confidences."""
        classes, scores = self.pairs[video]
        table = np.full((1, self.num_classes), -np.inf)
        table[0, classes] = scores
        return table, None


def read_yt8m(path: Path) -> Predictions:
    """The predictions in a submission.

    Raises:
        PredictionError: a row is not sound, or a video or one of its labels stands there twice.
    """
    pairs: dict[str, tuple[NDArray[np.intp], NDArray[np.float64]]] = {}
    highest = NUM_CLASSES - 1
    for number, fields in rows_of(path, ","):
        if number == 1:
            continue
        where = f"{printable(path)}, row {number}"
        words = fields[1].split() if len(fields) == 2 else []
        video = fields[0].strip()
        if not video or not words or len(words) % 2:
            raise PredictionError(f"{where}: not of the form 'VideoId,17 0.91 23 0.5'.")
        if video in pairs:
            raise PredictionError(f"{where}: the video '{printable(video)[:100]}' stands there twice.")
        labels = words[::2]
        if wrong := [word for word in labels if not (word.isascii() and word.isdecimal() and len(word) < 6)]:
            raise PredictionError(f"{where}: '{printable(wrong[0])[:40]}' is no number of a class.")
        if wrong := [word for word in words[1::2] if not is_number(word)]:
            raise PredictionError(f"{where}: the confidence '{printable(wrong[0])[:40]}' is no number.")
        classes, scores = np.array(labels, np.intp), np.array(words[1::2], np.float64)
        if len(np.unique(classes)) < len(classes):
            raise PredictionError(f"{where}: '{printable(video)[:100]}' has a class twice.")
        if classes.max() >= MAX_CLASSES:
            raise PredictionError(f"{where}: class {classes.max()} is over the {MAX_CLASSES} that are allowed.")
        highest = max(highest, int(classes.max()))
        pairs[video] = classes, scores
    if not pairs:
        raise PredictionError(f"{printable(path)} has no video.")
    if len({float(score) for _, scores in pairs.values() for score in (scores.min(), scores.max())}) == 1 < len(pairs):
        raise PredictionError(f"{printable(path)}: all confidences are the same: there is nothing to rank.")
    return PairPredictions(
        path,
        "YouTube-8M submission",
        "video",
        highest + 1,
        coded=True,
        times="none",
        partial=True,
        protocol="gap",
        pairs=pairs,
    )
