"""What the clips of a pass through a video are made of: its frames, their flow or its sound, in their places.

Shape letters: K clips, F different frames (or examples), H height, W width, S samples, J spectrogram frames, M mel
bands.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor

from extract.augment import Augment, View, augmented, erased, flow_view
from extract.backbone import ExampleBackbone
from extract.clip_layouts import Clip
from extract.clips import ClipSet, PictureSet, SoundSet
from extract.flow import Motion

Clips = tuple[Tensor, tuple[Tensor, ...], Tensor]
"""(F, H, W, 3) uint8 frames, (F, H, W, 2) flow, or (F, J, M) float32 examples of sound; K times (T,) which of them make
up each clip; and (K, 2) which of the rows that a clip gives are wanted, from and up to. On the CPU."""


@dataclass(frozen=True)
class SetPart:
    """What one set wants of a pass through a video: the clips of each of the pass's parts."""

    of: ClipSet
    clips: tuple[list[Clip], ...]
    numbers_F: NDArray[np.int64]  # of all frames, ascending
    scene_F: NDArray[np.int64]  # to which each frame belongs

    @classmethod
    def of_clips(cls, of: ClipSet, clips: Sequence[list[Clip]]) -> SetPart:
        """What these clips of a set are made of."""
        every = [clip for of_part in clips for clip in of_part]
        scenes = [np.full(len(clip.frames_T), clip.scene) for clip in every]
        numbers = [clip.frames_T for clip in every]
        none = np.zeros(0, np.int64)
        numbers_F, first = np.unique(np.concatenate([none, *numbers]), return_index=True)
        return cls(of, tuple(clips), numbers_F, np.concatenate([none, *scenes])[first])

    def filled(self, frames: Tensor) -> list[Clips]:
        """The clips of every part, and the frames that they are made of without those of other parts.

        Args:
            frames: (F, ...) all of them.
        """
        found = []
        for clips in self.clips:
            numbers_F, own = self.numbers_F, frames
            if len(self.clips) > 1:
                numbers_F = np.unique(np.concatenate([np.zeros(0, np.int64), *(clip.frames_T for clip in clips)]))
                own = frames[torch.from_numpy(np.searchsorted(self.numbers_F, numbers_F))]
            index = tuple(torch.from_numpy(np.searchsorted(numbers_F, clip.frames_T)) for clip in clips)
            wanted_K2 = torch.tensor([clip[1:3] for clip in clips], dtype=torch.int64).view(-1, 2)
            found.append((own, index, wanted_K2))
        return found


class Filling(Protocol):
    """What takes the frames or the sound of a pass for one set."""

    part: SetPart

    @property
    def missing(self) -> str:
        """What did not come, in words; "" when all is there."""
        ...

    def finish(self) -> list[Clips]:
        """The clips of every part."""
        ...


class PictureFilling:
    """The frames of one set, changed as training wants them."""

    def __init__(
        self, part: SetPart, of: PictureSet, augment: Augment, random: Callable[[int, str], Generator]
    ) -> None:
        """`random`: of a scene and a backbone, the numbers by which its frames are changed, anew for every call."""
        self.part, self.augment, self.random = part, augment, random
        self.clip, self.decoded = of.network.backbone.clip, part.numbers_F
        self.frames = torch.empty(len(part.numbers_F), self.clip.crop, self.clip.crop, 3, dtype=torch.uint8)
        self.count = 0

    def push(self, numbers: NDArray[np.int64], images: Tensor) -> None:
        """(T, H, W, 3) frames of the set's rate of these numbers, of which some may be of other sets alone."""
        place, mine = np.searchsorted(self.part.numbers_F, numbers), np.isin(numbers, self.part.numbers_F)
        place_F, images = place[mine], images[torch.from_numpy(np.flatnonzero(mine))]
        scene_F = self.part.scene_F[place_F]
        for scene in np.unique(scene_F):
            of_scene = np.flatnonzero(scene_F == scene)
            random = self.random(int(scene), self.part.of.spec.backbone)
            changed = augmented(images[torch.from_numpy(of_scene)], self.clip, self.augment, random)
            self.frames[torch.from_numpy(place_F[of_scene])] = changed
        self.count += len(place_F)

    @property
    def missing(self) -> str:
        """What did not come, in words; "" when all is there."""
        wanted = len(self.frames)
        return "" if self.count == wanted else f"{self.count} of {wanted} frames"

    def finish(self) -> list[Clips]:
        """The clips of every part."""
        return self.part.filled(self.frames)


