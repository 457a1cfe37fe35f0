"""Residual networks on clips with few convolutions over time: Slow, I3D and C2D on a ResNet-50.

Sources: Slow, Feichtenhofer et al., "SlowFast Networks for Video Recognition", ICCV 2019; I3D on a ResNet, Wang et al.,
"Non-local Neural Networks", CVPR 2018, after Carreira and Zisserman, CVPR 2017; C2D, the same network without
convolutions over time, Wang et al. Code and weights: pytorchvideo, Apache-2.0; its model zoo reports, for 30 views of 8
frames, every 8th of a video of 30 a second, top-1 on Kinetics-400 of 74.58 % (SLOW_8x8_R50), 73.27 % (I3D_8x8_R50) and
71.46 % (C2D_8x8_R50).

Frames as in the zoo's tests (configs/Kinetics/pytorchvideo of SlowFast, TEST_CROP_SIZE, and the hub's own example):
short side 256, crop 256; training crops were 224. `i3d_r50` is another network than `i3d`, which is Inception-I3D.

Shape letters: B clips, T frames.
"""

from __future__ import annotations

from dataclasses import replace

from extract.hub import CLIP_8X8, HubResNet


class SlowR50(HubResNet):
    """(B, 8, 256, 256, 3) uint8 frames to 2048 features a clip, or a cell of an 8 x 8 grid for every frame."""

    name = "slow_r50"
    builder = "slow_r50"
    clip = replace(CLIP_8X8, receptive_field=19)


class I3dR50(HubResNet):
    """(B, 8, 256, 256, 3) uint8 frames to 2048 features a clip, or a cell of an 8 x 8 grid for every 2 frames."""

    name = "i3d_r50"
    builder = "i3d_r50"
    clip = replace(CLIP_8X8, output_stride=2, receptive_field=36, multiple=2)
    last_stage = "blocks.5"  # block 2 is the pooling over time


class C2dR50(HubResNet):
    """(B, 8, 256, 256, 3) uint8 frames to 2048 features a clip, or a cell of an 8 x 8 grid for every 2 frames."""

    name = "c2d_r50"
    builder = "c2d_r50"
    clip = replace(CLIP_8X8, output_stride=2, receptive_field=2, multiple=2)
    last_stage = "blocks.5"
