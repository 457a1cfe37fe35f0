"""The seconds that imported rows stand for: an explicit grid or a named recipe, never a guess.

Row i of a grid with a window stands for the frames [offset + i stride, offset + i stride + window), so that its
centre is (offset + i stride + window / 2) / fps; without a window it stands for its cell, from one row to the next.

Shape letters: N rows.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stores.errors import StoreError
from stores.names import printable
from stores.spec import Granularity
from stores.untrimmed import untrimmed_evidence

SLACK_ROWS = 2  # by so many rows a video may be longer or shorter than its rows say
LONGEST_S = 1e7  # seconds: four months; a grid that goes beyond is a mistake


class TimeGridError(StoreError):
    """Nobody said what seconds the rows stand for, or what was said cannot be."""


@dataclass(frozen=True)
class TimeGrid:
    """Where the rows of a video lie in time."""

    stride: int  # frames from one row to the next
    fps: float | None = None  # None: every video brings its own
    window: int | None = None  # frames of a row; None: up to the next row
    offset: float = 0.0  # frames before the first row

    def __post_init__(self) -> None:
        if self.fps is not None and not 0 < self.fps < 1e6:
            raise TimeGridError(f"--fps is a positive number of frames a second, not {self.fps}.")
        if self.stride < 1 or (self.window is not None and self.window < 1):
            raise TimeGridError(f"--stride and --window are 1 frame or more, not {self.stride} and {self.window}.")
        if not abs(self.offset) < 1e9:
            raise TimeGridError(f"--offset is a number of frames, not {self.offset}.")

    def times(self, num_rows: int, fps: float | None = None) -> NDArray[np.float64]:
        """(N, 2) seconds of a video's rows; `fps` is the video's own, where the grid has none.

        >>> TimeGrid(stride=4, fps=8, window=8).times(2).tolist()
        [[0.0, 1.0], [0.5, 1.5]]
        """
        rate = self.fps or fps
        assert rate, "a grid without a rate is for videos that bring theirs"
        starts = self.offset + self.stride * np.arange(num_rows, dtype=np.float64)
        return np.stack([starts, starts + (self.window or self.stride)], axis=1) / rate

    def spec_fields(self, granularity: Granularity) -> dict[str, Any]:
        """The fields of a spec that say the same."""
        dense = None if granularity is Granularity.FRAME else "windowed" if self.window else "convolutional"
        fields = {"fps": self.fps, "stride": self.stride, "window": self.window, "dense": dense}
        return fields | ({"settings": {"offset": self.offset}} if self.offset else {})


@dataclass(frozen=True)
class Recipe:
    """Features that many people have: how their rows lie in time, and what made them."""

    grid: TimeGrid
    backbone: str
    granularity: Granularity = Granularity.CLIP
    stream: str = "rgb"
    width: int | None = None  # values of a row


RECIPES: Mapping[str, Recipe] = {
    "charades-i3d": Recipe(TimeGrid(8, 24.0), "i3d", width=1024),
    "thumos-i3d": Recipe(TimeGrid(4, 30.0, 16), "i3d", stream="rgb+flow", width=2048),
    "anet-i3d": Recipe(TimeGrid(16, 25.0, 16), "i3d", stream="rgb+flow"),
    "epic-slowfast": Recipe(TimeGrid(16, 30.0, 32), "slowfast", width=2304),
    "videomae": Recipe(TimeGrid(4, None, 16), "videomae"),  # of videos of any rate
    "yt8m": Recipe(TimeGrid(1, 1.0), "yt8m", Granularity.FRAME),
}


def find_recipe(name: str) -> Recipe:
    """The recipe of that name; TimeGridError listing all."""
    if name not in RECIPES:
        raise TimeGridError(f"there is no recipe '{printable(name)}'. There are: {', '.join(RECIPES)}.")
    return RECIPES[name]


def grid_of(
    fps: float | None, stride: int | None, window: int | None, offset: float | None, recipe: Recipe | None
) -> TimeGrid | None:
    """The grid of a recipe and of what was given beside it, which goes before; None if nothing was said of time.

    Raises:
        TimeGridError: only a part was said.
    """
    given = {"fps": fps, "stride": stride, "window": window, "offset": offset}
    said = {name: value for name, value in given.items() if value is not None}
    if recipe is not None:
        return dataclasses.replace(recipe.grid, **said)  # type: ignore[arg-type]
    if not said:
        return None
    if stride is None:
        raise TimeGridError(
            f"--{' and --'.join(said)} without --stride: say how many frames lie between two rows (1: a row a frame)."
        )
    return TimeGrid(stride, fps, window, offset or 0.0)


def times_from_stamps(stamps_N: NDArray[np.float64], window_s: float | None = None) -> NDArray[np.float64]:
    """(N, 2) seconds of rows that begin at these (N,) seconds: `window_s` long, else up to the next row.

    The last row is as long as the one before it.

    Raises:
        TimeGridError: they are not in order, no numbers, or one alone without a window.

    >>> times_from_stamps(np.array([0.0, 0.5, 2.0])).tolist()
    [[0.0, 0.5], [0.5, 2.0], [2.0, 3.5]]
    """
    stamps_N = np.asarray(stamps_N, np.float64).reshape(-1)
    if not np.isfinite(stamps_N).all() or (np.diff(stamps_N) < 0).any() or (np.abs(stamps_N) > LONGEST_S).any():
        raise TimeGridError("the times of its rows are not in order, or no seconds of a video")
    if window_s is not None:
        return np.stack([stamps_N, stamps_N + window_s], axis=1)
    if len(stamps_N) == 1:
        raise TimeGridError("one row with one time: how long it is nobody says")
    lengths = np.diff(stamps_N)
    return np.stack([stamps_N, stamps_N + np.append(lengths, lengths[-1:])], axis=1)


def require_times(times: NDArray[np.float64], num_rows: int) -> NDArray[np.float64]:
    """(N, 2) seconds as a file has them; TimeGridError unless they are those of so many rows, in order."""
    if times.shape != (num_rows, 2) or times.dtype.kind not in "fiu":
        raise TimeGridError(f"its times are {times.dtype} {times.shape}, and there are {num_rows} rows")
    times = times.astype(np.float64)
    far = np.abs(times) > LONGEST_S
    if not np.isfinite(times).all() or far.any() or (np.diff(times[:, 0]) < 0).any() or (np.diff(times) < 0).any():
        raise TimeGridError("the times of its rows are not in order, or no seconds of a video")
    return times


def misfit(times: NDArray[np.float64], duration: float | None) -> str | None:
    """In what the rows do not fit the video's duration (seconds) by more than two rows; None where they do."""
    if duration is None or not len(times):
        return None
    step = float(np.median(np.diff(times[:, 0]))) if len(times) > 1 else float(np.ptp(times[0]))
    end = float(times[:, 1].max())
    if abs(end - duration) <= SLACK_ROWS * step + 1e-6:
        return None
    return f"{len(times)} rows end at {end:.2f} s, the video at {duration:.2f} s"


def untrimmed(times: NDArray[np.float64], grid: TimeGrid | None, duration: float | None) -> str | None:
    """Words on a number of rows that the script which leaves overlaps in would give, and no other; else None."""
    if grid is None or grid.stride != 8 or duration is None or not len(times):
        return None
    nothing = np.zeros((0, 1), np.float32), np.zeros((0, 2))
    found = untrimmed_evidence(*nothing, nothing[0], times, grid.fps, duration)
    return found[0] if found else None
