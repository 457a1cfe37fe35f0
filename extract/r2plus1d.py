"""R(2+1)D: residual networks whose 3-D convolutions are split into one over space and one over time.

Source: Tran et al., "A Closer Look at Spatiotemporal Convolutions for Action Recognition", CVPR 2018.
`r2plus1d_18` has the parameter names and shapes of torchvision's network of that name, whose weights KINETICS400_V1
give 67.46 % top-1 a video (as torchvision reports: 5 clips of 16 frames at 15 a second). `r2plus1d_r50` is that of
pytorchvideo's hub, whose weights R2PLUS1D_16x4_R50 give 76.01 % (as its model zoo reports: 30 views of 16 frames, every
4th of a video of 30 a second); code and weights Apache-2.0. Short side and crop of 256 as in the zoo's tests.

Differs from torchvision's preset: it squeezes every frame to 128 x 171 pixels before the crop; here the short side
becomes 128 and the shape is kept, which is the same at 4:3. STAN's authors bring it to 120; the weights were made at
128, so that is taken for scenes, too.

Shape letters: B clips, C channels, T frames or time steps, H height, W width.
"""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from extract.backbone import ClipFormat
from extract.hub import CLIP_16X4, HubResNet
from extract.video_resnet import MEAN, STD, VideoResNet
from stores.spec import Granularity


class R2Plus1d18(VideoResNet):
    """(B, T, 112, 112, 3) uint8 frames to 512 features a clip, or a cell of its 7 x 7 grid for every 8 frames.

    It was trained on clips of 16 frames; STAN gives it 12. Any number will do.
    """

    name = "r2plus1d_18"
    clip = ClipFormat(
        fps=15,
        window=16,
        stride=16,
        resize=128,
        crop=112,
        mean=MEAN,
        std=STD,
        output_stride=8,
        receptive_field=109,
    )
    row_shapes = {Granularity.CLIP: (512,), Granularity.MAP: (7, 7, 512)}  # noqa: RUF012
    width: ClassVar[int] = 64  # channels of the first layer; each next one doubles them

    def __init__(self, stream: str = "rgb") -> None:
        super().__init__(stream)
        width = self.width
        self.stem = nn.Sequential(
            nn.Conv3d(3, 45, (1, 7, 7), stride=(1, 2, 2), padding=(0, 3, 3), bias=False),
            nn.BatchNorm3d(45),
            nn.ReLU(inplace=True),
            nn.Conv3d(45, width, (3, 1, 1), padding=(1, 0, 0), bias=False),
            nn.BatchNorm3d(width),
            nn.ReLU(inplace=True),
        )
        self.layer1 = nn.Sequential(Block(width, width), Block(width, width))
        self.layer2 = nn.Sequential(Block(width, 2 * width, stride=2), Block(2 * width, 2 * width))
        self.layer3 = nn.Sequential(Block(2 * width, 4 * width, stride=2), Block(4 * width, 4 * width))
        self.layer4 = nn.Sequential(Block(4 * width, 8 * width, stride=2), Block(8 * width, 8 * width))
        self.fc = nn.Linear(8 * width, 400)
        self.freeze()


class R2Plus1dR50(HubResNet):
    """(B, T, 256, 256, 3) uint8 frames to 2048 features a clip, or a cell of its 8 x 8 grid for every 4 frames."""

    name = "r2plus1d_r50"
    builder = "r2plus1d_r50"
    clip = replace(CLIP_16X4, output_stride=4, receptive_field=57)


class Block(nn.Module):
    """Two split convolutions, added to their input; where the size changes, a 1x1x1 convolution of it."""

    def __init__(self, channels: int, out: int, stride: int = 1) -> None:
        super().__init__()
        # As many as give the split convolution the parameters of a 3x3x3 one (section 3.5 of the paper); both of a
        # block take the number of the first.
        between = channels * out * 27 // (channels * 9 + 3 * out)
        self.conv1 = nn.Sequential(
            split_convolution(channels, between, out, stride), nn.BatchNorm3d(out), nn.ReLU(inplace=True)
        )
        self.conv2 = nn.Sequential(split_convolution(out, between, out), nn.BatchNorm3d(out))
        self.downsample = (
            nn.Sequential(nn.Conv3d(channels, out, 1, stride, bias=False), nn.BatchNorm3d(out))
            if stride != 1 or channels != out
            else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv2(self.conv1(x)) + self.downsample(x), inplace=True)


def split_convolution(channels: int, between: int, out: int, stride: int = 1) -> nn.Sequential:
    """3 x 3 over space, batch norm, ReLU, 3 over time."""
    return nn.Sequential(
        nn.Conv3d(channels, between, (1, 3, 3), stride=(1, stride, stride), padding=(0, 1, 1), bias=False),
        nn.BatchNorm3d(between),
        nn.ReLU(inplace=True),
        nn.Conv3d(between, out, (3, 1, 1), stride=(stride, 1, 1), padding=(1, 0, 0), bias=False),
    )
