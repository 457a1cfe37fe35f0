"""Pictures changed at random for training, on uint8 frames, so that what is drawn never depends on the network.

`stan`, as STAN's authors' code: of pictures a part of 8 to 100 % of the area, of a shape between 3:4 and 4:3, brought
to the network's size, turned left to right and upside down, each with probability 0.3, and changed by AutoAugment
(`extract.auto_augment`); of clips the short side brought to 120 pixels, the centre, and with probability 0.5 a
rectangle of 2 to 33 % of the area, of a shape between 0.3 and 3.3, that shows the mean colour (of flow: no motion).
`jitter`, as in the papers of ASF and TranSTL (SlowFast's recipe): the short side uniform between 256 and 320 pixels
for a crop of 224, in that proportion for others; a crop anywhere; turned left to right with probability 0.5.

Flow is computed between frames that were resized and turned, and cropped then; so what was turned moves the other way.

A draw is a function of (seed, epoch, video, scene, backbone) and of the size of the frames alone: all frames of a scene
are changed alike, a backbone's streams see the same part, and neither batches nor workers have a say in it.

Shape letters: T frames, H height, W width.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor

from extract.auto_augment import auto_augmented
from extract.backbone import ClipFormat
from extract.transform import crop_corners, resize_and_crop, resize_fixed, resize_short, resized_size

Augment = Literal["none", "jitter", "stan"]
AUGMENTS: tuple[Augment, ...] = ("none", "jitter", "stan")

JITTER = (256 / 224, 320 / 224)  # of the short side by the crop
AREA, SHAPE = (0.08, 1.0), (3 / 4, 4 / 3)  # of a part of a picture
ERASED_AREA, ERASED_SHAPE = (0.02, 0.33), (0.3, 3.3)
SHORT_SIDE = 120 / 112  # of a clip by its crop
TRIES = 10  # to place a rectangle of a drawn area and shape


def generator(seed: int, epoch: int, video: str, scene: int, backbone: str) -> Generator:
    """The random numbers of one scene in one epoch."""
    return np.random.default_rng([seed, epoch, zlib.crc32(video.encode()), scene, zlib.crc32(backbone.encode())])


def augmented(frames: Tensor, clip: ClipFormat, kind: Augment, random: Generator) -> Tensor:
    """(T, H, W, 3) uint8 frames to (T, crop, crop, 3), all changed alike.

    Args:
        frames: on the CPU.
        clip: what the network wants; `window` tells pictures from clips.
        kind: `none` is what extraction does.
        random: as `generator` makes it, anew for every part of a scene.
    """
    if kind == "none":
        return resize_and_crop(frames, clip.resize, clip.crop)
    if kind == "jitter":
        return jitter(frames.shape[1], frames.shape[2], clip.crop, random).of(frames)
    if clip.window == 1:
        return auto_augmented(resized_part(frames, clip.crop, random), random)
    return erased(resize_and_crop(frames, round(SHORT_SIDE * clip.crop), clip.crop), clip, random)


@dataclass(frozen=True)
class View:
    """A square part of frames whose short side became `short` pixels, turned left to right where `across`."""

    short: int
    top: int
    left: int  # before it is turned
    crop: int
    across: bool

    def of(self, frames: Tensor) -> Tensor:
        """(T, H, W, 3) uint8 frames to (T, crop, crop, 3)."""
        resized = resize_short(frames, self.short)
        part = resized[:, self.top : self.top + self.crop, self.left : self.left + self.crop]
        return flipped(part, across=self.across)

    def before_flow(self, frames: Tensor) -> Tensor:
        """(T, H, W, 3) frames to the whole ones between which flow is computed, turned as the part will be."""
        return flipped(resize_short(frames, self.short), across=self.across)

    def of_flow(self, flow: Tensor) -> Tensor:
        """(T, h, w, 2) flow between these to the part of it, (T, crop, crop, 2)."""
        left = flow.shape[2] - self.left - self.crop if self.across else self.left
        return flow[:, self.top : self.top + self.crop, left : left + self.crop]


def jitter(height: int, width: int, crop: int, random: Generator) -> View:
    """A crop anywhere, of frames whose short side was drawn, turned left to right half of the time."""
    short = int(random.integers(round(JITTER[0] * crop), round(JITTER[1] * crop), endpoint=True))
    height, width = resized_size(height, width, short)
    top = int(random.integers(0, height - crop, endpoint=True))
    left = int(random.integers(0, width - crop, endpoint=True))
    return View(short, top, left, crop, across=random.random() < 0.5)


def flow_view(height: int, width: int, clip: ClipFormat, kind: Augment, random: Generator) -> View:
    """Which part of frames of this size is seen by a network on the flow between them; see `augmented`."""
    if kind == "jitter":
        return jitter(height, width, clip.crop, random)
    short = clip.resize if kind == "none" else round(SHORT_SIDE * clip.crop)
    ((top, left),) = crop_corners(*resized_size(height, width, short), clip.crop, crops=1)
    return View(short, top, left, clip.crop, across=False)


def resized_part(frames: Tensor, crop: int, random: Generator) -> Tensor:
    """A part of the frames brought to (T, crop, crop, 3), turned about either axis three times in ten."""
    height, width = frames.shape[1:3]
    place = rectangle(height, width, AREA, SHAPE, random)
    if place is None:  # the largest part in the middle whose shape will do
        high, wide = min(height, round(width / SHAPE[0])), min(width, round(height * SHAPE[1]))
        place = (height - high) // 2, (width - wide) // 2, high, wide
    top, left, high, wide = place
    part = frames[:, top : top + high, left : left + wide].permute(0, 3, 1, 2)
    resized = resize_fixed(part, crop, crop).permute(0, 2, 3, 1)
    return flipped(resized, across=random.random() < 0.3, down=random.random() < 0.3)


def erased(frames: Tensor, clip: ClipFormat, random: Generator) -> Tensor:
    """Half of the time a rectangle shows the mean colour, in all frames the same one."""
    if random.random() < 0.5:
        return frames
    place = rectangle(frames.shape[1], frames.shape[2], ERASED_AREA, ERASED_SHAPE, random)
    if place is not None:
        top, left, high, wide = place
        mean = torch.tensor([round(255 * level) for level in clip.mean], dtype=torch.uint8)
        frames[:, top : top + high, left : left + wide] = mean
    return frames


def rectangle(
    height: int, width: int, area: tuple[float, float], shape: tuple[float, float], random: Generator
) -> tuple[int, int, int, int] | None:
    """Top, left, height and width of a part that lies inside; None if none was found.

    Its share of the area is uniform, and so is the logarithm of its shape, which is width by height.
    """
    for _ in range(TRIES):
        pixels = height * width * random.uniform(*area)
        ratio = math.exp(random.uniform(math.log(shape[0]), math.log(shape[1])))
        high, wide = round(math.sqrt(pixels / ratio)), round(math.sqrt(pixels * ratio))
        if 0 < high <= height and 0 < wide <= width:
            top, left = (
                random.integers(0, height - high, endpoint=True),
                random.integers(0, width - wide, endpoint=True),
            )
            return int(top), int(left), high, wide
    return None


def flipped(frames: Tensor, *, across: bool, down: bool = False) -> Tensor:
    """(T, H, W, 3) turned left to right and upside down."""
    axes = [axis for axis, wanted in ((1, down), (2, across)) if wanted]
    return frames.flip(axes) if axes else frames
