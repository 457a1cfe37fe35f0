"""Which clips make which rows of a video: scenes, windows that may overlap, and tiles of one long convolution.

A layout knows the rows that extraction makes of a video, and their times, without a look at its pixels. Of any part of
these rows it names the clips that give them, each by the numbers of its frames among those of the network's rate, and
which of the rows that a clip gives belong to the part.

Shape letters: N rows, T frames of a clip.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from extract.extractors import cell_times
from extract.scene_rows import middle_frames


class Clip(NamedTuple):
    """What goes through a network at once."""

    frames_T: NDArray[np.int64]  # numbers of its frames, ascending; the last one may stand there again and again
    first: int  # of the rows that it gives, the first one that is wanted
    stop: int  # and one past the last
    scene: int = 0  # frames of one scene are changed alike in training; of clips that overlap a video is one


class Layout(Protocol):
    """The rows of one set of one video."""

    def times(self) -> NDArray[np.float64]:
        """(N, 2) seconds of all rows, as extraction gives them."""
        ...

    def clips(self, start: int, stop: int) -> list[Clip]:
        """Those that give the rows `start` to `stop`, in their order."""
        ...

    def frames_of(self, start: int, stop: int) -> int:
        """How many frames these clips have together, more or less: a bound on what is in memory."""
        ...


@dataclass(frozen=True)
class SceneLayout:
    """A row for each scene, of frames that lie about the middles of its parts."""

    scenes: Sequence[tuple[float, float, int, int]]  # seconds [start, end), frames [first, stop)
    window: int

    def times(self) -> NDArray[np.float64]:
        """(N, 2) seconds from cut to cut."""
        return np.array([scene[:2] for scene in self.scenes], np.float64).reshape(-1, 2)

    def clips(self, start: int, stop: int) -> list[Clip]:
        """One for each scene."""
        rows = enumerate(self.scenes[start:stop], start)
        return [
            Clip(np.array([first + at for at in middle_frames(end - first, self.window)], np.int64), 0, 1, number)
            for number, (*_, first, end) in rows
        ]

    def frames_of(self, start: int, stop: int) -> int:
        """All have as many."""
        return (stop - start) * self.window


@dataclass(frozen=True)
class WindowLayout:
    """A row, or several side by side, for each window of a video; the last one repeats the last frame."""

    count: int  # frames of the video
    fps: float
    window: int
    stride: int
    rows: int = 1  # that the network gives of a window, not all of which a video's last one may have

    def times(self) -> NDArray[np.float64]:
        """(N, 2) seconds of the rows that begin before the video ends."""
        length = self.window // self.rows
        start_K = np.arange(1 + max(0, -(-(self.count - self.window) // self.stride))) * self.stride
        first_N = (start_K[:, None] + np.arange(self.rows) * length).ravel()
        return cell_times(first_N[first_N < self.count], length, self.fps, self.count / self.fps)

    def clips(self, start: int, stop: int) -> list[Clip]:
        """The windows that have any of the rows."""
        found = []
        for window in range(start // self.rows, -(-stop // self.rows)):
            first, last = (min(max(row - window * self.rows, 0), self.rows) for row in (start, stop))
            numbers = window * self.stride + np.arange(self.window)
            found.append(Clip(np.minimum(numbers, self.count - 1), first, last))
        return found

    def frames_of(self, start: int, stop: int) -> int:
        """All windows have as many."""
        return (-(-stop // self.rows) - start // self.rows) * self.window


@dataclass(frozen=True)
class TileLayout:
    """A row for every `stride` frames of one convolution over a whole video, made of tiles with context on both sides.

    As in `extract.tiling.Tiler`: a tile begins at a whole row, and ends at one or with the video, whose last frame
    fills it up; so its rows are those of the whole video wherever it was cut out.
    """

    count: int  # frames of the video
    fps: float
    stride: int
    halo: int  # frames of context, a multiple of the stride
    rows: int  # of a tile

    @property
    def num_rows(self) -> int:
        """N."""
        return -(-self.count // self.stride)

    def times(self) -> NDArray[np.float64]:
        """(N, 2) seconds; the last row may end behind the video."""
        return cell_times(np.arange(self.num_rows) * self.stride, self.stride, self.fps)

    def clips(self, start: int, stop: int) -> list[Clip]:
        """Tiles of `rows` rows and their context, the last one of what is left."""
        found = []
        for row in range(start, stop, self.rows):
            end_row = min(row + self.rows, stop)
            begin = max(0, row * self.stride - self.halo)
            end = min(end_row * self.stride + self.halo, self.num_rows * self.stride)
            before = row - begin // self.stride
            frames_T = np.minimum(np.arange(begin, end), self.count - 1)
            found.append(Clip(frames_T, before, before + end_row - row))
        return found

    def frames_of(self, start: int, stop: int) -> int:
        """Context included."""
        return (stop - start) * self.stride + -(-(stop - start) // self.rows) * 2 * self.halo


@dataclass(frozen=True)
class SoundLayout:
    """A row for each example of a sound, which is a clip of one: its number stands where those of frames do."""

    times_N2: NDArray[np.float64]

    def times(self) -> NDArray[np.float64]:
        """(N, 2) seconds."""
        return self.times_N2

    def clips(self, start: int, stop: int) -> list[Clip]:
        """One for each row."""
        return [Clip(np.array([row]), 0, 1) for row in range(start, stop)]

    def frames_of(self, start: int, stop: int) -> int:
        """One each."""
        return stop - start
