"""What `vl extract` was asked for, and whether that makes sense together."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import torch

from extract.backbone import AudioBackbone, Backbone, BackboneError, set_name
from extract.scenes import SceneCutting
from extract.views import Views
from stores.spec import Granularity

T = TypeVar("T")

LEVELS = (Granularity.FRAME, Granularity.CLIP, Granularity.MAP, Granularity.SCENE)
SAMPLED_LEVELS = (Granularity.CLIP, Granularity.MAP)
DEFAULT_LEVELS = (Granularity.CLIP, Granularity.FRAME)  # the first of these that a backbone has


@dataclass(frozen=True)
class ExtractOptions:
    """What `vl extract` was asked for; maps go from a backbone (settings: or "" for all) to the user's value."""

    backbones: tuple[str, ...]
    levels: tuple[Granularity, ...] = ()  # none: each backbone's default
    weights: Mapping[str, str] = field(default_factory=dict)
    fps: Mapping[str, float] = field(default_factory=dict)
    stride: Mapping[str, int] = field(default_factory=dict)
    window: Mapping[str, int] = field(default_factory=dict)
    last_stride: Mapping[str, int] = field(default_factory=dict)  # 1: spatial stride of the last stage
    pca: Mapping[str, str] = field(default_factory=dict)  # files of the published PCA; rows are stored in 8 bits
    dense: str | None = None  # convolutional or windowed; none: each backbone's default
    roi: tuple[int, int, int, int] | None = None
    dtype: str = "float16"
    device: str = "auto"
    precision: str = "fp32"
    batch: int | None = None
    tile: int | None = None  # frames of a convolutional tile, of which all but the context become rows
    decoder: str = "pyav"
    planes: bool | None = None  # convert colours where the networks run, not in the decoder; None: on CUDA
    views: tuple[Views, ...] = ()  # clip-sampled sets, one for each speed; none: dense
    scenes: SceneCutting | None = None  # how scenes are cut; none: the default
    streams: tuple[str, ...] = ("rgb",)
    flow: str | None = None  # how flow is computed (extract.flow); none: DIS
    save_flow: Path | None = None  # where flow is written to as pictures; none: nowhere

    def with_absolute_paths(self) -> ExtractOptions:
        """The same for a process in another folder: values that name files which are there name them absolutely."""

        def absolute(value: str) -> str:
            name, equals, file = value.rpartition("=")  # raft=PATH
            return f"{name}{equals}{Path(file).absolute()}" if Path(file).is_file() else value

        return dataclasses.replace(
            self,
            weights={name: absolute(value) for name, value in self.weights.items()},
            pca={name: absolute(value) for name, value in self.pca.items()},
            flow=None if self.flow is None else absolute(self.flow),
            save_flow=None if self.save_flow is None else self.save_flow.absolute(),
        )


def pick(values: Mapping[str, T], name: str) -> T | None:
    """The value given for this backbone, else the one given for all."""
    return values.get(name, values.get(""))


def check_scenes(options: ExtractOptions, chosen: Mapping[str, tuple[Granularity, ...]]) -> SceneCutting | None:
    """How scenes are cut, if there are any; BackboneError for settings that have no say in what is made."""
    if not any(Granularity.SCENE in levels for levels in chosen.values()):
        if options.scenes is not None:
            raise BackboneError("settings of scenes without --level scene: give both, or neither.")
        return None
    if "rgb" not in options.streams:
        raise BackboneError("--level scene is a row of frames, not of flow: add --stream rgb, or leave it out.")
    for name, levels in chosen.items():
        given = [what for what in ("fps", "stride") if pick(getattr(options, what), name) is not None]
        given += ["dense"] if options.dense is not None else []
        if given and levels == (Granularity.SCENE,):
            raise BackboneError(
                f"--{given[0]} changes nothing for {name}: a scene has one row, of frames at the video's own rate."
            )
    return options.scenes or SceneCutting()


def check_names(options: ExtractOptions, classes: Mapping[str, type[Backbone | AudioBackbone]]) -> None:
    """Raise for a `NAME=value` option whose name is no requested backbone, and for names that give one set name."""
    for what in ("fps", "stride", "window", "pca"):
        if unknown := sorted(set(getattr(options, what)) - set(classes) - {""}):
            raise BackboneError(f"--{what} names {', '.join(unknown)}, but the backbones are {', '.join(classes)}.")
    called: dict[str, str] = {}
    for name, kind in classes.items():
        other_name = called.setdefault(set_name(name, kind.stream, Granularity.FRAME), name)
        if other_name != name:
            raise BackboneError(f"{other_name} and {name} would fill sets of one name: extract them into two stores.")


def check_last_stride(options: ExtractOptions, classes: Mapping[str, type[Backbone | AudioBackbone]]) -> None:
    """Raise for a stride other than 1, and for networks without a last stage whose stride could be that."""
    having = [name for name, kind in classes.items() if issubclass(kind, Backbone) and kind.last_stage]
    named = list(options.last_stride)
    if (without := sorted(set(named) - {"", *having})) or (named and not having):
        raise BackboneError(
            f"--last-stride: {', '.join(without or classes)} has no residual last stage whose stride could be 1."
        )
    if other := [stride for stride in options.last_stride.values() if stride != 1]:
        raise BackboneError(f"--last-stride is 1, or left out for the published network's own; it is not {other[0]}.")


def check_views(options: ExtractOptions, classes: Mapping[str, type[Backbone | AudioBackbone]]) -> None:
    """Raise where no backbone sees clips, and for options that are for dense sets alone."""
    sampled = [name for name, kind in classes.items() if sees_clips(kind)]
    if not sampled:
        raise BackboneError(f"--speeds and --views: {', '.join(classes)} sees no clips. Name a backbone that does.")
    if options.dense is not None or any(pick(options.stride, name) is not None for name in sampled):
        raise BackboneError("--speeds and --views say where clips lie: leave out --stride and --dense.")
    if options.levels and not set(options.levels) & set(SAMPLED_LEVELS):
        raise BackboneError(f"--speeds and --views are for the levels clip and map, not {', '.join(options.levels)}.")


def sees_clips(kind: type[Backbone | AudioBackbone]) -> bool:
    """Whether --speeds and --views have a say in what it sees: sound and single images are dense beside them."""
    return not issubclass(kind, AudioBackbone) and kind.clip.window > 1


def levels_of(name: str, has: set[Granularity], wanted: tuple[Granularity, ...]) -> tuple[Granularity, ...]:
    """Levels of one backbone: those wanted that it has, or its default."""
    if wanted:
        return tuple(level for level in LEVELS if level in wanted and level in has)
    default = next((level for level in DEFAULT_LEVELS if level in has), None)
    assert default is not None, f"{name} has neither clip nor frame rows"
    return (default,)


def choose_device(name: str) -> torch.device:
    """`auto` is the first CUDA device where there is one, else the CPU."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # torch asserts that it was built with CUDA
        raise BackboneError(f"--device {name} cannot be used here: {str(error).splitlines()[0]}") from error
    return device
