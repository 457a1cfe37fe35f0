"""Windows of a set for other training loops, against rows that are read and padded by hand."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from torch.utils.data import DataLoader

from heads.dataset import WindowDataset
from heads.head import HeadError
from stores import FeatureSpec, open_store
from stores.labels import Labels, VideoLabels
from stores.spec import FeatureSet
from stores.zarr_store import ZarrWriter
from tests.stores.samples import CLIP, SOUND, put, rows_of

LENGTHS = {"a.mp4": 10, "b.mp4": 3, "c.mp4": 4}
LABELS = Labels(
    ("run", "jump"),
    {
        "a": VideoLabels.of([(0, 0.4, 1.1), (1, 2.0, 9.0)], duration=4.0),
        "b": VideoLabels.of([]),
        "z": VideoLabels.of([]),
    },
)


def features(path: Path, spec: FeatureSpec = CLIP) -> FeatureSet:
    with ZarrWriter(path / "s.zarr", {"x": spec}) as writer:
        for video, rows in LENGTHS.items():
            put(writer, video, {"x": rows_of(spec, rows, rows)})
    return open_store(path / "s.zarr")["x"]


def test_windows_cover_every_row_and_are_padded(tmp_path: Path) -> None:
    part = features(tmp_path)
    windows = WindowDataset(part, window=4, stride=3)
    assert windows.places == [("a.mp4", 0), ("a.mp4", 3), ("a.mp4", 6), ("b.mp4", 0), ("c.mp4", 0)]
    for window, (video, start) in zip((windows[i] for i in range(len(windows))), windows.places, strict=True):
        rows = part.read(video)
        real = min(4, LENGTHS[video] - start)
        assert window.mask.tolist() == [True] * real + [False] * (4 - real)
        np.testing.assert_array_equal(window.features[:real], rows.features[start : start + real].astype("f4"))
        np.testing.assert_array_equal(window.times[:real], rows.times[start : start + real])
        assert not window.features[real:].any()
        assert (window.video, window.labels.shape) == (video, (4, 0))


def test_labels_are_those_of_the_rows(tmp_path: Path) -> None:
    """Rows of a third of a second: centres 1/6, 1/2, 5/6, ...; run holds 1/2 and 5/6, jump from 13/6 on."""
    windows = WindowDataset(features(tmp_path), LABELS, window=4)
    assert {video for video, _ in windows.places} == {"a.mp4", "b.mp4"}
    assert windows[0].labels.tolist() == [[0, 0], [1, 0], [1, 0], [0, 0]]
    assert [place[1] for place in windows.places[:3]] == [0, 4, 6]
    assert windows[2].labels.tolist() == [[0, 1]] * 4
    assert windows[3].labels.tolist() == [[0, 0]] * 3 + [[-1, -1]]
    grid = WindowDataset(features(tmp_path / "two"), LABELS, window=4, label_at="start")  # k 4 / 10 seconds
    assert grid[0].labels[:, 0].tolist() == [0, 0, 1, 0]
    assert grid[1].labels[:, 1].tolist() == [0, 0, 1, 1]


def test_bytes_are_the_values_that_they_stand_for(tmp_path: Path) -> None:
    part = features(tmp_path, SOUND)
    window = WindowDataset(part, window=10, videos=["a.mp4"])[0]
    np.testing.assert_array_equal(window.features, part.read("a.mp4").features * np.float32(0.5) - 1)


def test_workers_read_the_same(tmp_path: Path) -> None:
    windows = WindowDataset(features(tmp_path), LABELS, window=4)
    one, two = (
        [batch.features for batch in DataLoader(windows, batch_size=2, num_workers=number)] for number in (0, 1)
    )
    assert len(one) == 2
    assert all((x == y).all() for x, y in zip(one, two, strict=True))


def test_windows_that_cannot_be_are_refused(tmp_path: Path) -> None:
    part = features(tmp_path)
    for window, stride in ((0, None), (4, 5), (4, 0)):
        with pytest.raises(HeadError, match="do not cover a video"):
            WindowDataset(part, window=window, stride=stride)
    with ZarrWriter(tmp_path / "v.zarr", {"x": dataclasses.replace(CLIP, view="1x2")}) as writer:
        put(writer, "v", {"x": rows_of(CLIP, 4)})
    with pytest.raises(HeadError, match="clip-sampled"):
        WindowDataset(open_store(tmp_path / "v.zarr")["x"], window=2)
