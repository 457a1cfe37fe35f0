"""Inception-I3D: Inception-v1 inflated to three dimensions, trained on Kinetics-400, on RGB or optical flow.

Source: Carreira and Zisserman, "Quo Vadis, Action Recognition? A New Model and the Kinetics Dataset", CVPR
2017. Parameter names and shapes are those of the public PyTorch checkpoints `rgb_imagenet.pt` and
`flow_imagenet.pt`, converted from the authors' TensorFlow weights; therefore padding is TensorFlow's "SAME",
which depends on the size of the input and may give one element more after than before.

Differs from the field's usual extraction script: features are the mean over space of each output time step,
ceil(T / 8) rows, without the average over two steps that follows in the classifier; so row i stands for
frames [8 i, 8 i + 8). The classifier itself is unchanged.

Shape letters: B clips, C channels, T frames or time steps, H height, W width, R rows a clip.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from extract.backbone import Backbone, BackboneError, ClipFormat
from extract.tiling import repeat_last_frame
from stores.spec import Granularity

Size3 = tuple[int, int, int]  # time, height, width

CHANNELS = {"rgb": 3, "flow": 2}


class InceptionI3d(Backbone):
    """(B, T, H, W, 3) uint8 frames or (B, T, H, W, 2) flow to 1024 features for every 8 frames or every clip.

    Flow comes as uint8 that spread [-20, 20] pixels over [0, 255]; both streams are scaled to [-1, 1].
    """

    name = "i3d"
    streams = tuple(CHANNELS)
    clip = ClipFormat(
        fps=24,
        window=64,
        stride=8,
        resize=226,
        crop=224,
        mean=(0.5, 0.5, 0.5),  # pixels come to lie in [-1, 1]
        std=(0.5, 0.5, 0.5),
        output_stride=8,
        receptive_field=99,  # frames 8 i - 44 to 8 i + 54 reach row i
        halo=48,  # 44 frames before a row's cell and 47 after it, in whole rows
    )
    row_shapes = {Granularity.CLIP: (1024,), Granularity.MAP: (7, 7, 1024)}  # noqa: RUF012
    default_weights = "kinetics400"
    class_list = "kinetics400"

    def __init__(self, stream: str = "rgb") -> None:
        if stream not in CHANNELS:
            raise BackboneError(f"i3d has weights for the streams rgb and flow, not for '{stream}'.")
        super().__init__()
        self.stream = stream
        channels = CHANNELS[stream]
        self.clip = replace(self.clip, mean=(0.5,) * channels, std=(0.5,) * channels)
        self.Conv3d_1a_7x7 = Unit(channels, 64, kernel=7, stride=2)
        self.Conv3d_2b_1x1 = Unit(64, 64)
        self.Conv3d_2c_3x3 = Unit(64, 192, kernel=3)
        self.Mixed_3b = Mixed(192, (64, 96, 128, 16, 32, 32))
        self.Mixed_3c = Mixed(256, (128, 128, 192, 32, 96, 64))
        self.Mixed_4b = Mixed(480, (192, 96, 208, 16, 48, 64))
        self.Mixed_4c = Mixed(512, (160, 112, 224, 24, 64, 64))
        self.Mixed_4d = Mixed(512, (128, 128, 256, 24, 64, 64))
        self.Mixed_4e = Mixed(512, (112, 144, 288, 32, 64, 64))
        self.Mixed_4f = Mixed(528, (256, 160, 320, 32, 128, 128))
        self.Mixed_5b = Mixed(832, (256, 160, 320, 32, 128, 128))
        self.Mixed_5c = Mixed(832, (384, 192, 384, 48, 128, 128))
        self.logits = Logits(1024, 400)
        self.freeze()

    def forward(
        self, frames: Tensor, levels: frozenset[Granularity], convolutional: bool = False
    ) -> dict[Granularity, Tensor]:
        """Rows of `levels`: CLIP (B, R, 1024) and MAP (B, ceil(T / 8), H, W, 1024), 7 x 7 at a crop of 224.

        CLIP has R = 1, the mean over the window, or R = ceil(T / 8) where `convolutional`. Then the end is
        filled up to whole rows by repeating the last frame: at a stride of 2 the padding before the first
        frame depends on whether the length is even, so rows would shift with the length modulo 8.
        """
        assert levels <= set(self.row_shapes), f"i3d has no {levels - set(self.row_shapes)}"
        if convolutional:
            frames = repeat_last_frame(frames, self.clip.output_stride, dim=1)
        x_BCTHW = self.trunk(self.normalise(frames)).to(next(self.parameters()).dtype)  # undoes autocast
        rows: dict[Granularity, Tensor] = {}
        if Granularity.MAP in levels:
            rows[Granularity.MAP] = x_BCTHW.permute(0, 2, 3, 4, 1)
        if Granularity.CLIP in levels:
            x_BTC = x_BCTHW.mean((3, 4)).transpose(1, 2)
            rows[Granularity.CLIP] = x_BTC if convolutional else x_BTC.mean(1, keepdim=True)
        return rows

    def classify(self, frames: Tensor) -> Tensor:
        """(B, T, H, W, 3) uint8 to Kinetics-400 logits (B, 400).

        As the original: average over all space and 2 time steps, classify, then the mean over time.
        """
        x_BCTHW = self.trunk(self.normalise(frames))
        _, _, steps, height, width = x_BCTHW.shape
        pooled = F.avg_pool3d(x_BCTHW, (min(2, steps), height, width), stride=1)
        logits: Tensor = self.logits(pooled)
        return logits.mean((2, 3, 4))

    def trunk(self, x: Tensor) -> Tensor:
        """(B, C, T, H, W) in [-1, 1] to (B, 1024, ceil(T / 8), ceil(H / 32), ceil(W / 32))."""
        x = max_pool_same(self.Conv3d_1a_7x7(x), kernel=(1, 3, 3), stride=(1, 2, 2))
        x = self.Conv3d_2c_3x3(self.Conv3d_2b_1x1(x))
        x = max_pool_same(x, kernel=(1, 3, 3), stride=(1, 2, 2))
        x = self.Mixed_3c(self.Mixed_3b(x))
        x = max_pool_same(x, kernel=(3, 3, 3), stride=(2, 2, 2))
        for block in (self.Mixed_4b, self.Mixed_4c, self.Mixed_4d, self.Mixed_4e, self.Mixed_4f):
            x = block(x)
        x = max_pool_same(x, kernel=(2, 2, 2), stride=(2, 2, 2))
        last: Tensor = self.Mixed_5c(self.Mixed_5b(x))
        return last


class Mixed(nn.Module):
    """Four branches side by side: 1x1x1; 1x1x1 then 3x3x3, twice; pool then 1x1x1."""

    def __init__(self, channels: int, out: tuple[int, int, int, int, int, int]) -> None:
        super().__init__()
        self.b0 = Unit(channels, out[0])
        self.b1a = Unit(channels, out[1])
        self.b1b = Unit(out[1], out[2], kernel=3)
        self.b2a = Unit(channels, out[3])
        self.b2b = Unit(out[3], out[4], kernel=3)
        self.b3b = Unit(channels, out[5])

    def forward(self, x: Tensor) -> Tensor:
        pooled = max_pool_same(x, kernel=(3, 3, 3), stride=(1, 1, 1))
        branches = (self.b0(x), self.b1b(self.b1a(x)), self.b2b(self.b2a(x)), self.b3b(pooled))
        return torch.cat(branches, dim=1)


class Unit(nn.Module):
    """Convolution with SAME padding, batch norm, ReLU."""

    def __init__(self, channels: int, out: int, kernel: int = 1, stride: int = 1) -> None:
        super().__init__()
        self.conv3d = nn.Conv3d(channels, out, kernel, stride, bias=False)
        self.bn = nn.BatchNorm3d(out, eps=1e-3)
        if stride == 1:
            self.conv3d.padding = (kernel // 2,) * 3  # what SAME is at any size

    def forward(self, x: Tensor) -> Tensor:
        if self.conv3d.stride != (1, 1, 1):
            x = pad_same(x, self.conv3d.kernel_size, self.conv3d.stride, value=0.0)
        return F.relu(self.bn(self.conv3d(x)), inplace=True)


class Logits(nn.Module):
    """The classifier: a 1x1x1 convolution under the checkpoint's name."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.conv3d = nn.Conv3d(channels, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.conv3d(x)
        return logits


