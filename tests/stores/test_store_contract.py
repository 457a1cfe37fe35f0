"""What every store promises, whatever its format and however it came about."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from stores import Failure, FeatureStore, StoreError, VideoEntry, open_store
from stores.compaction import compact
from stores.remote import as_path
from stores.transfer import convert, merge
from tests.stores.samples import SPECS, Videos, assert_rows, sample_videos, write_sample


def zarr(folder: Path) -> Path:
    write_sample(folder / "s.zarr")
    return folder / "s.zarr"


def zarr_compressed(folder: Path) -> Path:
    write_sample(folder / "s.zarr", compress="zstd")
    return folder / "s.zarr"


def zarr_streamed(folder: Path) -> Path:
    """Every video in a segment of its own, written while it came."""
    write_sample(folder / "s.zarr", spool_bytes=0)
    return folder / "s.zarr"


def zarr_compacted(folder: Path) -> Path:
    write_sample(folder / "s.zarr", group_videos=1)
    compact(folder / "s.zarr", grace_seconds=0)
    return folder / "s.zarr"


def zarr_merged(folder: Path) -> Path:
    videos = sample_videos()
    for index, video in enumerate(videos):
        write_sample(folder / f"{index}.zarr", {video: videos[video]})
    merge([folder / f"{index}.zarr" for index in range(len(videos))], folder / "s.zarr")
    return folder / "s.zarr"


def hdf5(folder: Path) -> Path:
    convert(zarr_compressed(folder), folder / "s.h5")
    return folder / "s.h5"


def zarr_from_hdf5(folder: Path) -> Path:
    convert(hdf5(folder), folder / "t.zarr")
    return folder / "t.zarr"


def remote(folder: Path) -> Path:
    """In memory, but through the client that S3 has; a group in one segment, and a video in several shards."""
    pytest.importorskip("obstore", reason="needs obstore: pip install 'vl[remote]'")
    place = as_path(f"memory://{folder.name}/s.zarr")
    write_sample(place, spool_bytes=0)
    return place


def remote_compacted(folder: Path) -> Path:
    pytest.importorskip("obstore", reason="needs obstore: pip install 'vl[remote]'")
    place = as_path(f"memory://{folder.name}/s.zarr")
    write_sample(place, group_videos=1, compress="zstd")
    compact(place, grace_seconds=0)
    return place


MAKERS = (
    zarr,
    zarr_compressed,
    zarr_streamed,
    zarr_compacted,
    zarr_merged,
    hdf5,
    zarr_from_hdf5,
    remote,
    remote_compacted,
)


@dataclass
class Sample:
    path: Path
    store: FeatureStore
    videos: Videos


@pytest.fixture(scope="module", params=MAKERS, ids=lambda maker: maker.__name__)
def sample(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Sample:
    maker: Callable[[Path], Path] = request.param
    path = maker(tmp_path_factory.mktemp("store"))
    return Sample(path, open_store(path), sample_videos())


def test_every_row_and_time_comes_back(sample: Sample) -> None:
    for video, sets in sample.videos.items():
        for name, expected in sets.items():
            assert_rows(sample.store[name].read(video), expected)
            np.testing.assert_array_equal(sample.store[name].times(video), expected.times)


@pytest.mark.parametrize(
    ("start", "stop"), [(0, None), (3, 9), (0, 0), (290, 400), (-5, None), (299, 300), (100, 260), (200, 100)]
)
def test_read_slices_as_numpy_does(sample: Sample, start: int, stop: int | None) -> None:
    for name in SPECS:
        expected = sample.videos["b.mp4"][name]
        rows = sample.store[name].read("b.mp4", start, stop)
        assert_rows(rows, type(rows)(expected.features[start:stop], expected.times[start:stop]))


def test_read_into_fills_the_buffer_and_nothing_else(sample: Sample) -> None:
    for name, spec in SPECS.items():
        buffer = np.zeros((5, *spec.row_shape), spec.dtype)
        sample.store[name].read_into("b.mp4", 126, buffer[1:4])
        np.testing.assert_array_equal(buffer[1:4], sample.videos["b.mp4"][name].features[126:129])
        assert not buffer[0].any()
        assert not buffer[4].any()


def test_read_into_refuses_what_it_cannot_fill(sample: Sample) -> None:
    part = sample.store["net.rgb.clip"]
    refused: list[tuple[int, NDArray[Any]]] = [
        (295, np.empty((6, 6), np.float16)),
        (-1, np.empty((2, 6), np.float16)),
        (0, np.empty((2, 6), np.float32)),
        (0, np.empty((2, 5), np.float16)),
        (0, np.empty((2, 12), np.float16)[:, ::2]),
    ]
    for start, out in refused:
        with pytest.raises(StoreError):
            part.read_into("b.mp4", start, out)


def test_sets_and_videos_iterate_in_order(sample: Sample) -> None:
    assert list(sample.store) == sorted(SPECS)
    for name in SPECS:
        expected = sorted(video for video, sets in sample.videos.items() if name in sets)
        assert list(sample.store[name]) == expected
        assert len(sample.store[name]) == len(expected)
        assert "b.mp4" in sample.store[name]
        assert "a/x.mkv" not in sample.store["mel.audio.frame"]


def test_an_entry_has_length_duration_and_a_digest_of_rows_then_times(sample: Sample) -> None:
    for video, sets in sample.videos.items():
        for name, rows in sets.items():
            digest = hashlib.sha256(rows.features.tobytes() + rows.times.tobytes()).hexdigest()
            entry = sample.store[name].entry(video)
            assert entry == VideoEntry(video, len(rows.features), digest, {"duration": rows.times[-1, 1]})


def test_unknown_names_are_errors_that_list_what_there_is(sample: Sample) -> None:
    with pytest.raises(StoreError, match=r"no set 'x'.*mel\.audio\.frame, net\.rgb\.clip, net\.rgb\.map"):
        sample.store["x"]
    with pytest.raises(StoreError, match=r"no video 'x\\x1b\.mp4'"):
        sample.store["net.rgb.clip"].read("x\x1b.mp4")


def test_specs_and_provenance_come_back(sample: Sample) -> None:
    for name, spec in SPECS.items():
        assert sample.store[name].spec == spec
        assert sample.store[name].provenance == {"decoder": "pyav", "torch": "2.13.0"}


def test_failures_and_attachments_come_back(sample: Sample) -> None:
    assert sample.store.failures() == [Failure("broken.mp4", "decode_error", "0 of 10 frames")]
    assert sample.store.attachment("labels") == {"classes": ["run", "jump"], "größe": 1.5}
    assert sample.store.attachments() == {"labels": {"classes": ["run", "jump"], "größe": 1.5}}
    assert sample.store.attachment("prediction") is None


def test_a_store_opened_again_is_the_same_snapshot(sample: Sample) -> None:
    assert open_store(sample.path).snapshot_id == sample.store.snapshot_id
