"""A feature set as a PyTorch Dataset of windows, for training loops other than this project's.

Shape letters: N rows of a window, D features, C classes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from heads.head import HeadError
from heads.plan import window_starts
from stores.alignment import dequantised
from stores.labels import Boundary, LabelAt, Labels, match_videos
from stores.spec import FeatureSet


class Window(NamedTuple):
    """Rows of one video, padded to the length that all windows have; batches stack each field."""

    features: Tensor  # (N, *row_shape) float32, zeros where there is no row
    mask: Tensor  # (N,) bool, true where there is a row
    times: Tensor  # (N, 2) float64 seconds
    labels: Tensor  # (N, C) int8: 0, 1 or -1 where nobody knows or there is no row; C is 0 without labels
    video: str


class WindowDataset(Dataset[Window]):
    """Windows that together cover every row of some videos; reads each from the store when it is asked for.

    Args:
        features: a dense set of a store.
        labels: of the same videos, matched by exact id, else by unique stem; None: windows have none.
        window: rows of a window.
        stride: rows from one window to the next; None: windows do not overlap but for the last one of a video.
        videos: ids of the set; None: all, with labels those that have some.
        label_at, boundary: as in `Labels.rows`.

    Raises:
        HeadError: a window or stride that cannot be, or a clip-sampled set, whose samples are no stretch of time.

    A store's files stay open across fork, so that a DataLoader may have workers.
    """

    def __init__(
        self,
        features: FeatureSet,
        labels: Labels | None = None,
        *,
        window: int,
        stride: int | None = None,
        videos: Iterable[str] | None = None,
        label_at: LabelAt | None = None,
        boundary: Boundary = "strict",
    ) -> None:
        stride = window if stride is None else stride
        if not 0 < stride <= window:
            raise HeadError(f"windows of {window} rows every {stride} do not cover a video. Give 0 < stride <= window.")
        if features.spec.view:
            raise HeadError(f"{features.name} is clip-sampled ({features.spec.view}): it has no windows of time.")
        self.features = features
        self.labels = labels
        self.window = window
        self.label_at = label_at
        self.boundary = boundary
        wanted = list(features if videos is None else videos)
        self.names = match_videos(wanted, labels.videos).pairs if labels is not None else {}
        kept = [video for video in wanted if labels is None or video in self.names]
        self.places = [
            (video, int(start))
            for video in kept
            for start in window_starts(features.entry(video).num_rows, window, stride)
        ]

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> Window:
        video, start = self.places[index]
        rows = self.features.read(video, start, start + self.window)
        count = len(rows.times)
        features = torch.zeros((self.window, *self.features.spec.row_shape))
        features[:count] = torch.from_numpy(dequantised(rows.features, self.features.spec))
        times = torch.zeros((self.window, 2), dtype=torch.float64)
        times[:count] = torch.from_numpy(rows.times)
        num_classes = len(self.labels.classes) if self.labels is not None else 0
        labels = torch.full((self.window, num_classes), -1, dtype=torch.int8)
        if self.labels is not None:
            every = self.features.times(video)  # the start grid counts rows of the whole video
            table = self.labels.rows(self.names[video], every, self.label_at, self.boundary)
            labels[:count] = torch.from_numpy(np.ascontiguousarray(table[start : start + count]))
        return Window(features, torch.arange(self.window) < count, times, labels, video)
