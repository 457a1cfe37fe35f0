"""One loaded network, and the rows it gives of a video whose frames arrive piece by piece.

Batches never mix videos: the rows of a video are the same bits whatever was extracted beside it, before it or
after an interruption.

Shape letters: T frames, H height, W width, B tiles.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from extract.backbone import Backbone, BackboneError
from extract.flow import FlowStage
from extract.tiling import Tile, Tiler, Windower
from extract.transform import resize_and_crop
from extract.views import Clips, Views
from extract.whitening import Whitening, quantise
from stores.spec import FeatureSpec, Granularity, Rows

LEAST_COSINE = 0.99  # between a row in bf16 and in fp32
PENDING_BATCHES = 2  # on an accelerator: so many batches may be under way while the next one is prepared

NamedRows = Iterator[tuple[str, Rows]]


class Agreement:
    """How well the first batch in half precision agrees with the same batch in full precision."""

    def __init__(self) -> None:
        self.cosine: float | None = None  # the least of all rows; None until a batch has run

    def check(self, name: str, rows: dict[Granularity, Tensor], exact: dict[Granularity, Tensor]) -> None:
        """Compare (B, R, *row_shape) of every level, row by row.

        Raises:
            BackboneError: a row points elsewhere.
        """
        least = [
            functional.cosine_similarity(rows[level].double().flatten(2), exact[level].double().flatten(2), dim=2).min()
            for level in rows
        ]
        self.cosine = float(torch.stack(least).min())
        if not self.cosine >= LEAST_COSINE:
            raise BackboneError(
                f"bf16 changes the rows of {name}: on the first batch the cosine to fp32 falls to {self.cosine:.4f}, "
                f"under {LEAST_COSINE}. Use --precision fp32."
            )


@dataclass(frozen=True)
class Network:
    """A frozen network with the settings of one extraction; `sets` names the feature set of each level."""

    backbone: Backbone
    sets: Mapping[Granularity, str]
    specs: Mapping[str, FeatureSpec]
    fps: float | None
    stride: int
    window: int
    convolutional: bool
    batch: int  # frames, windows or tiles in one pass
    tile: int  # frames of a tile in the convolutional mode
    precision: str  # fp32 or bf16
    views: Views | None = None  # None: dense
    agreement: Agreement = field(default_factory=Agreement, compare=False)  # of bf16, known after the first batch
    flow: FlowStage | None = None  # None: it sees the frames themselves
    whitening: Whitening | None = None  # of the rows that are stored as uint8

    def only(self, sets: frozenset[str]) -> Network:
        """The same network, giving only the levels of these sets."""
        return dataclasses.replace(
            self,
            sets={level: name for level, name in self.sets.items() if name in sets},
            specs={name: spec for name, spec in self.specs.items() if name in sets},
        )

    @property
    def shown_name(self) -> str:
        """The backbone, its stream where that is not rgb, and a warning where it was never trained."""
        backbone = self.backbone
        name = backbone.name if backbone.stream == "rgb" else f"{backbone.name} ({backbone.stream})"
        random = any(spec.random_weights for spec in self.specs.values())
        return f"{name} (RANDOM WEIGHTS)" if random else name

    @property
    def clips(self) -> Clips | None:
        """The clips of each video that it sees; None where it sees all frames."""
        return None if self.views is None else Clips(self.views, self.window)

    @property
    def device(self) -> torch.device:
        return next(self.backbone.parameters()).device

    @torch.inference_mode()
    def run(self, frames_BTHWC: Tensor) -> dict[Granularity, Tensor]:
        """(B, R, *row_shape) of every wanted level, as `as_stored` has them, still on the device."""
        with self.autocast():
            rows = self.backbone(frames_BTHWC, frozenset(self.sets), self.convolutional)
        if self.precision == "bf16" and self.agreement.cosine is None:
            exact = self.backbone(frames_BTHWC, frozenset(self.sets), self.convolutional)
            self.agreement.check(self.backbone.name, rows, exact)
        return {level: as_stored(x, self.specs[self.sets[level]], self.whitening) for level, x in rows.items()}

    @torch.inference_mode()
    def classify(self, frames_BTHWC: Tensor) -> Tensor:
        """(B, classes) logits in float32 on the CPU."""
        with self.autocast():
            return self.backbone.classify(frames_BTHWC).float().cpu()

    def autocast(self) -> contextlib.AbstractContextManager[object]:
        if self.precision == "bf16":
            return torch.autocast(self.device.type, torch.bfloat16)
        return contextlib.nullcontext()

    def start(self) -> VideoRows:
        """What takes the frames of one video."""
        if self.window == 1 and not self.convolutional:
            return FrameRows(self)
        return ClipRows(self)


def as_stored(x: Tensor, spec: FeatureSpec, whitening: Whitening | None) -> Tensor:
    """Rows as their set stores them; the bytes of a whitened one as float32, until they were seen to be finite."""
    if spec.dtype == "uint8":
        assert whitening is not None, "only whitened rows are stored in 8 bits"
        return quantise(whitening(x))
    return x.to(torch.float16 if spec.dtype == "float16" else torch.float32)


class VideoRows(Protocol):
    """Takes the frames of one video in order and gives its rows in order."""

    def push(self, frames: Tensor, times: NDArray[np.float64]) -> NamedRows:
        """(T, H, W, 3) uint8 upright frames and their (T, 2) seconds; the memory is not kept."""
        ...

    def finish(self) -> NamedRows:
        """The rows that were still under way."""
        ...


class Pending:
    """The rows of batches that the device still computes, handed out in order."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.asynchronous = network.device.type == "cuda"
        self.waiting: deque[tuple[dict[str, Tensor], dict[str, NDArray[np.float64]], torch.cuda.Event | None]] = deque()

    def add(self, rows: dict[str, Tensor], times: dict[str, NDArray[np.float64]]) -> NamedRows:
        """Queue one batch; give what is complete."""
        event = None
        if self.asynchronous:
            pinned = {name: torch.empty(x.shape, dtype=x.dtype, pin_memory=True) for name, x in rows.items()}
            for name, x in rows.items():
                pinned[name].copy_(x, non_blocking=True)
            rows, event = pinned, torch.cuda.Event()  # type: ignore[no-untyped-call]
            event.record()
        self.waiting.append((rows, times, event))
        yield from self.drain(PENDING_BATCHES if self.asynchronous else 0)

    def drain(self, keep: int = 0) -> NamedRows:
        while len(self.waiting) > keep:
            rows, times, event = self.waiting.popleft()
            if event is not None:
                event.synchronize()
            for name, x in rows.items():
                yield name, Rows(finite(x.numpy(), name, self.network.specs[name]), times[name])


