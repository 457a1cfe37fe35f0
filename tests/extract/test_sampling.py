"""Frames fall into rows by their times; expected rows come from the definition, spelled out."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from extract.sampling import FrameSampler


def rows(fps: float | None, times: list[float], end: float) -> list[tuple[int, float]]:
    """(row, time of the frame that it shows) of all rows, through the sampler, as a caller uses it."""
    sampler = FrameSampler(fps)
    shown: list[tuple[int, float]] = []
    pending = math.nan
    for time in times:
        if time < pending:
            continue
        shown += [(row, pending) for row in sampler.push(time).rows]
        pending = time
    return shown + [(row, pending) for row in sampler.finish(end).rows]


def by_definition(fps: float, times: list[float], end: float) -> list[tuple[int, float]]:
    """Row k shows the last frame with time <= k / fps + 1 ms, or the first; there are rows while k / fps < end - 1 ms.

    A frame of 29.97 fps begins exactly 1 ms after a second: a nanosecond decides such ties as real numbers would.
    """
    result = []
    k = 0
    while k / fps < end - 0.001 or k == 0:
        due = [time for time in times if time <= k / fps + 0.001 + 1e-9]
        result.append((k, max(due) if due else times[0]))
        k += 1
    return result


@pytest.mark.parametrize("fps", [2.0, 12.5, 24.0, 25.0, 30000 / 1001, 60.0])
@pytest.mark.parametrize("source", [10.0, 25.0, 30000 / 1001, 60.0])
def test_a_row_shows_the_last_frame_that_has_begun(fps: float, source: float) -> None:
    times = [index / source for index in range(int(3 * source))]
    assert rows(fps, times, 3.0) == by_definition(fps, times, 3.0)


@given(
    steps=st.lists(st.integers(3, 400), min_size=1, max_size=40),
    start=st.integers(0, 500),
    fps=st.sampled_from([1.0, 8.0, 12.5, 25.0]),
)
def test_changing_rates_and_late_starts_follow_the_definition(steps: list[int], start: int, fps: float) -> None:
    # Times lie half a millisecond off every k / fps, so that no row hangs on the last bit of a float.
    times = [(start + sum(steps[:index]) + 0.5) / 1000 for index in range(len(steps))]
    end = (start + sum(steps) + 0.5) / 1000
    assert rows(fps, times, end) == by_definition(fps, times, end)


def test_a_late_first_frame_is_shown_from_the_beginning() -> None:
    assert rows(10, [0.35, 0.45], 0.6) == [(0, 0.35), (1, 0.35), (2, 0.35), (3, 0.35), (4, 0.35), (5, 0.45)]


def test_of_two_frames_at_one_time_the_later_is_shown() -> None:
    sampler = FrameSampler(10)
    assert [len(sampler.push(time).rows) for time in (0.0, 0.0, 0.1)] == [0, 0, 1]


def test_a_frame_that_runs_backwards_gets_no_rows_and_costs_none() -> None:
    assert rows(10, [0.0, 0.2, 0.1, 0.3], 0.4) == [(0, 0.0), (1, 0.0), (2, 0.2), (3, 0.3)]
    sampler = FrameSampler(10)
    for time in (0.0, 0.2):
        sampler.push(time)
    assert not sampler.push(0.1).rows


def test_without_a_rate_every_frame_is_a_row_from_its_time_to_the_next() -> None:
    sampler = FrameSampler(None)
    shown = [sampler.push(time) for time in (0.5, 0.7, 1.4)] + [sampler.finish(1.5)]
    assert [list(one.rows) for one in shown] == [[], [0], [1], [2]]
    np.testing.assert_allclose(np.concatenate([one.times for one in shown]), [[0.5, 0.7], [0.7, 1.4], [1.4, 1.5]])


def test_rows_carry_the_seconds_of_the_grid_and_leave_no_gap() -> None:
    sampler = FrameSampler(12.5)
    times = np.concatenate([sampler.push(index / 30).times for index in range(90)] + [sampler.finish(3.0).times])
    np.testing.assert_allclose(times[:, 0], np.arange(38) * 0.08)
    np.testing.assert_array_equal(times[1:, 0], times[:-1, 1])


def test_an_end_that_is_off_by_rounding_adds_no_row() -> None:
    times = [index / 25 for index in range(75)]
    assert [len(rows(25, times, end)) for end in (2.9995, 3.0, 3.0000000000000004, 3.0005, 3.002)] == [75] * 4 + [76]


def test_the_shortest_video_has_one_row() -> None:
    assert rows(1, [0.0], 0.0005) == [(0, 0.0)]
    assert rows(None, [0.2], 0.24) == [(0, 0.2)]
    assert rows(None, [], 0.0) == []