def max_pool_same(x: Tensor, kernel: Size3, stride: Size3) -> Tensor:
    """Maximum over the elements of each SAME window that lie inside `x`.

    The PyTorch port pads with zeros; after a ReLU the two agree, for no value is below zero.
    """
    if stride == (1, 1, 1):
        return F.max_pool3d(x, kernel, stride, padding=tuple(size // 2 for size in kernel))
    return F.max_pool3d(pad_same(x, kernel, stride, value=-torch.inf), kernel, stride)


def pad_same(x: Tensor, kernel: tuple[int, ...], stride: tuple[int, ...], value: float) -> Tensor:
    """`x` (B, C, T, H, W) padded so that a convolution without padding gives ceil(size / stride) each way."""
    amounts: list[int] = []
    for size, k, s in zip(reversed(x.shape[2:]), reversed(kernel), reversed(stride), strict=True):
        amounts += same_padding(size, k, s)
    return F.pad(x, amounts, value=value) if any(amounts) else x


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Elements to add before and after, as TensorFlow's "SAME" does: the odd one goes after.

    >>> same_padding(224, kernel=7, stride=2), same_padding(223, kernel=7, stride=2)
    ((2, 3), (3, 3))
    """
    outputs = -(-size // stride)
    total = max((outputs - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2
