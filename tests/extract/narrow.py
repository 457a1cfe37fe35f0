"""Networks for small pictures: the same code, some with a fraction of their weights."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar, cast

import pytest

from extract import backbone
from extract.i3d import InceptionI3d, Logits, Mixed, Unit
from extract.r2plus1d import R2Plus1d18
from extract.resnet import ResNet18
from extract.vggish import Vggish
from stores.spec import Granularity

BACKBONES = {
    "resnet18": "tests.extract.narrow:NarrowResNet18",
    "r2plus1d_18": "tests.extract.narrow:NarrowR2Plus1d18",
    "i3d": "tests.extract.narrow:NarrowI3d",
    "vggish": "tests.extract.narrow:NarrowVggish",
}


def install() -> None:
    """Let the names stand for the narrow networks, for as long as this process lives."""
    cast("dict[str, str]", backbone.BACKBONES).update(BACKBONES)


def stand_in(patch: pytest.MonkeyPatch) -> None:
    """The same until the patch is undone."""
    for name, place in BACKBONES.items():
        patch.setitem(cast("dict[str, str]", backbone.BACKBONES), name, place)


class NarrowResNet18(ResNet18):
    """(B, T, 56, 56, 3) to 128 features a frame."""

    clip = replace(ResNet18.clip, resize=64, crop=56)
    row_shapes = {Granularity.FRAME: (128,), Granularity.MAP: (2, 2, 128)}  # noqa: RUF012
    width: ClassVar[int] = 16
    default_weights = "random"


class NarrowR2Plus1d18(R2Plus1d18):
    """(B, T, 28, 28, 3) to 128 features a clip."""

    clip = replace(R2Plus1d18.clip, resize=32, crop=28, window=8, stride=8)
    row_shapes = {Granularity.CLIP: (128,), Granularity.MAP: (2, 2, 128)}  # noqa: RUF012
    width: ClassVar[int] = 16
    default_weights = "random"


class NarrowI3d(InceptionI3d):
    """(B, T, 32, 32, 3) to 64 features a clip."""

    clip = replace(InceptionI3d.clip, fps=12, resize=36, crop=32, window=16)
    row_shapes = {Granularity.CLIP: (64,), Granularity.MAP: (1, 1, 64)}  # noqa: RUF012
    default_weights = "random"

    def __init__(self, stream: str = "rgb") -> None:
        super().__init__(stream)
        self.Conv3d_1a_7x7 = Unit(len(self.clip.mean), 8, kernel=7, stride=2)
        self.Conv3d_2b_1x1 = Unit(8, 8)
        self.Conv3d_2c_3x3 = Unit(8, 16, kernel=3)
        width = 16
        for name in [name for name, block in self.named_children() if isinstance(block, Mixed)]:
            setattr(self, name, Mixed(width, (16,) * 6))
            width = 4 * 16
        self.logits = Logits(width, 400)
        self.freeze()


class NarrowVggish(Vggish):
    """Sound to 128 features for each 0.96 s."""

    widths = ((4,), (8,), (8, 8), (8, 8))
    hidden = 16
    default_weights = "random"
