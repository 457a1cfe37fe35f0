"""X3D: small residual networks on clips, grown along one axis after another, with channel-wise convolutions.

Source: Feichtenhofer, "X3D: Expanding Architectures for Efficient Video Recognition", CVPR 2020. Code and weights:
pytorchvideo, Apache-2.0; its hub reports, for 30 views, top-1 on Kinetics-400 of 69.12 % (X3D_XS), 73.33 % (X3D_S),
75.94 % (X3D_M) and 77.44 % (X3D_L).

Frames as in the tests of one crop (configs/Kinetics/pytorchvideo of SlowFast): short side 182, 182, 256, 356; crop 160,
160, 224, 312, at which the published head sees the whole frame.

CLIP rows have the 2048 features that the classifier sees (the paper's fc1 after its ReLU: pool, `post_conv`), MAP rows
the 432 of the last layer before the pooling (its conv5). The 192 channels of the last residual stage, which some call
X3D's features, are not given: conv5 is made of them cell by cell.

Shape letters: B clips, C channels, T frames, H height, W width.
"""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor, nn

from extract.backbone import ClipFormat
from extract.hub import MEAN, STD, HubBackbone
from stores.spec import Granularity


class X3dXs(HubBackbone):
    """(B, 4, 160, 160, 3) uint8 frames to 2048 features a clip, or 432 a cell of a 5 x 5 grid for every frame."""

    name = "x3d_xs"
    builder = "x3d_xs"
    clip = ClipFormat(
        fps=2.5,
        window=4,
        stride=4,
        resize=182,
        crop=160,
        mean=MEAN,
        std=STD,
        receptive_field=4,  # the whole clip, which squeeze and excitation see
    )
    row_shapes = {Granularity.CLIP: (2048,), Granularity.MAP: (5, 5, 432)}  # noqa: RUF012
    last_stage = "blocks.4"

    def __init__(self, stream: str = "rgb") -> None:
        super().__init__(stream)
        for module in list(self.modules()):
            for name, part in list(module.named_children()):
                if type(part).__name__ == "Swish":  # of pytorchvideo: its gradient rests on what torch will remove
                    setattr(module, name, nn.SiLU().eval())

    def trunk(self, x: Tensor) -> Tensor:
        """(B, 3, T, H, W) normalised to (B, 432, T, ceil(H / 32), ceil(W / 32))."""
        head = self.top.pool
        maps: Tensor = head.pre_act(head.pre_norm(head.pre_conv(super().trunk(x))))
        return maps

    def features(self, x: Tensor) -> Tensor:
        head = self.top.pool
        features: Tensor = head.post_act(head.post_conv(x.mean((2, 3, 4), keepdim=True)))
        return features.flatten(1)


class X3dS(X3dXs):
    """(B, 13, 160, 160, 3) uint8 frames to 2048 features a clip, or 432 a cell of a 5 x 5 grid for every frame."""

    name = "x3d_s"
    builder = "x3d_s"
    clip = replace(X3dXs.clip, fps=5, window=13, stride=13, receptive_field=13)


class X3dM(X3dXs):
    """(B, 16, 224, 224, 3) uint8 frames to 2048 features a clip, or 432 a cell of a 7 x 7 grid for every frame."""

    name = "x3d_m"
    builder = "x3d_m"
    clip = replace(X3dXs.clip, fps=6, window=16, stride=16, receptive_field=16, resize=256, crop=224)
    row_shapes = {Granularity.CLIP: (2048,), Granularity.MAP: (7, 7, 432)}  # noqa: RUF012


class X3dL(X3dXs):
    """(B, 16, 312, 312, 3) uint8 frames to 2048 features a clip, or 432 a cell of a 10 x 10 grid for every frame."""

    name = "x3d_l"
    builder = "x3d_l"
    clip = replace(X3dM.clip, resize=356, crop=312)
    row_shapes = {Granularity.CLIP: (2048,), Granularity.MAP: (10, 10, 432)}  # noqa: RUF012
