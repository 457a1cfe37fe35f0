"""Which streams of which backbones are wanted: frames, the flow between them, or both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from extract.backbone import AudioBackbone, Backbone, BackboneError
from extract.flow import FlowStage, flow_method, opencv
from extract.flow_images import FlowFolder
from stores.names import printable

STREAMS = ("rgb", "flow")


def choose_streams(
    wanted: Sequence[str], classes: Mapping[str, type[Backbone | AudioBackbone]]
) -> dict[str, tuple[str, ...]]:
    """Streams of each backbone: those wanted that it has; sound is one of its own that is always wanted.

    Raises:
        BackboneError: there is no such stream, no backbone has it, or a backbone is left without any.
    """
    if unknown := [word for word in wanted if word not in STREAMS]:
        raise BackboneError(f"--stream has {printable(', '.join(unknown))}; the streams are {', '.join(STREAMS)}.")
    if not wanted:
        raise BackboneError("--stream names no stream: give rgb, flow, or both as rgb,flow.")
    sighted = {name: kind for name, kind in classes.items() if not issubclass(kind, AudioBackbone)}
    has = "; ".join(f"{name} {', '.join(kind.streams)}" for name, kind in sighted.items())
    for stream in wanted:
        if sighted and not any(stream in kind.streams for kind in sighted.values()):
            raise BackboneError(f"no backbone of {', '.join(classes)} has the stream {stream}; they have: {has}.")
    chosen = {
        name: tuple(kind.streams)
        if name not in sighted
        else tuple(s for s in STREAMS if s in wanted and s in kind.streams)
        for name, kind in classes.items()
    }
    for name, streams in chosen.items():
        if not streams:
            raise BackboneError(
                f"{name} has no stream {', '.join(wanted)} (it has {', '.join(classes[name].streams)}): leave it out, "
                "or name its stream, too."
            )
    return chosen


def flow_stage(
    choice: str | None, save: Path | None, streams: Mapping[str, tuple[str, ...]], device: torch.device
) -> FlowStage | None:
    """How flow is computed where some backbone wants it; None where none does.

    Raises:
        BackboneError: options of flow without flow, or what they need is not installed.
    """
    if not any("flow" in of_one for of_one in streams.values()):
        if choice is not None or save is not None:
            raise BackboneError("--flow and --save-flow are for the stream flow: add --stream flow, or leave them out.")
        return None
    method = flow_method(choice or "dis", device)
    if save is None:
        return FlowStage(method)
    opencv("--save-flow")
    return FlowStage(method, FlowFolder(save, method.settings))
