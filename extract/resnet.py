"""ResNet-18, trained on ImageNet.

Source: He et al., "Deep Residual Learning for Image Recognition", CVPR 2016. Parameter names and shapes are those
of torchvision's `resnet18`, whose weights IMAGENET1K_V1 give 69.76 % top-1 (as torchvision reports).

Shape letters: N images, C channels, H height, W width.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from extract.backbone import ClipFormat
from extract.image_backbone import ImageBackbone
from stores.spec import Granularity


class ResNet18(ImageBackbone):
    """(B, T, 224, 224, 3) uint8 frames to 512 features a frame, or a cell of its 7 x 7 grid."""

    name = "resnet18"
    clip = ClipFormat(
        fps=12.5,
        window=1,
        stride=1,
        resize=256,
        crop=224,
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
    )
    row_shapes = {Granularity.FRAME: (512,), Granularity.MAP: (7, 7, 512)}  # noqa: RUF012
    default_weights = "imagenet"
    class_list = "imagenet1000"
    last_stage = "layer4"

    def __init__(self, stream: str = "rgb") -> None:
        super().__init__(stream)
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.layer1 = nn.Sequential(BasicBlock(64, 64), BasicBlock(64, 64))
        self.layer2 = nn.Sequential(BasicBlock(64, 128, stride=2), BasicBlock(128, 128))
        self.layer3 = nn.Sequential(BasicBlock(128, 256, stride=2), BasicBlock(256, 256))
        self.layer4 = nn.Sequential(BasicBlock(256, 512, stride=2), BasicBlock(512, 512))
        self.fc = nn.Linear(512, 1000)
        self.freeze()

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
    """Two 3 x 3 convolutions, added to their input; where size or width changes, a 1 x 1 convolution of it."""

    def __init__(self, channels: int, out: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, out, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out)
        self.downsample = (
            nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))
            if stride != 1 or channels != out
            else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        return F.relu(self.bn2(self.conv2(y)) + self.downsample(x), inplace=True)
