"""Four writers, a compaction and a reader work on one store at once, and all of them are right."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from stores import Rows
from stores.compaction import compact
from stores.maintenance import verify
from stores.zarr_store import ZarrStore, is_zarr_store
from tests.fault.writers import PROCESSES, compact_until, videos_of, write_all
from tests.stores.samples import assert_rows

WRITERS = 4
KEPT = 20  # snapshots held open to the end: each keeps its files, and a slow machine takes thousands of snapshots
VERSIONS: dict[str, list[Rows]] = {}  # of every video, the rows that some writer gives it
for _number in range(WRITERS):
    for _video, _rows in videos_of(_number).items():
        VERSIONS.setdefault(_video, []).append(_rows)


def digest(rows: Rows) -> str:
    return hashlib.sha256(rows.features.tobytes() + rows.times.tobytes()).hexdigest()


def read_all(store: ZarrStore) -> dict[str, str]:
    """Digest of the rows of every video, each one of those that a writer gave."""
    if "clip" not in store:
        return {}
    found = {video: digest(store["clip"].read(video)) for video in store["clip"]}
    for video, sha256 in found.items():
        assert sha256 in map(digest, VERSIONS[video]), f"nobody wrote these rows of {video}"
    return found


def latest_commits(path: Path) -> dict[str, str]:
    """Digest of the rows that the latest writer of each video committed, straight from the writers' documents."""
    latest: dict[str, tuple[str, str]] = {}
    for file in (path / "commits").glob("[!.]*.json"):
        document = json.loads(file.read_text())
        for video, entry in document["videos"].items() if not document["replaces"] else ():
            _, _, sha256 = entry["rows"]["clip"]
            latest[video] = max(latest.get(video, ("", "")), (file.stem, sha256))
    return {video: sha256 for video, (_, sha256) in latest.items()}


def test_writers_a_compaction_and_readers_at_once_agree(tmp_path: Path) -> None:
    path = tmp_path / "s.zarr"
    enough, stop = PROCESSES.Event(), PROCESSES.Event()
    writers = [
        PROCESSES.Process(target=write_all, args=(path, number, enough), daemon=True) for number in range(WRITERS)
    ]
    for writer in writers:
        writer.start()
    while not is_zarr_store(path):
        assert any(writer.is_alive() for writer in writers)
    compaction = PROCESSES.Process(target=compact_until, args=(path, stop), daemon=True)
    compaction.start()
    snapshots: list[tuple[ZarrStore, str, dict[str, str]]] = []
    seen: dict[str, str] = {}
    while any(writer.is_alive() for writer in writers):
        store = ZarrStore(path)
        rows = read_all(store)
        assert seen.keys() <= rows.keys(), "a video that was there is gone"
        if len(snapshots) < KEPT and (not snapshots or rows != seen):
            snapshots.append((store, store.snapshot_id, rows))
        seen = rows
        if len(snapshots) > 3 and len(store.replaced) > 3:  # there was something to read and to compact meanwhile
            enough.set()
    stop.set()
    compaction.join()
    for process in (*writers, compaction):
        process.join()
        assert process.exitcode == 0

    winners = latest_commits(path)
    assert winners.keys() == VERSIONS.keys(), "every video of every writer is there"
    assert read_all(ZarrStore(path)) == winners
    for store, snapshot_id, rows in snapshots:
        assert store.snapshot_id == snapshot_id
        assert read_all(store) == rows, "an old snapshot reads as it did"
    compact(path, grace_seconds=0)
    store = ZarrStore(path)
    assert read_all(store) == winners
    assert [len(record.videos) for record in store.records] == [len(VERSIONS)]
    assert verify(path, full=True).findings == []
    for video, versions in VERSIONS.items():
        if len(versions) == 1:
            assert_rows(store["clip"].read(video), versions[0])
