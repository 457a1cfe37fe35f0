"""Clip-sampled sets in a store: clips and crops of rows, in every format, and what is no such layout."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from stores import Rows, StoreError, open_store
from stores.compaction import compact
from stores.maintenance import verify
from stores.samples import columns, sample_rows
from stores.spec import FeatureSpec, Granularity
from stores.transfer import convert, merge
from stores.zarr_store import ZarrWriter
from tests.stores.samples import assert_rows

SPEC = FeatureSpec(Granularity.MAP, (1, 2, 3), "float32", fps=24.0, window=16, speed=4, view="2x3")
NAME = "net.rgb.map.r4"


def sampled_rows(seed: int = 0) -> Rows:
    """Two clips that overlap, in three crops each, of two rows."""
    features = np.random.default_rng(seed).normal(size=(12, 1, 2, 3)).astype(np.float32)
    clip = [[(0.0, 1.0), (1.0, 2.0)], [(0.5, 1.5), (1.5, 2.5)]]
    return Rows(features, np.array([cell for cells in clip for _ in range(3) for cell in cells]))


def write(path: Path, videos: dict[str, Rows], spec: FeatureSpec = SPEC, spool: int = 1 << 20) -> Path:
    with ZarrWriter(path, {NAME: spec}, group_videos=1, spool_bytes=spool) as writer:
        for video, rows in videos.items():
            taker = writer.video(video, {"duration": 2.5})
            for part in (slice(0, 5), slice(5, None)):
                taker.append(NAME, Rows(rows.features[part], rows.times[part]))
            taker.commit()
    return path


def test_rows_are_numbered_by_clip_and_crop() -> None:
    clip_N, crop_N = columns(SPEC, 12, "v")
    assert clip_N.tolist() == [0] * 6 + [1] * 6
    assert crop_N.tolist() == [0, 0, 1, 1, 2, 2] * 2
    dense = FeatureSpec(Granularity.CLIP, (3,))
    assert [column.tolist() for column in columns(dense, 3, "v")] == [[0, 0, 0], [0, 0, 0]]
    assert (SPEC.samples, SPEC.crops, dense.samples, sample_rows(SPEC, 12, "v")) == (6, 3, 1, 2)


def test_every_format_and_every_way_between_them_keeps_the_samples(tmp_path: Path) -> None:
    videos = {f"{n}.mp4": sampled_rows(n) for n in range(3)}
    first = write(tmp_path / "a.zarr", dict(list(videos.items())[:2]))
    second = write(tmp_path / "b.zarr", dict(list(videos.items())[1:]))
    merge([first, second], tmp_path / "m.zarr")
    compact(tmp_path / "m.zarr", grace_seconds=0)
    convert(tmp_path / "m.zarr", tmp_path / "m.h5")
    convert(tmp_path / "m.h5", tmp_path / "n.zarr")
    for name in ("m.zarr", "m.h5", "n.zarr"):
        part = open_store(tmp_path / name)[NAME]
        assert (part.spec.view, part.spec.speed) == ("2x3", 4)
        for video, rows in videos.items():
            assert_rows(part.read(video), rows)
        assert not verify(tmp_path / name, full=True).findings


def backwards(times: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.concatenate([times[[1, 0]], times[2:]])


def test_what_is_no_whole_samples_in_order_is_not_committed(tmp_path: Path) -> None:
    whole = sampled_rows()
    for rows, words in (
        (Rows(whole.features[:10], whole.times[:10]), "10 rows, which are not 6 equal samples of view 2x3"),
        (Rows(whole.features, backwards(whole.times)), r"not in order within each clip and crop \(2x3\)"),
    ):
        for spool in (1 << 20, 0):  # with 0 the rows go to a segment at once
            with pytest.raises(StoreError, match=words):
                write(tmp_path / "s.zarr", {"v.mp4": rows}, spool=spool)
        assert list(open_store(tmp_path / "s.zarr")) == []
        assert list((tmp_path / "s.zarr" / "segments").iterdir()) == []
    dense = FeatureSpec(Granularity.MAP, (1, 2, 3), "float32")
    with pytest.raises(StoreError, match="are not in order"):
        write(tmp_path / "d.zarr", {"v.mp4": whole}, dense)


@pytest.mark.parametrize(("view", "speed"), [("4", 1), ("0x3", 1), ("4x3x2", 1), ("4x3", 0), ("ax3", 1)])
def test_a_view_that_is_none_is_refused(view: str, speed: int) -> None:
    with pytest.raises(StoreError, match=r"a view is clips x crops|a speed is every"):
        FeatureSpec(Granularity.MAP, (1, 2, 3), view=view, speed=speed)
