"""Rows of scenes: one decode feeds the cut detector and every network, which sees a few frames of each scene.

Which frames, of the n >= 1 frames of a scene, numbered from 0: it is divided into P equal parts, and of each part
k = 0 .. P - 1 the frame in its middle is taken, m_k = floor((2 k + 1) n / (2 P)). A network of single images has one
part, the frame in the centre of the scene; one of clips has 12, or as many as --window says. As the end of a scene is
not known before it comes, a scene of more than KEPT frames is thinned out: s is the least power of two with
ceil(n / s) <= KEPT, and the frame is s floor(m_k / s). So at most KEPT frames of a scene are held, none is further off
than n / 64, and a scene of up to KEPT frames is exact.

Shape letters: T frames, H height, W width, S side of a crop, P parts.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from extract.backbone import AudioBackbone, Backbone, BackboneError, set_name
from extract.extractors import NamedRows, Network, Pending, on_device
from extract.scenes import SceneCutter, SceneCutting
from extract.weights import LoadedWeights
from extract.whitening import Whitening, stored_form, whitening_settings
from stores.spec import FeatureSpec, Granularity

KEPT = 128  # frames of a scene; 24 MB at the crops of 224 and 112
PARTS = 12  # of a scene, as STAN has them

Crops = Mapping[tuple[int, int], Tensor]  # (resize, crop) -> frames as networks of that format see them


@dataclass(frozen=True)
class Scenes:
    """The networks that see scenes, and how these are cut; all sets have the same times."""

    networks: tuple[Network, ...]  # window: frames of a scene; the level they run at stands for their scene set
    cutting: SceneCutting

    @property
    def specs(self) -> dict[str, FeatureSpec]:
        """Spec of every set, by name."""
        return {name: spec for network in self.networks for name, spec in network.specs.items()}

    def only(self, sets: frozenset[str]) -> Scenes | None:
        """The same for some of the sets; None where none is of scenes."""
        networks = tuple(network for network in self.networks if sets & set(network.specs))
        return dataclasses.replace(self, networks=networks) if networks else None

    def start(self) -> SceneRows:
        """What takes the frames of one video, every one of them."""
        return SceneRows(self)


class SceneRows:
    """Rows of the scenes of one video; holds a bounded number of frames however long it is."""

    def __init__(self, scenes: Scenes) -> None:
        self.networks = scenes.networks
        self.pending = [Pending(network) for network in scenes.networks]
        self.cutter = SceneCutter(scenes.cutting, scenes.networks[0].device)
        self.open: deque[Crops] = deque()  # of frames that may yet turn out to begin a scene
        self.shot = Shot()
        self.start = self.end = 0.0  # seconds, of the scene under way

    def push(self, frames: Tensor, times: NDArray[np.float64]) -> NamedRows:
        """(T, H, W, 3) uint8 upright frames and their (T, 2) seconds; the memory is not kept."""
        formats = {crop_format(network): network for network in self.networks}
        crops = {key: on_device(frames, network) for key, network in formats.items()}
        # Copies, as a frame that is kept would else keep all those it came with.
        self.open += [{key: x[index].clone() for key, x in crops.items()} for index in range(len(frames))]
        yield from self._settle(self.cutter.push(frames.numpy(), times))

    def finish(self) -> NamedRows:
        """The last scenes."""
        yield from self._settle(self.cutter.finish())
        if self.shot.count:
            yield from self._close()
        for pending in self.pending:
            yield from pending.drain()

    def _settle(self, certain: Iterable[tuple[float, float, bool]]) -> NamedRows:
        """Put open frames into their scenes."""
        for start, end, begins in certain:
            if begins:
                yield from self._close()
                self.start = start
            self.shot.add(self.open.popleft())
            self.end = end

    def _close(self) -> NamedRows:
        """The rows of the scene that ended."""
        times = np.array([[self.start, self.end]])
        for network, pending in zip(self.networks, self.pending, strict=True):
            chosen = torch.stack([crops[crop_format(network)] for crops in self.shot.middles(network.window)])
            rows = {network.sets[level]: x.flatten(0, 1) for level, x in network.run(chosen.unsqueeze(0)).items()}
            yield from pending.add(rows, dict.fromkeys(rows, times))
        self.shot = Shot()


class Shot:
    """The frames of one scene so far, thinned out by powers of two so that at most KEPT are held."""

    def __init__(self) -> None:
        self.count = 0
        self._step = 1
        self._kept: list[Crops] = []  # frames 0, step, 2 step, ...

    def add(self, frame: Crops) -> None:
        """The next frame."""
        if self.count % self._step == 0:
            if len(self._kept) == KEPT:
                self._kept = self._kept[::2]
                self._step *= 2  # of which this frame's number is a multiple, too, as KEPT is even
            self._kept.append(frame)
        self.count += 1

    def middles(self, parts: int) -> list[Crops]:
        """The frames in the middle of `parts` equal parts, as the head of this file defines them."""
        return [self._kept[number // self._step] for number in middle_frames(self.count, parts)]


def middle_frames(count: int, parts: int) -> list[int]:
    """Which of the `count` frames of a scene stand for `parts` equal parts, as the head of this file defines them.

    >>> middle_frames(25, 1), middle_frames(24, 12), middle_frames(600, 2)
    ([12], [1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23], [144, 448])
    """
    step = 1
    while -(-count // step) > KEPT:
        step *= 2
    return [(2 * k + 1) * count // (2 * parts) // step * step for k in range(parts)]


def crop_format(network: Network) -> tuple[int, int]:
    return network.backbone.clip.resize, network.backbone.clip.crop


def scene_level(kind: type[Backbone | AudioBackbone]) -> Granularity | None:
    """The level at which a backbone runs on a scene: its frame in the centre, or a clip of it; None: it sees nothing.

    >>> from extract.resnet import ResNet18
    >>> scene_level(ResNet18)
    <Granularity.FRAME: 'frame'>
    """
    if issubclass(kind, AudioBackbone):
        return None
    return Granularity.FRAME if kind.clip.window == 1 else Granularity.CLIP


def scene_network(
    backbone: Backbone,
    loaded: LoadedWeights,
    cutting: SceneCutting,
    *,
    frames: int | None,
    roi: tuple[int, int, int, int] | None,
    dtype: str,
    precision: str,
    whitening: Whitening | None = None,
) -> Network:
    """The network as it sees scenes; `frames` of each (None: 12, or one if it sees single images).

    Raises:
        BackboneError: more than one frame for a network of single images, or more than are held of a scene.
    """
    clip, level = backbone.clip, scene_level(type(backbone))
    assert level is not None, f"{backbone.name} sees no frames"
    if clip.window == 1 and (frames or 1) != 1:
        raise BackboneError(f"{backbone.name} sees single frames: the one in the centre of a scene, without --window.")
    if frames is not None and frames > KEPT // 2:
        raise BackboneError(f"--window {frames} of {backbone.name}: a scene gives at most {KEPT // 2} frames.")
    window = 1 if clip.window == 1 else frames or PARTS
    clip.check_window(backbone.name, window)
    name = set_name(backbone.name, backbone.stream, Granularity.SCENE)
    settings: dict[str, Any] = {**backbone.settings(), **cutting.settings(), "frames_held": KEPT, "frames": window}
    settings |= whitening_settings(whitening)
    spec = FeatureSpec(
        granularity=Granularity.SCENE,
        **stored_form(backbone.row_shapes[level], dtype, whitening),
        backbone=backbone.name,
        stream=backbone.stream,
        weights=loaded.name,
        weights_sha256=loaded.sha256,
        random_weights=loaded.random,
        window=None if window == 1 else window,
        **clip.spec_fields(),
        roi=roi,
        settings=settings,
    )
    return Network(
        backbone,
        sets={level: name},
        specs={name: spec},
        fps=None,
        stride=1,
        window=window,
        convolutional=False,
        batch=1,
        tile=0,
        precision=precision,
        whitening=whitening,
    )
