"""Rows of the clips of one video, for a network with views: the frames that no clip still needs are forgotten.

A frame is held as its crops alone, so that memory is bounded by the clips under way, however long the video is and
whatever its shape.

Shape letters: K crops, T or n frames of a clip, H height, W width, B samples, R rows a sample, U wanted frames.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from extract.extractors import NamedRows, Network, Pending
from extract.transform import resize_and_crops


class _Frame(NamedTuple):
    crops: Tensor  # (K, crop, crop, 3)
    start: float  # seconds
    end: float


class _Sample(NamedTuple):
    """One clip in one crop, ready for the network."""

    frames: Tensor  # (n, crop, crop, 3)
    edges: NDArray[np.float64]  # (n, 2) seconds of every frame


class SampledRows:
    """Takes the wanted frames of one video in order and gives the rows of its samples: by clip, then by crop."""

    def __init__(self, network: Network) -> None:
        assert network.views is not None, "dense networks have rows of their own"
        self.network = network
        self.views = network.views
        self.pending = Pending(network)
        self._frames: dict[int, _Frame] = {}  # those that a clip under way has, by their number
        self._clips: list[list[int]] = []  # frame numbers of the clips that are not complete, in order
        self._coming: list[int] = []  # numbers of the frames that are still to come, the next one last
        self._samples: list[_Sample] = []

    def begin(self, num_frames: int, wanted: NDArray[np.int64]) -> None:
        """The video has so many frames, of which those of the numbers `wanted` (U,) will be pushed."""
        if num_frames:
            self._clips = self.views.frames(num_frames, self.network.window).tolist()
        self._coming = wanted.tolist()[::-1]

    def push(self, frames: Tensor, times: NDArray[np.float64]) -> NamedRows:
        """(T, H, W, 3) uint8 upright frames and their (T, 2) seconds; the memory is not kept."""
        numbers = [self._coming.pop() for _ in range(len(frames))]
        needed = {number for clip in self._clips for number in clip}
        kept = [place for place, number in enumerate(numbers) if number in needed]
        if not kept:
            return  # frames of the clips of another speed
        crops_KTHW3 = self._crops(frames[kept])
        for index, place in enumerate(kept):
            self._frames[numbers[place]] = _Frame(crops_KTHW3[:, index], *times[place].tolist())
        while self._clips and self._clips[0][-1] <= numbers[kept[-1]]:
            yield from self._take(self._clips.pop(0))
        needed = {number for clip in self._clips for number in clip}
        self._frames = {number: frame for number, frame in self._frames.items() if number in needed}

    def finish(self) -> NamedRows:
        """The rows that were still under way."""
        assert not self._clips, f"{len(self._clips)} clips have not got all their frames"
        if self._samples:
            yield from self._run()
        yield from self.pending.drain()

    def _crops(self, frames: Tensor) -> Tensor:
        """(K, T, crop, crop, 3) on the network's device, in memory of its own."""
        clip, device = self.network.backbone.clip, self.network.device
        if device.type == "cuda":
            frames = frames.pin_memory().to(device, non_blocking=True)
        return resize_and_crops(frames, clip.resize, clip.crop, self.views.crops)

    def _take(self, clip: list[int]) -> NamedRows:
        """The samples of a clip whose frames are all there."""
        frames = [self._frames[number] for number in clip]
        edges = np.array([(frame.start, frame.end) for frame in frames])
        for frames_THW3 in torch.stack([frame.crops for frame in frames], dim=1):
            self._samples.append(_Sample(frames_THW3, edges))
            if len(self._samples) == self.network.batch:
                yield from self._run()

    def _run(self) -> NamedRows:
        samples, self._samples = self._samples, []
        given = self.network.run(torch.stack([sample.frames for sample in samples]))
        rows, times = {}, {}
        for level, x_BR in given.items():
            name = self.network.sets[level]
            rows[name] = x_BR.flatten(0, 1)
            times[name] = np.concatenate([row_times(sample.edges, x_BR.shape[1]) for sample in samples])
        yield from self.pending.add(rows, times)


def row_times(edges: NDArray[np.float64], rows: int) -> NDArray[np.float64]:
    """(rows, 2) seconds of a clip's rows: each lasts from its first frame to the first of the next row.

    The last one ends with the last frame, and so does a row behind the end of the video, where that one is repeated.

    >>> row_times(np.array([[0.0, 0.1], [0.4, 0.5], [0.8, 0.9], [1.2, 1.3]]), 2).tolist()
    [[0.0, 0.8], [0.8, 1.3]]
    """
    starts = edges[:: len(edges) // rows, 0]
    lasts = edges[len(edges) // rows - 1 :: len(edges) // rows, 1]
    return np.stack([starts, np.maximum(lasts, np.append(starts[1:], lasts[-1]))], axis=1)
