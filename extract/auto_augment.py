"""AutoAugment with the policy found on ImageNet: one of 25 pairs of operations, each with its probability and strength.

Source: Cubuk et al., "AutoAugment: Learning Augmentation Strategies from Data", CVPR 2019, table 9 of the appendix and
the ranges of its table 6. Numbers, rounding and the ten strengths of an operation are those of torchvision's
`AutoAugment`, with which STAN's authors train: pixels are moved to the nearest place, what comes from outside is black,
shearing leaves the upper left corner where it is, and rotating the middle.

All frames get the same operations at the same strength. What an operation takes from a picture (its levels, its mean
grey) it takes from each frame by itself, so that no frame depends on which others were read beside it.

Shape letters: T frames, H height, W width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from numpy.random import Generator
from torch import Tensor
from torch.nn import functional as F

STRENGTHS = 10
GREY = (0.2989, 0.587, 0.114)  # of red, green and blue in what is seen of them without colour
SHIFT = 150 / 331  # of a picture's side: the largest of TranslateX and TranslateY


class Step(NamedTuple):
    """One operation of a pair."""

    operation: str
    probability: float
    strength: int = 0  # 0 to 9; of no account where an operation has none


POLICY: tuple[tuple[Step, Step], ...] = (
    (Step("Posterize", 0.4, 8), Step("Rotate", 0.6, 9)),
    (Step("Solarize", 0.6, 5), Step("AutoContrast", 0.6)),
    (Step("Equalize", 0.8), Step("Equalize", 0.6)),
    (Step("Posterize", 0.6, 7), Step("Posterize", 0.6, 6)),
    (Step("Equalize", 0.4), Step("Solarize", 0.2, 4)),
    (Step("Equalize", 0.4), Step("Rotate", 0.8, 8)),
    (Step("Solarize", 0.6, 3), Step("Equalize", 0.6)),
    (Step("Posterize", 0.8, 5), Step("Equalize", 1.0)),
    (Step("Rotate", 0.2, 3), Step("Solarize", 0.6, 8)),
    (Step("Equalize", 0.6), Step("Posterize", 0.4, 6)),
    (Step("Rotate", 0.8, 8), Step("Color", 0.4, 0)),
    (Step("Rotate", 0.4, 9), Step("Equalize", 0.6)),
    (Step("Equalize", 0.0), Step("Equalize", 0.8)),
    (Step("Invert", 0.6), Step("Equalize", 1.0)),
    (Step("Color", 0.6, 4), Step("Contrast", 1.0, 8)),
    (Step("Rotate", 0.8, 8), Step("Color", 1.0, 2)),
    (Step("Color", 0.8, 8), Step("Solarize", 0.8, 7)),
    (Step("Sharpness", 0.4, 7), Step("Invert", 0.6)),
    (Step("ShearX", 0.6, 5), Step("Equalize", 1.0)),
    (Step("Color", 0.4, 0), Step("Equalize", 0.6)),
    (Step("Equalize", 0.4), Step("Solarize", 0.2, 4)),
    (Step("Solarize", 0.6, 5), Step("AutoContrast", 0.6)),
    (Step("Invert", 0.6), Step("Equalize", 1.0)),
    (Step("Color", 0.6, 4), Step("Contrast", 1.0, 8)),
    (Step("Equalize", 0.8), Step("Equalize", 0.6)),
)


def auto_augmented(frames: Tensor, random: Generator) -> Tensor:
    """(T, H, W, 3) uint8 frames with the operations of one pair of the policy, each at its probability.

    Strengths that go either way are turned round half of the time.
    """
    for step in POLICY[int(random.integers(len(POLICY)))]:
        wanted, turned = random.random() < step.probability, random.random() < 0.5
        if wanted:
            frames = operated(frames, step.operation, step.strength, turned=turned)
    return frames


def operated(frames: Tensor, operation: str, strength: int, *, turned: bool = False) -> Tensor:
    """(T, H, W, 3) uint8 frames after one operation of one of its ten strengths.

    Args:
        turned: the other way round, where there is one: to the left, clockwise, less of it.
    """
    share = strength / (STRENGTHS - 1) * (-1 if turned else 1)
    return OPERATIONS[operation](frames, share)


def sheared(frames: Tensor, across: float, down: float) -> Tensor:
    """Every row moved to the left by `across` times its distance from the top, and every column up by `down`."""
    y_HW, x_HW = places(frames)
    return moved(frames, y_HW + down * (x_HW + 0.5), x_HW + across * (y_HW + 0.5))


def shifted(frames: Tensor, right: float, down: float) -> Tensor:
    """Moved by whole pixels, towards none."""
    y_HW, x_HW = places(frames)
    return moved(frames, y_HW - int(down), x_HW - int(right))


def rotated(frames: Tensor, degrees: float) -> Tensor:
    """Turned about the middle, counter-clockwise."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    y_HW, x_HW = places(frames)
    middle_y, middle_x = (frames.shape[1] - 1) / 2, (frames.shape[2] - 1) / 2
    from_y, from_x = y_HW - middle_y, x_HW - middle_x
    return moved(frames, middle_y + cos * from_y + sin * from_x, middle_x + cos * from_x - sin * from_y)


