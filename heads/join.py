"""Rows of one feature set on the time grid of another: the mean of what overlaps each grid row in time.

Shape letters: N grid rows, M source rows, P pairs of one and the other that overlap.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

TOUCHING = 1e-6  # an overlap under this share of the shorter row is rounding of the seconds, not an overlap


@dataclass(frozen=True)
class Join:
    """Which source rows make up each grid row, and with what weight."""

    num_rows: int  # N
    grid_P: NDArray[np.int64]  # ascending
    source_P: NDArray[np.int64]
    weight_P: NDArray[np.float32]  # sums to 1 within a grid row

    @property
    def present_N(self) -> NDArray[np.bool_]:
        """Whether anything overlaps the grid row."""
        present = np.zeros(self.num_rows, dtype=bool)
        present[self.grid_P] = True
        return present

    @property
    def selects(self) -> bool:
        """Whether each grid row is one source row or none, so that values can stay in the dtype they are stored in."""
        return bool((np.diff(self.grid_P) > 0).all())

    @property
    def source_range(self) -> tuple[int, int]:
        """First source row in use, and one past the last."""
        if not len(self.source_P):
            return 0, 0
        return int(self.source_P.min()), int(self.source_P.max()) + 1

    @property
    def contiguous(self) -> bool:
        """Whether successive grid rows are successive source rows, without a gap."""
        steps = np.diff(self.grid_P), np.diff(self.source_P)
        return all(bool((step == 1).all()) for step in steps)

    def window(self, start: int, stop: int) -> Join:
        """The same for grid rows `start` to `stop`."""
        part = slice(*np.searchsorted(self.grid_P, (start, stop)))
        return Join(stop - start, self.grid_P[part] - start, self.source_P[part], self.weight_P[part])

    def apply(self, rows: NDArray[Any], first: int = 0) -> NDArray[Any]:
        """Grid rows (N, ...) out of source rows, zeros where nothing overlaps.

        Args:
            rows: source rows from row `first` on, at least those of `source_range`.

        Returns:
            In the dtype of `rows` where each grid row is one source row, else float32.
        """
        picked = rows[self.source_P - first]
        if self.selects:
            out = np.zeros((self.num_rows, *rows.shape[1:]), dtype=rows.dtype)
            out[self.grid_P] = picked
            return out
        out = np.zeros((self.num_rows, *rows.shape[1:]), dtype=np.float32)
        weight = self.weight_P.reshape(-1, *(1,) * (rows.ndim - 1))
        starts = np.flatnonzero(np.diff(self.grid_P, prepend=-1))
        out[self.grid_P[starts]] = np.add.reduceat(picked.astype(np.float32) * weight, starts, axis=0)
        return out


def join_times(grid_N2: NDArray[np.float64], source_M2: NDArray[np.float64]) -> Join:
    """The overlap-weighted mean of source rows on grid rows; both are in order of their starts, in seconds.

    >>> join = join_times(np.array([[0.0, 1.0], [1.0, 2.0]]), np.array([[0.0, 0.5], [0.5, 1.25]]))
    >>> join.apply(np.array([[1.0], [3.0]])).ravel()
    array([2., 3.], dtype=float32)
    """
    starts_M, ends_M = source_M2[:, 0], np.maximum.accumulate(source_M2[:, 1])
    first_N = np.searchsorted(ends_M, grid_N2[:, 0], side="right")
    count_N = np.maximum(np.searchsorted(starts_M, grid_N2[:, 1], side="left") - first_N, 0)
    grid_P = np.repeat(np.arange(len(grid_N2)), count_N)
    source_P = np.arange(len(grid_P)) - np.repeat(np.cumsum(count_N) - count_N, count_N) + np.repeat(first_N, count_N)
    grid_P2, source_P2 = grid_N2[grid_P], source_M2[source_P]
    overlap_P = np.minimum(grid_P2[:, 1], source_P2[:, 1]) - np.maximum(grid_P2[:, 0], source_P2[:, 0])
    shorter_P = np.minimum(grid_P2[:, 1] - grid_P2[:, 0], source_P2[:, 1] - source_P2[:, 0])
    keep_P = overlap_P > TOUCHING * shorter_P
    grid_P, source_P, overlap_P = grid_P[keep_P], source_P[keep_P], overlap_P[keep_P]
    total_N = np.bincount(grid_P, weights=overlap_P, minlength=len(grid_N2))
    weight_P = (overlap_P / total_N[grid_P]).astype(np.float32)
    return Join(len(grid_N2), grid_P, source_P, weight_P)
