"""Decoded frames, turned upright where their pixels are asked for.

Shape letters: H height, W width.
"""

from __future__ import annotations

from typing import cast

import numpy as np
from av.error import FFmpegError
from av.video.frame import VideoFrame
from av.video.plane import VideoPlane
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from extract.containers import explained
from extract.decode import DecodeError, Reason
from extract.pixels import Matrix, Yuv

UNTURNED = (1, 0), (0, 1)
PLANAR = frozenset({"yuv420p", "yuvj420p"})
# Shares of red and blue by FFmpeg's AVColorSpace; a stream that names none counts as BT.601, as FFmpeg does.
MATRICES = {1: (0.2126, 0.0722), 2: (0.299, 0.114), 5: (0.299, 0.114), 6: (0.299, 0.114), 9: (0.2627, 0.0593)}
FULL_RANGE = 2  # AVCOL_RANGE_JPEG


class UprightFrame:
    """A decoded frame, turned upright when its pixels are asked for."""

    def __init__(self, time: float, frame: VideoFrame, size: tuple[int, int], converter: VideoReformatter) -> None:
        """`size` is the width and height that stored frames are brought to."""
        self.time = time
        self._frame = frame
        self._size = size
        self._converter = converter

    def rgb(self) -> NDArray[np.uint8]:
        """(H, W, 3); the stream's colour matrix and range are honoured, BT.601 where it names none."""
        width, height = self._size
        try:
            converted = self._converter.reformat(self._frame, width=width, height=height, format="rgb24", threads=1)
        except FFmpegError as error:
            raise explained(error) from error
        plane = converted.planes[0]
        image_HW3: NDArray[np.uint8] = np.ndarray(
            (height, width, 3), np.uint8, cast("memoryview[int]", plane), strides=(plane.line_size, 3, 1)
        )
        return upright(image_HW3, orientation(self._frame))

    def yuv(self) -> Yuv | None:
        """The planes, upright; None where they are not 8-bit 4:2:0, or not of a known matrix."""
        frame, rows = self._frame, orientation(self._frame)
        matrix = MATRICES.get(frame.colorspace)
        even = frame.width % 2 == frame.height % 2 == 0  # else a turn would shift the squares of four
        same = (frame.width, frame.height) == self._size
        if frame.format.name not in PLANAR or matrix is None or not same or not (even or rows == UNTURNED):
            return None
        full = frame.color_range == FULL_RANGE or frame.format.name == "yuvj420p"
        luma, first, second = (upright(plane_pixels(plane), rows) for plane in frame.planes)
        return Yuv((luma, first, second), Matrix(*matrix, full_range=full))


def plane_pixels(plane: VideoPlane) -> NDArray[np.uint8]:
    """(H, W) of one plane of a frame, a view."""
    return np.ndarray(
        (plane.height, plane.width), np.uint8, cast("memoryview[int]", plane), strides=(plane.line_size, 1)
    )


def orientation(frame: VideoFrame) -> tuple[tuple[int, int], tuple[int, int]]:
    """How a stored frame is to be shown: (x, y) on the screen from (x, y) in the frame, as two rows of a matrix.

    Raises:
        DecodeError: the frame is to be turned by something else than quarter turns and mirrors.
    """
    data = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return UNTURNED
    # FFmpeg, libavutil/display.h: x' = (a x + c y + tx) / w, y' = (b x + d y + ty) / w; 16.16 fixed point.
    a, b, _, c, d = (float(entry) for entry in np.frombuffer(bytes(cast("memoryview[int]", data)), np.int32)[:5])
    scale = max(abs(a), abs(b), abs(c), abs(d), 1.0)
    rows = (round(a / scale), round(c / scale)), (round(b / scale), round(d / scale))
    if sorted(map(abs, rows[0])) != [0, 1] or sorted(map(abs, rows[1])) != [0, 1] or (rows[0][0] and rows[1][0]):
        raise DecodeError(Reason.DECODE_ERROR, "is to be shown turned by something else than quarter turns")
    return rows


def upright(image: NDArray[np.uint8], rows: tuple[tuple[int, int], tuple[int, int]]) -> NDArray[np.uint8]:
    """`image` (H, W, 3) or (H, W) as it is to be shown, a view."""
    (x_from_x, x_from_y), (y_from_x, y_from_y) = rows
    if x_from_y:
        image = image.swapaxes(0, 1)
    if x_from_x + x_from_y < 0:
        image = image[:, ::-1]
    if y_from_x + y_from_y < 0:
        image = image[::-1]
    return image
