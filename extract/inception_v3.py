"""Inception-v3, in the two trainings that features are published of.

Source: Szegedy et al., "Rethinking the Inception Architecture for Computer Vision", CVPR 2016.

`inception_v3` has the parameter names and shapes of torchvision's `inception_v3` with its auxiliary classifier, which
is loaded and not used; its weights, ported from TensorFlow, give 77.29 % top-1 (as torchvision reports).

`inception_v3_2015` is the network of December 2015 (TensorFlow's `inception-2015-12-05`, 1008 outputs), whose pool
features YouTube-8M reduces by its published PCA ("YouTube-8M: A Large-Scale Video Classification Benchmark",
arXiv:1609.08675); names and shapes are those of pytorch-fid's port `pt_inception-2015-12-05`. It is another training
than `inception_v3`: YouTube-8M's PCA means nothing there. It differs in two ways: zeros around a map do not count in
its average pools, and the last block pools by the maximum.

Differs from both: frames keep their shape and are cropped at the centre; TensorFlow's graph squeezes them to a square.

Shape letters: N images, C channels, H height, W width.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from extract.backbone import ClipFormat
from extract.image_backbone import ImageBackbone
from stores.spec import Granularity

EPS = 1e-3  # of every batch norm


class InceptionV3(ImageBackbone):
    """(B, T, 299, 299, 3) uint8 frames to 2048 features a frame, or a cell of its 8 x 8 grid."""

    name = "inception_v3"
    clip = ClipFormat(
        fps=1.0,  # as YouTube-8M has it
        window=1,
        stride=1,
        resize=342,
        crop=299,
        mean=(0.5,) * 3,  # torchvision's transform_input undoes ImageNet's scaling and applies this one
        std=(0.5,) * 3,
    )
    row_shapes = {Granularity.FRAME: (2048,), Granularity.MAP: (8, 8, 2048)}  # noqa: RUF012
    default_weights = "imagenet"
    class_list: ClassVar[str | None] = "imagenet1000"
    pca_features = 1024
    classes: ClassVar[int] = 1000
    auxiliary: ClassVar[bool] = True
    count_padding: ClassVar[bool] = True  # whether zeros around a map count in the average pools

    def __init__(self, stream: str = "rgb") -> None:
        super().__init__(stream)
        padding = self.count_padding
        self.Conv2d_1a_3x3 = Convolution(3, 32, 3, stride=2)
        self.Conv2d_2a_3x3 = Convolution(32, 32, 3)
        self.Conv2d_2b_3x3 = Convolution(32, 64, 3, padding=1)
        self.Conv2d_3b_1x1 = Convolution(64, 80, 1)
        self.Conv2d_4a_3x3 = Convolution(80, 192, 3)
        self.Mixed_5b = BlockA(192, 32, padding)
        self.Mixed_5c = BlockA(256, 64, padding)
        self.Mixed_5d = BlockA(288, 64, padding)
        self.Mixed_6a = ReductionB(288)
        self.Mixed_6b = BlockC(768, 128, padding)
        self.Mixed_6c = BlockC(768, 160, padding)
        self.Mixed_6d = BlockC(768, 160, padding)
        self.Mixed_6e = BlockC(768, 192, padding)
        if self.auxiliary:
            self.AuxLogits = Auxiliary(768, self.classes)
        self.Mixed_7a = ReductionD(768)
        self.Mixed_7b = BlockE(1280, padding)
        self.Mixed_7c = BlockE(2048, padding, max_pool=not padding)
        self.fc = nn.Linear(2048, self.classes)
        self.freeze()

    def trunk(self, x: Tensor) -> Tensor:
        """(N, 3, 299, 299) normalised to (N, 2048, 8, 8)."""
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = F.max_pool2d(x, 3, stride=2)
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x))
        x = F.max_pool2d(x, 3, stride=2)
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(x)))
        x = self.Mixed_6e(self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x)))))
        maps: Tensor = self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x)))
        return maps

    def classifier(self, features: Tensor) -> Tensor:
        logits: Tensor = self.fc(features)
        return logits


class InceptionV3Of2015(InceptionV3):
    """(B, T, 299, 299, 3) uint8 frames to 2048 features a frame, or a cell of its 8 x 8 grid: YouTube-8M's network."""

    name = "inception_v3_2015"
    clip = ClipFormat(fps=1.0, window=1, stride=1, resize=342, crop=299, mean=(128 / 255,) * 3, std=(128 / 255,) * 3)
    class_list = None  # its 1008 outputs are in an order of their own
    classes = 1008
    auxiliary = False
    count_padding = False


class Convolution(nn.Module):
    """Convolution, batch norm, ReLU."""

    def __init__(
        self,
        channels: int,
        out: int,
        kernel: int | tuple[int, int],
        stride: int = 1,
        padding: int | tuple[int, int] = 0,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, out, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(out, eps=EPS)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)), inplace=True)


def across(channels: int, out: int) -> Convolution:
    """Seven cells of a row of the map."""
    return Convolution(channels, out, (1, 7), padding=(0, 3))


def down(channels: int, out: int) -> Convolution:
    """Seven cells of a column of the map."""
    return Convolution(channels, out, (7, 1), padding=(3, 0))


