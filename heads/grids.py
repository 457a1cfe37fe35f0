"""Where rows of predictions lie in time: as their file says, or as the user does; never guessed. No torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from heads.metrics import CHARADES_POINTS
from heads.predictions import Predictions
from heads.protocols import Protocol, ScoringError
from stores import open_store
from stores.labels import LabelAt, match_videos
from stores.names import printable
from stores.spec import FeatureSet, FeatureStore

TimesOf = Callable[[str, int, float | None], NDArray[np.float64]]
"""From a video of the predictions, its number of rows and its duration to (T, 2) seconds."""


@dataclass(frozen=True)
class Grid:
    """Times for rows whose file gives none, and what was decided, for people."""

    text: str
    of: TimesOf
    points: bool = False  # the rows are Charades' 25 times
    told: bool = False  # by --fps or --rows-of


def find_grid(
    predictions: Predictions,
    protocol: Protocol,
    name: str,
    fps: float | None,
    rows_of: Path | None,
    at: LabelAt | None,
) -> Grid | None:
    """The grid of predictions without times; None where they have their own, or where time plays no part.

    Args:
        predictions: what is scored.
        protocol: the way of scoring.
        name: that of the protocol.
        fps: rows a second, if the user says so.
        rows_of: a store whose rows these are, `STORE` or `STORE:SET`, if the user says so.
        at: what the user asked of labels; `start` is a grid of its own, k * duration / rows.

    Raises:
        ScoringError: nobody says where the rows lie, or two say it.
    """
    if predictions.level != "row" or protocol.level == "video" or predictions.times == "own":
        return None
    if fps is not None and rows_of is not None:
        raise ScoringError("--fps and --rows-of both say where rows lie. Give one of them.")
    if predictions.times == "points":
        return Grid(f"rows at {CHARADES_POINTS} equally spaced times of every video", _equally_spaced, points=True)
    if fps is not None:
        return Grid(f"rows {fps:g} a second (--fps)", lambda _, rows, __: _steps(rows) / fps, told=True)
    if rows_of is not None:
        return _grid_of_store(predictions, rows_of)
    if protocol.rows == "points" and all(predictions.num_rows(video) == CHARADES_POINTS for video in predictions):
        text = f"{CHARADES_POINTS} rows a video, taken as the {CHARADES_POINTS} equally spaced times of {name}"
        return Grid(text, _equally_spaced, points=True)
    if at == "start":
        return Grid("row k at k * duration / rows (--label-at start)", _equally_spaced)
    raise ScoringError(
        f"{printable(predictions.path)} does not say where its rows lie in time. Give --fps F (rows a second), "
        "--rows-of STORE (of which these are the rows), or --label-at start (row k at k * duration / rows)."
    )


def _steps(rows: int) -> NDArray[np.float64]:
    """(T, 2) of a step of one each."""
    start = np.arange(rows, dtype=np.float64)
    return np.stack([start, start + 1], axis=1)


def _equally_spaced(video: str, rows: int, duration: float | None) -> NDArray[np.float64]:
    if duration is None:
        raise ScoringError(
            f"the labels of '{printable(video)}' have no duration, of which its rows are equal parts. Add the "
            "durations to the label file."
        )
    return _steps(rows) / rows * duration


def _grid_of_store(predictions: Predictions, rows_of: Path) -> Grid:
    path, set_name = rows_of, ""
    if not path.exists():
        before, colon, after = str(rows_of).rpartition(":")
        path, set_name = (Path(before), after) if colon else (rows_of, "")
    store = open_store(path)
    try:
        features = _one_set(path, store, set_name)
        pairs = match_videos(predictions, features).pairs
        times = {video: features.times(stored) for video, stored in pairs.items()}
    finally:
        store.close()

    def of(video: str, rows: int, _: float | None) -> NDArray[np.float64]:
        if video not in times:
            raise ScoringError(f"{printable(path)} has no rows of '{printable(video)}'. Give --fps, or another store.")
        if len(times[video]) != rows:
            raise ScoringError(
                f"'{printable(video)}' has {rows} rows of scores, but {len(times[video])} in {printable(path)}. "
                "--rows-of takes the store that the scores were made from."
            )
        return times[video]

    return Grid(f"rows as in {printable(rows_of)}", of, told=True)


def _one_set(path: Path, store: FeatureStore, name: str) -> FeatureSet:
    if name:
        return store[name]
    dense = [held for held in store if not store[held].spec.view]
    if len(dense) != 1:
        shown = ", ".join(sorted(store))
        raise ScoringError(
            f"{printable(path)} holds several sets of rows. Give --rows-of {printable(path)}:SET with one of {shown}."
        )
    return store[dense[0]]
