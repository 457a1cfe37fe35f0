"""ResNet-18 and ResNet-50, trained on ImageNet.

Source: He et al., "Deep Residual Learning for Image Recognition", CVPR 2016. Parameter names and shapes are those of
torchvision's `resnet18` and `resnet50`. As torchvision reports, the weights IMAGENET1K_V1 give 69.76 % top-1
(ResNet-18) and 76.13 % (ResNet-50), and ResNet-50's IMAGENET1K_V2 80.86 %.

As in torchvision, a bottleneck's stride lies in its 3 x 3 convolution; the paper has it in the first 1 x 1.

Shape letters: N images, C channels, H height, W width.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from extract.backbone import ClipFormat
from extract.image_backbone import ImageBackbone
from stores.spec import Granularity


class ResNet(ImageBackbone):
    """What the depths share; a subclass says which blocks it has, and how many of them in each of its four layers."""

    clip = ClipFormat(
        fps=12.5,
        window=1,
        stride=1,
        resize=256,
        crop=224,
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
    )
    default_weights = "imagenet"
    class_list = "imagenet1000"
    last_stage = "layer4"
    block: ClassVar[type[BasicBlock | Bottleneck]]
    depths: ClassVar[tuple[int, int, int, int]]
    width: ClassVar[int] = 64  # channels of the first layer; each next one doubles them

    def __init__(self, stream: str = "rgb") -> None:
        super().__init__(stream)
        width, widening = self.width, self.block.widening
        self.conv1 = nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.layer1 = self.layer(width, width, self.depths[0])
        self.layer2 = self.layer(width * widening, 2 * width, self.depths[1], stride=2)
        self.layer3 = self.layer(2 * width * widening, 4 * width, self.depths[2], stride=2)
        self.layer4 = self.layer(4 * width * widening, 8 * width, self.depths[3], stride=2)
        self.fc = nn.Linear(8 * width * widening, 1000)
        self.freeze()

    def layer(self, channels: int, width: int, depth: int, stride: int = 1) -> nn.Sequential:
        """`depth` blocks; the first has the stride, and takes `channels`."""
        blocks = [self.block(channels, width, stride)]
        blocks += [self.block(width * self.block.widening, width) for _ in range(depth - 1)]
        return nn.Sequential(*blocks)

    def trunk(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        x = F.max_pool2d(x, 3, stride=2, padding=1)
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = layer(x)
        return x

    def classifier(self, features: Tensor) -> Tensor:
        logits: Tensor = self.fc(features)
        return logits


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions, added to their input."""

    widening = 1

    def __init__(self, channels: int, width: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = shortcut(channels, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        return F.relu(self.bn2(self.conv2(y)) + self.downsample(x), inplace=True)


class Bottleneck(nn.Module):
    """Narrow 1 x 1, convolve 3 x 3, widen 1 x 1; added to their input."""

    widening = 4

    def __init__(self, channels: int, width: int, stride: int = 1) -> None:
        super().__init__()
        out = width * self.widening
        self.conv1 = nn.Conv2d(channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out)
        self.downsample = shortcut(channels, out, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = F.relu(self.bn2(self.conv2(y)), inplace=True)
        return F.relu(self.bn3(self.conv3(y)) + self.downsample(x), inplace=True)


def shortcut(channels: int, out: int, stride: int) -> nn.Module:
    """The input as it is; where size or width changes, a 1 x 1 convolution of it."""
    if stride == 1 and channels == out:
        return nn.Identity()
    return nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))


class ResNet18(ResNet):
    """(B, T, 224, 224, 3) uint8 frames to 512 features a frame, or a cell of its 7 x 7 grid."""

    name = "resnet18"
    row_shapes = {Granularity.FRAME: (512,), Granularity.MAP: (7, 7, 512)}  # noqa: RUF012
    block = BasicBlock
    depths = (2, 2, 2, 2)


class ResNet50(ResNet):
    """(B, T, 224, 224, 3) uint8 frames to 2048 features a frame, or a cell of its 7 x 7 grid.

    `imagenet` is IMAGENET1K_V1, on which most published features rest; `imagenet_v2` was trained longer, for frames
    whose short side is 232 pixels (here it is 256 for both, so that one resized frame serves all networks).
    """

    name = "resnet50"
    row_shapes = {Granularity.FRAME: (2048,), Granularity.MAP: (7, 7, 2048)}  # noqa: RUF012
    block = Bottleneck
    depths = (3, 4, 6, 3)