def places(frames: Tensor) -> tuple[Tensor, Tensor]:
    """(H, W) row and column of every pixel, float64."""
    rows, columns = (torch.arange(size, dtype=torch.float64) for size in frames.shape[1:3])
    y_HW, x_HW = torch.meshgrid(rows, columns, indexing="ij")
    return y_HW, x_HW


def moved(frames: Tensor, y_HW: Tensor, x_HW: Tensor) -> Tensor:
    """Every pixel from the one nearest to row `y_HW` and column `x_HW`; black where that is outside."""
    height, width = frames.shape[1:3]
    y_HW, x_HW = y_HW.round().long(), x_HW.round().long()
    outside_HW = (y_HW < 0) | (y_HW >= height) | (x_HW < 0) | (x_HW >= width)
    found = frames[:, y_HW.clamp(0, height - 1), x_HW.clamp(0, width - 1)]
    return found.masked_fill_(outside_HW[..., None], 0)


def posterized(frames: Tensor, bits: int) -> Tensor:
    """The highest `bits` bits of every value."""
    kept: Tensor = frames & (256 - 2 ** (8 - bits))
    return kept


def solarized(frames: Tensor, threshold: float) -> Tensor:
    """Values from the threshold on turned round."""
    return torch.where(frames >= threshold, 255 - frames, frames)


def autocontrasted(frames: Tensor) -> Tensor:
    """Each channel of each frame spread from 0 to 255; one that has a single value stays."""
    values = frames.float()
    low, high = values.amin((1, 2), keepdim=True), values.amax((1, 2), keepdim=True)
    spread = (values - low) * (255 / (high - low))
    return torch.where(high > low, spread.clamp(0, 255), values).to(torch.uint8)


def equalized(frames: Tensor) -> Tensor:
    """Values of each channel of each frame replaced so that all are about as frequent."""
    channels = frames.permute(0, 3, 1, 2).flatten(0, 1).flatten(1).long()  # (3 T, H W)
    counts = torch.zeros(len(channels), 256, dtype=torch.long).scatter_add_(1, channels, torch.ones_like(channels))
    highest = channels.amax(1, keepdim=True)
    step = (channels.shape[1] - counts.gather(1, highest)) // 255  # of all pixels but those of the highest value
    below = counts.cumsum(1) - counts
    table = ((below + step // 2) // step.clamp(min=1)).clamp(0, 255)
    found = torch.where(step > 0, table.gather(1, channels), channels)
    turns = len(frames), 3, *frames.shape[1:3]
    return found.view(turns).permute(0, 2, 3, 1).to(torch.uint8)


def sharpened(frames: Tensor, factor: float) -> Tensor:
    """0: smoothed but for the border; 1: as they are; above: sharper."""
    if min(frames.shape[1:3]) <= 2:
        return frames
    kernel = torch.ones(3, 1, 3, 3) / 13
    kernel[:, :, 1, 1] = 5 / 13
    smooth = frames.clone()
    inner = F.conv2d(frames.permute(0, 3, 1, 2).float(), kernel, groups=3).round()
    smooth[:, 1:-1, 1:-1] = inner.clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)
    return blended(frames, smooth, factor)


def grey(frames: Tensor) -> Tensor:
    """(T, H, W, 1) what is seen without colour, whole numbers."""
    return (frames.float() * torch.tensor(GREY)).sum(-1, keepdim=True).floor()


def blended(frames: Tensor, other: Tensor, factor: float) -> Tensor:
    """`other` at a factor of 0, the frames at 1, beyond them above; without what is left of whole numbers."""
    return (factor * frames.float() + (1 - factor) * other.float()).clamp(0, 255).to(torch.uint8)


OPERATIONS: Mapping[str, Callable[[Tensor, float], Tensor]] = {  # of the frames and a share of the greatest strength
    "ShearX": lambda frames, share: sheared(frames, 0.3 * share, 0),
    "ShearY": lambda frames, share: sheared(frames, 0, 0.3 * share),
    "TranslateX": lambda frames, share: shifted(frames, SHIFT * frames.shape[2] * share, 0),
    "TranslateY": lambda frames, share: shifted(frames, 0, SHIFT * frames.shape[1] * share),
    "Rotate": lambda frames, share: rotated(frames, 30 * share),
    "Brightness": lambda frames, share: blended(frames, torch.zeros_like(frames), 1 + 0.9 * share),
    "Color": lambda frames, share: blended(frames, grey(frames), 1 + 0.9 * share),
    "Contrast": lambda frames, share: blended(frames, grey(frames).mean((1, 2), keepdim=True), 1 + 0.9 * share),
    "Sharpness": lambda frames, share: sharpened(frames, 1 + 0.9 * share),
    "Posterize": lambda frames, share: posterized(frames, 8 - round(4 * abs(share))),
    "Solarize": lambda frames, share: solarized(frames, 255 * (1 - abs(share))),
    "AutoContrast": lambda frames, _: autocontrasted(frames),
    "Equalize": lambda frames, _: equalized(frames),
    "Invert": lambda frames, _: 255 - frames,
}
