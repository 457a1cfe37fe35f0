"""Stores on S3, as moto's server speaks it: the same rule of commits, the same damage, the same repair."""

import hashlib
import os
import pickle
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from stores import DamageError, Rows, StoreError, VlError, open_store
from stores.compaction import compact
from stores.maintenance import Kind, repair, verify
from stores.remote import RemoteError, RemoteFile, RemotePath, _connect, as_path, local_path
from stores.transfer import convert, merge
from stores.zarr_store import ZarrStore, ZarrWriter
from stores.zarr_writer import create_store
from tests.fault.writers import OWN, SHARED, rows_by_id, videos_of
from tests.stores.bucket import SECRET, s3_bucket
from tests.stores.samples import CLIP, SPECS, assert_rows, put, rows_of, sample_videos, write_sample

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def bucket() -> Iterator[RemotePath]:
    with s3_bucket() as found:
        yield found


@pytest.fixture
def place(bucket: RemotePath, request: pytest.FixtureRequest) -> RemotePath:
    """A store of nobody else's."""
    return bucket / f"{hashlib.md5(request.node.name.encode()).hexdigest()[:12]}.zarr"


def objects(place: RemotePath, ending: str = "") -> list[str]:
    return sorted(key for key in place.sizes() if key.endswith(ending))


@contextmanager
def processes(code: str, count: int) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Fresh interpreters that run `code` with their number as `n`; none is left behind."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    started = [subprocess.Popen([sys.executable, "-c", f"n = {n}\n{code}"], env=environment) for n in range(count)]
    try:
        yield started
    finally:
        for process in started:
            process.kill()
            process.wait()


def test_a_url_is_a_path_also_where_a_plain_path_has_lost_a_slash() -> None:
    for text in ("s3://b/x/s.zarr", Path("s3://b/x/s.zarr"), "s3:/b/x/s.zarr", as_path("s3://b/x") / "s.zarr"):
        path = as_path(text)
        assert str(path) == "s3://b/x/s.zarr"
        assert (path.name, path.suffix, str(path.parent)) == ("s.zarr", ".zarr", "s3://b/x")
        assert pickle.loads(pickle.dumps(path)) == path
    assert type(as_path("videos/s3")) is type(Path())
    assert as_path("C:/x") == Path("C:/x")


@pytest.mark.parametrize("url", ["ftp://host/s.zarr", "https://host/s.zarr", f"s3://key:{SECRET}@bucket/s.zarr"])
def test_urls_that_cannot_be_are_refused_and_secrets_not_repeated(url: str) -> None:
    with pytest.raises(StoreError) as refused:
        open_store(url)
    assert SECRET not in str(refused.value)


def test_what_needs_a_file_of_this_machine_is_refused_and_makes_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = as_path("s3://b/x")
    for refused in (
        path.mkdir,
        path.read_text,
        path.touch,
        path.unlink,
        lambda: os.open(path, os.O_CREAT),
        lambda: os.mkdir(path),  # noqa: PTH102
    ):
        with pytest.raises(StoreError, match="not on this machine"):
            refused()
    with pytest.raises(StoreError, match="not on this machine"):
        local_path("s3://b/run")
    assert not list(tmp_path.iterdir())


