"""The index that compaction leaves: what it says is what the records say, and nothing hangs on it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stores import Rows, SpecMismatchError, files, open_store, video_index
from stores.columns import pack, unpack
from stores.compaction import compact
from stores.errors import DamageError
from stores.maintenance import Kind, repair, verify
from stores.records import Record, record_path
from stores.video_index import INDEX, VideoIndex, dtype_of, find_commits, index_bytes
from stores.zarr_store import ZarrStore, ZarrWriter
from tests.stores.samples import CLIP, SPECS, assert_rows, put, rows_of, sample_videos, write_sample

INFO = {"duration": 2.5, "partial": False, "größe": None}


def assert_as_records_say(path: Path) -> None:
    """Opened with the index a store is what it is without, in everything that it can be asked."""
    ours, theirs = ZarrStore(path), ZarrStore(path, indexed=False)
    assert list(ours) == list(theirs)
    assert ours.snapshot_id == theirs.snapshot_id
    assert [record.name for record in ours.records] == [record.name for record in theirs.records]
    assert ours.failures() == theirs.failures()
    assert ours.damage == theirs.damage
    for name in theirs:
        mine, real = ours[name], theirs[name]
        assert list(mine) == list(real)
        assert len(mine) == len(real)
        assert (mine.spec, mine.provenance) == (real.spec, real.provenance)
        for video in real:
            assert video in mine
            one, other = mine.place(video), real.place(video)
            assert one.record.name == other.record.name
            assert one.record.files == other.record.files
            assert one.record.videos[video][name] == other.span
            assert one.span == other.span
            assert dict(mine.entry(video).info) == real.entry(video).info
            assert_rows(mine.read(video), real.read(video))
        for other_video in {video for part in theirs for video in theirs[part]} - set(real):
            assert other_video not in mine
            assert mine.get(other_video) is None
        mine.open_arrays()


def uses_index(path: Path) -> bool:
    return find_commits(path).covered is not None


def compacted(path: Path) -> Path:
    """A store of five videos in three sets, with an index."""
    write_sample(path, group_videos=1)
    assert compact(path, grace_seconds=0).indexed
    assert uses_index(path)
    return path


def documents_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the records that opening the store reads."""
    names: list[str] = []
    real = files.read_document

    def read(place: str) -> bytes:
        names.append(Path(place).name)
        return real(place)

    with monkeypatch.context() as patch:
        patch.setattr("stores.records.read_document", read)
        ZarrStore(path).close()
    return names


def test_a_compacted_store_is_opened_without_a_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = compacted(tmp_path / "s.zarr")
    assert len(ZarrStore(path, indexed=False).records) == 3, "what has other sets is not merged"
    assert documents_read(path, monkeypatch) == []
    assert_as_records_say(path)
    assert verify(path, full=True).findings == []
    with ZarrWriter(path, SPECS) as writer:
        put(writer, "new", {"net.rgb.clip": rows_of(CLIP, 9)})
    newest = ZarrStore(path).records[-1].name
    assert documents_read(path, monkeypatch) == [f"{newest}.json"]
    assert_as_records_say(path)
    before = (path / INDEX).read_bytes()
    compact(path, grace_seconds=0)
    assert documents_read(path, monkeypatch) == []
    assert (path / INDEX).read_bytes() != before


def test_replaced_records_in_their_grace_period_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_sample(tmp_path / "s.zarr", group_videos=1)
    assert compact(tmp_path / "s.zarr", grace_seconds=3600).kept == 3
    assert len(list((tmp_path / "s.zarr" / "commits").iterdir())) == 3 + 3
    assert documents_read(tmp_path / "s.zarr", monkeypatch) == []
    assert_as_records_say(tmp_path / "s.zarr")
    assert verify(tmp_path / "s.zarr", full=True).findings == []


@pytest.mark.parametrize("indexed", [True, False])
def test_a_writer_asks_the_index_for_the_specs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, indexed: bool) -> None:
    path = compacted(tmp_path / "s.zarr")
    if not indexed:
        (path / INDEX).unlink()
    other = {"net.rgb.clip": SPECS["net.rgb.map"]}
    with pytest.raises(SpecMismatchError, match="made otherwise"):
        ZarrWriter(path, other)


def test_later_commits_stand_over_the_index(tmp_path: Path) -> None:
    path = compacted(tmp_path / "s.zarr")
    anew = rows_of(CLIP, 17, 99)
    with ZarrWriter(path, SPECS) as writer:
        put(writer, "c", {"net.rgb.clip": anew})
    store = ZarrStore(path)
    assert uses_index(path)
    assert_rows(store["net.rgb.clip"].read("c"), anew)
    assert len(store["net.rgb.clip"]) == sum("net.rgb.clip" in sets for sets in sample_videos().values())
    assert_as_records_say(path)


