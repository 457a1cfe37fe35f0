"""Frames of one video, as they come from the decoder, cut into what a network is given.

`Tiler` serves convolutional networks: long tiles with context on both sides, of which only the rows are kept
that the whole video would give too, so that tiling changes nothing. `Windower` serves networks on windows of
fixed length. Both hold a bounded number of frames however long the video is, and copy what they hold, so that
the caller may reuse the memory of the frames at once.

Shape letters: T frames, H height, W width, C channels.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Tile:
    """Frames for one forward pass, and which of the rows it gives belong to the video."""

    frames: Tensor  # (T, H, W, C) uint8, on the device of the frames that were pushed
    first_row: int  # number, in the video, of the first row that is kept
    keep: slice  # the rows to keep of those that the pass gives
    padded: bool  # the last frame is repeated at the end

    @property
    def num_rows(self) -> int:
        """Rows that are kept."""
        kept: int = self.keep.stop - self.keep.start
        return kept


class Tiler:
    """Cuts a video into overlapping tiles whose kept rows, joined, are those of the whole video in one pass.

    A tile starts at a whole row and has `halo` frames of context on each side, except where the video itself
    starts or ends: there the network must see the true border. All tiles but the last have `length` frames. A
    video that fits into one tile is one tile.

    Exact if the halo covers the frames that reach a row from either side and is a multiple of `stride`.

    >>> tiler = Tiler(length=160, stride=8, halo=48)
    >>> tiles = tiler.push(torch.zeros(200, 4, 4, 3, dtype=torch.uint8)) + tiler.finish()
    >>> [(len(t.frames), t.first_row, t.keep, t.padded) for t in tiles]
    [(160, 0, slice(0, 14, None), False), (136, 14, slice(6, 17, None), False)]
    """

    def __init__(self, *, length: int, stride: int, halo: int) -> None:
        assert halo % stride == 0, f"a halo of {halo} frames is no whole number of rows of {stride}"
        assert length % stride == 0, f"a tile of {length} frames is no whole number of rows of {stride}"
        assert length > 2 * halo, f"a tile of {length} frames has nothing left beside a halo of {halo}"
        self.length, self.stride, self.halo = length, stride, halo
        self.held = HeldFrames()

    def push(self, frames: Tensor) -> list[Tile]:
        """Take the next frames (T, H, W, C) of the video; give the tiles that they complete."""
        self.held.add(frames)
        tiles = []
        # One frame more than a tile must be there: else this may be the last tile, which keeps its end too.
        while self.held.count > self.length:
            tiles.append(self._tile(self.held.first(self.length), last=False))
            self.held.drop(self.length - 2 * self.halo)
        return tiles

    def finish(self) -> list[Tile]:
        """The last tile, what is left of the video, filled up to whole rows; none if there were no frames."""
        if not self.held.count:
            return []
        tile = self._tile(self.held.first(self.held.count), last=True)
        self.held.drop(self.held.count)
        return [tile]

    def _tile(self, frames: Tensor, *, last: bool) -> Tile:
        context = self.halo if self.held.start else 0
        whole = repeat_last_frame(frames, self.stride)
        stop = len(whole) if last else len(whole) - self.halo
        return Tile(
            whole,
            first_row=(self.held.start + context) // self.stride,
            keep=slice(context // self.stride, stop // self.stride),
            padded=len(whole) > len(frames),
        )


class Windower:
    """Cuts a video into windows of `window` frames, one row each; row k starts at frame k * stride.

    Windows follow each other until one reaches the end of the video; that last one is filled up by repeating
    the last frame, and flagged. So every frame is in a window (unless the stride is longer than the window),
    no window starts behind the end, and a video shorter than one window still has a row. A video of N frames
    has min(1 + ceil(max(N - window, 0) / stride), ceil(N / stride)) rows.

    The frames of neighbouring tiles share memory: read them, do not write.

    >>> windower = Windower(window=4, stride=2)
    >>> tiles = windower.push(torch.arange(7).view(7, 1, 1, 1)) + windower.finish()
    >>> [(t.frames.flatten().tolist(), t.first_row, t.padded) for t in tiles]
    [([0, 1, 2, 3], 0, False), ([2, 3, 4, 5], 1, False), ([4, 5, 6, 6], 2, True)]
    """

    def __init__(self, *, window: int, stride: int) -> None:
        self.window, self.stride = window, stride
        self.held = HeldFrames()
        self._row = 0  # the next one
        self._seen = 0  # frames up to the end of the last window

    def push(self, frames: Tensor) -> list[Tile]:
        """Take the next frames (T, H, W, C) of the video; give the windows that they complete."""
        self.held.add(frames)
        ready = (self.held.end - self._row * self.stride - self.window) // self.stride + 1
        if ready <= 0:
            return []
        self.held.drop(self._row * self.stride - self.held.start)
        together = self.held.first((ready - 1) * self.stride + self.window)
        starts = range(0, ready * self.stride, self.stride)
        tiles = [self._tile(together[start : start + self.window], padded=False) for start in starts]
        self._seen = (self._row - 1) * self.stride + self.window
        return tiles

    def finish(self) -> list[Tile]:
        """The padded window at the end, if frames are left that no window has seen."""
        start = self._row * self.stride
        end = self.held.end
        if self._seen >= end or start >= end:
            return []
        self.held.drop(start - self.held.start)
        frames = self.held.first(end - start)
        self.held.drop(end - start)
        return [self._tile(repeat_last_frame(frames, self.window), padded=True)]

    def _tile(self, frames: Tensor, *, padded: bool) -> Tile:
        tile = Tile(frames, first_row=self._row, keep=slice(0, 1), padded=padded)
        self._row += 1
        return tile


def repeat_last_frame(frames: Tensor, multiple: int, dim: int = 0) -> Tensor:
    """`frames` with the last one repeated until their number along `dim` is a multiple of `multiple`."""
    missing = -frames.shape[dim] % multiple
    if not missing:
        return frames
    last = frames.narrow(dim, frames.shape[dim] - 1, 1)
    return torch.cat([frames, last.repeat_interleave(missing, dim)], dim)


class HeldFrames:
    """The frames from `start` to `end` of a video: added at the end, dropped at the front."""

    def __init__(self) -> None:
        self.start = 0  # number, in the video, of the first frame that is held
        self.count = 0
        self.pieces: deque[Tensor] = deque()

    @property
    def end(self) -> int:
        return self.start + self.count

    def add(self, frames: Tensor) -> None:
        if len(frames):
            self.pieces.append(frames.clone())
            self.count += len(frames)

    def first(self, count: int) -> Tensor:
        """A copy of the first `count` frames."""
        assert 0 < count <= self.count
        wanted, parts = count, []
        for piece in self.pieces:
            parts.append(piece[:wanted])
            wanted -= len(parts[-1])
            if not wanted:
                break
        return torch.cat(parts)

    def drop(self, count: int) -> None:
        """Forget the first `count` frames."""
        assert 0 <= count <= self.count
        self.start += count
        self.count -= count
        while count:
            piece = self.pieces.popleft()
            if len(piece) > count:
                self.pieces.appendleft(piece[count:])
            count -= min(count, len(piece))
