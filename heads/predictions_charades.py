"""The submission texts of the Charades challenge: numbers with spaces between them, no header.

    ID v0 v1 .. v156              classification: one line a video
    ID FRAME v0 v1 .. v156        localisation: frames 1 to 25 of every video, at (FRAME - 1) / 25 of its duration

Source: the README and evaluation code of the Charades data set (Charades_v1_classify.m, Charades_v1_localize.m).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from heads.metrics import CHARADES_POINTS
from heads.predictions import PredictionError, Predictions, TablePredictions, require_finite
from heads.predictions_csv import read_numbers
from stores.names import printable

NUM_CLASSES = 157


def read_charades(path: Path, width: int) -> Predictions:
    """The predictions in a submission of `width` words a line.

    Raises:
        PredictionError: a line is not sound, a video stands there twice, or frames are missing.
    """
    localised = width == NUM_CLASSES + 2
    (ids,), numbers = read_numbers(path, r"\s+", {0}, width, header=False)
    order = np.argsort(ids, kind="stable")
    videos, first = np.unique(ids[order], return_index=True)
    tables = {}
    for video, rows in zip(videos.tolist(), np.split(order, first[1:]), strict=True):
        table = numbers[rows]
        require_finite(path, f"'{printable(video)}'", table)
        if not localised and len(rows) > 1:
            raise PredictionError(
                f"{printable(path)} has '{printable(video)}' {len(rows)} times. Keep one line a video."
            )
        if localised:
            frames = table[:, 0]
            if sorted(frames.tolist()) != list(range(1, CHARADES_POINTS + 1)):
                shown = ", ".join(f"{frame:g}" for frame in sorted(frames.tolist())[:30])
                raise PredictionError(
                    f"{printable(path)}: '{printable(video)}' has the frames {shown}; each of 1 to {CHARADES_POINTS} "
                    "belongs there once."
                )
            table = table[np.argsort(frames), 1:]
        tables[video] = table
    return TablePredictions(
        path,
        f"Charades {'localisation' if localised else 'classification'} submission",
        "row" if localised else "video",
        NUM_CLASSES,
        coded=True,
        times="points" if localised else "none",
        protocol="charades-localize-map" if localised else None,
        tables=tables,
    )
