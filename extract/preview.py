"""Top classes of one clip in the middle of the first few videos, so that one sees that the weights live."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from extract.class_names import top_classes
from extract.extractors import Network, on_device
from extract.flow import whole_flow
from extract.tiling import repeat_last_frame
from extract.transform import resize_short

TopClasses = list[tuple[str, float]]


class Preview:
    """Collects the frames of one window around the middle of each of the first `videos` videos."""

    def __init__(self, videos: int) -> None:
        self.left = videos
        self.waiting: dict[str, list[tuple[Network, float, list[Tensor]]]] = {}

    def start(self, video: str, duration: float, networks: Sequence[Network]) -> None:
        """A video begins; it is shown if fewer were so far than were asked for."""
        shown = [network for network in networks if network.backbone.class_list is not None]
        if not self.left or not shown:
            return
        self.left -= 1
        self.waiting[video] = []
        for network in shown:
            seconds = network.backbone.clip.window / (network.fps or 25.0)
            self.waiting[video].append((network, max(0.0, (duration - seconds) / 2), []))

    def forget(self, video: str) -> None:
        """The video failed: the next one is shown in its place."""
        if self.waiting.pop(video, None) is not None:
            self.left += 1

    def take(
        self, video: str, fps: float | None, frames: Tensor, times: NDArray[np.float64]
    ) -> Iterator[tuple[Network, TopClasses]]:
        """Frames (T, H, W, 3) of a video at one rate; gives the classes of each network whose window is full."""
        for entry in list(self.waiting.get(video, [])):
            network, start, held = entry
            if network.fps != fps:
                continue
            window = network.backbone.clip.window
            wanted = np.flatnonzero(times[:, 1] > start)[: window - sum(map(len, held))]
            if len(wanted):
                held.append(kept(frames[wanted[0] : wanted[-1] + 1], network))
            if sum(map(len, held)) == window:
                self.waiting[video].remove(entry)
                yield network, self.classes(network, torch.cat(held))

    def finish(self, video: str) -> Iterator[tuple[Network, TopClasses]]:
        """The video ended: a window that is not full is filled up with its last frame."""
        for network, _, held in self.waiting.pop(video, []):
            if held:
                clip = repeat_last_frame(torch.cat(held), network.backbone.clip.window)
                yield network, self.classes(network, clip)

    def classes(self, network: Network, frames: Tensor) -> TopClasses:
        if network.flow is not None:
            flow = whole_flow(network.flow.method, frames, network.backbone.clip.resize)
            frames = on_device(flow, network)
        name = network.backbone.class_list
        assert name is not None
        return top_classes(network.classify(frames.unsqueeze(0))[0], name)


def kept(frames: Tensor, network: Network) -> Tensor:
    """What is held of frames (T, H, W, 3) until the window is full, in memory of its own: flow needs whole frames."""
    if network.flow is None:
        return on_device(frames, network)
    return resize_short(frames, network.backbone.clip.resize).clone()