class FlowFilling:
    """The flow between the frames of one set, computed after they were resized and turned as training wants them."""

    def __init__(
        self, part: SetPart, of: PictureSet, count: int, augment: Augment, random: Callable[[int, str], Generator]
    ) -> None:
        """`count`: frames of the video; the rest as for pictures."""
        assert of.network.flow is not None, "this network sees frames"
        assert not part.scene_F.any(), "scenes have no flow"
        self.part, self.augment, self.last = part, augment, count - 1
        self.random = random(0, part.of.spec.backbone)
        self.clip, self.method = of.network.backbone.clip, of.network.flow.method
        numbers_F = np.minimum(part.numbers_F, max(self.last - 1, 0))  # the last frame has the flow of the one before
        self.decoded = np.unique(np.minimum(np.concatenate([numbers_F, numbers_F + 1]), max(self.last, 0)))
        self.flow = torch.empty(len(part.numbers_F), self.clip.crop, self.clip.crop, 2, dtype=torch.uint8)
        self.count = 0
        self.view: View | None = None
        self.motion: Motion | None = None
        self.next = self.at = 0  # numbers of the next frame of the motion, and of the next flow that it gives

    def push(self, numbers: NDArray[np.int64], images: Tensor) -> None:
        """(T, H, W, 3) frames of the set's rate of these numbers, of which some may be of other sets alone."""
        mine = np.flatnonzero(np.isin(numbers, self.decoded))
        if not len(mine):
            return
        if self.view is None:
            self.view = flow_view(images.shape[1], images.shape[2], self.clip, self.augment, self.random)
        for run in np.split(mine, np.flatnonzero(np.diff(numbers[mine]) > 1) + 1):
            first = int(numbers[run[0]])
            if self.motion is None or first != self.next:
                self._end()
                self.motion, self.at = self.method.start(self.view.short), first
            self.next = first + len(run)
            for flow in self.motion.push(self.view.before_flow(images[torch.from_numpy(run)])):
                self._take(flow)

    @property
    def missing(self) -> str:
        """What did not come, in words; "" when all is there."""
        self._end()
        wanted = len(self.flow)
        return "" if self.count == wanted else f"{self.count} of {wanted} frames"

    def finish(self) -> list[Clips]:
        """The clips of every part."""
        self._end()
        if self.augment == "stan":
            self.flow = erased(self.flow, self.clip, self.random)
        return self.part.filled(self.flow)

    def _end(self) -> None:
        """No frame follows the last one of the motion."""
        if self.motion is not None:
            for flow in self.motion.finish():
                self._take(flow)
            self.motion = None

    def _take(self, flow: Tensor) -> None:
        """The next flow of the motion; behind its last pair, only that at the video's end is anything."""
        assert self.view is not None, "flow comes of frames"
        numbers = np.arange(self.at, self.at + len(flow))
        self.at += len(flow)
        real = (numbers < self.next - 1) | (numbers == self.last)
        mine = np.flatnonzero(real & np.isin(numbers, self.part.numbers_F))
        place = np.searchsorted(self.part.numbers_F, numbers[mine])
        self.flow[torch.from_numpy(place)] = self.view.of_flow(flow[torch.from_numpy(mine).to(flow.device)]).cpu()
        self.count += len(mine)


class SoundFilling:
    """The examples of one set, each computed by itself, so that none depends on what it is read beside."""

    def __init__(self, part: SetPart, of: SoundSet, samples: int) -> None:
        """`samples`: of the video's sound; what lies beyond is silence."""
        self.part, self.samples = part, samples
        self.backbone: ExampleBackbone = of.backbone
        self.rate = of.sound.rate
        spans = [self.backbone.span(row, row + 1, self.rate) for row in part.numbers_F.tolist()]
        self.start = min((start for start, _ in spans), default=0)
        self.wave = np.zeros(max((end for _, end in spans), default=0) - self.start, np.float32)
        self.heard = 0  # samples of the video so far

    @property
    def stop(self) -> int:
        """One past the last sample that is wanted."""
        return min(self.start + len(self.wave), self.samples)

    @property
    def missing(self) -> str:
        """What did not come, in words; "" when all is there."""
        return "" if self.heard >= self.stop else f"{self.heard} of {self.stop} samples of sound"

    def push(self, first: int, samples: NDArray[np.float32]) -> None:
        """(S,) samples of the video from sample `first` on."""
        self.heard = first + len(samples)
        start, end = max(first, self.start), min(self.heard, self.stop)
        if start < end:
            self.wave[start - self.start : end - self.start] = samples[start - first : end - first]

    def finish(self) -> list[Clips]:
        """The clips of every part."""
        examples = [torch.zeros(0, *self.backbone.example_shape)]
        for row in self.part.numbers_F.tolist():
            start, end = (at - self.start for at in self.backbone.span(row, row + 1, self.rate))
            wave = torch.from_numpy(self.wave[start:end])
            examples.append(self.backbone.examples(wave, row, row + 1, self.rate).cpu())
        return self.part.filled(torch.cat(examples))
