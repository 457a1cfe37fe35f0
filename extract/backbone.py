"""What a frozen network wants, what it gives, and how a name becomes one.

uint8 frames go in and normalising happens inside, so no caller can forget it or do it twice. One forward pass
gives every level that was asked for.

Shape letters: B clips, T frames, H height, W width, R rows a clip.
"""

from __future__ import annotations

import importlib
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from stores.errors import VlError
from stores.names import printable, slug
from stores.spec import Granularity

BACKBONES: Mapping[str, str] = {
    "c2d_r50": "extract.resnet3d:C2dR50",
    "csn_152": "extract.csn:Csn152",
    "csn_r101": "extract.csn:CsnR101",
    "efficientnet_lite0": "extract.efficientnet:EfficientNetLite0",
    "i3d": "extract.i3d:InceptionI3d",
    "i3d_r50": "extract.resnet3d:I3dR50",
    "inception_v3": "extract.inception_v3:InceptionV3",
    "inception_v3_2015": "extract.inception_v3:InceptionV3Of2015",
    "logmel": "extract.logmel:LogMel",
    "mvit_b_16x4": "extract.mvit:MvitB16x4",
    "mvit_b_32x3": "extract.mvit:MvitB32x3",
    "nonlocal_r101": "extract.nonlocal_resnet:NonlocalR101",
    "nonlocal_r50": "extract.nonlocal_resnet:NonlocalR50",
    "r2plus1d_18": "extract.r2plus1d:R2Plus1d18",
    "r2plus1d_r50": "extract.r2plus1d:R2Plus1dR50",
    "resnet18": "extract.resnet:ResNet18",
    "resnet50": "extract.resnet:ResNet50",
    "slow_r50": "extract.resnet3d:SlowR50",
    "slowfast_r101": "extract.slowfast:SlowFastR101",
    "slowfast_r50": "extract.slowfast:SlowFastR50",
    "vggish": "extract.vggish:Vggish",
    "x3d_l": "extract.x3d:X3dL",
    "x3d_m": "extract.x3d:X3dM",
    "x3d_s": "extract.x3d:X3dS",
    "x3d_xs": "extract.x3d:X3dXs",
}
FAMILIES: Mapping[str, str] = {  # "timm:NAME" becomes a class by calling this with NAME
    "hf": "extract.hf_models:hf_class",
    "timm": "extract.timm_models:timm_class",
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
    multiple: int = 1  # a clip has a multiple of so many frames
    fixed: bool = False  # the network takes clips of `window` frames alone

    def spec_fields(self) -> dict[str, Any]:
        """The fields of a spec that say how frames become what the network sees."""
        return {
            "resize": f"short side {self.resize}, bilinear, antialiased",
            "crop": f"centre {self.crop}",
            "normalise": f"mean {self.mean}, sd {self.std}",
        }

    def check_window(self, name: str, window: int) -> None:
        """Raise BackboneError where the network, called `name`, takes no clips of `window` frames."""
        if self.fixed and window != self.window:
            raise BackboneError(
                f"{name} takes clips of {self.window} frames, for which its positions were learned, not of {window}: "
                f"give --window {name}={self.window}."
            )
        if window % self.multiple:
            raise BackboneError(f"--window {window} of {name} must be a multiple of {self.multiple} frames.")


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
    pca_features: ClassVar[int | None] = None  # of a FRAME row after its published PCA (`extract.whitening`)
    last_stage: ClassVar[str | None] = None  # module of the last stage, where its spatial stride may be 1
    last_stride: int | None = None  # 1: so it is; None: that of the published network

    def unstride_last_stage(self) -> None:
        """Give the last stage the spatial stride 1: maps twice as high and wide, from the same weights.

        As SlowFast's networks do for detection (Feichtenhofer et al., ICCV 2019, section 5): all 3 x 3 filters of the
        stage are dilated by 2, so that they reach as far as before. The stride in time stays.

        Raises:
            BackboneError: the network has no such stage.
        """
        if self.last_stage is None:
            raise BackboneError(f"{self.name} has no last stage whose spatial stride could be 1.")
        assert self.last_stride is None, f"the last stage of {self.name} has the stride 1 already"
        for layer in self.get_submodule(self.last_stage).modules():
            if isinstance(layer, nn.Conv2d | nn.Conv3d):
                layer.stride = (*layer.stride[:-2], 1, 1)
                if layer.kernel_size[-2:] == (3, 3):
                    layer.dilation = (*layer.dilation[:-2], 2, 2)
                    layer.padding = (*layer.padding[:-2], 2, 2)
        height, width, channels = self.row_shapes[Granularity.MAP]
        shapes = {**self.row_shapes, Granularity.MAP: (2 * height, 2 * width, channels)}
        self.row_shapes = shapes  # type: ignore[misc]  # of this one alone
        self.last_stride = 1

    def settings(self) -> dict[str, float | int | str]:
        """What defines the numbers beside the weights and `clip`, for the spec."""
        return {} if self.last_stride is None else {"last_stride": self.last_stride}

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
    row_seconds: ClassVar[float | None] = None  # of sound that a row stands for; None: up to where the next one begins
    pca_features: ClassVar[int | None] = None  # of a row after its published PCA (`extract.whitening`)

    def num_rows(self, samples: int, rate: float) -> int:
        """Rows of a sound of so many samples; the last one may reach beyond its end."""
        return math.ceil(samples / self.sample_rate * rate - 1e-6)

    @abstractmethod
    def span(self, first: int, stop: int, rate: float) -> tuple[int, int]:
        """Samples [from, to) that rows `first` to `stop` need; outside the sound they count as zeros."""

    @abstractmethod
    def rows(self, wave: Tensor, first: int, stop: int, rate: float) -> Tensor:
        """(S,) samples of exactly that span to rows (stop - first, *row_shape)."""

    @abstractmethod
    def settings(self) -> dict[str, float | int | str]:
        """What defines the numbers, for the spec."""


class ExampleBackbone(AudioBackbone):
    """A network that sees one piece of spectrogram, an example, for each row: nothing before it has weights."""

    example_shape: ClassVar[tuple[int, int]]  # (J, M) spectrogram frames and mel bands

    @abstractmethod
    def examples(self, wave: Tensor, first: int, stop: int, rate: float) -> Tensor:
        """(S,) samples of the span of these rows to the example of each, (stop - first, J, M) float32."""

    @abstractmethod
    def forward(self, examples: Tensor, levels: frozenset[Granularity]) -> dict[Granularity, Tensor]:
        """(B, T, J, M) examples to FRAME rows (B, T, *row_shape), of the parameters' dtype."""

    def rows(self, wave: Tensor, first: int, stop: int, rate: float) -> Tensor:
        """(S,) samples of exactly that span, in [-1, 1], to (stop - first, *row_shape)."""
        start, end = self.span(first, stop, rate)
        assert wave.shape == (end - start,), f"rows {first} to {stop} need {end - start} samples, not {wave.shape}"
        rows: Tensor = self(self.examples(wave, first, stop, rate)[None], frozenset({Granularity.FRAME}))[
            Granularity.FRAME
        ]
        return rows[0]


def backbone_class(name: str) -> type[Backbone | AudioBackbone]:
    """The class that `name` stands for; the error lists all names."""
    if not is_name(name):
        raise BackboneError(f"there is no backbone '{printable(name)}'. There are: {listed_names()}.")
    if name not in BACKBONES:
        family, _, model = name.partition(":")
        return family_class(family, model)
    found: type[Backbone | AudioBackbone] = imported(BACKBONES[name])
    return found


@cache
def family_class(family: str, model: str) -> type[Backbone]:
    """The class of one model of a family: always the same one."""
    made: type[Backbone] = imported(FAMILIES[family])(model)
    return made


def imported(place: str) -> Any:
    """What "module:name" stands for."""
    module, _, attribute = place.partition(":")
    return getattr(importlib.import_module(module), attribute)


def is_name(text: str) -> bool:
    """Whether `text` has the form of a backbone's name; a model of a family need not exist."""
    family, colon, model = text.partition(":")
    return text in BACKBONES or bool(colon and model and family in FAMILIES)


def listed_names() -> str:
    return ", ".join([*sorted(BACKBONES), *(f"{family}:NAME" for family in sorted(FAMILIES))])


def set_name(name: str, stream: str, level: Granularity) -> str:
    """What the feature set of a backbone is called: its name as far as a set may be called so.

    >>> set_name("hf:MCG-NJU/videomae-base", "rgb", Granularity.CLIP)
    'hf-mcg-nju-videomae-base.rgb.clip'
    """
    return f"{slug(name, 100)}.{stream}.{level}"
