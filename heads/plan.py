"""Which rows of which videos make up each batch: random crops to learn from, covering windows to score with.

A plan is made whole, from the seed and the number of the epoch alone, so that a run that was cut off goes on
with the very batches it had not seen.

Shape letters: B windows of a batch, P windows of a plan, V videos.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

LENGTH_STEP = 16  # variable lengths are multiples of it
SORTED_BATCHES = 8  # whole videos are sorted by length within this many batches, against padding
ROWS_AT_ONCE = 65_536  # whole videos scored in one batch hold at most this many rows, unless one video has more


class Crops(NamedTuple):
    """The windows of one batch: `length` rows from `start_B` on, fewer where the video ends before."""

    video_B: NDArray[np.int64]  # index among the videos that were given
    start_B: NDArray[np.int64]  # row
    length: int


def training_crops(
    rows_V: NDArray[np.int64],
    videos: Sequence[int],
    *,
    window: int,
    batch_size: int,
    seed: int,
    epoch: int,
    variable_length: bool = False,
) -> list[Crops]:
    """One epoch of random crops, as many of a video as it takes windows to cover it, so that long videos count.

    Args:
        rows_V: number of rows of every video.
        videos: indices of those to learn from.
        window: T, rows of a crop; its start is uniform among 0 .. rows - T, both included.
        variable_length: a batch keeps the first L rows of its crops, L uniform among 16, 32, .. T.

    Source: MLAD, section 4.1 (variable lengths); its authors' code draws one crop a video and epoch.
    """
    random = np.random.default_rng([seed, epoch])
    chosen = np.asarray(videos, np.int64)
    chosen = chosen[rows_V[chosen] > 0]
    video_P = random.permutation(np.repeat(chosen, -(-rows_V[chosen] // window)))
    start_P = random.integers(0, np.maximum(rows_V[video_P] - window, 0), endpoint=True)
    lengths = [*range(LENGTH_STEP, window, LENGTH_STEP), window]
    plan = []
    for first in range(0, len(video_P), batch_size):
        part = slice(first, first + batch_size)
        length = int(random.choice(lengths)) if variable_length else window
        plan.append(_crops(rows_V, video_P[part], start_P[part], length))
    return plan


def training_videos(
    rows_V: NDArray[np.int64], videos: Sequence[int], *, batch_size: int, seed: int, epoch: int
) -> list[Crops]:
    """One epoch of whole videos, each once; a batch holds videos of similar length, in random order of batches."""
    random = np.random.default_rng([seed, epoch])
    chosen = np.asarray(videos, np.int64)
    order_P = random.permutation(chosen[rows_V[chosen] > 0])
    pool = SORTED_BATCHES * batch_size
    batches = []
    for first in range(0, len(order_P), pool):
        part = order_P[first : first + pool]
        part = part[np.argsort(rows_V[part], kind="stable")]
        batches += [part[at : at + batch_size] for at in range(0, len(part), batch_size)]
    return [_whole(rows_V, batches[index]) for index in random.permutation(len(batches))]


def window_starts(rows: int, window: int, stride: int) -> NDArray[np.int64]:
    """Starts of windows, every `stride` rows, that together cover every row; the last one ends with the video.

    >>> window_starts(10, 4, 3).tolist(), window_starts(11, 4, 3).tolist(), window_starts(3, 4, 3).tolist()
    ([0, 3, 6], [0, 3, 6, 7], [0])
    """
    assert 0 < stride <= window, "windows further apart than long leave rows out"
    last = max(rows - window, 0)
    return np.unique(np.append(np.arange(0, last + 1, stride), last))


def slide_starts(rows: int, window: int, stride: int) -> NDArray[np.int64]:
    """Starts of the windows of MLAD's slide mode, which go on past the end of the video by up to `stride` steps.

    The video is thought of as longer by 1 to `stride` padded steps, to a multiple of `stride` (a shorter one than
    the window: to the window); windows that end by then and hold a real row are taken. Source: val_epoch of the
    authors' code.

    >>> slide_starts(8, 4, 2).tolist(), slide_starts(9, 4, 2).tolist(), slide_starts(3, 4, 2).tolist()
    ([0, 2, 4, 6], [0, 2, 4, 6], [0])
    """
    padded = window if rows < window else (rows // stride + 1) * stride
    return np.arange(0, min(padded - window + 1, rows), stride)


def sliding_windows(
    rows_V: NDArray[np.int64], videos: Sequence[int], *, window: int, stride: int, batch_size: int
) -> list[Crops]:
    """The windows of MLAD's slide mode, all of full length, so that their padded steps are scored like the others."""
    starts = {video: slide_starts(int(rows_V[video]), window, stride) for video in videos if rows_V[video]}
    if not starts:
        return []
    video_P = np.repeat(np.array([*starts], np.int64), [len(at) for at in starts.values()])
    start_P = np.concatenate([*starts.values()])
    batches = (slice(first, first + batch_size) for first in range(0, len(video_P), batch_size))
    return [Crops(video_P[part], start_P[part], window) for part in batches]


def covering_windows(
    rows_V: NDArray[np.int64], videos: Sequence[int], *, window: int, stride: int, batch_size: int
) -> list[Crops]:
    """Windows that cover every row of the videos; shorter videos first, the windows of one video in a row."""
    videos_P, starts_P = [], []
    for video in sorted(videos, key=lambda index: int(rows_V[index])):
        if rows_V[video]:
            starts = window_starts(int(rows_V[video]), window, stride)
            starts_P.append(starts)
            videos_P.append(np.full(len(starts), video, np.int64))
    if not videos_P:
        return []
    video_P, start_P = np.concatenate(videos_P), np.concatenate(starts_P)
    return [
        _crops(rows_V, video_P[first : first + batch_size], start_P[first : first + batch_size], window)
        for first in range(0, len(video_P), batch_size)
    ]


def whole_videos(rows_V: NDArray[np.int64], videos: Sequence[int], *, batch_size: int) -> list[Crops]:
    """Every video once and whole, shorter ones first."""
    plan: list[Crops] = []
    batch: list[int] = []
    for video in sorted((video for video in videos if rows_V[video]), key=lambda index: int(rows_V[index])):
        full = len(batch) == batch_size or (len(batch) + 1) * int(rows_V[video]) > ROWS_AT_ONCE
        if batch and full:
            plan.append(_whole(rows_V, np.array(batch, np.int64)))
            batch = []
        batch.append(video)
    return [*plan, _whole(rows_V, np.array(batch, np.int64))] if batch else plan


def _crops(rows_V: NDArray[np.int64], video_B: NDArray[np.int64], start_B: NDArray[np.int64], length: int) -> Crops:
    """No longer than the longest of its windows has rows: the rest would be padding alone."""
    return Crops(video_B, start_B, min(length, int((rows_V[video_B] - start_B).max())))


def _whole(rows_V: NDArray[np.int64], video_B: NDArray[np.int64]) -> Crops:
    return Crops(video_B, np.zeros(len(video_B), np.int64), int(rows_V[video_B].max()))
