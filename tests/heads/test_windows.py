"""Batches are the stored rows, wherever the rows are kept and however many sets they come from."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from heads.head import Batch, HeadError
from heads.join import Join
from heads.mlad import Mlad
from heads.plan import Crops, covering_windows, training_crops
from heads.sources import choose_sources, find_sources
from heads.windows import Windows
from stores.errors import DamageError, SpecMismatchError, StoreError
from stores.spec import FeatureSpec, Granularity, Rows
from stores.zarr_store import ZarrWriter
from tests.heads.feature_stores import flat_spec, grid_times, write_store

CPU = torch.device("cpu")


def rows_of(seed: int, rows: int, width: int, dtype: str = "float16") -> NDArray[np.float16]:
    values = np.random.default_rng(seed).normal(size=(rows, width))
    return (values * 40 + 100).astype(np.uint8) if dtype == "uint8" else values.astype(dtype)


def crops(videos: list[int], starts: list[int], length: int) -> Crops:
    return Crops(np.array(videos), np.array(starts), length)


def numbered_labels(video: str, times: NDArray[np.float64]) -> NDArray[np.int8]:
    """Each row's label is its number, so that a shift shows."""
    return np.arange(len(times), dtype=np.int8)[:, None]


@pytest.fixture
def three_sets(tmp_path: Path) -> Windows:
    """A float16 grid of 5 rows a second, sound of 13 a second as uint8 that b.mp4 lacks, and a shorter float32 set."""
    lengths = {"a.mp4": 11, "b.mp4": 30, "c.mp4": 23}
    pictures = {video: rows_of(n, rows, 4) for n, (video, rows) in enumerate(lengths.items())}
    sound = {video: rows_of(n, rows * 13 // 5, 3, "uint8") for n, (video, rows) in enumerate(lengths.items())}
    del sound["b.mp4"]
    short = {video: rows_of(9 + n, max(1, rows - 2), 2, "float32") for n, (video, rows) in enumerate(lengths.items())}
    store = write_store(
        tmp_path / "f.zarr",
        {"pictures": pictures, "short": short, "sound": sound},
        specs={"sound": flat_spec(3, "uint8", scale=0.5, offset=-3.0, stream="audio")},
        rates={"sound": 13.0},
    )
    sources = choose_sources(Mlad, [store])
    assert [source.features.name for source in sources] == ["pictures", "short", "sound"]
    return Windows(sources, list(lengths), device=CPU, labels=numbered_labels)


def test_a_join_is_looked_at_once_however_many_videos_there_are(
    three_sets: Windows, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_at: list[Join] = []

    def selects(join: Join) -> bool:
        looked_at.append(join)
        return bool((np.diff(join.grid_P) > 0).all())

    monkeypatch.setattr(Join, "selects", property(selects))
    windows = Windows(three_sets.sources, three_sets.videos, device=CPU, labels=numbered_labels)
    windows.statistics(range(3))
    list(windows.batches(covering_windows(windows.rows_V, range(3), window=16, stride=5, batch_size=3)))
    assert len(looked_at) <= 2 * 3  # of the two sets beside the grid, each video's


def assert_same(one: Batch, other: Batch) -> None:
    assert one.labels is not None
    assert other.labels is not None
    for left, right in (
        (one.features["x"], other.features["x"]),
        (one.mask["x"], other.mask["x"]),
        (one.times, other.times),
        (one.labels, other.labels),
    ):
        assert torch.equal(left, right)
    assert one.videos == other.videos


def test_batches_are_the_same_from_memory_and_from_disk(three_sets: Windows) -> None:
    assert three_sets.resident
    streaming = Windows(three_sets.sources, three_sets.videos, device=CPU, labels=numbered_labels, resident=False)
    mean = {"x": torch.arange(9.0)}
    for windows in (three_sets, streaming):
        windows.fill_missing(mean)
    plans = [
        training_crops(three_sets.rows_V, range(3), window=8, batch_size=2, seed=1, epoch=0),
        covering_windows(three_sets.rows_V, range(3), window=16, stride=5, batch_size=3),
    ]
    for plan in plans:
        pairs = list(zip(three_sets.batches(plan), streaming.batches(plan), strict=True))
        assert len(pairs) == len(plan) > 1
        for one, other in pairs:
            assert_same(one, other)
    for one_of, other_of in zip(three_sets.statistics([0, 1])["x"], streaming.statistics([0, 1])["x"], strict=True):
        assert torch.equal(one_of, other_of)


def test_a_window_holds_the_rows_the_labels_and_the_times_of_its_place(tmp_path: Path) -> None:
    features = rows_of(0, 12, 4)
    store = write_store(tmp_path / "f.zarr", {"one": {"a.mp4": features, "b.mp4": features[:3]}})
    windows = Windows(choose_sources(Mlad, [store]), ["a.mp4", "b.mp4"], device=CPU, labels=numbered_labels)
    batch = windows.batch(crops([0, 1], [7, 1], 4))
    assert batch.videos == ("a.mp4", "b.mp4")
    assert np.array_equal(batch.features["x"][0].numpy(), features[7:11].astype(np.float32))
    assert np.array_equal(batch.features["x"][1, :2].numpy(), features[1:3].astype(np.float32))
    assert not batch.features["x"][1, 2:].any()
    assert batch.mask["x"].tolist() == [[True] * 4, [True, True, False, False]]
    assert batch.labels is not None
    assert batch.labels[0, :, 0].tolist() == [7, 8, 9, 10]
    assert batch.times[0].tolist() == grid_times(12)[7:11].tolist()


def test_sets_stand_side_by_side_joined_by_time(three_sets: Windows) -> None:
    """Grid row 1 is [0.2, 0.4) s: sound rows 2 (from 2/13) to 5 (to 6/13) overlap it."""
    three_sets.fill_missing({"x": torch.arange(9.0)})
    batch = three_sets.batch(crops([0, 1], [0, 0], 30))
    of_row = batch.features["x"][0, 1]
    pictures, short, sound = (source.features.read("a.mp4").features for source in three_sets.sources)
    assert of_row[:4].tolist() == pictures[1].astype(np.float32).tolist()
    assert of_row[4:6].tolist() == short[1].tolist()
    bounds = [max(0.2, n / 13) for n in range(2, 6)], [min(0.4, (n + 1) / 13) for n in range(2, 6)]
    overlaps = np.array(bounds[1]) - np.array(bounds[0])
    values = sound[2:6].astype(np.float64) * 0.5 - 3
    expected = (overlaps[:, None] * values).sum(0) / overlaps.sum()
    np.testing.assert_allclose(of_row[6:].numpy(), expected, rtol=1e-5)


def test_what_a_set_lacks_is_its_mean_and_is_counted(three_sets: Windows) -> None:
    three_sets.fill_missing({"x": torch.arange(9.0)})
    batch = three_sets.batch(crops([1], [0], 30))
    assert batch.features["x"][0, :, 6:].tolist() == [[6.0, 7.0, 8.0]] * 30
    assert batch.features["x"][0, 28:, 4:6].tolist() == [[4.0, 5.0]] * 2
    assert batch.mask["x"].all()
    assert three_sets.missing == {"short": 6, "sound": 30}


def test_bytes_become_numbers_on_the_device_and_padding_zero(tmp_path: Path) -> None:
    spec = flat_spec(2, "uint8", scale=4 / 255, offset=4 / 512 - 2)
    store = write_store(
        tmp_path / "f.zarr", {"yt": {"v": np.array([[0, 128], [255, 1]], np.uint8)}}, specs={"yt": spec}
    )
    batch = Windows(choose_sources(Mlad, [store]), ["v"], device=CPU).batch(crops([0], [1], 3))
    assert batch.features["x"][0, 0].tolist() == pytest.approx([2.0078125, 4 / 255 + 4 / 512 - 2])
    assert not batch.features["x"][0, 1:].any()


def test_statistics_are_those_of_all_training_rows(three_sets: Windows) -> None:
    mean, std = three_sets.statistics([0, 2])["x"]
    pictures, _, _ = three_sets.sources
    rows = np.concatenate([pictures.features.read(video).features for video in ("a.mp4", "c.mp4")]).astype(np.float64)
    np.testing.assert_allclose(mean[:4].numpy(), rows.mean(0), rtol=1e-5)
    np.testing.assert_allclose(std[:4].numpy(), rows.std(0), rtol=1e-5)
    joined = three_sets.batch(crops([0, 2], [0, 0], 23))
    heard = joined.features["x"][..., 6:][joined.mask["x"]].double()
    np.testing.assert_allclose(mean[6:].numpy(), heard.mean(0).numpy(), rtol=1e-5)
    np.testing.assert_allclose(std[6:].numpy(), heard.std(0, correction=0).numpy(), rtol=1e-5)


def test_statistics_of_bytes_are_of_the_numbers_they_stand_for(tmp_path: Path) -> None:
    values = rows_of(0, 50, 2, "uint8")
    values[:, 1] = 7
    spec = flat_spec(2, "uint8", scale=0.5, offset=-3.0)
    store = write_store(tmp_path / "f.zarr", {"bytes": {"v": values}}, specs={"bytes": spec})
    mean, std = Windows(choose_sources(Mlad, [store]), ["v"], device=CPU).statistics([0])["x"]
    assert mean.tolist() == pytest.approx([values[:, 0].mean() * 0.5 - 3, 0.5])
    assert std.tolist() == pytest.approx([values[:, 0].std() * 0.5, 1.0])


def test_rows_that_are_no_numbers_are_refused_by_name(tmp_path: Path) -> None:
    bad = np.ones((4, 2), np.float32)
    bad[2, 1] = np.nan
    store = write_store(tmp_path / "f.zarr", {"one": {"a.mp4": np.ones((4, 2), np.float32), "b.mp4": bad}})
    with pytest.raises(DamageError, match=r"b\.mp4"):
        Windows(choose_sources(Mlad, [store]), ["a.mp4", "b.mp4"], device=CPU)


def test_two_stores_are_joined_by_stem(tmp_path: Path) -> None:
    one = write_store(tmp_path / "one.zarr", {"one": {"x/a.mp4": rows_of(0, 5, 2), "x/b.mp4": rows_of(1, 5, 2)}})
    two = write_store(tmp_path / "two.zarr", {"two": {"a": rows_of(2, 5, 3), "b": rows_of(3, 5, 3)}})
    windows = Windows(choose_sources(Mlad, [one, two]), ["x/a.mp4", "x/b.mp4"], device=CPU)
    batch = windows.batch(crops([1], [0], 5))
    assert np.array_equal(batch.features["x"][0, :, 2:].numpy(), rows_of(3, 5, 3).astype(np.float32))


def write_kinds(path: Path) -> Path:
    specs = {
        "net.flow.clip": FeatureSpec(Granularity.CLIP, (2,), stream="flow"),
        "net.rgb.clip": FeatureSpec(Granularity.CLIP, (2,), stream="rgb"),
        "net.rgb.clip.r2": FeatureSpec(Granularity.CLIP, (2,), stream="rgb", speed=2),
        "net.rgb.map": FeatureSpec(Granularity.MAP, (3, 3, 2), stream="rgb"),
    }
    with ZarrWriter(path, specs) as writer:
        entry = writer.video("v", {})
        for name, spec in specs.items():
            entry.append(name, Rows(np.zeros((4, *spec.row_shape), np.float16), grid_times(4)))
        entry.commit()
    return path


def test_a_head_takes_what_it_accepts_at_base_speed_pictures_first(tmp_path: Path) -> None:
    from stores import open_store

    store = open_store(write_kinds(tmp_path / "f.zarr"))
    assert [s.features.name for s in choose_sources(Mlad, [store])] == ["net.rgb.clip", "net.flow.clip"]
    chosen = choose_sources(Mlad, [store], ["net.rgb.clip.r2", "net.flow.clip"])
    assert [s.features.name for s in chosen] == ["net.rgb.clip.r2", "net.flow.clip"]
    with pytest.raises(HeadError, match=r"mlad takes clip, frame rows; net\.rgb\.map holds map rows"):
        choose_sources(Mlad, [store], ["net.rgb.map"])
    with pytest.raises(HeadError, match=r"no set 'rgb'; there is net\.flow\.clip"):
        choose_sources(Mlad, [store], ["rgb"])


def test_two_stores_with_the_same_set_are_for_merge(tmp_path: Path) -> None:
    stores = [write_store(tmp_path / f"{n}.zarr", {"one": {"v": rows_of(0, 3, 2)}}) for n in range(2)]
    with pytest.raises(StoreError, match="vl merge"):
        choose_sources(Mlad, stores)


def test_features_of_other_settings_are_refused_by_the_name_of_the_setting(tmp_path: Path) -> None:
    video = {"v": rows_of(0, 3, 2)}
    made = write_store(tmp_path / "8.zarr", {"one": video}, specs={"one": flat_spec(2, "float16", stride=8)})
    other = write_store(tmp_path / "16.zarr", {"one": video}, specs={"one": flat_spec(2, "float16", stride=16)})
    renamed = write_store(tmp_path / "r.zarr", {"uno": video}, specs={"uno": flat_spec(2, "float16", stride=8)})
    recorded = [source.to_dict() for source in choose_sources(Mlad, [made])]
    with pytest.raises(SpecMismatchError, match="stride 16 is not 8"):
        find_sources(recorded, [other])
    assert [source.features.name for source in find_sources(recorded, [renamed])] == ["uno"]
