"""What knowing nothing but the time scores: a floor for every head; no torch.

Shape letters: T rows of one video, N rows of all, C classes, G positions on a grid.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray


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
