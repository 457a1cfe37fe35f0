"""From the planes of a video to RGB, where the network runs.

Definition: a colour difference holds for all four pixels of its square; with Kr and Kb the shares of red and blue in
the brightness, Y in [0, 1] and the differences in [-1/2, 1/2] after their range is taken off,

    R = Y + 2 (1 - Kr) Cr    B = Y + 2 (1 - Kb) Cb    G = (Y - Kr R - Kb B) / (1 - Kr - Kb),

rounded to whole levels. FFmpeg's converter, which a decode worker uses for RGB, is the same in fixed point: no level
differs by more than BOUND.

Source: ITU-R BT.601 and BT.709.

Shape letters: T frames, H height, W width, h = ceil(H / 2), w = ceil(W / 2), F = H W + 2 h w bytes of a frame.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from extract.pixels import Matrix, PixelFormat

BOUND = 3  # levels of 255 between this and FFmpeg's fixed point
CHUNK_PIXELS = 2**23  # converted at once: 100 MB in float32


def to_rgb(frames: NDArray[np.uint8], layout: PixelFormat, device: torch.device) -> Tensor:
    """(T, *layout.frame_shape) uint8 in memory that may be used again at once, to (T, H, W, 3) uint8.

    Planes become RGB on `device`; frames that are RGB already are given as they are, where they are.
    """
    x = torch.from_numpy(frames)
    if layout.matrix is None:
        return x
    if device.type == "cuda":
        x = x.pin_memory().to(device, non_blocking=True)
    at_once = max(1, CHUNK_PIXELS // (layout.height * layout.width))
    return torch.cat([convert(part, layout, layout.matrix) for part in torch.split(x, at_once)])


def convert(frames_TF: Tensor, layout: PixelFormat, matrix: Matrix) -> Tensor:
    """(T, F) planes to (T, H, W, 3), both uint8."""
    height, width = layout.height, layout.width
    half = -(-height // 2), -(-width // 2)
    luma, first, second = torch.split(frames_TF, [height * width, half[0] * half[1], half[0] * half[1]], 1)
    y = luma.view(-1, height, width).float()
    y = y / 255 if matrix.full_range else (y - 16) / 219
    cb, cr = (spread(plane.view(-1, *half), height, width, matrix) for plane in (first, second))
    red = y + 2 * (1 - matrix.red) * cr
    blue = y + 2 * (1 - matrix.blue) * cb
    green = (y - matrix.red * red - matrix.blue * blue) / (1 - matrix.red - matrix.blue)
    return (torch.stack([red, green, blue], dim=-1) * 255).round_().clamp_(0, 255).to(torch.uint8)


def spread(plane_Thw: Tensor, height: int, width: int, matrix: Matrix) -> Tensor:
    """(T, h, w) colour differences to (T, H, W) in [-1/2, 1/2]."""
    values = (plane_Thw.float() - 128) / (255 if matrix.full_range else 224)
    return values.repeat_interleave(2, 1)[:, :height].repeat_interleave(2, 2)[:, :, :width]
