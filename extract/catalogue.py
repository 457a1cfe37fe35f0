"""What there is to know of every backbone without loading it."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from extract.backbone import BACKBONES, AudioBackbone, Backbone, backbone_class
from extract.published import WEIGHTS
from extract.scene_rows import scene_level
from extract.stock import WeightsCard, stock


@dataclass(frozen=True)
class BackboneCard:
    """One backbone, for people and for JSON."""

    name: str
    streams: tuple[str, ...]
    rows: dict[str, tuple[int, ...]]  # level -> shape of a row
    sees: str  # of a video, in words
    fps: float | None  # frames a second that it wants, or rows a second of sound
    window: int | None  # frames of a clip; None: sound
    classes: str | None  # list of its classifier, for --show-pred
    weights: tuple[WeightsCard, ...]
    about: str  # paper, origin and licence, as its file says


def cards(names: Sequence[str] = ()) -> list[BackboneCard]:
    """The cards of these backbones, or of all there are, in order of their names."""
    return [card(name) for name in names or sorted(BACKBONES)]


def card(name: str) -> BackboneCard:
    """The card of one backbone; BackboneError if there is none."""
    kind = backbone_class(name)
    rows = {str(level): shape for level, shape in kind.row_shapes.items()}
    published = tuple(stock([name])) if any(owner == name for owner, _, _ in WEIGHTS) else ()
    if issubclass(kind, AudioBackbone):
        sees = f"sound at {kind.sample_rate / 1000:g} kHz, {kind.default_rate:.4g} rows/s"
        return BackboneCard(name, (kind.stream,), rows, sees, kind.default_rate, None, None, published, about(kind))
    clip, level = kind.clip, scene_level(kind)
    if level is not None:
        rows["scene"] = kind.row_shapes[level]
    seen = "frames" if clip.window == 1 else f"{clip.window} frames"
    if clip.halo:
        seen = f"all frames (or {seen})"
    sees = f"{seen} at {f'{clip.fps:g}/s' if clip.fps else 'their own rate'}, {clip.crop} x {clip.crop}"
    streams = (kind.stream,)
    return BackboneCard(name, streams, rows, sees, clip.fps, clip.window, kind.class_list, published, about(kind))


def about(kind: type[Backbone | AudioBackbone]) -> str:
    """The paragraphs that head its file, up to the shape letters."""
    text = inspect.cleandoc(sys.modules[kind.__module__].__doc__ or "")
    return text.partition("\n\nShape letters:")[0]
