"""I3D on a ResNet-50 and -101 with non-local blocks, which let every cell of a clip attend to all others.

Source: Wang et al., "Non-local Neural Networks", CVPR 2018. Parameter names and shapes are those of SlowFast's network
(Apache-2.0) under its configs I3D_NLN_8x8_R50 and I3D_NLN_8x8_R101: five blocks, after the residual blocks 1 and 3 of
s3 and 1, 3 and 5 of s4, with softmax, keys and values pooled by 2 in space. Its model zoo reports 74.0 % top-1 on
Kinetics-400 for the R50 (30 views of 8 frames, every 8th of a video of 30 a second; test crop 256) and serves the file
in Caffe2's format, a pickle that may run code when it is read: SlowFast converts it (TRAIN.CHECKPOINT_TYPE caffe2) to a
checkpoint whose `model_state` loads here unchanged. Nobody serves weights of the R101.

The non-local block is pytorchvideo's.

Shape letters: B clips, C channels, T frames, H height, W width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from extract.clip_backbone import ClipBackbone
from extract.hub import CLIP_8X8, HubResNet, pool_windows, pytorchvideo


class NonlocalR50(ClipBackbone):
    """(B, 8, 256, 256, 3) uint8 frames to 2048 features a clip, or a cell of an 8 x 8 grid for every 2 frames."""

    name = "nonlocal_r50"
    clip = replace(CLIP_8X8, output_stride=2, receptive_field=8, multiple=2)  # all attend to the whole clip
    row_shapes = HubResNet.row_shapes
    default_weights = "kinetics400"
    class_list = "kinetics400"
    last_stage = "s5"
    blocks_of_s4: ClassVar[int] = 6

    def __init__(self, stream: str = "rgb") -> None:
        super().__init__(stream)
        # Kernels over time alternate, (3, 1) or (1, 3); the numbers are those of blocks that a non-local one follows.
        self.s1 = nn.ModuleDict({"pathway0_stem": Stem()})
        self.s2 = Stage(64, 64, times=[3] * 3, stride=1)
        self.s3 = Stage(256, 128, times=[3, 1] * 2, stride=2, nonlocals=(1, 3))
        times = [1 if number % 2 else 3 for number in range(self.blocks_of_s4)]
        self.s4 = Stage(512, 256, times=times, stride=2, nonlocals=(1, 3, 5))
        self.s5 = Stage(1024, 512, times=[1, 3, 1], stride=2)
        self.head = nn.ModuleDict({"projection": nn.Linear(2048, 400)})
        self.freeze()

    def trunk(self, x: Tensor) -> Tensor:
        """(B, 3, T, H, W) normalised to (B, 2048, T / 2, H / 32, W / 32)."""
        x = self.s2(self.s1["pathway0_stem"](x))
        x = F.max_pool3d(x, (2, 1, 1))
        maps: Tensor = self.s5(self.s4(self.s3(x)))
        return maps

    def features(self, x: Tensor) -> Tensor:
        return pool_windows(x, 7 if self.last_stride is None else 14)

    def classifier(self, features: Tensor) -> Tensor:
        logits: Tensor = self.head["projection"](features)
        return logits


class NonlocalR101(NonlocalR50):
    """(B, 8, 256, 256, 3) uint8 frames to 2048 features a clip, or a cell of an 8 x 8 grid for every 2 frames."""

    name = "nonlocal_r101"
    blocks_of_s4 = 23


class Stem(nn.Module):
    """5 x 7 x 7 convolution and 1 x 3 x 3 pooling, each of stride 2 in space."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv3d(3, 64, (5, 7, 7), stride=(1, 2, 2), padding=(2, 3, 3), bias=False)
        self.bn = nn.BatchNorm3d(64)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn(self.conv(x)), inplace=True)
        return F.max_pool3d(x, (1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1))


class Stage(nn.Module):
    """Residual blocks, some followed by a non-local one; the first takes the stride, in space."""

    def __init__(
        self, channels: int, inner: int, times: Sequence[int], stride: int, nonlocals: Sequence[int] = ()
    ) -> None:
        super().__init__()
        for number, time in enumerate(times):
            first = number == 0
            block = Block(channels if first else 4 * inner, inner, time, stride if first else 1)
            self.add_module(f"pathway0_res{number}", block)
            if number in nonlocals:
                self.add_module(f"pathway0_nonlocal{number}", NonLocal(4 * inner))

    def forward(self, x: Tensor) -> Tensor:
        for block in self.children():
            x = block(x)
        return x


class Block(nn.Module):
    """A bottleneck, added to its input; where size or width changes, to a 1 x 1 x 1 convolution of it."""

    def __init__(self, channels: int, inner: int, time: int, stride: int) -> None:
        super().__init__()
        self.branch2 = Bottleneck(channels, inner, time, stride)
        if channels != 4 * inner:
            self.branch1 = nn.Conv3d(channels, 4 * inner, 1, stride=(1, stride, stride), bias=False)
            self.branch1_bn = nn.BatchNorm3d(4 * inner)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = self.branch1_bn(self.branch1(x)) if hasattr(self, "branch1") else x
        return F.relu(self.branch2(x) + shortcut, inplace=True)


class Bottleneck(nn.Module):
    """`time` x 1 x 1, 1 x 3 x 3, 1 x 1 x 1."""

    def __init__(self, channels: int, inner: int, time: int, stride: int) -> None:
        super().__init__()
        self.a = nn.Conv3d(channels, inner, (time, 1, 1), padding=(time // 2, 0, 0), bias=False)
        self.a_bn = nn.BatchNorm3d(inner)
        self.b = nn.Conv3d(inner, inner, (1, 3, 3), stride=(1, stride, stride), padding=(0, 1, 1), bias=False)
        self.b_bn = nn.BatchNorm3d(inner)
        self.c = nn.Conv3d(inner, 4 * inner, 1, bias=False)
        self.c_bn = nn.BatchNorm3d(4 * inner)
        self.c_bn.block_final_bn = True  # type: ignore[assignment]  # for random weights

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.a_bn(self.a(x)), inplace=True)
        x = F.relu(self.b_bn(self.b(x)), inplace=True)
        y: Tensor = self.c_bn(self.c(x))
        return y


class NonLocal(nn.Module):
    """pytorchvideo's non-local block, its parts under SlowFast's names."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        block = pytorchvideo("pytorchvideo.layers.nonlocal_net").create_nonlocal(
            dim_in=channels, dim_inner=channels // 2, pool_size=(1, 2, 2), instantiation="softmax"
        )
        self.conv_theta, self.conv_phi, self.conv_g = block.conv_theta, block.conv_phi, block.conv_g
        self.conv_out, self.bn = block.conv_out, block.norm
        self.bn.block_final_bn = True  # for random weights
        self.held = (block,)  # in a tuple, so that it does not name its parts a second time

    def forward(self, x: Tensor) -> Tensor:
        attended: Tensor = self.held[0](x)
        return attended
