"""Rows of a network that sees optical flow: the frames of a video go in, and what moves between them is what it sees.

Shape letters: T frames, H height, W width.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from extract.extractors import ClipRows, NamedRows, Network, VideoRows
from extract.sampled_rows import SampledRows


class FlowRows:
    """Takes the frames of one video; its rows and their times are those that the frames themselves would have."""

    def __init__(self, network: Network, video: str) -> None:
        assert network.flow is not None, "this network sees frames"
        self.rows = SampledRows(network) if network.views is not None else ClipRows(network)
        self.motion = network.flow.method.start(network.backbone.clip.resize)
        folder = network.flow.images
        self.images = folder.start(video, network.fps) if folder is not None else None
        self.times: NDArray[np.float64] = np.zeros((0, 2))  # of the frames whose flow is not ready

    def begin(self, num_frames: int) -> None:
        """Clips of flow are of so many flow frames, all of which are computed: a clip has every r-th of them."""
        if isinstance(self.rows, SampledRows):
            self.rows.begin(num_frames, np.arange(num_frames))

    def push(self, frames: Tensor, times: NDArray[np.float64]) -> NamedRows:
        """(T, H, W, 3) uint8 upright frames and their (T, 2) seconds; the memory is not kept."""
        self.times = np.concatenate([self.times, times])
        for flow in self.motion.push(frames):
            yield from self._take(flow)

    def finish(self) -> NamedRows:
        """The rows that were still under way."""
        for flow in self.motion.finish():
            yield from self._take(flow)
        assert not len(self.times), f"{len(self.times)} frames have no flow"
        yield from self.rows.finish()
        if self.images is not None:
            self.images.finish()

    def _take(self, flow: Tensor) -> NamedRows:
        if self.images is not None:
            self.images.write(flow)
        times, self.times = self.times[: len(flow)], self.times[len(flow) :]
        yield from self.rows.push(flow, times)


def start_rows(network: Network, video: str) -> VideoRows:
    """What takes the frames of one video for a network."""
    if network.flow is not None:
        return FlowRows(network, video)
    return network.start() if network.views is None else SampledRows(network)
