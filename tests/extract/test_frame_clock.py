"""Where time 0 lies, and the times of frames that a container does not tell."""

from __future__ import annotations

from fractions import Fraction
from types import SimpleNamespace
from typing import Any, cast

import pytest

from extract.containers import time_zero
from extract.decode import DecodeError
from extract.frame_clock import FrameClock


@pytest.mark.parametrize(
    ("container_start", "video_start", "zero"),
    [
        (0.0, 0.0, 0.0),
        (0.0, 0.5, 0.0),  # the pictures start late
        (10.0, 10.0, 10.0),  # a transport stream cut from a longer one
        (9.5, 10.0, 9.5),  # its sound starts earlier
        (-0.007, 0.0, 0.0),  # priming of the sound
        (-0.08, -0.08, -0.08),  # B-frames without an edit list
    ],
)
def test_time_zero_is_the_start_of_the_container_but_never_the_priming_of_its_sound(
    container_start: float, video_start: float, zero: float
) -> None:
    container: Any = SimpleNamespace(start_time=round(container_start * 1_000_000))
    stream: Any = SimpleNamespace(start_time=round(video_start * 1000), time_base=Fraction(1, 1000))
    assert time_zero(container, stream) == pytest.approx(zero)


def clock(rate: Fraction | None, counted: bool = False) -> FrameClock:
    """A clock in milliseconds whose time 0 is the container's 0.5 s."""
    stream: Any = SimpleNamespace(time_base=Fraction(1, 1000), average_rate=rate)
    return FrameClock(stream, Fraction(1, 2), counted)


def stamps(clock: FrameClock, *frames: tuple[int | None, int | None, int]) -> list[float]:
    """Times of frames with (pts, dts, duration) in milliseconds."""
    return [clock.time(cast("Any", SimpleNamespace(pts=pts, dts=dts, duration=length))) for pts, dts, length in frames]


def test_a_frame_without_a_time_takes_its_dts_or_follows_the_one_before() -> None:
    ticking = clock(Fraction(25))
    assert stamps(ticking, (500, 400, 0), (600, 500, 0), (None, 700, 0), (None, None, 0), (None, None, 0)) == (
        pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4])
    )
    assert ticking.end == pytest.approx(0.5)  # the last one lasts as long as the one before


def test_the_last_frame_lasts_as_long_as_the_container_says_or_as_the_one_before() -> None:
    for lengths, end in (((40, 40, 70), 0.2 + 0.07), ((0, 0, 0), 0.2 + 0.1)):
        ticking = clock(Fraction(25))
        stamps(ticking, *((500 + 100 * index, None, length) for index, length in enumerate(lengths)))
        assert ticking.end == pytest.approx(end)


def test_frames_are_counted_where_times_are_made_up() -> None:
    assert stamps(clock(Fraction(20), counted=True), (2, 0, 0), (9, 0, 0), (3, 0, 0)) == [0.0, 0.05, 0.1]


def test_frames_with_neither_times_nor_a_rate_are_refused() -> None:
    with pytest.raises(DecodeError, match="frame 1 has no time, and the stream has no rate"):
        stamps(clock(None), (None, None, 0), (None, None, 0))
