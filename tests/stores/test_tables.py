"""What a notebook shows of a store."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from stores import StoreError, open_store
from stores.hdf5_store import pack_hdf5
from stores.zarr_store import ZarrWriter
from tests.stores.samples import CLIP, SOUND, put, rows_of, write_sample


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with ZarrWriter(tmp_path / "s.zarr", {"clip": CLIP, "sound": SOUND}) as writer:
        put(writer, "b\x1b[2J", {"clip": rows_of(CLIP, 6), "sound": rows_of(SOUND, 9)})
        put(writer, "a", {"clip": rows_of(CLIP, 3)})
    return tmp_path / "s.zarr"


def test_the_index_is_a_table_of_videos(path: Path) -> None:
    part = open_store(path)["clip"]
    table = part.index()
    assert list(table.columns) == ["video", "rows", "start", "end", "duration", "sha256"]
    assert table.drop(columns="sha256").values.tolist() == [["a", 3, 0.0, 1.0, 1.0], ["b\x1b[2J", 6, 0.0, 2.0, 3.0]]
    assert table.sha256.tolist() == [part.entry(video).sha256 for video in part]


def test_both_formats_show_sets_and_no_ids(path: Path, tmp_path: Path) -> None:
    pack_hdf5(open_store(path), tmp_path / "s.h5")
    lines = [
        "  clip: 2 videos, 9 rows of 6 float16, 24 fps, stride 8, window 64",
        "  sound: 1 videos, 9 rows of 5 uint8, 12.5 fps, stride 1",
    ]
    assert repr(open_store(path)).splitlines() == [f"ZarrStore {path}", *lines]
    assert repr(open_store(tmp_path / "s.h5")).splitlines() == [f"Hdf5Store {tmp_path / 's.h5'}", *lines]
    assert repr(open_store(path)["clip"]) == lines[0].strip()


def test_rows_as_xarray_are_taken_by_their_seconds(tmp_path: Path) -> None:
    pytest.importorskip("xarray", reason="the extra xarray is not installed")
    videos = write_sample(tmp_path / "s.zarr")
    maps = open_store(tmp_path / "s.zarr")["net.rgb.map"].to_xarray("b.mp4")
    assert maps.dims == ("time", "height", "width", "feature")
    np.testing.assert_array_equal(maps.sel(time=slice(1, 2)), videos["b.mp4"]["net.rgb.map"].features[3:6])
    sound = open_store(tmp_path / "s.zarr")["mel.audio.frame"].to_xarray("d")
    np.testing.assert_array_equal(sound, videos["d"]["mel.audio.frame"].features * np.float32(0.5) - 1)
    np.testing.assert_array_equal(sound.end, videos["d"]["mel.audio.frame"].times[:, 1])


@pytest.mark.skipif(importlib.util.find_spec("xarray") is not None, reason="xarray is installed")
def test_without_xarray_one_line_says_what_to_install(path: Path) -> None:
    with pytest.raises(StoreError, match=r"pip install 'vl\[xarray\]'"):
        open_store(path)["clip"].to_xarray("a")