def test_what_is_written_is_read_back_and_the_record_is_put_last(
    place: RemotePath, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    put_object = RemotePath.put

    def noting(self: RemotePath, data: bytes) -> None:
        put_object(self, data)
        order.append(self.relative_to(place).parts[0])

    monkeypatch.setattr(RemotePath, "put", noting)
    videos = write_sample(place)
    store = open_store(str(place))
    for video, sets in videos.items():
        for name, rows in sets.items():
            assert_rows(store[name].read(video), rows)
    assert order[0] == "zarr.json"
    last = len(order) - 1 - order[::-1].index("segments")
    assert order[last + 1] == "commits", order
    assert "commits" not in order[:last]
    report = verify(place, full=True)
    assert (report.damaged, report.findings, report.videos) == (False, [], len(videos))
    assert len(objects(place, ".tmp")) == 0


def test_a_long_video_goes_up_in_parts(place: RemotePath, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stores.remote.PART_BYTES", 5 << 20)  # the least that S3 takes
    wide = rows_of(CLIP, 3)
    features = np.random.default_rng(0).standard_normal((2_000_000, 6)).astype(np.float16)
    times = np.stack([np.arange(2e6), np.arange(1, 2e6 + 1)], 1)
    with ZarrWriter(place, {"clip": CLIP}, spool_bytes=1 << 20) as writer:
        put(writer, "long", {"clip": Rows(features, times)}, step=300_000)
        put(writer, "short", {"clip": wide})
    held = open_store(place)["clip"]
    assert_rows(held.read("long"), Rows(features, times))
    assert_rows(held.read("short"), wide)
    assert not verify(place, full=True).findings


def test_a_writer_that_dies_before_its_record_leaves_nothing_to_see(
    place: RemotePath, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_sample(place, {"first": {"net.rgb.clip": rows_of(CLIP, 9)}})
    before = open_store(place).snapshot_id

    def dies(self: RemoteFile) -> None:
        raise RemoteError("the network is gone")

    monkeypatch.setattr(RemoteFile, "sync", dies)
    with pytest.raises(RemoteError), ZarrWriter(place, SPECS) as writer:
        put(writer, "second", {"net.rgb.clip": rows_of(CLIP, 5)})
    assert open_store(place).snapshot_id == before
    assert len(objects(place / "commits")) == 1
    assert not [finding for finding in verify(place).findings if finding.kind is not Kind.ORPHAN]


@pytest.mark.parametrize("late", [False, True])
def test_a_record_whose_answer_was_lost_keeps_its_segment(
    late: bool, place: RemotePath, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_object = RemotePath.put
    under_way: list[tuple[RemotePath, bytes]] = []

    def answer_lost(self: RemotePath, data: bytes) -> None:
        if self.parent.name == "commits":
            under_way.append((self, data))
            if not late:
                put_object(self, data)
            raise RemoteError("no answer")
        put_object(self, data)

    monkeypatch.setattr(RemotePath, "put", answer_lost)
    with pytest.raises(RemoteError), ZarrWriter(place, {"clip": CLIP}) as writer:
        put(writer, "a", {"clip": rows_of(CLIP, 5)})
    monkeypatch.undo()
    for path, data in under_way if late else ():
        path.put(data)
    assert_rows(open_store(place)["clip"].read("a"), rows_of(CLIP, 5))


def test_writers_that_are_killed_lose_nothing_that_was_acknowledged(place: RemotePath, tmp_path: Path) -> None:
    code = f"""
from pathlib import Path
from stores.remote import as_path
from tests.fault.writers import write_for_ever
write_for_ever(as_path("{place}"), f"w{{n}}", Path("{tmp_path}") / str(n))
"""
    logs = [tmp_path / str(n) for n in range(2)]
    deadline = time.monotonic() + 180
    with processes(code, 2) as writers:
        while not all(log.exists() and len(log.read_text().splitlines()) > 4 for log in logs):
            assert all(writer.poll() is None for writer in writers), "a writer has stopped"
            assert time.monotonic() < deadline, "the writers write nothing"
            time.sleep(0.05)
    held = open_store(place)["clip"]
    acknowledged = [video for log in logs for video in log.read_text().split()]
    assert set(acknowledged) <= set(held)
    for video in held:
        assert_rows(held.read(video), rows_by_id(video))
    assert {finding.kind for finding in verify(place, full=True).findings} <= {Kind.ORPHAN}


@pytest.mark.parametrize("under_way", [False, True])
def test_what_another_writer_has_just_begun_is_no_obstacle(under_way: bool, place: RemotePath) -> None:
    create_store(place)
    if under_way:  # the first segment of a long video takes minutes; a writer that was killed then leaves the same
        (place / "segments" / "0-0" / "clip" / "features" / "c.0.0").put(b"rows")
    write_sample(place, group_videos=1)
    assert {finding.kind for finding in verify(place, full=True).findings} == ({Kind.ORPHAN} if under_way else set())


def test_objects_that_are_no_store_are_left_alone(place: RemotePath) -> None:
    (place / "zarr.json").put(b'{"zarr_format": 3, "node_type": "group", "attributes": {}}')
    (place / "segments" / "c" / "0").put(b"somebody's array")
    before = place.sizes()
    with pytest.raises(StoreError, match="is there and is no feature store"):
        create_store(place)
    assert place.sizes() == before


def test_two_writers_at_once_agree_on_who_wins(place: RemotePath) -> None:
    code = f"""
from stores.remote import as_path
from stores.zarr_store import ZarrWriter
from tests.fault.writers import videos_of
from tests.stores.samples import CLIP, put
with ZarrWriter(as_path("{place}"), {{"clip": CLIP}}, group_videos=5) as writer:
    for video, rows in videos_of(n).items():
        put(writer, video, {{"clip": rows}})
"""
    with processes(code, 2) as writers:
        assert [writer.wait(60) for writer in writers] == [0, 0]
    store = ZarrStore(place)
    held = store["clip"]
    assert len(held) == SHARED + 2 * OWN
    newest = {video: max(r.name for r in store.records if video in r.videos) for video in held}
    for video in held:
        assert held.place(video).record.name == newest[video]
        assert any(
            video in videos_of(n) and held.read(video).features.tobytes() == videos_of(n)[video].features.tobytes()
            for n in range(2)
        )
    assert not verify(place, full=True).findings


def test_a_truncated_and_a_missing_object_are_found_and_put_aside(place: RemotePath) -> None:
    videos = write_sample(place, group_videos=1)
    features = [place / key for key in objects(place, "net.rgb.clip/features/c.0.0")]
    short, gone = features[0], features[1]
    short.put(short.read_bytes()[:-3])
    gone.remove([gone])
    held = ZarrStore(place)["net.rgb.clip"]
    bad = [video for video in held if held.place(video).record.name in {short.parts[-4], gone.parts[-4]}]
    assert len(bad) == 2
    for video in bad:
        missing = held.place(video).record.name == gone.parts[-4]
        with pytest.raises(DamageError, match="is gone" if missing else "bytes, not"):
            held.read(video)
    for full in (False, True):
        assert {finding.segment for finding in verify(place, full=full).findings} == {short.parts[-4], gone.parts[-4]}
    done = repair(place)
    assert {video for video, _ in done.lost} == set(bad)
    assert not verify(place, full=True).findings
    assert done.into is not None
    assert (place / done.into / "commits" / f"{short.parts[-4]}.json").is_file()
    for video in bad:  # and the next run makes them again
        with ZarrWriter(place, SPECS) as writer:
            put(writer, video, videos[video])
    for video in bad:
        assert_rows(open_store(place)["net.rgb.clip"].read(video), videos[video]["net.rgb.clip"])


def test_an_object_that_shrinks_or_goes_while_it_is_read_is_damage(place: RemotePath) -> None:
    rows = rows_of(CLIP, 100_000)
    with ZarrWriter(place, {"clip": CLIP}) as writer:
        put(writer, "a", {"clip": rows}, step=100_000)
    held = open_store(place)["clip"]
    assert_rows(held.read("a", 5, 9), Rows(rows.features[5:9], rows.times[5:9]))
    (shard,) = [place / key for key in objects(place, "features/c.0.0")]
    shard.put(shard.read_bytes()[:100_000])
    with pytest.raises(DamageError, match="ends at byte 100000"):
        held.read("a", 90_000)
    with pytest.raises(DamageError, match="ends at byte 100000"):  # the server gives what there is
        held.read("a", 8_000, 9_000)
    shard.remove([shard])
    with pytest.raises(DamageError, match="is gone"):
        held.read("a", 90_000)


def test_flipped_bytes_are_found_by_a_full_check(place: RemotePath) -> None:
    write_sample(place)
    (shard,) = [place / key for key in objects(place, "net.rgb.map/features/c.0.0.0.0")]
    data = bytearray(shard.read_bytes())
    data[100] ^= 4
    shard.put(bytes(data))
    assert not verify(place).damaged
    assert verify(place, full=True).damaged


def test_a_store_is_compacted_and_copied_both_ways(place: RemotePath, tmp_path: Path) -> None:
    write_sample(place, group_videos=1)
    before = len(objects(place))
    done = compact(place, grace_seconds=0)
    assert (done.merged, done.into, done.kept) == (3, 1, 0)  # three of the five have the same sets
    assert len(objects(place)) < before
    merge([place], tmp_path / "local.zarr")
    convert(place, tmp_path / "local.h5")
    merge([tmp_path / "local.h5"], place.with_name(f"again-{place.name}"))
    for path in (place, tmp_path / "local.zarr", tmp_path / "local.h5", place.with_name(f"again-{place.name}")):
        store = open_store(path)
        for video, sets in sample_videos().items():
            for name, rows in sets.items():
                assert_rows(store[name].read(video), rows)
        assert store.attachment("labels") == {"classes": ["run", "jump"], "größe": 1.5}
    with pytest.raises(StoreError, match="not on this machine"):
        convert(place, place.with_suffix(".h5"))


def test_opening_a_compacted_store_takes_one_object_however_many_segments_it_has(
    place: RemotePath, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched: list[str] = []
    real = RemotePath.read_bytes

    def read_bytes(path: RemotePath) -> bytes:
        fetched.append(path.name)
        return real(path)

    monkeypatch.setattr(RemotePath, "read_bytes", read_bytes)
    for count in (3, 9):
        for number in range(count):
            with ZarrWriter(place, SPECS, provenance={"net.rgb.clip": {"decoder": f"{number}"}}) as writer:
                put(writer, f"{count}-{number}", {"net.rgb.clip": rows_of(CLIP, 4, number)})
        assert compact(place, grace_seconds=0).indexed
        fetched.clear()
        store = ZarrStore(place)
        assert fetched == ["index"]
        assert len(store.records) == count, "what was made otherwise is not merged"
        assert_rows(store["net.rgb.clip"].read("3-2"), rows_of(CLIP, 4, 2))
    assert not verify(place, full=True).findings


def test_a_server_that_refuses_or_is_gone_is_one_line_without_secrets(
    bucket: RemotePath, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not (bucket / "nothing.zarr").exists()
    with pytest.raises(StoreError, match=r"there is no store s3://features/nothing\.zarr"):
        open_store(bucket / "nothing.zarr")
    with pytest.raises(RemoteError, match="NoSuchBucket") as refused:
        open_store("s3://no-such-bucket/s.zarr")
    assert len(str(refused.value).splitlines()) == 1
    assert SECRET not in str(refused.value)
    monkeypatch.setattr("stores.remote.TRIES", 1)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")  # nobody listens there
    with pytest.raises(RemoteError, match=r"s3://features/s\.zarr") as gone:
        open_store("s3://features/s.zarr")
    assert len(str(gone.value).splitlines()) == 1
    assert issubclass(RemoteError, VlError)
    assert not issubclass(RemoteError, StoreError), "a check that meets it must not take it for damage"


def test_without_the_package_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("obstore", *(name for name in sys.modules if name.startswith("obstore."))):
        monkeypatch.setitem(sys.modules, name, None)
    _connect.cache_clear()
    with pytest.raises(StoreError, match=r"pip install 'vl\[remote\]'"):
        open_store("s3://features/s.zarr")
