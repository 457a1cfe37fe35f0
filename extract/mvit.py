"""MViT-B: a transformer on clips whose tokens become fewer and wider from stage to stage.

Source: Fan et al., "Multiscale Vision Transformers", ICCV 2021. Code and weights: pytorchvideo, Apache-2.0; its hub
reports top-1 on Kinetics-400 of 78.9 % (MVIT_B_16x4: 16 frames, every 4th of a video of 30 a second) and 80.3 %
(MVIT_B_32x3), for 5 clips of one crop: short side 256, crop 224 (SlowFast's configs).

CLIP rows are the class token after the last normalisation, which the classifier sees; MAP rows are the other tokens, a
7 x 7 grid for every 2 frames. The positions were learned for that many frames and that size: there are no others.

Shape letters: B clips, C channels, T frames, H height, W width, N tokens (the class token, then R x H' x W').
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from extract.hub import CLIP_16X4, HubBackbone
from stores.spec import Granularity


class MvitB16x4(HubBackbone):
    """(B, 16, 224, 224, 3) uint8 frames to 768 features a clip, or a cell of a 7 x 7 grid for every 2 frames."""

    name = "mvit_b_16x4"
    builder = "mvit_base_16x4"
    clip = replace(CLIP_16X4, crop=224, output_stride=2, receptive_field=16, fixed=True)
    row_shapes = {Granularity.CLIP: (768,), Granularity.MAP: (7, 7, 768)}  # noqa: RUF012

    patch_embed: Any
    cls_positional_encoding: Any
    norm_embed: Any
    head: Any

    def __init__(self, stream: str = "rgb") -> None:
        with torch.device("cpu"):  # the builder reads widths out of tensors, which a meta device does not hold
            super().__init__(stream)

    def trunk(self, x: Tensor) -> Tensor:
        """(B, 3, T, H, W) normalised to tokens (B, N, 768)."""
        x = self.cls_positional_encoding(self.patch_embed(x))
        grid = self.cls_positional_encoding.patch_embed_shape
        for block in self.blocks:
            x, grid = block(x, grid)
        tokens: Tensor = self.norm_embed(x)
        return tokens

    def maps(self, x: Tensor) -> Tensor:
        steps, height, width = self.cls_positional_encoding.patch_embed_shape  # after the first layer
        return x[:, 1:].reshape(len(x), steps, height // 8, width // 8, -1)

    def features(self, x: Tensor) -> Tensor:
        return x[:, 0]

    @property
    def top(self) -> Any:
        return self.head


class MvitB32x3(MvitB16x4):
    """(B, 32, 224, 224, 3) uint8 frames to 768 features a clip, or a cell of a 7 x 7 grid for every 2 frames."""

    name = "mvit_b_32x3"
    builder = "mvit_base_32x3"
    clip = replace(MvitB16x4.clip, fps=10, window=32, stride=32, receptive_field=32)
