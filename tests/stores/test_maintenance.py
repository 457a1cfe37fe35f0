"""Verify, repair, compact, merge, convert: what they find, what they keep, and what they refuse."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from stores import DamageError, Failure, FeatureSpec, NoSpaceError, SpecMismatchError, StoreError, open_store
from stores.compaction import compact
from stores.hdf5_store import pack_hdf5
from stores.maintenance import Kind, repair, verify
from stores.records import record_path
from stores.segments import SegmentWriter
from stores.transfer import convert, merge
from stores.zarr_store import ZarrStore, ZarrWriter
from tests.stores.samples import CLIP, SPECS, assert_rows, put, rows_of, write_sample


def flip(file: Path, at: int = -1) -> None:
    data = bytearray(file.read_bytes())
    data[at] ^= 1
    file.write_bytes(data)


def assert_holds(path: Path, videos: dict[str, int]) -> None:
    """The store has exactly these videos in `clip`, made with these seeds."""
    part = open_store(path)["clip"]
    assert list(part) == sorted(videos)
    for video, seed in videos.items():
        assert_rows(part.read(video), rows_of(CLIP, 10, seed))


def fill(path: Path, videos: dict[str, int], group_videos: int = 1) -> None:
    with ZarrWriter(path, {"clip": CLIP}, group_videos=group_videos) as writer:
        for video, seed in videos.items():
            put(writer, video, {"clip": rows_of(CLIP, 10, seed)})


def features(path: Path, video: str) -> Path:
    store = ZarrStore(path)
    return path / "segments" / store["clip"].place(video).record.name / "clip" / "features" / "c.0.0"


# ---- verify


@pytest.mark.parametrize("full", [False, True])
def test_a_sound_store_has_no_findings(tmp_path: Path, full: bool) -> None:
    for options in ({}, {"compress": "zstd"}, {"spool_bytes": 0}):
        shutil.rmtree(tmp_path / "s.zarr", ignore_errors=True)
        write_sample(tmp_path / "s.zarr", **options)
        report = verify(tmp_path / "s.zarr", full=full)
        assert (report.findings, report.damaged, report.videos) == ([], False, 5)
    convert(tmp_path / "s.zarr", tmp_path / "s.h5")
    assert verify(tmp_path / "s.h5", full=full).findings == []


def shrink(path: Path) -> None:
    os.truncate(features(path, "a"), 50)


def lose(path: Path) -> None:
    features(path, "a").unlink()


def spoil_record(path: Path) -> None:
    flip(record_path(path, ZarrStore(path)["clip"].place("a").record.name))


def spoil_failure(path: Path) -> None:
    with ZarrWriter(path, {}) as writer:
        writer.fail(Failure("x", "empty", ""))
    flip(next((path / "failures").iterdir()))


def spoil_attachment(path: Path) -> None:
    with ZarrWriter(path, {}) as writer:
        writer.attach("labels", {})
    flip(next((path / "attachments").iterdir()))


def spoil_root(path: Path) -> None:
    (path / "zarr.json").write_text("[]")


def link_elsewhere(path: Path) -> None:
    shard = features(path, "a")
    shutil.copy(shard, path.parent / "victim")
    shard.unlink()
    shard.symlink_to(path.parent / "victim")


@pytest.mark.parametrize(
    "harm", [shrink, lose, spoil_record, spoil_failure, spoil_attachment, spoil_root, link_elsewhere]
)
def test_damage_is_found_fast_and_repaired_without_loss_of_the_rest(
    tmp_path: Path, harm: Callable[[Path], None]
) -> None:
    path = tmp_path / "s.zarr"
    fill(path, {"a": 1, "b": 2})
    harm(path)
    report = verify(path)
    assert [finding.kind for finding in report.findings] == [Kind.DAMAGE]
    repair(path, full=False)
    assert verify(path, full=True).findings == []
    fill(path, {video: seed for video, seed in {"a": 1, "b": 2}.items() if video not in open_store(path)["clip"]})
    assert_holds(path, {"a": 1, "b": 2})


def test_one_flipped_bit_of_the_rows_is_found_by_the_full_check(tmp_path: Path) -> None:
    fill(tmp_path / "s.zarr", {"a": 1, "b": 2})
    flip(features(tmp_path / "s.zarr", "a"), 5)
    assert not verify(tmp_path / "s.zarr").damaged
    assert verify(tmp_path / "s.zarr", full=True).damaged


def test_one_flipped_bit_of_an_hdf5_store_is_found_and_not_repaired(tmp_path: Path) -> None:
    rows = rows_of(CLIP, 10, 1)
    fill(tmp_path / "s.zarr", {"a": 1})
    convert(tmp_path / "s.zarr", tmp_path / "s.h5")
    flip(tmp_path / "s.h5", (tmp_path / "s.h5").read_bytes().index(rows.features.tobytes()) + 3)
    assert not verify(tmp_path / "s.h5").damaged
    assert verify(tmp_path / "s.h5", full=True).damaged
    with pytest.raises(StoreError, match="never modified"):
        repair(tmp_path / "s.h5")


def test_what_a_killed_writer_left_is_an_orphan_and_no_damage(tmp_path: Path) -> None:
    fill(tmp_path / "s.zarr", {"a": 1})
    SegmentWriter(tmp_path / "s.zarr")
    (tmp_path / "s.zarr" / "commits" / ".x.json.tmp").touch()
    report = verify(tmp_path / "s.zarr", full=True)
    assert [finding.kind for finding in report.findings] == [Kind.ORPHAN, Kind.ORPHAN]
    assert not report.damaged


def test_a_file_that_no_commit_names_is_a_stray(tmp_path: Path) -> None:
    fill(tmp_path / "s.zarr", {"a": 1})
    features(tmp_path / "s.zarr", "a").with_name("c.9.0").touch()
    report = verify(tmp_path / "s.zarr")
    assert [finding.kind for finding in report.findings] == [Kind.STRAY]
    assert not report.damaged


# ---- repair


def test_repair_moves_the_damaged_segment_and_names_what_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "s.zarr"
    fill(path, {"a": 1, "b": 2})
    shard = features(path, "a")
    flip(shard, 5)
    spoiled = shard.read_bytes()
    done = repair(path)
    assert done.lost == (("a", "clip"),)
    assert done.into is not None
    kept = path / done.into / shard.relative_to(path)
    assert kept.read_bytes() == spoiled, "moved, not deleted"
    assert_holds(path, {"b": 2})


def test_repair_of_a_sound_store_changes_nothing(tmp_path: Path) -> None:
    fill(tmp_path / "s.zarr", {"a": 1})
    before = sorted((tmp_path / "s.zarr").rglob("*"))
    assert repair(tmp_path / "s.zarr").moved == ()
    assert sorted((tmp_path / "s.zarr").rglob("*")) == before


def test_repair_puts_the_later_of_two_specs_aside(tmp_path: Path) -> None:
    other = FeatureSpec(**{**CLIP.__dict__, "stride": 16})
    writers = [ZarrWriter(tmp_path / "s.zarr", {"clip": spec}) for spec in (CLIP, other)]
    for video, writer in zip("ab", writers, strict=True):
        put(writer, video, {"clip": rows_of(CLIP, 10, 1)})
        writer.flush()
    report = verify(tmp_path / "s.zarr")
    assert [finding.kind for finding in report.findings] == [Kind.CONFLICT]
    assert "stride 8 is not 16" in report.findings[0].what
    assert report.damaged
    repair(tmp_path / "s.zarr")
    assert_holds(tmp_path / "s.zarr", {"a": 1})


# ---- compact


def test_compaction_leaves_one_segment_with_the_same_rows(tmp_path: Path) -> None:
    path = tmp_path / "s.zarr"
    videos = {f"{index}": index for index in range(7)}
    fill(path, videos)
    done = compact(path, grace_seconds=0)
    assert (done.merged, done.into, done.kept) == (7, 1, 0)
    assert_holds(path, videos)
    assert len(list((path / "segments").iterdir())) == len(list((path / "commits").iterdir())) == 1
    assert verify(path, full=True).findings == []


def test_replaced_segments_stay_for_open_readers_until_the_grace_period_is_over(tmp_path: Path) -> None:
    path = tmp_path / "s.zarr"
    fill(path, {"a": 1, "b": 2})
    before = ZarrStore(path)
    assert compact(path, grace_seconds=3600).kept == 2
    assert_rows(before["clip"].read("a"), rows_of(CLIP, 10, 1))
    assert len(ZarrStore(path).records) == 1
    assert_holds(path, {"a": 1, "b": 2})
    assert verify(path, full=True).findings == []
    assert compact(path, grace_seconds=0).kept == 0
    assert_holds(path, {"a": 1, "b": 2})


def test_segments_are_merged_only_up_to_the_target(tmp_path: Path) -> None:
    path = tmp_path / "s.zarr"
    with ZarrWriter(path, {"clip": CLIP}, group_videos=1) as writer:
        for index in range(10):
            put(writer, f"{index}", {"clip": rows_of(CLIP, 2000, index)}, step=2000)
    size = sum(file.stat().st_size for file in next((path / "segments").iterdir()).rglob("*") if file.is_file())
    compact(path, target_bytes=3 * size, grace_seconds=0)
    assert sorted(len(record.videos) for record in ZarrStore(path).records) == [1, 3, 3, 3]
    again = compact(path, target_bytes=3 * size, grace_seconds=0)
    assert again.merged == 0, "merged segments are large enough to stay"


def test_compaction_keeps_the_winner_among_commits_of_one_video(tmp_path: Path) -> None:
    path = tmp_path / "s.zarr"
    fill(path, {"a": 1})
    fill(path, {"a": 2})
    compact(path, grace_seconds=0)
    assert_holds(path, {"a": 2})


def test_a_commit_made_during_compaction_still_wins(tmp_path: Path) -> None:
    """The merged segment has the latest name, but its rows are older than those of the commit made meanwhile."""
    path = tmp_path / "s.zarr"
    fill(path, {"a": 1})
    fill(path, {"b": 1})
    held = ZarrStore(path)
    fill(path, {"a": 2})
    (path / "commits").rename(path / "hidden")  # what a compaction saw that listed the commits before
    (path / "commits").mkdir()
    for seen in held.records:
        shutil.copy(path / "hidden" / f"{seen.name}.json", path / "commits")
    compact(path, grace_seconds=3600)
    for record in (path / "hidden").iterdir():
        shutil.copy(record, path / "commits")
    assert_holds(path, {"a": 2, "b": 1})


def test_two_compactions_at_once_do_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "s.zarr"
    fill(path, {"a": 1, "b": 2})
    shutil.copytree(path, tmp_path / "copy.zarr")
    for each in (path, tmp_path / "copy.zarr"):
        compact(each, grace_seconds=3600)
    for folder in ("segments", "commits"):
        shutil.copytree(tmp_path / "copy.zarr" / folder, path / folder, dirs_exist_ok=True)
    assert_holds(path, {"a": 1, "b": 2})
    compact(path, grace_seconds=0)
    assert_holds(path, {"a": 1, "b": 2})
    assert len(ZarrStore(path).records) == 1


def test_damaged_rows_are_not_carried_into_a_merged_segment(tmp_path: Path) -> None:
    path = tmp_path / "s.zarr"
    fill(path, {"a": 1, "b": 2})
    flip(features(path, "a"), 5)
    with pytest.raises(DamageError, match="not those that were committed"):
        compact(path)
    assert len(list((path / "segments").iterdir())) == 2, "the unfinished segment is gone"


def test_a_damaged_merged_segment_gives_way_to_those_it_replaced(tmp_path: Path) -> None:
    path = tmp_path / "s.zarr"
    fill(path, {"a": 1, "b": 2})
    compact(path, grace_seconds=3600)
    flip(features(path, "a"), 5)
    assert compact(path, grace_seconds=0).kept == 2, "nothing is removed that a damaged segment replaced"
    repair(path)
    assert_holds(path, {"a": 1, "b": 2})


def test_remains_of_killed_writers_go_after_the_grace_period(tmp_path: Path) -> None:
    path = tmp_path / "s.zarr"
    fill(path, {"a": 1})
    orphan = SegmentWriter(path)
    (path / "commits" / ".x.json.0.tmp").touch()
    assert compact(path, grace_seconds=3600).removed == ()
    assert set(compact(path, grace_seconds=0).removed) == {f"segments/{orphan.name}", "commits/.x.json.0.tmp"}
    assert verify(path, full=True).findings == []


def test_segments_made_otherwise_are_not_merged_together(tmp_path: Path) -> None:
    for index, decoder in enumerate(["pyav", "decord", "pyav"]):
        with ZarrWriter(tmp_path / "s.zarr", {"clip": CLIP}, provenance={"clip": {"decoder": decoder}}) as writer:
            put(writer, f"{index}", {"clip": rows_of(CLIP, 10, index)})
    compact(tmp_path / "s.zarr", grace_seconds=0)
    records = ZarrStore(tmp_path / "s.zarr").records
    assert sorted(sorted(record.videos) for record in records) == [["0", "2"], ["1"]]


def test_only_zarr_stores_are_compacted(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="is no Zarr store"):
        compact(tmp_path)


# ---- convert and merge


def test_converting_there_and_back_keeps_everything(tmp_path: Path) -> None:
    videos = write_sample(tmp_path / "a.zarr", compress="zstd")
    convert(tmp_path / "a.zarr", tmp_path / "b.h5")
    convert(tmp_path / "b.h5", tmp_path / "c.zarr")
    first, last = open_store(tmp_path / "a.zarr"), open_store(tmp_path / "c.zarr")
    for name in SPECS:
        assert list(first[name]) == list(last[name])
        for video in first[name]:
            assert first[name].entry(video) == last[name].entry(video)
            assert_rows(last[name].read(video), videos[video][name])
        assert (first[name].spec, first[name].provenance) == (last[name].spec, last[name].provenance)
    assert first.attachments() == last.attachments()
    assert first.failures() == last.failures()


def test_facts_that_differ_between_the_sets_of_a_video_survive(tmp_path: Path) -> None:
    for name, partial in (("clip", True), ("sound", False)):
        with ZarrWriter(tmp_path / "s.zarr", {name: CLIP}) as writer:
            taker = writer.video("v", {"duration": 1.0, "partial": partial})
            taker.append(name, rows_of(CLIP, 3))
            taker.commit()
    convert(tmp_path / "s.zarr", tmp_path / "s.h5")
    convert(tmp_path / "s.h5", tmp_path / "t.zarr")
    compact(tmp_path / "t.zarr")
    for path in ("s.zarr", "s.h5", "t.zarr"):
        store = open_store(tmp_path / path)
        assert store["clip"].entry("v").info == {"duration": 1.0, "partial": True}
        assert store["sound"].entry("v").info == {"duration": 1.0, "partial": False}


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    fill(tmp_path / "s.zarr", {"a": 1})
    (tmp_path / "there.h5").write_text("precious")
    with pytest.raises(StoreError, match="never overwrites"):
        convert(tmp_path / "s.zarr", tmp_path / "there.h5")
    with pytest.raises(StoreError, match="never overwrites"):
        pack_hdf5(open_store(tmp_path / "s.zarr"), tmp_path / "there.h5")
    assert (tmp_path / "there.h5").read_text() == "precious"
    with pytest.raises(StoreError, match="ends in"):
        convert(tmp_path / "s.zarr", tmp_path / "s.parquet")


def test_a_pack_that_fails_leaves_nothing(tmp_path: Path) -> None:
    fill(tmp_path / "s.zarr", {"a": 1, "b": 2})
    flip(features(tmp_path / "s.zarr", "b"), 5)
    with pytest.raises(DamageError):
        convert(tmp_path / "s.zarr", tmp_path / "s.h5")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["s.zarr"]


def test_a_pack_for_which_there_is_no_room_is_refused_before_it_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path / "s.zarr", {"a": 1})
    true = os.statvfs(tmp_path)
    monkeypatch.setattr(os, "statvfs", lambda path: os.statvfs_result((*true[:4], 0, *true[5:])))
    with pytest.raises(NoSpaceError, match="needs 280 bytes"):  # 10 rows of 6 float16 and two float64
        convert(tmp_path / "s.zarr", tmp_path / "s.h5")


def test_stores_are_merged_and_merging_again_copies_nothing(tmp_path: Path) -> None:
    fill(tmp_path / "a.zarr", {"a": 1, "both": 3})
    fill(tmp_path / "b.zarr", {"b": 2, "both": 3})
    convert(tmp_path / "b.zarr", tmp_path / "b.h5")
    copied: list[tuple[str, str]] = []
    for _ in range(2):
        merge(
            [tmp_path / "a.zarr", tmp_path / "b.h5"],
            tmp_path / "m.zarr",
            on_video=lambda video, name: copied.append((video, name)),
        )
    assert copied == [("a", "clip"), ("both", "clip"), ("b", "clip")]
    assert_holds(tmp_path / "m.zarr", {"a": 1, "b": 2, "both": 3})


def test_one_video_with_other_rows_in_two_stores_is_an_error_that_names_it(tmp_path: Path) -> None:
    fill(tmp_path / "a.zarr", {"same": 1, "other": 2})
    fill(tmp_path / "b.zarr", {"same": 1, "other": 3})
    with pytest.raises(StoreError, match=r"1 videos have other rows.*'other' in 'clip'"):
        merge([tmp_path / "a.zarr", tmp_path / "b.zarr"], tmp_path / "m.zarr")
    assert not (tmp_path / "m.zarr").exists()


def test_sets_made_otherwise_are_not_merged(tmp_path: Path) -> None:
    fill(tmp_path / "a.zarr", {"a": 1})
    with ZarrWriter(tmp_path / "b.zarr", {"clip": FeatureSpec(**{**CLIP.__dict__, "fps": 25.0})}) as writer:
        put(writer, "b", {"clip": rows_of(CLIP, 2)})
    with pytest.raises(SpecMismatchError, match=r"fps 24\.0 is not 25\.0"):
        merge([tmp_path / "a.zarr", tmp_path / "b.zarr"], tmp_path / "m.zarr")


def test_different_attachments_of_one_kind_are_not_merged(tmp_path: Path) -> None:
    for name in "ab":
        with ZarrWriter(tmp_path / f"{name}.zarr", {}) as writer:
            writer.attach("labels", {"from": name})
    with pytest.raises(StoreError, match="different documents 'labels'"):
        merge([tmp_path / "a.zarr", tmp_path / "b.zarr"], tmp_path / "m.zarr")


def test_a_failure_in_one_store_is_none_where_another_has_the_video(tmp_path: Path) -> None:
    with ZarrWriter(tmp_path / "a.zarr", {"clip": CLIP}) as writer:
        put(writer, "good", {"clip": rows_of(CLIP, 10, 1)})
        writer.fail(Failure("late", "timeout", ""))
        writer.fail(Failure("bad", "empty", ""))
    fill(tmp_path / "b.zarr", {"late": 2})
    merge([tmp_path / "a.zarr", tmp_path / "b.zarr"], tmp_path / "m.zarr")
    assert open_store(tmp_path / "m.zarr").failures() == [Failure("bad", "empty", "")]


def test_an_empty_store_converts(tmp_path: Path) -> None:
    ZarrWriter(tmp_path / "s.zarr", {})
    convert(tmp_path / "s.zarr", tmp_path / "s.h5")
    convert(tmp_path / "s.h5", tmp_path / "t.zarr")
    assert list(open_store(tmp_path / "t.zarr")) == []


def test_a_video_without_rows_is_kept(tmp_path: Path) -> None:
    with ZarrWriter(tmp_path / "s.zarr", {"clip": CLIP}) as writer:
        put_empty = writer.video("v", {})
        put_empty.append("clip", rows_of(CLIP, 0))
        put_empty.commit()
    convert(tmp_path / "s.zarr", tmp_path / "s.h5")
    for path in ("s.zarr", "s.h5"):
        rows = open_store(tmp_path / path)["clip"].read("v")
        assert rows.features.shape == (0, 6)
        assert rows.times.shape == (0, 2)
        assert verify(tmp_path / path, full=True).findings == []