def mean_around(x: Tensor, count_padding: bool) -> Tensor:
    """Mean of the 3 x 3 cells around each one."""
    return F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=count_padding)


class BlockA(nn.Module):
    """Figure 5 of the paper: one 5 x 5 convolution, two 3 x 3 in a row, a pool, and a 1 x 1, side by side."""

    def __init__(self, channels: int, pooled: int, count_padding: bool) -> None:
        super().__init__()
        self.count_padding = count_padding
        self.branch1x1 = Convolution(channels, 64, 1)
        self.branch5x5_1 = Convolution(channels, 48, 1)
        self.branch5x5_2 = Convolution(48, 64, 5, padding=2)
        self.branch3x3dbl_1 = Convolution(channels, 64, 1)
        self.branch3x3dbl_2 = Convolution(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = Convolution(96, 96, 3, padding=1)
        self.branch_pool = Convolution(channels, pooled, 1)

    def forward(self, x: Tensor) -> Tensor:
        branches = [
            self.branch1x1(x),
            self.branch5x5_2(self.branch5x5_1(x)),
            self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x))),
            self.branch_pool(mean_around(x, self.count_padding)),
        ]
        return torch.cat(branches, 1)


class ReductionB(nn.Module):
    """Halves the grid: convolutions of stride 2 beside a pool (figure 10)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.branch3x3 = Convolution(channels, 384, 3, stride=2)
        self.branch3x3dbl_1 = Convolution(channels, 64, 1)
        self.branch3x3dbl_2 = Convolution(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = Convolution(96, 96, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        branches = [
            self.branch3x3(x),
            self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x))),
            F.max_pool2d(x, 3, stride=2),
        ]
        return torch.cat(branches, 1)


class BlockC(nn.Module):
    """Figure 6: 7 x 7 convolutions, each as one over the width and one over the height."""

    def __init__(self, channels: int, width: int, count_padding: bool) -> None:
        super().__init__()
        self.count_padding = count_padding
        self.branch1x1 = Convolution(channels, 192, 1)
        self.branch7x7_1 = Convolution(channels, width, 1)
        self.branch7x7_2 = across(width, width)
        self.branch7x7_3 = down(width, 192)
        self.branch7x7dbl_1 = Convolution(channels, width, 1)
        self.branch7x7dbl_2 = down(width, width)
        self.branch7x7dbl_3 = across(width, width)
        self.branch7x7dbl_4 = down(width, width)
        self.branch7x7dbl_5 = across(width, 192)
        self.branch_pool = Convolution(channels, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        twice = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        branches = [
            self.branch1x1(x),
            self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x))),
            self.branch7x7dbl_5(self.branch7x7dbl_4(twice)),
            self.branch_pool(mean_around(x, self.count_padding)),
        ]
        return torch.cat(branches, 1)


class ReductionD(nn.Module):
    """Halves the grid a second time."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.branch3x3_1 = Convolution(channels, 192, 1)
        self.branch3x3_2 = Convolution(192, 320, 3, stride=2)
        self.branch7x7x3_1 = Convolution(channels, 192, 1)
        self.branch7x7x3_2 = across(192, 192)
        self.branch7x7x3_3 = down(192, 192)
        self.branch7x7x3_4 = Convolution(192, 192, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        branches = [
            self.branch3x3_2(self.branch3x3_1(x)),
            self.branch7x7x3_4(self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(x)))),
            F.max_pool2d(x, 3, stride=2),
        ]
        return torch.cat(branches, 1)


class BlockE(nn.Module):
    """Figure 7: 3 x 3 convolutions fanned out into one over the width beside one over the height."""

    def __init__(self, channels: int, count_padding: bool, max_pool: bool = False) -> None:
        super().__init__()
        self.count_padding, self.max_pool = count_padding, max_pool
        self.branch1x1 = Convolution(channels, 320, 1)
        self.branch3x3_1 = Convolution(channels, 384, 1)
        self.branch3x3_2a = Convolution(384, 384, (1, 3), padding=(0, 1))
        self.branch3x3_2b = Convolution(384, 384, (3, 1), padding=(1, 0))
        self.branch3x3dbl_1 = Convolution(channels, 448, 1)
        self.branch3x3dbl_2 = Convolution(448, 384, 3, padding=1)
        self.branch3x3dbl_3a = Convolution(384, 384, (1, 3), padding=(0, 1))
        self.branch3x3dbl_3b = Convolution(384, 384, (3, 1), padding=(1, 0))
        self.branch_pool = Convolution(channels, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        once = self.branch3x3_1(x)
        twice = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        around = F.max_pool2d(x, 3, stride=1, padding=1) if self.max_pool else mean_around(x, self.count_padding)
        branches = [
            self.branch1x1(x),
            self.branch3x3_2a(once),
            self.branch3x3_2b(once),
            self.branch3x3dbl_3a(twice),
            self.branch3x3dbl_3b(twice),
            self.branch_pool(around),
        ]
        return torch.cat(branches, 1)


class Auxiliary(nn.Module):
    """The side classifier that helped training: it is there so that the checkpoint loads, and never runs."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.conv0 = Convolution(channels, 128, 1)
        self.conv1 = Convolution(128, 768, 5)
        self.fc = nn.Linear(768, classes)
