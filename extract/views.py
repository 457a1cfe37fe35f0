"""Clip-sampled sets: a fixed number of clips of a video, at several speeds, each seen in one or three crops.

A clip of n frames at speed r is every r-th frame of (n - 1) r + 1 frames in a row. Of a video of L frames, the k-th
of K clips starts at round(k (L - length) / (K - 1)), a single one at round((L - length) / 2), halves going to the
even number; frames before the first count as the first, frames behind the last as the last. So the first clip begins
with the video and the last one ends with it, also where the video is shorter than a clip.

L is what the whole video gives at the network's rate. The packets announce it before anything is decoded; a video that
gives another number in the end is decoded again with that one. Workers import this: no torch and no stores here.

Source: the 30-view test of Zhang et al., "Multi-Label Activity Recognition using Activity-specific Features and
Activity Correlations", CVPR 2021, with the three crops of Feichtenhofer et al., "SlowFast Networks", ICCV 2019.

Shape letters: L frames of a video, K clips, n frames of a clip, U frames that some clip wants.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Views:
    """The clips and crops of one speed."""

    speed: int = 1  # r: a clip has every r-th frame
    clips: int = 1  # K
    crops: int = 1  # 1: the centre; 3: the two ends and the centre of the longer side

    @property
    def name(self) -> str:
        """As the spec has it: clips x crops.

        >>> Views(4, clips=10, crops=3).name
        '10x3'
        """
        return f"{self.clips}x{self.crops}"

    def starts(self, num_frames: int, window: int) -> NDArray[np.int64]:
        """(K,) first frames of the clips; below 0 where the video is shorter than a clip.

        >>> Views(4, clips=4).starts(200, window=32), Views(4).starts(200, window=32)
        (array([ 0, 25, 50, 75]), array([38]))
        """
        free = num_frames - ((window - 1) * self.speed + 1)
        if self.clips == 1:
            return np.array([round(free / 2)])
        return np.array([round(clip * free / (self.clips - 1)) for clip in range(self.clips)])

    def frames(self, num_frames: int, window: int) -> NDArray[np.int64]:
        """(K, n) numbers of the frames of every clip, in a video of `num_frames`, at least one."""
        assert num_frames > 0, "a video without frames has no clips"
        steps = np.arange(window) * self.speed
        numbers: NDArray[np.int64] = np.clip(self.starts(num_frames, window)[:, None] + steps, 0, num_frames - 1)
        return numbers


@dataclass(frozen=True)
class Clips:
    """The clips of one network: what a worker must know to hand over their frames alone."""

    views: Views
    window: int  # n

    def frames(self, num_frames: int) -> NDArray[np.int64]:
        """(K, n) numbers of the frames of every clip."""
        return self.views.frames(num_frames, self.window)


def wanted_frames(clips: Sequence[Clips], num_frames: int) -> NDArray[np.int64]:
    """(U,) numbers of the frames that any of these clips has, ascending; none of a video without frames."""
    if not num_frames:
        return np.zeros(0, np.int64)
    return np.unique(np.concatenate([part.frames(num_frames).ravel() for part in clips]))
