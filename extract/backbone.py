"""What a frozen network wants, what it gives, and how a name becomes one.

uint8 frames go in and normalising happens inside, so no caller can forget it or do it twice. One forward pass
gives every level that was asked for.

Shape letters: B clips, T frames, H height, W width, R rows a clip.
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from stores.errors import VlError
from stores.spec import Granularity

BACKBONES: Mapping[str, str] = {
    "efficientnet_lite0": "extract.efficientnet:EfficientNetLite0",
    "i3d": "extract.i3d:InceptionI3d",
    "logmel": "extract.logmel:LogMel",
    "r2plus1d_18": "extract.r2plus1d:R2Plus1d18",
    "resnet18": "extract.resnet:ResNet18",
}


class BackboneError(VlError):
    """A backbone, its weights or its settings do not fit."""


@dataclass(frozen=True)
class ClipFormat:
    """How a network was trained to see frames; the defaults of an extraction."""

    fps: float | None  # frames a second that it wants; None: those of the video
    window: int  # frames a clip; 1 for a network of single images
    stride: int  # frames from one row to the next
    resize: int  # the short side is brought to this many pixels (bilinear, antialiased)
    crop: int  # side of the centre crop
    mean: tuple[float, ...]  # of each channel, on pixels scaled to [0, 1]
    std: tuple[float, ...]
    output_stride: int = 1  # frames between two output time steps of the network
    receptive_field: int = 1  # frames that reach one output time step
    halo: int = 0  # frames of context, a multiple of output_stride, that make a tile exact; 0: no convolutional mode


class Backbone(nn.Module, ABC):
    """A frozen network on frames: (B, T, H, W, 3) uint8 to rows for each requested level.

    A subclass sets the class variables, builds its layers under the parameter names of the public checkpoint,
    and gives `forward` and, where it has a classifier, `classify`.
    """

    name: ClassVar[str]
    stream: str = "rgb"  # rgb or flow; a network that has both takes it in its constructor
    streams: ClassVar[tuple[str, ...]] = ("rgb",)  # those that it has
    clip: ClipFormat
    row_shapes: ClassVar[Mapping[Granularity, tuple[int, ...]]]
    default_weights: ClassVar[str]  # a name in extract.published.WEIGHTS
    class_list: ClassVar[str | None] = None  # name of the class list of its classifier

    def normalise(self, frames: Tensor) -> Tensor:
        """(B, T, H, W, 3) uint8 to (B, 3, T, H, W) of the parameters' dtype and device, scaled by `clip`."""
        parameter = next(self.parameters())
        x = frames.to(parameter.device, non_blocking=True).permute(0, 4, 1, 2, 3).to(parameter.dtype)
        mean = torch.tensor(self.clip.mean, dtype=x.dtype, device=x.device).view(1, -1, 1, 1, 1)
        std = torch.tensor(self.clip.std, dtype=x.dtype, device=x.device).view(1, -1, 1, 1, 1)
        return (x / 255 - mean) / std

    def freeze(self) -> None:
        """Last step of a subclass's `__init__`: evaluation mode, and weights in the order in which frames lie."""
        orders = {4: torch.channels_last, 5: torch.channels_last_3d}  # fewer copies in every layer
        for parameter in self.parameters():
            if parameter.ndim in orders:
                parameter.data = parameter.data.contiguous(memory_format=orders[parameter.ndim])
        self.eval()  # in training mode batch norm would mix the clips of a batch

    @abstractmethod
    def forward(
        self, frames: Tensor, levels: frozenset[Granularity], convolutional: bool = False
    ) -> dict[Granularity, Tensor]:
        """Rows of each level in `levels`: (B, R, *row_shapes[level]), of the parameters' dtype.

        FRAME has R = T. MAP has one row an output time step, R = ceil(T / output_stride). CLIP has R = 1, the
        mean over the window, or one row an output time step where `convolutional`.
        """

    def classify(self, frames: Tensor) -> Tensor:
        """(B, T, H, W, 3) uint8 to class logits (B, classes), for `--show-pred`."""
        raise BackboneError(f"{self.name} has no classifier to show classes of {len(frames)} clips with.")


class AudioBackbone(nn.Module, ABC):
    """Rows of sound: mono float samples in [-1, 1] to FRAME rows at `rate` rows a second."""

    name: ClassVar[str]
    stream: ClassVar[str] = "audio"
    streams: ClassVar[tuple[str, ...]] = ("audio",)
    sample_rate: ClassVar[int]
    row_shapes: ClassVar[Mapping[Granularity, tuple[int, ...]]]
    default_weights: ClassVar[str]  # "none" where nothing is learned
    default_rate: ClassVar[float]

    @abstractmethod
    def span(self, first: int, stop: int, rate: float) -> tuple[int, int]:
        """Samples [from, to) that rows `first` to `stop` need; outside the sound they count as zeros."""

    @abstractmethod
    def forward(self, wave: Tensor, first: int, stop: int, rate: float) -> Tensor:
        """(S,) samples of exactly that span to rows (stop - first, *row_shape)."""

    @abstractmethod
    def settings(self) -> dict[str, float | int | str]:
        """What defines the numbers, for the spec."""


def backbone_class(name: str) -> type[Backbone | AudioBackbone]:
    """The class that `name` stands for; the error lists all names."""
    if name not in BACKBONES:
        raise BackboneError(f"there is no backbone '{name}'. There are: {', '.join(sorted(BACKBONES))}.")
    module, _, attribute = BACKBONES[name].partition(":")
    found: type[Backbone | AudioBackbone] = getattr(importlib.import_module(module), attribute)
    return found
