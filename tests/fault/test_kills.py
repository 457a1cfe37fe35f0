"""Two writers work on one store and are killed, again and again, at random moments."""

from __future__ import annotations

import random
import time
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from stores.maintenance import Kind, verify
from stores.zarr_store import ZarrStore, is_zarr_store
from tests.fault.writers import PROCESSES, rows_by_id, write_for_ever
from tests.stores.samples import assert_rows

KILLS = 200
LONGEST_WAIT = 0.04  # seconds between two kills: none to several commits


def acknowledged(log: Path) -> list[str]:
    return log.read_text().splitlines() if log.exists() else []


def assert_nothing_lost(path: Path, log: Path, seen: set[str]) -> None:
    """The store opens, has everything acknowledged, and every video that was not `seen` before is right."""
    durable = acknowledged(log)  # first: the writer that is left goes on
    if not is_zarr_store(path):
        assert not durable
        return
    store = ZarrStore(path)
    assert store.damage == []
    if "clip" not in store:
        assert not durable
        return
    missing = set(durable) - set(store["clip"])
    assert not missing, f"acknowledged and lost: {sorted(missing)}"
    for video in set(store["clip"]) - seen:
        assert_rows(store["clip"].read(video), rows_by_id(video))
        seen.add(video)
    store.close()


def test_no_kill_loses_what_was_acknowledged_or_shows_what_is_not_whole(tmp_path: Path) -> None:
    path, log = tmp_path / "s.zarr", tmp_path / "log"
    chance = random.Random(0)
    seen: set[str] = set()

    def begin(name: str) -> ForkServerProcess:
        process = PROCESSES.Process(target=write_for_ever, args=(path, name, log), daemon=True)
        process.start()
        return process

    writers = [begin("first"), begin("second")]
    for kill in range(KILLS):
        victim = chance.randrange(2)
        time.sleep(chance.uniform(0, LONGEST_WAIT))
        assert writers[victim].is_alive(), "only a kill ends a writer"
        writers[victim].kill()
        writers[victim].join()
        assert_nothing_lost(path, log, seen)
        writers[victim] = begin(f"after-{kill}")
    for writer in writers:
        writer.kill()
        writer.join()
    assert_nothing_lost(path, log, seen)
    findings = verify(path, full=True).findings
    assert {finding.kind for finding in findings} == {Kind.ORPHAN}, "kills in the middle of a commit leave orphans"
    assert len(acknowledged(log)) > KILLS / 4, "the writers came to write"