def test_rows_that_are_older_than_those_in_the_index_do_not_count(tmp_path: Path) -> None:
    """Two compactions: the second saw what the first merged and a newer video; the first one's result comes late."""
    path, late = tmp_path / "s.zarr", tmp_path / "late.zarr"
    write_sample(
        path, {"a": {"net.rgb.clip": rows_of(CLIP, 5)}, "b": {"net.rgb.clip": rows_of(CLIP, 6)}}, group_videos=1
    )
    shutil.copytree(path, late)
    write_sample(path, {"a": {"net.rgb.clip": rows_of(CLIP, 7)}})
    compact(path, grace_seconds=3600)
    compact(late, grace_seconds=3600)
    for folder in ("segments", "commits"):
        shutil.copytree(late / folder, path / folder, dirs_exist_ok=True)
    assert len(find_commits(path).rest) == 1
    assert_rows(ZarrStore(path)["net.rgb.clip"].read("a"), rows_of(CLIP, 7))
    assert_rows(ZarrStore(path, indexed=False)["net.rgb.clip"].read("a"), rows_of(CLIP, 7))


def test_an_index_of_a_commit_that_is_gone_is_left_aside(tmp_path: Path) -> None:
    path = compacted(tmp_path / "s.zarr")
    gone = ZarrStore(path)["net.rgb.clip"].place("b.mp4").record
    record_path(path, gone.name).unlink()
    assert not uses_index(path)
    assert "b.mp4" not in ZarrStore(path)["net.rgb.clip"]
    assert_as_records_say(path)
    assert {finding.kind for finding in verify(path).findings} == {Kind.ORPHAN}, "the segment without its record"
    compact(path)
    assert uses_index(path)
    assert_as_records_say(path)


@pytest.mark.parametrize("first", [True, False])
def test_writers_that_disagree_are_found_beside_an_index(tmp_path: Path, first: bool) -> None:
    path, other = tmp_path / "s.zarr", tmp_path / "other.zarr"
    for place in (other, path) if first else (path, other):
        if place == path:
            compacted(path)
            continue
        with ZarrWriter(other, {"net.rgb.clip": SPECS["net.rgb.map"]}) as writer:
            put(writer, "z", {"net.rgb.clip": rows_of(SPECS["net.rgb.map"], 3)})
    for folder in ("segments", "commits"):
        shutil.copytree(other / folder, path / folder, dirs_exist_ok=True)
    ours, theirs = ZarrStore(path), ZarrStore(path, indexed=False)
    with pytest.raises(SpecMismatchError, match="two specs"):
        ours["net.rgb.clip"]
    mine, real = ours.unchecked("net.rgb.clip"), theirs.unchecked("net.rgb.clip")
    assert (mine.spec, list(mine)) == (real.spec, list(real))
    assert [len(part.conflicts) for part in (mine, real)] == [3 if first else 1] * 2


def flip(data: bytearray, at: int) -> bytearray:
    data[at] ^= 4
    return data


HARMS: Mapping[str, Callable[[bytearray], bytes | bytearray]] = {
    "a byte of the length": lambda data: flip(data, 1),
    "a byte of the head": lambda data: flip(data, 300),
    "a byte of a column": lambda data: flip(data, len(data) - 40),
    "cut off": lambda data: data[:-8],
    "too long": lambda data: data + b"\0" * 8,
    "empty": lambda data: b"",
    "zeros": lambda data: bytes(len(data)),
}


@pytest.mark.parametrize("harm", HARMS)
def test_a_damaged_index_costs_nothing_and_is_put_aside(tmp_path: Path, harm: str) -> None:
    path = compacted(tmp_path / "s.zarr")
    good = (path / INDEX).read_bytes()
    (path / INDEX).write_bytes(HARMS[harm](bytearray(good)))
    store = ZarrStore(path)
    assert [damage.where for damage in store.damage] == [INDEX]
    assert not uses_index(path)
    for video, sets in sample_videos().items():
        for name, rows in sets.items():
            assert_rows(store[name].read(video), rows)
    report = verify(path)
    assert [(finding.kind, finding.where) for finding in report.findings] == [(Kind.DAMAGE, INDEX)]
    done = repair(path)
    assert (done.moved, done.lost) == ((INDEX,), ())
    assert verify(path, full=True).findings == []
    compact(path)
    assert (path / INDEX).read_bytes() == good


def forged(path: Path, change: Callable[[dict[str, Any], dict[str, Any]], None]) -> None:
    """Write the index anew with right digests after `change` of its head and columns."""
    data = index_bytes(path)
    assert data is not None
    head, columns = unpack(INDEX, data, dtype_of)
    own = {key: column.copy() for key, column in columns.items()}
    del head["columns"], head["name"]
    change(head, own)
    (path / INDEX).write_bytes(pack(INDEX, head, own).tobytes())


