"""Joining by time, against a loop over all pairs of rows."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from heads.join import join_times

Array = NDArray[np.float64]


def slow_mean(grid_N2: Array, source_M2: Array, rows_MD: Array) -> tuple[Array, NDArray[np.bool_]]:
    """Overlap-weighted mean of source rows on each grid row, and where there is any."""
    out, present = np.zeros((len(grid_N2), rows_MD.shape[1])), np.zeros(len(grid_N2), bool)
    for i, (start, end) in enumerate(grid_N2):
        overlaps = np.array([max(0.0, min(end, stop) - max(start, begin)) for begin, stop in source_M2])
        if overlaps.sum() > 0:
            present[i] = True
            out[i] = (overlaps[:, None] * rows_MD).sum(0) / overlaps.sum()
    return out, present


@st.composite
def cells(draw: st.DrawFn) -> Array:
    """Rows in order of their starts; gaps, overlaps and equal starts occur. In eighths, so that sums are exact."""
    starts = sorted(draw(st.lists(st.integers(0, 40), max_size=12)))
    lengths = draw(st.lists(st.integers(1, 12), min_size=len(starts), max_size=len(starts)))
    return np.array([[s, s + n] for s, n in zip(starts, lengths, strict=True)], float).reshape(-1, 2) / 8


@settings(max_examples=200, deadline=None)
@given(cells(), cells())
def test_join_is_the_overlap_weighted_mean(grid_N2: Array, source_M2: Array) -> None:
    rows_MD = np.random.default_rng(0).normal(size=(len(source_M2), 3))
    join = join_times(grid_N2, source_M2)
    expected, present = slow_mean(grid_N2, source_M2, rows_MD)
    assert np.array_equal(join.present_N, present)
    np.testing.assert_allclose(join.apply(rows_MD), expected, atol=1e-5)


@settings(max_examples=100, deadline=None)
@given(cells(), cells(), st.data())
def test_a_window_of_a_join_gives_the_same_numbers(grid_N2: Array, source_M2: Array, data: st.DataObject) -> None:
    rows_MD = np.random.default_rng(0).normal(size=(len(source_M2), 3))
    start = data.draw(st.integers(0, len(grid_N2)))
    stop = data.draw(st.integers(start, len(grid_N2)))
    join = join_times(grid_N2, source_M2)
    part = join.window(start, stop)
    first, last = part.source_range
    found = part.apply(rows_MD[first:last], first)
    assert np.array_equal(found.astype(np.float32), join.apply(rows_MD)[start:stop].astype(np.float32))


def test_equal_grids_select_rows_and_keep_their_dtype() -> None:
    times = np.stack([np.arange(5), np.arange(5) + 1], axis=1) / 12.5
    rows = np.arange(10, dtype=np.float16).reshape(5, 2)
    join = join_times(times, times)
    assert join.selects
    assert join.contiguous
    assert join.apply(rows).dtype == np.float16
    assert np.array_equal(join.apply(rows), rows)


def test_rounding_of_seconds_is_no_overlap() -> None:
    grid = np.array([[0.0, 0.1 + 0.2], [0.1 + 0.2, 0.6]])  # 0.30000000000000004
    source = np.array([[0.0, 0.3], [0.3, 0.6]])
    assert join_times(grid, source).selects


@pytest.mark.parametrize("grid", [np.zeros((0, 2)), np.array([[5.0, 6.0]])])
def test_nothing_overlaps_nothing(grid: Array) -> None:
    join = join_times(grid, np.array([[0.0, 1.0]]))
    assert not join.present_N.any()
    assert join.apply(np.ones((1, 2))).tolist() == [[0.0, 0.0]] * len(grid)
