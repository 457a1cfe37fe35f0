"""The power goes at any moment: what was acknowledged is there afterwards, whatever else the disk kept or lost.

And the proof that the model would see it otherwise: with any one fsync left out, it finds a loss.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from stores.compaction import compact
from stores.errors import VlError
from tests.fault.faults import Crash, assert_complete, assert_sound, write
from tests.fault.power_cut import Event, Kept, build, recording, replay

STATES = 500

# What a disk may do that is least like a disk that loses nothing.
ADVERSE: dict[str, Kept] = {
    "nothing": lambda kind, path: 0.0,
    "names without bytes": lambda kind, path: float(kind != "write"),
    "removals alone": lambda kind, path: float(kind == "remove"),
    "removals of segments alone": lambda kind, path: float(kind == "remove" and path.name != "commits"),
}


def record(disk: Path) -> list[Event]:
    """Writes a store, and compacts it."""
    with recording() as recorder:
        write(disk / "s.zarr", recorder.acknowledge, group_videos=1)
        done = compact(disk / "s.zarr", grace_seconds=0)
        assert (done.merged, done.kept) == (2, 0)
        recorder.acknowledge([])
    return recorder.events


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    (tmp_path / "disk").mkdir()
    return tmp_path / "disk"


@pytest.fixture
def events(disk: Path) -> list[Event]:
    return record(disk)


def cuts(events: Sequence[Event]) -> list[int]:
    """Where a cut would hurt most: right after an acknowledgement, or after a name has changed."""
    hurting = {"acknowledge", "rename", "unlink", "rmdir"}
    return [number + 1 for number, event in enumerate(events) if event.name in hurting]


def after_cut(events: Sequence[Event], disk: Path, kept: Kept, path: Path) -> Iterator[list[Any]]:
    """A tree at `path` that `events` may have left; gives what was acknowledged, and takes the tree away."""
    build(replay(events, disk), path, kept)
    yield [video for event in events if event.name == "acknowledge" for video in event.data]
    shutil.rmtree(path)


def loses(events: Sequence[Event], disk: Path, kept: Kept, path: Path) -> bool:
    """Whether anything acknowledged is gone, or anything seen is wrong."""
    for acknowledged in after_cut(events, disk, kept, path):
        try:
            assert_sound(path / "s.zarr", acknowledged)
        except (AssertionError, OSError, VlError):
            shutil.rmtree(path)
            return True
    return False


def chance(seed: int) -> Kept:
    """Keeps each change or not by lot: some disks lose much, some little; a write may be torn."""
    random_ = random.Random(seed)
    keeping = random_.choice([0.1, 0.5, 0.9])
    return lambda kind, path: random_.choice([1.0, 1.0, random_.random()]) if random_.random() < keeping else 0.0


def test_whatever_a_power_cut_leaves_nothing_acknowledged_is_lost(
    disk: Path, events: list[Event], tmp_path: Path
) -> None:
    for seed in range(STATES):
        cut = random.Random(-seed).randrange(len(events) + 1)
        for acknowledged in after_cut(events[:cut], disk, chance(seed), tmp_path / "cut"):
            assert_sound(tmp_path / "cut" / "s.zarr", acknowledged)
            if seed % 10 == 0:
                write(tmp_path / "cut" / "s.zarr", acknowledged.extend)
                assert_complete(tmp_path / "cut" / "s.zarr")


@pytest.mark.parametrize("adverse", ADVERSE)
def test_the_worst_that_a_disk_may_do_after_an_acknowledgement_loses_nothing(
    disk: Path, events: list[Event], tmp_path: Path, adverse: str
) -> None:
    for cut in cuts(events):
        for acknowledged in after_cut(events[:cut], disk, ADVERSE[adverse], tmp_path / "cut"):
            assert_sound(tmp_path / "cut" / "s.zarr", acknowledged)


def test_without_any_single_fsync_the_model_finds_a_loss(disk: Path, events: list[Event], tmp_path: Path) -> None:
    """An fsync that is missing in the record of the calls is one that the code did not make."""
    syncs = [number for number, event in enumerate(events) if event.name == "fsync"]
    assert len(syncs) > 50
    for number in syncs:
        assert any(
            loses(events[:number] + events[number + 1 : cut], disk, kept, tmp_path / "cut")
            for cut in cuts(events)
            if cut > number
            for kept in ADVERSE.values()
        ), f"nobody needs the fsync of {events[number].path}"


def begun_twice(disk: Path, crash_at: int) -> tuple[list[Event], int]:
    """A writer dies at its call `crash_at` while it makes the store, another goes on; where the second one begins."""
    with recording() as recorder:
        recorder.crash_at = crash_at
        with pytest.raises(Crash):
            write(disk / "s.zarr", recorder.acknowledge)
        recorder.crash_at = None
        begin = len(recorder.events)
        write(disk / "s.zarr", recorder.acknowledge)
    return recorder.events, begin


def test_a_writer_makes_durable_what_a_dead_one_has_begun(tmp_path: Path) -> None:
    needed: set[str] = set()
    for crash_at in range(13):  # calls until a store is made and known to be durable
        disk = tmp_path / str(crash_at)
        disk.mkdir()
        events, begin = begun_twice(disk, crash_at)
        assert not loses(events, disk, ADVERSE["nothing"], tmp_path / "cut")
        for path in (disk, disk / "s.zarr"):
            without = [event for event in events[begin:] if (event.name, event.path) != ("fsync", path)]
            if loses(events[:begin] + without, disk, ADVERSE["nothing"], tmp_path / "cut"):
                needed.add("parent" if path == disk else "store")
    assert needed == {"parent", "store"}, "the second writer's own fsyncs were what kept the store"