LIES: Mapping[str, Callable[[dict[str, Any], dict[str, Any]], None]] = {
    "other rows": lambda head, columns: columns["net.rgb.clip/start"].__isub__(columns["net.rgb.clip/start"]),
    "a digest": lambda head, columns: columns["mel.audio.frame/sha256"].__ixor__(1),
    "facts": lambda head, columns: columns["facts"].__setitem__(slice(12, 13), ord("7")),
    "a commit's digest": lambda head, columns: head["commits"][0].__setitem__(1, "0" * 64),
}


@pytest.mark.parametrize("lie", LIES)
def test_an_index_that_says_otherwise_than_the_records_is_found(tmp_path: Path, lie: str) -> None:
    path = compacted(tmp_path / "s.zarr")
    forged(path, lambda head, columns: None)
    assert verify(path).findings == [], "packed again as it was"
    forged(path, LIES[lie])
    (finding,) = verify(path).findings
    assert (finding.kind, finding.where) == (Kind.DAMAGE, INDEX)
    assert "commits say" in finding.what
    repair(path)
    assert_as_records_say(path)
    assert verify(path, full=True).findings == []


def put_in(name: str, value: int) -> Callable[[dict[str, Any], dict[str, Any]], None]:
    return lambda head, columns: columns[name].__setitem__(0, value)


NONSENSE: Mapping[str, Callable[[dict[str, Any], dict[str, Any]], None]] = {
    "rows before the first": put_in("net.rgb.clip/start", -1),
    "rows behind the last": put_in("net.rgb.clip/start", 10**6),
    "rows beyond all numbers": put_in("net.rgb.clip/start", 2**63 - 1),
    "more rows than there are": put_in("net.rgb.clip/length", 10**9),
    "a negative count": put_in("net.rgb.clip/length", -5),
    "a commit that is not there": put_in("net.rgb.clip/commit", 77),
    "an origin that is not there": put_in("net.rgb.clip/origin", 10**6),
    "facts that are not there": put_in("net.rgb.clip/facts", 10**6),
    "names that end before they begin": put_in("ids/ends", 10**6),
    "a hash of no video": put_in("hashed", 2**32 - 1),
    "a set that is none": lambda head, columns: head["sets"].append("../x"),
    "no columns of a set": lambda head, columns: columns.pop("net.rgb.clip/start"),
    "a short column": lambda head, columns: columns.update({"net.rgb.clip/start": np.zeros(1, "<i8")}),
    "columns of its own": lambda head, columns: columns.update({"x/y": np.zeros(1, "<i8")}),
    "commits that are no list": lambda head, columns: head.update(commits=5),
    "a commit of a bad name": lambda head, columns: head["commits"][0].__setitem__(0, "../../etc/passwd"),
    "less than no rows": lambda head, columns: head["commits"][0][3].update({"net.rgb.clip": -1}),
    "rows of other sets": lambda head, columns: head["commits"][0].__setitem__(3, {"x": 1}),
}


@pytest.mark.parametrize("nonsense", NONSENSE)
def test_an_index_without_sense_is_left_aside(tmp_path: Path, nonsense: str) -> None:
    path = compacted(tmp_path / "s.zarr")
    forged(path, NONSENSE[nonsense])
    data = index_bytes(path)
    assert data is not None
    with pytest.raises(DamageError):
        VideoIndex(data)
    store = ZarrStore(path)
    assert [damage.where for damage in store.damage] == [INDEX]
    assert_rows(store["net.rgb.clip"].read("c"), sample_videos()["c"]["net.rgb.clip"])


@pytest.mark.parametrize(
    "change",
    [
        lambda head, columns: columns["origins"].__setitem__(slice(0, 33), ord("/")),
        lambda head, columns: columns["facts"].__setitem__(slice(None), ord("[")),
        lambda head, columns: columns["ids"].__setitem__(slice(None), 0xFF),
    ],
    ids=["origin", "facts", "ids"],
)
def test_what_is_looked_at_late_is_refused_in_one_line(tmp_path: Path, change: Any) -> None:
    path = compacted(tmp_path / "s.zarr")
    forged(path, change)
    store = ZarrStore(path)
    with pytest.raises(DamageError):
        assert [dict(store[name].entry(video).info) for name in store for video in store[name]]
    assert [finding.where for finding in verify(path).findings] == [INDEX]


def test_an_index_that_is_no_file_of_the_store_is_not_read(tmp_path: Path) -> None:
    path = compacted(tmp_path / "s.zarr")
    (path / INDEX).rename(tmp_path / "elsewhere")
    (path / INDEX).symlink_to(tmp_path / "elsewhere")
    assert [damage.where for damage in ZarrStore(path).damage] == [INDEX]
    repair(path)
    assert (tmp_path / "elsewhere").is_file()
    os.mkfifo(path / INDEX)
    assert [damage.where for damage in ZarrStore(path).damage] == [INDEX]


