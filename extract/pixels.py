"""How the pixels of a decoded frame lie in memory: RGB, or the planes that the codec has.

Most videos are 8-bit 4:2:0: a brightness for every pixel, two colour differences for every square of four. To hand
these planes over takes half the memory of RGB and none of the decoder's time; `extract.colour` makes RGB of them where
the network runs. Workers import this: no torch here.

Shape letters: H height, W width, h = ceil(H / 2), w = ceil(W / 2).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Region = tuple[int, int, int, int]  # x, y, width, height


class Matrix(NamedTuple):
    """How brightness and colour differences were made of red, green and blue."""

    red: float  # share of red in the brightness
    blue: float
    full_range: bool  # brightness 0 to 255, not 16 to 235


class PixelFormat(NamedTuple):
    """Size and layout of the frames of one segment."""

    height: int
    width: int
    matrix: Matrix | None  # None: RGB, (H, W, 3) a frame; else planes one after the other, (H W + 2 h w,) a frame

    @property
    def frame_shape(self) -> tuple[int, ...]:
        """Of one frame in a segment.

        >>> PixelFormat(3, 5, None).frame_shape, PixelFormat(3, 5, Matrix(0.299, 0.114, False)).frame_shape
        ((3, 5, 3), (27,))
        """
        if self.matrix is None:
            return self.height, self.width, 3
        return (self.height * self.width + 2 * -(-self.height // 2) * -(-self.width // 2),)


class Yuv(NamedTuple):
    """One frame as planes, upright."""

    planes: tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8]]  # (H, W), (h, w), (h, w): Y, Cb, Cr
    matrix: Matrix


class Image(NamedTuple):
    """One frame, ready to be put into a segment."""

    format: PixelFormat
    parts: tuple[NDArray[np.uint8], ...]  # (H, W, 3), or the three planes

    def write(self, out: NDArray[np.uint8]) -> None:
        """Copy the pixels into `out`, of the format's frame shape."""
        if self.format.matrix is None:
            out[:] = self.parts[0]
            return
        start = 0
        for plane in self.parts:
            out[start : start + plane.size].reshape(plane.shape)[:] = plane
            start += plane.size


def rgb_image(pixels: NDArray[np.uint8], region: Region | None) -> Image:
    """(H, W, 3), or the part of it that is wanted."""
    if region is not None:
        x, y, width, height = region
        pixels = pixels[y : y + height, x : x + width]
    return Image(PixelFormat(pixels.shape[0], pixels.shape[1], None), (pixels,))


def yuv_image(frame: Yuv, region: Region | None) -> Image | None:
    """The planes, or the part of them that is wanted; None where that part begins inside a square of four."""
    luma, first, second = frame.planes
    if region is not None:
        x, y, width, height = region
        if x % 2 or y % 2:
            return None
        luma = luma[y : y + height, x : x + width]
        half = slice(y // 2, -(-(y + height) // 2)), slice(x // 2, -(-(x + width) // 2))
        first, second = first[half], second[half]
    return Image(PixelFormat(luma.shape[0], luma.shape[1], frame.matrix), (luma, first, second))