def finite(features: NDArray[np.generic], name: str, spec: FeatureSpec) -> NDArray[np.generic]:
    """`features` in the dtype of the spec, unless a value is infinite or not a number."""
    if not np.isfinite(features).all():
        raise BackboneError(
            f"{name} gives values that {features.dtype} cannot hold (infinite or not a number); "
            "try --dtype float32, and check the weights."
        )
    return features.astype(spec.dtype, copy=False)


def on_device(frames: Tensor, network: Network) -> Tensor:
    """(T, H, W, C) to (T, crop, crop, C) on the network's device, in memory of its own."""
    device = network.device
    if device.type == "cuda" and frames.is_cpu:
        frames = frames.pin_memory().to(device, non_blocking=True)
    clip = network.backbone.clip
    return resize_and_crop(frames, clip.resize, clip.crop)


class FrameRows:
    """Rows of a network on single images: one a frame."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.pending = Pending(network)
        self.frames: list[Tensor] = []
        self.times: list[NDArray[np.float64]] = []

    def push(self, frames: Tensor, times: NDArray[np.float64]) -> NamedRows:
        self.frames.append(on_device(frames, self.network))
        self.times.append(times)
        while sum(map(len, self.times)) >= self.network.batch:
            yield from self._run(self.network.batch)

    def finish(self) -> NamedRows:
        if count := sum(map(len, self.times)):
            yield from self._run(count)
        yield from self.pending.drain()

    def _run(self, count: int) -> NamedRows:
        frames, times = torch.cat(self.frames), np.concatenate(self.times)
        self.frames, self.times = ([frames[count:]], [times[count:]]) if len(times) > count else ([], [])
        given = self.network.run(frames[:count].unsqueeze(1))
        sets = self.network.sets
        rows = {sets[level]: x.flatten(0, 1) for level, x in given.items()}
        yield from self.pending.add(rows, dict.fromkeys(rows, times[:count]))


class ClipRows:
    """Rows of a network on clips: of windows, or of the tiles of one long convolution."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.pending = Pending(network)
        stride = network.stride
        self.cutter: Tiler | Windower = (
            Tiler(length=network.tile, stride=stride, halo=network.backbone.clip.halo)
            if network.convolutional
            else Windower(window=network.window, stride=stride)
        )
        self.tiles: list[Tile] = []
        self.frame_times: list[NDArray[np.float64]] = []  # only where the rate is the video's own
        self.num_frames = 0

    def push(self, frames: Tensor, times: NDArray[np.float64]) -> NamedRows:
        self.num_frames += len(frames)
        if self.network.fps is None:
            self.frame_times.append(times)
        yield from self._take(self.cutter.push(on_device(frames, self.network)))

    def finish(self) -> NamedRows:
        yield from self._take(self.cutter.finish())
        if self.tiles:
            yield from self._run(self.tiles)
            self.tiles = []
        yield from self.pending.drain()

    def _take(self, tiles: list[Tile]) -> NamedRows:
        for tile in tiles:
            if self.tiles and len(tile.frames) != len(self.tiles[0].frames):
                yield from self._run(self.tiles)
                self.tiles = []
            self.tiles.append(tile)
            if len(self.tiles) == self.network.batch:
                yield from self._run(self.tiles)
                self.tiles = []

    def _run(self, tiles: list[Tile]) -> NamedRows:
        given = self.network.run(torch.stack([tile.frames for tile in tiles]))
        rows, times = {}, {}
        for level, x in given.items():
            name = self.network.sets[level]
            per_tile = x.shape[1]
            kept = [self._kept(tile, per_tile) for tile in tiles]
            rows[name] = torch.cat([x[i, k.start : k.stop] for i, k in enumerate(kept)])
            times[name] = np.concatenate(
                [self._times(tile.first_row, len(k), per_tile) for tile, k in zip(tiles, kept, strict=True)]
            )
        yield from self.pending.add(rows, times)

    def _kept(self, tile: Tile, per_tile: int) -> range:
        """Which rows of a pass belong to the video: a padded window gives time steps behind its end, too."""
        if self.network.convolutional:
            return range(*tile.keep.indices(per_tile))
        real = min(self.network.window, self.num_frames - tile.first_row * self.network.stride)
        return range(-(-real * per_tile // self.network.window))

    def _times(self, first_row: int, count: int, per_window: int) -> NDArray[np.float64]:
        """(count, 2) seconds of the rows that one tile gives."""
        network = self.network
        if network.convolutional:
            first = np.arange(first_row, first_row + count) * network.stride
            length = network.stride
        else:  # one row for the window, or one for each of its output time steps
            length = network.window // per_window
            first = first_row * network.stride + np.arange(count) * length
        if network.fps is not None:
            end = np.inf if network.convolutional else self.num_frames / network.fps
            return cell_times(first, length, network.fps, end)
        shown = np.concatenate(self.frame_times)
        last = np.minimum(first + length, len(shown)) - 1
        return np.stack([shown[np.minimum(first, len(shown) - 1), 0], shown[last, 1]], axis=1)


def cell_times(first: NDArray[np.int64], length: int, fps: float, end: float = np.inf) -> NDArray[np.float64]:
    """(n, 2) seconds of `length` frames from each frame number in `first`; none ends after `end` seconds."""
    times: NDArray[np.float64] = np.stack([first, first + length], axis=1) / fps
    np.minimum(times[:, 1], end, out=times[:, 1])
    return times
