"""The Zarr store: its bytes on disk, what counts as committed, and how it is opened."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

import stores.segments
from stores import DamageError, Failure, Rows, SpecMismatchError, StoreError, open_store
from stores.records import record_path
from stores.spec import FeatureSpec, Granularity
from stores.zarr_store import ZarrStore, ZarrWriter
from tests.stores.samples import CLIP, SPECS, assert_rows, only_record, put, rows_of, sample_videos, write_sample


def one_set(path: Path, video: str = "a.mp4", num_rows: int = 10, seed: int = 0) -> Rows:
    rows = rows_of(CLIP, num_rows, seed)
    with ZarrWriter(path, {"clip": CLIP}) as writer:
        put(writer, video, {"clip": rows})
    return rows


# ---- bytes on disk


@pytest.mark.parametrize("compress", [None, "zstd"])
def test_plain_zarr_opens_every_segment(tmp_path: Path, compress: str | None) -> None:
    videos = write_sample(tmp_path / "s.zarr", compress=compress)
    assert isinstance(zarr.open_group(str(tmp_path / "s.zarr"), mode="r", zarr_format=3), zarr.Group)
    record = only_record(tmp_path / "s.zarr")
    segment = zarr.open_group(str(tmp_path / "s.zarr" / "segments" / record.name), mode="r", zarr_format=3)
    assert sorted(name for name, _ in segment.groups()) == sorted(SPECS)
    for name in SPECS:
        group = segment[name]
        assert isinstance(group, zarr.Group)
        features, times, offsets = (np.asarray(group[key][:]) for key in ("features", "times", "offsets"))  # type: ignore[index]
        for index, video in enumerate(group.attrs["videos"]):  # type: ignore[arg-type]
            start, stop = offsets[index : index + 2]
            expected = videos[str(video)][name]
            assert_rows(Rows(features[start:stop], times[start:stop]), expected)


@pytest.mark.parametrize("num_rows", [1, 63, 128, 129, 300, 1000])
@pytest.mark.parametrize("spec", SPECS.values(), ids=list(SPECS))
def test_shards_are_those_that_zarr_python_writes(tmp_path: Path, spec: FeatureSpec, num_rows: int) -> None:
    rows = rows_of(spec, num_rows)
    with ZarrWriter(tmp_path / "s.zarr", {"a": spec}) as writer:
        put(writer, "v", {"a": rows})
    ours = tmp_path / "s.zarr" / "segments" / only_record(tmp_path / "s.zarr").name / "a" / "features"
    fields = json.loads((ours / "zarr.json").read_text())
    theirs = zarr.create_array(
        str(tmp_path / "z"),
        shape=rows.features.shape,
        dtype=spec.dtype,
        chunks=tuple(fields["codecs"][0]["configuration"]["chunk_shape"]),
        shards=tuple(fields["chunk_grid"]["configuration"]["chunk_shape"]),
        compressors=None,
        fill_value=np.nan if spec.dtype.startswith("float") else 0,
        chunk_key_encoding={"name": "default", "separator": "."},
    )
    theirs[:] = rows.features
    files = sorted(file.name for file in ours.iterdir())
    assert files == sorted(file.name for file in (tmp_path / "z").iterdir())
    for name in files:
        if name == "zarr.json":
            assert json.loads((tmp_path / "z" / name).read_text()) == fields
        else:
            assert (tmp_path / "z" / name).read_bytes() == (ours / name).read_bytes()


def test_rows_lie_raw_and_in_order_at_the_start_of_the_shard(tmp_path: Path) -> None:
    rows = one_set(tmp_path / "s.zarr", num_rows=300)
    shard = next((tmp_path / "s.zarr").glob("segments/*/clip/features/c.0.0"))
    assert shard.read_bytes().startswith(rows.features.tobytes())


def test_chunks_have_64_to_256_rows_in_one_shard(tmp_path: Path) -> None:
    for num_rows in (65, 129, 200, 257, 1000, 5000):
        chunk, shard = stores.segments.plan(num_rows, 2048)
        assert 64 <= chunk <= 256
        assert num_rows <= shard < num_rows + shard // chunk
    assert stores.segments.plan(None, 2048)[0] == 128


def test_fill_value_is_nan(tmp_path: Path) -> None:
    one_set(tmp_path / "s.zarr")
    name = only_record(tmp_path / "s.zarr").name
    array = zarr.open_array(str(tmp_path / "s.zarr" / "segments" / name / "clip" / "features"), mode="r")
    assert np.isnan(array.fill_value)


def test_a_long_video_goes_to_whole_shards_of_its_own_segment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores.segments, "SHARD_BYTES", 256 * CLIP.row_bytes)
    rows = rows_of(CLIP, 1000)
    with ZarrWriter(tmp_path / "s.zarr", {"clip": CLIP}, spool_bytes=100 * CLIP.row_bytes) as writer:
        put(writer, "short", {"clip": rows_of(CLIP, 50)})
        put(writer, "long", {"clip": rows}, step=90)
        assert "long" in ZarrStore(tmp_path / "s.zarr")["clip"], "committed at once"
        assert "short" not in ZarrStore(tmp_path / "s.zarr")["clip"], "waits for its group"
    store = ZarrStore(tmp_path / "s.zarr")
    record = store["clip"].place("long").record
    shards = sorted(key for key in record.files if key.startswith("clip/features/c."))
    assert shards == [f"clip/features/c.{i}.0" for i in range(4)]
    assert_rows(store["clip"].read("long"), rows)
    assert_rows(store["clip"].read("long", 250, 800), Rows(rows.features[250:800], rows.times[250:800]))
    plain = zarr.open_array(str(store.path / "segments" / record.name / "clip" / "features"), mode="r")
    assert np.asarray(plain[:]).tobytes() == rows.features.tobytes()


@settings(max_examples=30, deadline=None)
@given(st.lists(st.text(min_size=1, max_size=300), min_size=1, max_size=4, unique=True))
def test_no_name_on_disk_comes_from_a_video(tmp_path_factory: pytest.TempPathFactory, videos: list[str]) -> None:
    path = tmp_path_factory.mktemp("names") / "s.zarr"
    with ZarrWriter(path, {"clip": CLIP}) as writer:
        for index, video in enumerate([*videos, "../../x", "/etc/passwd", "a\0b", "C:\\x", "x" * 5000]):
            put(writer, video, {"clip": rows_of(CLIP, 2, index)})
    known = {"clip", "features", "times", "offsets", "zarr.json", "c.0", "c.0.0", "segments", "commits", "failures"}
    for entry in path.rglob("*"):
        assert entry.name in {*known, "attachments"} or entry.name.removesuffix(".json") == only_record(path).name
    store = open_store(path)
    for index, video in enumerate(videos):
        assert_rows(store["clip"].read(video), rows_of(CLIP, 2, index))


# ---- what is committed


def test_a_video_is_not_there_before_it_is_complete(tmp_path: Path) -> None:
    with ZarrWriter(tmp_path / "s.zarr", SPECS, spool_bytes=0) as writer:
        taker = writer.video("long", {})
        taker.append("net.rgb.clip", rows_of(CLIP, 10))
        assert not list(ZarrStore(tmp_path / "s.zarr"))
    assert not list(ZarrStore(tmp_path / "s.zarr"))
    assert not list((tmp_path / "s.zarr" / "segments").iterdir()), "a dropped video leaves nothing"


def test_an_error_keeps_the_complete_videos_and_drops_the_others(tmp_path: Path) -> None:
    def interrupted() -> None:
        with ZarrWriter(tmp_path / "s.zarr", {"clip": CLIP}, spool_bytes=64) as writer:
            put(writer, "complete", {"clip": rows_of(CLIP, 3)})
            writer.video("half", {}).append("clip", rows_of(CLIP, 30))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(ZarrStore(tmp_path / "s.zarr")["clip"]) == ["complete"]
    assert len(list((tmp_path / "s.zarr" / "segments").iterdir())) == 1


@pytest.mark.parametrize("spool_bytes", [0, 1 << 20])
def test_a_discarded_video_leaves_nothing(tmp_path: Path, spool_bytes: int) -> None:
    with ZarrWriter(tmp_path / "s.zarr", {"clip": CLIP}, spool_bytes=spool_bytes) as writer:
        taker = writer.video("v", {})
        taker.append("clip", rows_of(CLIP, 30))
        taker.discard()
        assert not list((tmp_path / "s.zarr" / "segments").iterdir())
    assert not list(ZarrStore(tmp_path / "s.zarr"))


def test_on_commit_hears_of_a_video_only_when_readers_see_it(tmp_path: Path) -> None:
    heard: list[tuple[str, str]] = []

    def listen(committed: list[tuple[str, str]]) -> None:
        store = ZarrStore(tmp_path / "s.zarr")
        for video, name in committed:
            assert len(store[name].read(video).features) == store[name].entry(video).num_rows
        heard.extend(committed)

    videos = write_sample(tmp_path / "s.zarr", on_commit=listen, group_videos=2)
    assert sorted(heard) == sorted((video, name) for video, sets in videos.items() for name in sets)


def test_short_videos_share_a_segment(tmp_path: Path) -> None:
    with ZarrWriter(tmp_path / "s.zarr", {"clip": CLIP}, group_seconds=3600) as writer:
        for index in range(130):
            put(writer, f"{index}", {"clip": rows_of(CLIP, 2)})
        assert len(ZarrStore(tmp_path / "s.zarr").records) == 2
    assert [len(record.videos) for record in ZarrStore(tmp_path / "s.zarr").records] == [64, 64, 2]


def test_no_video_waits_longer_than_the_group_may(tmp_path: Path) -> None:
    with ZarrWriter(tmp_path / "s.zarr", {"clip": CLIP}, group_seconds=0) as writer:
        put(writer, "a", {"clip": rows_of(CLIP, 2)})
        assert "a" in ZarrStore(tmp_path / "s.zarr")["clip"]


def test_a_group_waits_in_no_more_memory_than_the_spool_has(tmp_path: Path) -> None:
    with ZarrWriter(tmp_path / "s.zarr", {"clip": CLIP}, spool_bytes=25 * CLIP.row_bytes) as writer:
        for index in range(3):
            put(writer, f"{index}", {"clip": rows_of(CLIP, 10)})
        assert len(ZarrStore(tmp_path / "s.zarr")["clip"]) == 3


def test_the_later_of_two_commits_of_one_video_counts(tmp_path: Path) -> None:
    one_set(tmp_path / "s.zarr", "a", seed=1)
    later = one_set(tmp_path / "s.zarr", "a", seed=2)
    assert_rows(ZarrStore(tmp_path / "s.zarr")["clip"].read("a"), later)
    assert len(ZarrStore(tmp_path / "s.zarr")["clip"]) == 1


def test_the_later_of_two_in_one_group_counts(tmp_path: Path) -> None:
    with ZarrWriter(tmp_path / "s.zarr", {"clip": CLIP}) as writer:
        for seed in (1, 2):
            put(writer, "a", {"clip": rows_of(CLIP, 10, seed)})
    assert_rows(ZarrStore(tmp_path / "s.zarr")["clip"].read("a"), rows_of(CLIP, 10, 2))


def test_sets_of_one_video_may_come_in_different_commits(tmp_path: Path) -> None:
    rows = sample_videos()["b.mp4"]
    for name, spec in SPECS.items():
        with ZarrWriter(tmp_path / "s.zarr", {name: spec}) as writer:
            put(writer, "b.mp4", {name: rows[name]})
    store = ZarrStore(tmp_path / "s.zarr")
    for name, expected in rows.items():
        assert_rows(store[name].read("b.mp4"), expected)


def test_the_snapshot_depends_on_the_commits_and_not_on_their_order(tmp_path: Path) -> None:
    write_sample(tmp_path / "s.zarr", group_videos=1)
    first = ZarrStore(tmp_path / "s.zarr").snapshot_id
    shutil.copytree(tmp_path / "s.zarr", tmp_path / "copy.zarr", ignore=shutil.ignore_patterns("*.json"))
    for record in sorted((tmp_path / "s.zarr" / "commits").iterdir(), reverse=True):
        shutil.copy(record, tmp_path / "copy.zarr" / "commits")
    assert ZarrStore(tmp_path / "copy.zarr").snapshot_id == first
    one_set(tmp_path / "s.zarr", "new.mp4")
    assert ZarrStore(tmp_path / "s.zarr").snapshot_id != first


def test_a_failure_is_gone_once_the_video_succeeded(tmp_path: Path) -> None:
    path = tmp_path / "s.zarr"
    everywhere, sound = Failure("a", "timeout", "60 s"), Failure("a", "no_audio", "", "sound")
    with ZarrWriter(path, {"clip": CLIP, "sound": CLIP}) as writer:
        writer.fail(everywhere)
        writer.fail(sound)
        writer.fail(Failure("b", "empty", "old"))
        writer.fail(Failure("b", "empty", "new"))
        assert ZarrStore(path).failures() == [everywhere, sound, Failure("b", "empty", "new")]
        put(writer, "a", {"clip": rows_of(CLIP, 2)})
        writer.flush()
        assert ZarrStore(path).failures() == [sound, Failure("b", "empty", "new")]
        put(writer, "a", {"sound": rows_of(CLIP, 2)})
    assert ZarrStore(path).failures() == [Failure("b", "empty", "new")]


def test_a_failure_after_a_success_stands_for_the_sets_that_lack_the_video(tmp_path: Path) -> None:
    path = tmp_path / "s.zarr"
    one_set(path, "a")
    with ZarrWriter(path, {"sound": CLIP}) as writer:
        put(writer, "other", {"sound": rows_of(CLIP, 2)})
        writer.fail(Failure("a", "crashed", ""))
    assert ZarrStore(path).failures() == [Failure("a", "crashed", "")]


def test_the_newest_attachment_of_a_kind_counts(tmp_path: Path) -> None:
    with ZarrWriter(tmp_path / "s.zarr", {}) as writer:
        for version in (1, 2, 3):
            writer.attach("labels", {"version": version})
        writer.attach("prediction", {"version": 0})
    store = ZarrStore(tmp_path / "s.zarr")
    assert store.attachments() == {"labels": {"version": 3}, "prediction": {"version": 0}}


# ---- specs


def test_another_spec_under_the_same_name_is_refused_with_the_difference(tmp_path: Path) -> None:
    one_set(tmp_path / "s.zarr")
    other = FeatureSpec(**{**CLIP.__dict__, "stride": 16})
    with pytest.raises(SpecMismatchError, match="stride 8 is not 16") as caught:
        ZarrWriter(tmp_path / "s.zarr", {"clip": other})
    assert caught.value.exit_code == 4


def test_two_writers_who_disagree_are_reported_by_every_reader(tmp_path: Path) -> None:
    other = FeatureSpec(**{**CLIP.__dict__, "stride": 16})
    first = ZarrWriter(tmp_path / "s.zarr", {"clip": CLIP})
    second = ZarrWriter(tmp_path / "s.zarr", {"clip": other})
    for writer in (first, second):
        put(writer, "a", {"clip": rows_of(CLIP, 2)})
        writer.flush()
    store = ZarrStore(tmp_path / "s.zarr")
    with pytest.raises(SpecMismatchError, match=r"set 'clip' was written with two specs: stride 8 is not 16"):
        store["clip"]


def test_weights_of_another_name_and_equal_digest_are_the_same_set(tmp_path: Path) -> None:
    one_set(tmp_path / "s.zarr")
    before = list(ZarrStore(tmp_path / "s.zarr")["clip"])
    with ZarrWriter(
        tmp_path / "s.zarr", {"clip": FeatureSpec(**{**CLIP.__dict__, "weights": "another name"})}
    ) as writer:
        put(writer, "another", {"clip": rows_of(CLIP, 2)})
    assert list(ZarrStore(tmp_path / "s.zarr")["clip"]) == sorted([*before, "another"])


# ---- what a writer refuses


@pytest.mark.parametrize(
    ("features", "times", "message"),
    [
        (np.zeros((2, 6), "float32"), [[0, 1], [1, 2]], "takes float16"),
        (np.zeros((2, 5), "float16"), [[0, 1], [1, 2]], r"rows \(6,\), not float16 \(5,\)"),
        (np.zeros((2, 6), "float16"), [[0, 1]], r"need times \(2, 2\)"),
        (np.zeros((2, 6), "float16"), [[1, 2], [0, 1]], "not in order"),
        (np.zeros((2, 6), "float16"), [[0, 1], [1, 0.5]], "not in order"),
        (np.zeros((2, 6), "float16"), [[0, 1], [np.nan, 2]], "not in order"),
    ],
)
def test_rows_that_do_not_fit_are_refused(
    tmp_path: Path, features: np.ndarray, times: list[list[float]], message: str
) -> None:
    with ZarrWriter(tmp_path / "s.zarr", {"clip": CLIP}) as writer, pytest.raises(StoreError, match=message):
        writer.video("v", {}).append("clip", Rows(features, np.array(times, dtype=np.float64)))


def test_rows_that_go_back_in_time_in_a_later_part_are_refused(tmp_path: Path) -> None:
    with ZarrWriter(tmp_path / "s.zarr", {"clip": CLIP}) as writer:
        taker = writer.video("v", {})
        taker.append("clip", rows_of(CLIP, 3))
        with pytest.raises(StoreError, match="not in order"):
            taker.append("clip", rows_of(CLIP, 3))


def test_a_buffer_may_be_used_again_after_append(tmp_path: Path) -> None:
    rows = rows_of(CLIP, 3)
    buffer = Rows(rows.features.copy(), rows.times.copy())
    with ZarrWriter(tmp_path / "s.zarr", {"clip": CLIP}) as writer:
        taker = writer.video("v", {})
        taker.append("clip", buffer)
        buffer.features[:] = 0
        buffer.times[:] = 0
        taker.commit()
    assert_rows(ZarrStore(tmp_path / "s.zarr")["clip"].read("v"), rows)


@pytest.mark.parametrize("name", ["", "A", "a/b", "..", ".a", "a b", "é", "a" * 129])
def test_names_of_sets_are_checked(tmp_path: Path, name: str) -> None:
    with pytest.raises(StoreError, match="cannot name a feature set"):
        ZarrWriter(tmp_path / "s.zarr", {name: CLIP})


def test_a_writer_takes_only_a_zarr_folder_of_its_own(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"NAME\.zarr"):
        ZarrWriter(tmp_path / "s", {})
    (tmp_path / "other.zarr").mkdir()
    (tmp_path / "other.zarr" / "precious").touch()
    with pytest.raises(StoreError, match="is no feature store"):
        ZarrWriter(tmp_path / "other.zarr", {})
    assert [entry.name for entry in (tmp_path / "other.zarr").iterdir()] == ["precious"]


def test_an_unknown_compression_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="not with 'lzma'"):
        ZarrWriter(tmp_path / "s.zarr", {}, compress="lzma")


# ---- damage seen on opening and reading


@pytest.mark.parametrize("data", [b"", b"{}", b"\0" * 700, None])
def test_a_bad_record_costs_only_its_own_segment(tmp_path: Path, data: bytes | None) -> None:
    one_set(tmp_path / "s.zarr", "lost")
    lost = record_path(tmp_path / "s.zarr", only_record(tmp_path / "s.zarr").name)
    kept = one_set(tmp_path / "s.zarr", "kept")
    lost.write_bytes(lost.read_bytes()[:-5] if data is None else data)
    store = ZarrStore(tmp_path / "s.zarr")
    assert list(store["clip"]) == ["kept"]
    assert_rows(store["clip"].read("kept"), kept)
    assert [damage.where for damage in store.damage] == [f"commits/{lost.name}"]


def test_every_flipped_bit_of_a_record_is_seen(tmp_path: Path) -> None:
    one_set(tmp_path / "s.zarr")
    record = record_path(tmp_path / "s.zarr", only_record(tmp_path / "s.zarr").name)
    good = record.read_bytes()
    for at in range(0, len(good), 17):
        record.write_bytes(good[:at] + bytes([good[at] ^ 1 << at % 8]) + good[at + 1 :])
        store = ZarrStore(tmp_path / "s.zarr")
        assert not list(store)
        assert len(store.damage) == 1


def test_a_record_under_another_name_is_not_believed(tmp_path: Path) -> None:
    one_set(tmp_path / "s.zarr")
    record = record_path(tmp_path / "s.zarr", only_record(tmp_path / "s.zarr").name)
    record.rename(record.with_name(f"{'1' * 20}-{'a' * 12}.json"))
    store = ZarrStore(tmp_path / "s.zarr")
    assert not list(store)
    assert "it is the record of" in store.damage[0].what


@pytest.mark.parametrize("array", ["features", "times"])
@pytest.mark.parametrize("size", [0, 100, -1, +1])
def test_a_file_of_another_size_is_never_read(tmp_path: Path, array: str, size: int) -> None:
    one_set(tmp_path / "s.zarr", num_rows=300)
    shard = next((tmp_path / "s.zarr").glob(f"segments/*/clip/{array}/c.0.0"))
    os.truncate(shard, size if size >= 0 and size != 1 else shard.stat().st_size + size)
    part = ZarrStore(tmp_path / "s.zarr")["clip"]
    with pytest.raises(DamageError, match=r"c\.0\.0 has \d+ bytes, not \d+"):
        part.read("a.mp4", 0, 1)


def test_a_file_that_shrinks_under_a_reader_is_damage(tmp_path: Path) -> None:
    one_set(tmp_path / "s.zarr", num_rows=300)
    part = ZarrStore(tmp_path / "s.zarr")["clip"]
    part.read("a.mp4", 0, 1)
    os.truncate(next((tmp_path / "s.zarr").glob("segments/*/clip/features/c.0.0")), 100)
    with pytest.raises(DamageError, match="ends at byte"):
        part.read("a.mp4", 200, 210)


def test_a_missing_shard_is_damage_and_not_fill_values(tmp_path: Path) -> None:
    one_set(tmp_path / "s.zarr")
    next((tmp_path / "s.zarr").glob("segments/*/clip/features/c.0.0")).unlink()
    with pytest.raises(DamageError, match="is gone"):
        ZarrStore(tmp_path / "s.zarr")["clip"].read("a.mp4")


def test_changed_metadata_is_damage(tmp_path: Path) -> None:
    one_set(tmp_path / "s.zarr")
    file = next((tmp_path / "s.zarr").glob("segments/*/clip/features/zarr.json"))
    file.write_text(file.read_text().replace('"separator": "."', '"separator": "/"'))
    with pytest.raises(DamageError, match=r"zarr\.json is not what was committed"):
        ZarrStore(tmp_path / "s.zarr")["clip"].read("a.mp4")


@pytest.mark.parametrize("compress", [None, "zstd"])
def test_a_changed_shard_index_is_damage(tmp_path: Path, compress: str | None) -> None:
    write_sample(tmp_path / "s.zarr", compress=compress)
    shard = next((tmp_path / "s.zarr").glob("segments/*/net.rgb.clip/features/c.0.0"))
    data = bytearray(shard.read_bytes())
    data[-10] ^= 1
    shard.write_bytes(data)
    with pytest.raises(DamageError, match="index"):
        ZarrStore(tmp_path / "s.zarr")["net.rgb.clip"].read("b.mp4")


def test_a_changed_compressed_chunk_is_damage(tmp_path: Path) -> None:
    write_sample(tmp_path / "s.zarr", compress="zstd")
    shard = next((tmp_path / "s.zarr").glob("segments/*/net.rgb.clip/features/c.0.0"))
    data = bytearray(shard.read_bytes())
    data[300] ^= 1
    shard.write_bytes(data)
    with pytest.raises(DamageError, match="chunk 0"):
        ZarrStore(tmp_path / "s.zarr")["net.rgb.clip"].read("b.mp4")


# ---- opening


def test_what_is_no_store_is_named_for_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "a.mp4").touch()
    (tmp_path / "notes.txt").write_text("hello")
    zarr.create_group(str(tmp_path / "foreign.zarr"))
    (tmp_path / "folder" / "s.zarr").mkdir(parents=True)
    for name in ("segments", "commits"):
        (tmp_path / "folder" / "s.zarr" / name).mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name, message in {
        "nowhere": "there is no store",
        "empty": "is an empty folder",
        "videos": "is a folder of 1 videos",
        "videos/a.mp4": "is a video, not a store",
        "notes.txt": "is no .zarr folder and no HDF5 file",
        "foreign.zarr": "is Zarr, but no store of vl",
        "folder": "s.zarr in it would be one",
        "pipe": "is no regular file",
    }.items():
        with pytest.raises(StoreError, match=message) as caught:
            open_store(tmp_path / name)
        assert "\n" not in str(caught.value)
        assert caught.value.exit_code == 2


def test_a_rate_is_one_number_however_it_was_written() -> None:
    whole, point = (FeatureSpec(Granularity.CLIP, (4,), fps=fps) for fps in (15, 15.0))
    assert whole.fingerprint == point.fingerprint
    assert FeatureSpec.from_dict({**whole.to_dict(), "fps": 15}).fingerprint == whole.fingerprint


def test_the_same_rows_in_another_granularity_are_another_fingerprint() -> None:
    other = FeatureSpec(**{**CLIP.__dict__, "granularity": Granularity.FRAME})
    assert other.fingerprint != CLIP.fingerprint
    assert CLIP.difference(other) == "granularity clip is not frame"
