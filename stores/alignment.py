"""Which rows of one set stand for the same seconds as which rows of another, and their values side by side.

Shape letters: N, M rows of the two; P pairs of rows; D values of a row.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stores.samples import sample_rows
from stores.spec import FeatureSet, FeatureSpec

BLOCK_BYTES = 32 << 20  # of rows of one set that are in memory at once

Index = NDArray[np.int64]


class Pairs(NamedTuple):
    """Rows that belong together, in order."""

    a: Index  # (P,)
    b: Index  # (P,)


class Block(NamedTuple):
    """Values of some pairs, as float32 and flat."""

    a: NDArray[np.float32]  # (P, D)
    b: NDArray[np.float32]


def spacing(times: NDArray[np.float64]) -> float:
    """Median seconds from one row to the next; of a single row its length."""
    if len(times) < 2:
        return float(np.ptp(times)) if len(times) else 0.0
    return float(np.median(np.diff(times[:, 0])))


def pair_rows(a_N2: NDArray[np.float64], b_M2: NDArray[np.float64]) -> Pairs:
    """Each row of the coarser of two time grids (seconds, in order) with the row of the other whose centre is nearest.

    A pair whose centres lie further apart than half the shorter of its rows is left out: there is nothing to compare.

    >>> pair_rows(np.array([[0.0, 1.0], [1.0, 2.0]]), np.array([[0.0, 0.5], [0.5, 1.0], [1.0, 1.6]]))
    Pairs(a=array([0, 1]), b=array([0, 2]))
    """
    if not len(a_N2) or not len(b_M2):
        return Pairs(np.zeros(0, np.int64), np.zeros(0, np.int64))
    swap = spacing(b_M2) > spacing(a_N2) * (1 + 1e-9)
    coarse, fine = (b_M2, a_N2) if swap else (a_N2, b_M2)
    centres, wanted = fine.mean(1), coarse.mean(1)
    right = np.clip(np.searchsorted(centres, wanted), 1, max(len(centres) - 1, 1))
    left = right - 1
    right = np.minimum(right, len(centres) - 1)
    nearest = np.where(np.abs(centres[right] - wanted) < np.abs(centres[left] - wanted), right, left)
    shorter = np.minimum(np.diff(coarse, axis=1)[:, 0], np.diff(fine, axis=1)[nearest, 0])
    kept = np.flatnonzero(np.abs(centres[nearest] - wanted) <= shorter / 2 + 1e-9)
    return Pairs(nearest[kept], kept) if swap else Pairs(kept, nearest[kept])


def pair_video(a: FeatureSet, b: FeatureSet, video: str) -> Pairs:
    """Pairs of a video's rows; of clip-sampled sets of the same view sample by sample."""
    a_times, b_times = a.times(video), b.times(video)
    if not a.spec.view:
        return pair_rows(a_times, b_times)
    rows_a = sample_rows(a.spec, len(a_times), video)
    rows_b = sample_rows(b.spec, len(b_times), video)
    parts = [
        Pairs(found.a + sample * rows_a, found.b + sample * rows_b)
        for sample in range(a.spec.samples)
        for found in [
            pair_rows(
                a_times[sample * rows_a : (sample + 1) * rows_a], b_times[sample * rows_b : (sample + 1) * rows_b]
            )
        ]
    ]
    return Pairs(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def blocks(a: FeatureSet, b: FeatureSet, video: str, pairs: Pairs) -> Iterator[Block]:
    """The values of all pairs, a bounded number at a time."""
    at_once = max(1, BLOCK_BYTES // (4 * int(np.prod(a.spec.row_shape))))
    for start in range(0, len(pairs.a), at_once):
        yield Block(
            values(a, video, pairs.a[start : start + at_once]), values(b, video, pairs.b[start : start + at_once])
        )


def values(part: FeatureSet, video: str, rows: Index) -> NDArray[np.float32]:
    """(P, D) what the rows of these numbers stand for; uint8 is scaled."""
    low, high = int(rows.min()), int(rows.max()) + 1
    found = part.read(video, low, high).features[rows - low]
    return dequantised(found, part.spec).reshape(len(rows), -1)


def dequantised(features: NDArray[Any], spec: FeatureSpec) -> NDArray[np.float32]:
    """Stored values as float32."""
    plain: NDArray[np.float32] = features.astype(np.float32)
    if spec.dtype == "uint8":
        plain = plain * np.float32(spec.scale or 1.0) + np.float32(spec.offset or 0.0)
    return plain


def tolerance(a: FeatureSpec, b: FeatureSpec) -> tuple[float, float]:
    """(relative, absolute) by which equal values may differ: one step of the coarser dtype, half a level of uint8."""
    relative = absolute = 0.0
    for spec in (a, b):
        if spec.dtype == "uint8":
            absolute = max(absolute, 0.501 * abs(spec.scale or 1.0))
        else:
            info = np.finfo(spec.dtype)
            relative, absolute = max(relative, float(info.eps)), max(absolute, float(info.smallest_subnormal))
    return relative, absolute


def cosines(a_PD: NDArray[np.float32], b_PD: NDArray[np.float32]) -> NDArray[np.float64]:
    """(P,) cosine of each pair of rows; 1 where both are all zeros, 0 where one is."""
    a, b = a_PD.astype(np.float64), b_PD.astype(np.float64)
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    both = ~a.any(axis=1) & ~b.any(axis=1)
    found: NDArray[np.float64] = np.where(both, 1.0, (a * b).sum(axis=1) / np.where(lengths > 0, lengths, 1.0))
    return np.clip(found, -1.0, 1.0)
