"""A trained head over stored rows: overlapping windows averaged after the sigmoid, each real row once.

Of clip-sampled sets all views of a video make one score.

Shape letters: B windows, N rows, C classes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from heads.head import HeadError
from heads.options import Precision
from heads.plan import Crops, covering_windows, sliding_windows, whole_videos
from heads.samples import SampledWindows, ViewScores
from heads.standardise import Model
from heads.windows import Windows
from stores.names import printable


@dataclass(frozen=True)
class Reading:
    """How rows are cut into windows for scoring."""

    level: Literal["row", "video"]
    window: int  # rows; a video head sees whole videos
    stride: int  # rows from one window to the next
    batch_size: int
    precision: Precision = "fp32"

    def plan(self, windows: Windows, videos: Sequence[int]) -> list[Crops]:
        """Batches that cover the videos."""
        if self.level == "video":
            return whole_videos(windows.rows_V, videos, batch_size=self.batch_size)
        stride = min(self.stride, self.window)
        return covering_windows(windows.rows_V, videos, window=self.window, stride=stride, batch_size=self.batch_size)


def autocast(device: torch.device, precision: str) -> torch.autocast | nullcontext[None]:
    """What a forward pass runs under: bfloat16 where asked, else as it is."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext()


def score_videos(
    model: Model, windows: Windows | SampledWindows, videos: Sequence[int], reading: Reading
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Probabilities of each video as soon as its last window is done: (N, C) of a row head, (1, C) of a video head.

    Args:
        model: is put into evaluation mode.
        videos: indices into `windows.videos`; one without rows gives nothing.

    Raises:
        HeadError: a score is no number.
    """
    if isinstance(windows, SampledWindows):
        yield from score_samples(model, windows, videos, reading)
        return
    plan = reading.plan(windows, videos)
    left = Counter(int(video) for crops in plan for video in crops.video_B)
    sums: dict[int, NDArray[np.float64]] = {}
    counts: dict[int, NDArray[np.int64]] = {}
    model.eval()
    for crops, batch in zip(plan, windows.batches(plan), strict=True):
        with torch.inference_mode(), autocast(windows.device, reading.precision):
            probabilities = model(batch).probabilities().cpu().numpy()
        for video, start, of_window in zip(crops.video_B.tolist(), crops.start_B.tolist(), probabilities, strict=True):
            if reading.level == "video":
                yield video, _finite(of_window[None], windows.videos[video])
                continue
            rows = int(windows.rows_V[video])
            if video not in sums:
                sums[video], counts[video] = np.zeros((rows, of_window.shape[-1])), np.zeros(rows, np.int64)
            stop = min(start + crops.length, rows)
            sums[video][start:stop] += of_window[: stop - start]
            counts[video][start:stop] += 1
            left[video] -= 1
            if not left[video]:
                mean = sums.pop(video) / counts.pop(video)[:, None]
                yield video, _finite(mean.astype(np.float32), windows.videos[video])


def score_windows(
    model: Model, windows: Windows, videos: Sequence[int], reading: Reading
) -> Iterator[tuple[int, NDArray[np.float32], NDArray[np.int64]]]:
    """Probabilities that every window of MLAD's slide mode gives, padded steps among them, of each video in turn.

    Returns:
        Index of the video, (M, C) probabilities of all steps of all its windows, and (M,) the row of the video that
        each stands for, in rising order; a padded step has the number of rows, which no row has.

    Raises:
        HeadError: a score is no number.
    """
    assert reading.level == "row", "a head that scores whole videos has no windows"
    stride = min(reading.stride, reading.window)
    plan = sliding_windows(windows.rows_V, videos, window=reading.window, stride=stride, batch_size=reading.batch_size)
    left = Counter(int(video) for crops in plan for video in crops.video_B)
    parts: dict[int, list[tuple[NDArray[np.float32], NDArray[np.int64]]]] = {}
    model.eval()
    for crops, batch in zip(plan, windows.batches(plan), strict=True):
        with torch.inference_mode(), autocast(windows.device, reading.precision):
            probabilities = model(batch).probabilities().cpu().numpy()
        for video, start, of_window in zip(crops.video_B.tolist(), crops.start_B.tolist(), probabilities, strict=True):
            row_N = np.minimum(start + np.arange(crops.length), windows.rows_V[video])
            parts.setdefault(video, []).append((of_window, row_N))
            left[video] -= 1
            if not left[video]:
                scores, rows = (np.concatenate(kind) for kind in zip(*parts.pop(video), strict=True))
                order = np.argsort(rows, kind="stable")
                yield video, _finite(scores[order], windows.videos[video]), rows[order]


def score_samples(
    model: Model, windows: SampledWindows, videos: Sequence[int], reading: Reading
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """As `score_videos`, (1, C) from all views of a video together."""
    assert model.head.views is not None, "choose_sources gives such sets to heads that can use them"
    plan = windows.scoring_batches(videos, batch_size=reading.batch_size)
    of_crops = [windows.video_I[crops.video_B].tolist() for crops in plan]
    views = ViewScores(model.head.views, Counter(video for several in of_crops for video in several))
    model.eval()
    for several, batch in zip(of_crops, windows.batches(plan), strict=True):
        with torch.inference_mode(), autocast(windows.device, reading.precision):
            probabilities = model(batch).probabilities().cpu().numpy()
        for video, of_view in zip(several, probabilities, strict=True):
            whole = views.add(video, of_view)
            if whole is not None:
                yield video, _finite(whole, windows.videos[video])


def _finite(scores: NDArray[np.float32], video: str) -> NDArray[np.float32]:
    if not np.isfinite(scores).all():
        raise HeadError(f"the head gives '{printable(video)}' scores that are no numbers. Train it with a lower lr.")
    return scores
