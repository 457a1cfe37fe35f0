"""Channel-separated networks: 3 x 3 x 3 convolutions see one channel each, 1 x 1 x 1 convolutions mix the channels.

Source: Tran et al., "Video Classification with Channel-Separated Convolutional Networks", ICCV 2019.

`csn_r101` is the interaction-reduced network (ir-CSN) on a ResNet-101 of pytorchvideo's hub; code and weights
Apache-2.0; its model zoo reports 77.0 % top-1 on Kinetics-400 for 30 views of 32 frames, every 2nd of a video of 30 a
second (CSN_32x2_R101). Short side and crop of 256 as in the zoo's tests (SlowFast's configs, TEST_CROP_SIZE).

`csn_152` is the interaction-preserved network (ip-CSN) on a ResNet-152, the one of ASF's paper. Parameter names and
shapes are those of the authors' PyTorch network `ip_csn_152` (VMZ, folder pt, on torchvision's VideoResNet), whose file
ipCSN_152_ft_kinetics_from_ig65m_f133090949.pth was trained on 65 million videos of Instagram (IG-65M), then on
Kinetics-400; code and weights Apache-2.0. VMZ reports 82.5 % top-1. Its batch norms have Caffe2's epsilon of 1e-3.
Frames as VMZ's feature extraction takes them: 15 a second, 224 x 224 out of a height of 256.

Differs from VMZ: it squeezes every frame to 256 x 324 pixels before the crop; here the short side becomes 256 and the
shape is kept.

Shape letters: B clips, C channels, T frames, H height, W width.
"""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor, nn
from torch.nn import functional as F

from extract.backbone import ClipFormat
from extract.hub import CLIP_32X2, HubResNet
from extract.video_resnet import MEAN, STD, VideoResNet
from stores.spec import Granularity

EPS = 1e-3  # of every batch norm of csn_152


class CsnR101(HubResNet):
    """(B, 32, 256, 256, 3) uint8 frames to 2048 features a clip, or a cell of an 8 x 8 grid for every 8 frames."""

    name = "csn_r101"
    builder = "csn_r101"
    clip = replace(CLIP_32X2, output_stride=8, receptive_field=243)


class Csn152(VideoResNet):
    """(B, 32, 224, 224, 3) uint8 frames to 2048 features a clip, or a cell of a 7 x 7 grid for every 8 frames."""

    name = "csn_152"
    clip = ClipFormat(
        fps=15,
        window=32,
        stride=32,
        resize=256,
        crop=224,
        mean=MEAN,
        std=STD,
        output_stride=8,
        receptive_field=363,
    )
    row_shapes = {Granularity.CLIP: (2048,), Granularity.MAP: (7, 7, 2048)}  # noqa: RUF012

    def __init__(self, stream: str = "rgb") -> None:
        super().__init__(stream)
        self.stem = nn.Sequential(
            nn.Conv3d(3, 64, (3, 7, 7), stride=(1, 2, 2), padding=(1, 3, 3), bias=False),
            nn.BatchNorm3d(64, eps=EPS),
            nn.ReLU(inplace=True),
            nn.MaxPool3d((1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1)),
        )
        self.layer1 = stage(64, 64, blocks=3, stride=1)
        self.layer2 = stage(256, 128, blocks=8, stride=2)
        self.layer3 = stage(512, 256, blocks=36, stride=2)
        self.layer4 = stage(1024, 512, blocks=3, stride=2)
        self.fc = nn.Linear(2048, 400)
        self.freeze()


class Bottleneck(nn.Module):
    """1x1x1 to fewer channels; 1x1x1, then 3x3x3 in each channel alone; 1x1x1 to four times as many; plus the input."""

    def __init__(self, channels: int, inner: int, stride: int) -> None:
        super().__init__()
        out = 4 * inner
        self.conv1 = nn.Sequential(*mix(channels, inner), nn.ReLU(inplace=True))
        self.conv2 = nn.Sequential(
            nn.Sequential(  # no ReLU between the two: together they stand for one full convolution
                *mix(inner, inner), nn.Conv3d(inner, inner, 3, stride, padding=1, groups=inner, bias=False)
            ),
            nn.BatchNorm3d(inner, eps=EPS),
            nn.ReLU(inplace=True),
        )
        last = mix(inner, out)
        last[1].block_final_bn = True  # type: ignore[assignment]  # for random weights
        self.conv3 = nn.Sequential(*last)
        self.downsample = nn.Sequential(*mix(channels, out, stride)) if channels != out else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv3(self.conv2(self.conv1(x))) + self.downsample(x), inplace=True)


def mix(channels: int, out: int, stride: int = 1) -> tuple[nn.Conv3d, nn.BatchNorm3d]:
    """A convolution of 1 x 1 x 1 and its batch norm."""
    return nn.Conv3d(channels, out, 1, stride, bias=False), nn.BatchNorm3d(out, eps=EPS)


def stage(channels: int, inner: int, blocks: int, stride: int) -> nn.Sequential:
    """Blocks of one width; the first takes the stride, in time and space."""
    first = Bottleneck(channels, inner, stride)
    return nn.Sequential(first, *(Bottleneck(4 * inner, inner, 1) for _ in range(blocks - 1)))