def test_few_bytes_that_claim_to_be_many_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = compacted(tmp_path / "s.zarr")
    os.truncate(path / INDEX, 8 << 30)
    assert index_bytes(path) is None, "eight gigabytes of nothing"
    assert list(ZarrStore(path)["net.rgb.clip"])
    monkeypatch.setattr(video_index, "LIMIT", 1000)
    with pytest.raises(DamageError, match="more than any index"):
        index_bytes(path)


@pytest.mark.parametrize("change", [str.upper, lambda digest: digest[:2], lambda digest: "no digest"])
def test_digests_that_are_none_leave_a_store_without_index(tmp_path: Path, change: Callable[[str], str]) -> None:
    path = tmp_path / "s.zarr"
    write_sample(path)
    (file,) = (path / "commits").iterdir()
    record = ZarrStore(path).records[0]
    video, spans = next(iter(record.videos.items()))
    odd = {name: span._replace(sha256=change(span.sha256)) for name, span in spans.items()}
    file.write_bytes(Record(**{**vars(record), "videos": {**record.videos, video: odd}, "digest": ""}).to_bytes())
    assert not compact(path).indexed
    assert not (path / INDEX).exists()


def test_remains_of_a_killed_compaction_go(tmp_path: Path) -> None:
    path = compacted(tmp_path / "s.zarr")
    (path / ".index.0.tmp").write_bytes(b"half of one")
    assert [str(finding.where) for finding in verify(path).findings] == [".index.0.tmp"]
    assert compact(path, grace_seconds=0).removed == (".index.0.tmp",)
    assert verify(path).findings == []


def test_videos_of_one_hash_are_told_apart(tmp_path: Path) -> None:
    """The two best known words of one CRC-32."""
    assert crc32(b"plumless") == crc32(b"buckeroo")
    path = tmp_path / "s.zarr"
    write_sample(
        path, {name: {"net.rgb.clip": rows_of(CLIP, 3, seed)} for seed, name in enumerate(("plumless", "buckeroo"))}
    )
    compact(path)
    assert uses_index(path)
    assert_as_records_say(path)
    write_sample(tmp_path / "one.zarr", {"plumless": {"net.rgb.clip": rows_of(CLIP, 3)}})
    compact(tmp_path / "one.zarr")
    assert "buckeroo" not in ZarrStore(tmp_path / "one.zarr")["net.rgb.clip"]


IDS = st.text(st.characters(), min_size=1, max_size=8)  # also lone surrogates, which JSON may hold
STEPS = st.lists(
    st.one_of(
        st.just("compact"),
        st.dictionaries(
            IDS, st.lists(st.sampled_from(["clip", "sound"]), min_size=1, unique=True), min_size=1, max_size=4
        ),
    ),
    min_size=1,
    max_size=6,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(STEPS)
def test_any_history_reads_as_its_records_say(tmp_path: Path, steps: list[Any]) -> None:
    path = tmp_path / "s.zarr"
    shutil.rmtree(path, ignore_errors=True)
    newest: dict[tuple[str, str], Rows] = {}
    for number, step in enumerate(["compact", *steps, "compact", {"last": ["clip"]}]):
        with ZarrWriter(path, {"clip": CLIP, "sound": CLIP}) as writer:
            for video, names in {} if step == "compact" else step.items():
                rows = {name: rows_of(CLIP, 3 + number, seed) for seed, name in enumerate(names)}
                put(writer, video, rows)
                newest.update({(video, name): rows[name] for name in names})
        if step == "compact":
            assert compact(path, grace_seconds=0).indexed
    assert uses_index(path)
    assert_as_records_say(path)
    store = open_store(path)
    assert {(video, name) for name in store for video in store[name]} == set(newest)
    for (video, name), last in newest.items():
        assert_rows(store[name].read(video), last)


def test_facts_that_sets_of_a_video_do_not_share_are_kept_apart(tmp_path: Path) -> None:
    path = tmp_path / "s.zarr"
    for name, info in (("clip", INFO), ("sound", {**INFO, "missing_audio": "zeros"})):
        with ZarrWriter(path, {name: CLIP}) as writer:
            taker = writer.video("a", info)
            taker.append(name, rows_of(CLIP, 4))
            taker.commit()
    compact(path, grace_seconds=0)
    store = ZarrStore(path)
    assert uses_index(path)
    assert dict(store["clip"].entry("a").info) == INFO
    assert dict(store["sound"].entry("a").info) == {**INFO, "missing_audio": "zeros"}
    assert store["clip"].entry("a") == ZarrStore(path, indexed=False)["clip"].entry("a")
    assert repr(store["clip"].entry("a")) == repr(ZarrStore(path, indexed=False)["clip"].entry("a"))
