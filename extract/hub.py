"""Networks of pytorchvideo's hub as backbones: built by its own builders, under the names of its published files.

pytorchvideo 0.1.5 imports torchvision for one class, RoIAlign, that only its detection heads use. Where torchvision is
absent, or does not fit the installed torch, a stand-in takes its place for the time of the import and no longer.

Shape letters: B clips, C channels, T frames, R output time steps, H height, W width, D features.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from types import ModuleType
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from extract.backbone import ClipFormat
from extract.clip_backbone import ClipBackbone
from stores.spec import Granularity

MEAN, STD = (0.45, 0.45, 0.45), (0.225, 0.225, 0.225)  # of every network of the hub, on pixels in [0, 1]

# Clips of 8 frames, every 8th of a video of 30 a second, and so on; short side and crop are those of the zoo's tests.
CLIP_8X8 = ClipFormat(fps=3.75, window=8, stride=8, resize=256, crop=256, mean=MEAN, std=STD)
CLIP_16X4 = replace(CLIP_8X8, fps=7.5, window=16, stride=16)
CLIP_32X2 = replace(CLIP_8X8, fps=15, window=32, stride=32)


class HubBackbone(ClipBackbone):
    """A network of the hub: all its blocks but the head give the maps, the head's last layer the classes."""

    builder: ClassVar[str]  # name of the function in pytorchvideo.models.hub
    options: ClassVar[Mapping[str, Any]] = {}  # for the builder; the published networks have none
    default_weights = "kinetics400"
    class_list = "kinetics400"

    blocks: nn.ModuleList

    def __init__(self, stream: str = "rgb") -> None:
        super().__init__(stream)
        network = getattr(pytorchvideo("pytorchvideo.models.hub"), self.builder)(**self.options)
        for name, part in network.named_children():
            self.add_module(name, part)
        self.freeze()

    def trunk(self, x: Tensor) -> Tensor:
        """(B, 3, T, H, W) normalised to (B, C, R, H / 32, W / 32)."""
        for block in self.blocks[:-1]:
            x = block(x)
        return x

    @property
    def top(self) -> Any:  # pytorchvideo has no types
        """The head: it pools, classifies and may end in a softmax."""
        return self.blocks[-1]

    def classifier(self, features: Tensor) -> Tensor:
        logits: Tensor = self.top.proj(features)
        return logits


class HubResNet(HubBackbone):
    """A residual network of the hub: its head averages windows of 7 x 7 cells, which at a crop of 256 overlap."""

    row_shapes = {Granularity.CLIP: (2048,), Granularity.MAP: (8, 8, 2048)}  # noqa: RUF012
    last_stage = "blocks.4"

    def features(self, x: Tensor) -> Tensor:
        return pool_windows(x, 7 if self.last_stride is None else 14)  # of the same size in pixels


def pool_windows(x: Tensor, side: int) -> Tensor:
    """(B, C, R, H, W) to (B, C): the mean over time, then over all `side` x `side` windows of the cells.

    So the published heads see a frame larger than the one they were trained on: the average of every window is
    classified, then the logits are averaged; as the classifier is linear, it may as well see the average of both.
    """
    x_BCHW = x.mean(2)
    height, width = x_BCHW.shape[2:]
    return F.avg_pool2d(x_BCHW, (min(side, height), min(side, width)), stride=1).mean((2, 3))


def pytorchvideo(module: str) -> ModuleType:
    """A module of pytorchvideo, imported with or without torchvision."""
    if module in sys.modules:
        return sys.modules[module]
    with torchvision_or_stand_in(), warnings.catch_warnings():
        # fvcore compiles a loss function at import; nothing of it is used here.
        warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated", DeprecationWarning)
        return importlib.import_module(module)


@contextmanager
def torchvision_or_stand_in() -> Iterator[None]:
    """While it lasts `from torchvision.ops import RoIAlign` works; afterwards no stand-in is left."""
    try:
        importlib.import_module("torchvision.ops")
    except (AttributeError, ImportError, OSError, RuntimeError):  # absent, or made for another torch
        package, ops = ModuleType("torchvision"), ModuleType("torchvision.ops")
        vars(package)["ops"] = ops
        vars(ops)["RoIAlign"] = type("RoIAlign", (), {})
        stand_in: dict[str, ModuleType] = {"torchvision": package, "torchvision.ops": ops}
        before = {name: sys.modules.pop(name) for name in stand_in if name in sys.modules}
        sys.modules |= stand_in
        try:
            yield
        finally:
            for name in stand_in:
                del sys.modules[name]
            sys.modules |= before
    else:
        yield
