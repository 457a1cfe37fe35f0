"""From decoded frames to what a network sees: short side to a fixed size, then the centre, or three crops.

Definition: the short side becomes `resize` pixels, the long side round(long * resize / short) with halves upwards;
pixels are averaged by a triangle filter as wide as the reduction (antialiased bilinear, as Pillow's BILINEAR);
values are rounded to whole levels; of the result the crop starts at floor((size - crop) / 2). Three crops lie at the
beginning, in the centre and at the end of the longer side (left, centre, right of a square), and in the centre of
the other.

Shape letters: K crops, T frames, H height, W width.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

CHUNK_BYTES = 32 * 2**20  # of resized frames at once: a 16 x 8000 picture grows to 98 MB before its crop


def resize_and_crop(frames: Tensor, resize: int, crop: int) -> Tensor:
    """(T, H, W, 3) uint8 frames to (T, crop, crop, 3) uint8, on the frames' device.

    The CPU works in fixed point, a GPU in float32; the two agree within one level.
    """
    return resize_and_crops(frames, resize, crop, crops=1)[0]


def resize_short(frames: Tensor, resize: int) -> Tensor:
    """(T, H, W, 3) uint8 frames to (T, h, w, 3) uint8, not cropped, on the frames' device."""
    height, width = resized_size(frames.shape[1], frames.shape[2], resize)
    if (height, width) == frames.shape[1:3]:
        return frames
    x_T3HW = frames.permute(0, 3, 1, 2)
    x_T3HW = resize_fixed(x_T3HW, height, width) if x_T3HW.is_cpu else resize_float(x_T3HW, height, width)
    return x_T3HW.permute(0, 2, 3, 1).contiguous()


def resize_and_crops(frames: Tensor, resize: int, crop: int, crops: int) -> Tensor:
    """(T, H, W, 3) uint8 frames to (K, T, crop, crop, 3) uint8, K = 1 or 3, on the frames' device."""
    assert (frames.dtype, frames.ndim) == (torch.uint8, 4), (frames.dtype, frames.shape)
    assert 0 < crop <= resize, (crop, resize)
    height, width = resized_size(frames.shape[1], frames.shape[2], resize)
    at_once = max(1, CHUNK_BYTES // (height * width * 3))
    out = frames.new_empty((crops, len(frames), crop, crop, frames.shape[3]))
    for start in range(0, len(frames), at_once):
        x_T3HW = frames[start : start + at_once].permute(0, 3, 1, 2)
        if (height, width) != frames.shape[1:3]:
            x_T3HW = resize_fixed(x_T3HW, height, width) if x_T3HW.is_cpu else resize_float(x_T3HW, height, width)
        for index, (top, left) in enumerate(crop_corners(height, width, crop, crops)):
            cropped = x_T3HW[:, :, top : top + crop, left : left + crop]
            out[index, start : start + at_once] = cropped.permute(0, 2, 3, 1)
    return out


def crop_corners(height: int, width: int, crop: int, crops: int) -> list[tuple[int, int]]:
    """Top and left of each crop of a frame.

    >>> crop_corners(226, 402, 224, crops=3), crop_corners(226, 402, 224, crops=1)
    ([(1, 0), (1, 89), (1, 178)], [(1, 89)])
    """
    assert crops in (1, 3), crops
    top, left = (height - crop) // 2, (width - crop) // 2
    if crops == 1:
        return [(top, left)]
    if height > width:
        return [(0, left), (top, left), (height - crop, left)]
    return [(top, 0), (top, left), (top, width - crop)]


def resized_size(height: int, width: int, resize: int) -> tuple[int, int]:
    """Height and width after the short side became `resize`.

    >>> resized_size(360, 640, 256), resized_size(50, 40, 25)
    ((256, 455), (31, 25))
    """
    short = min(height, width)
    return (2 * height * resize + short) // (2 * short), (2 * width * resize + short) // (2 * short)


def resize_fixed(x: Tensor, height: int, width: int) -> Tensor:
    """uint8 (T, 3, H, W) resized on the CPU; fastest where the channels lie last in memory."""
    return F.interpolate(x, (height, width), mode="bilinear", align_corners=False, antialias=True)


def resize_float(x: Tensor, height: int, width: int) -> Tensor:
    """The same in float32, rounded: for devices whose kernels take no uint8."""
    resized = F.interpolate(x.float(), (height, width), mode="bilinear", align_corners=False, antialias=True)
    return resized.round_().clamp_(0, 255).to(torch.uint8)
