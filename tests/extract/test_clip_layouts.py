"""Which frames make up which rows, against the classes that cut the frames of an extraction, and by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from extract.clip_layouts import SceneLayout, TileLayout, WindowLayout
from extract.tiling import Tiler, Windower


def numbered(count: int) -> torch.Tensor:
    """(T, 1, 1, 1) frames that are their own numbers."""
    return torch.arange(count).view(count, 1, 1, 1)


@pytest.mark.parametrize("count", [1, 3, 4, 5, 9, 10, 17])
@pytest.mark.parametrize(("window", "stride"), [(4, 2), (4, 4), (4, 6), (1, 1)])
def test_windows_are_those_of_an_extraction(count: int, window: int, stride: int) -> None:
    windower = Windower(window=window, stride=stride)
    cut = windower.push(numbered(count)) + windower.finish()
    layout = WindowLayout(count, 10.0, window, stride)
    clips = layout.clips(0, len(layout.times()))
    assert [clip.frames_T.tolist() for clip in clips] == [tile.frames.flatten().tolist() for tile in cut]
    assert {clip[1:] for clip in clips} == {(0, 1, 0)}
    assert layout.frames_of(0, len(cut)) == len(cut) * window


def test_of_windows_that_give_several_rows_a_part_takes_its_own() -> None:
    """10 frames in windows of 4 that give a row for every 2: rows begin at 0 2 4 6 8, and the last window at 8."""
    layout = WindowLayout(10, 10.0, 4, 4, rows=2)
    np.testing.assert_allclose(layout.times(), [[0, 0.2], [0.2, 0.4], [0.4, 0.6], [0.6, 0.8], [0.8, 1.0]])
    clips = layout.clips(1, 5)
    assert [clip.frames_T.tolist() for clip in clips] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 9, 9]]
    assert [clip[1:3] for clip in clips] == [(1, 2), (0, 2), (0, 1)]
    assert layout.frames_of(1, 5) == 12


def test_tiles_are_those_of_an_extraction() -> None:
    """14 rows a tile are 160 frames at the beginning of a video, whose context is on one side."""
    tiler = Tiler(length=160, stride=8, halo=48)
    cut = tiler.push(numbered(199)) + tiler.finish()
    clips = TileLayout(199, 12.0, 8, 48, rows=14).clips(0, 25)
    assert [clip.frames_T.tolist() for clip in clips] == [tile.frames.flatten().tolist() for tile in cut]
    assert [clip[1:3] for clip in clips] == [(tile.keep.start, tile.keep.stop) for tile in cut] == [(0, 14), (6, 17)]


@pytest.mark.parametrize("rows", [1, 2, 5, 100])
@pytest.mark.parametrize("count", [1, 8, 9, 50, 120])
def test_every_row_has_its_context_or_the_border_of_the_video(count: int, rows: int) -> None:
    layout, whole = TileLayout(count, 12.0, 8, 16, rows), -(-count // 8) * 8
    np.testing.assert_allclose(layout.times()[:, 0], np.arange(0, count, 8) / 12)
    for start in range(len(layout.times())):
        for stop in range(start + 1, len(layout.times()) + 1):
            clips, row = layout.clips(start, stop), start
            for clip in clips:
                first = int(clip.frames_T[0])
                assert first % 8 == 0
                expected = np.minimum(np.arange(first, first + len(clip.frames_T)), count - 1)
                np.testing.assert_array_equal(clip.frames_T, expected)
                assert clip.stop - clip.first <= rows
                for own in range(clip.first, clip.stop):
                    assert first + 8 * own == 8 * row
                    assert first <= max(0, 8 * row - 16)
                    assert first + len(clip.frames_T) >= min(whole, 8 * row + 8 + 16)
                    row += 1
            assert row == stop
            assert sum(len(clip.frames_T) for clip in clips) <= layout.frames_of(start, stop)


def test_scenes_are_rows_of_frames_about_the_middles_of_their_parts() -> None:
    """Of n frames from f on the middles of P parts are f + floor((2k + 1) n / 2P)."""
    layout = SceneLayout([(0.0, 1.0, 0, 10), (1.0, 1.2, 10, 12)], window=2)
    assert layout.times().tolist() == [[0.0, 1.0], [1.0, 1.2]]
    (second,) = layout.clips(1, 2)
    assert second.frames_T.tolist() == [10, 11]
    assert second[1:] == (0, 1, 1)
    assert layout.clips(0, 2)[0].frames_T.tolist() == [2, 7]
    assert layout.frames_of(0, 2) == 4
    assert SceneLayout([], 2).times().shape == (0, 2)
