"""Faults put between `stores.disk` and the operating system.

`stores.disk` is the only module that changes the disk, and calls `os` alone, so that an object that stands in for `os`
there sees every such call. What is not asked of it here goes to the real one.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from stores import Rows, disk
from stores.maintenance import Kind, verify
from stores.spec import Failure
from stores.zarr_store import ZarrStore, ZarrWriter, is_zarr_store
from tests.stores.samples import CLIP, assert_rows, rows_of

CHANGES = ("open", "write", "pwrite", "fsync", "close", "mkdir", "rename", "unlink", "rmdir")
SPECS = {"clip": CLIP, "sound": CLIP}
LONG, SHORT = 130, 20  # rows; more than the spool holds, and less
SPOOL_BYTES = 60 * CLIP.row_bytes
SHARD_BYTES = 64 * CLIP.row_bytes  # with it the long video has three shards
VIDEOS: Mapping[str, int] = {"a": SHORT, "b": SHORT, "long": LONG}
SETS: Mapping[str, tuple[str, ...]] = {"a": ("clip", "sound"), "b": ("clip",), "long": ("clip",)}
EVERYTHING = [  # what is acknowledged in the end
    *((video, name) for video, names in SETS.items() for name in names),
    ("bad", "failure"),
    ("labels", "attachment"),
]


class Crash(BaseException):
    """The process is gone: nothing in the code under test may catch this and go on."""


class StandIn:
    """Stands in for the module `os`; `before(number, name, arguments)` sees each changing call, and may raise."""

    def __init__(self, before: Callable[[int, str, tuple[Any, ...]], None]) -> None:
        self._before = before
        self._lock = threading.Lock()
        self.calls = 0

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        if name not in CHANGES:
            return real

        def call(*arguments: Any) -> Any:
            with self._lock:
                number, self.calls = self.calls, self.calls + 1
                self._before(number, name, arguments)
            return None if name == "fsync" else real(*arguments)  # nothing here survives a power cut anyway

        return call


@contextmanager
def standing_in(before: Callable[[int, str, tuple[Any, ...]], None]) -> Iterator[StandIn]:
    """Within the block `stores.disk` sees a stand-in for `os`."""
    stand_in = StandIn(before)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(disk, "os", stand_in)
        yield stand_in


def expected(video: str) -> Rows:
    """The rows of a video of this tier."""
    return rows_of(CLIP, VIDEOS[video], ord(video[0]))


def write(
    path: Path,
    acknowledge: Callable[[list[tuple[str, str]]], None],
    *,
    group_videos: int = 2,
    compress: str | None = None,
) -> None:
    """Everything a writer does: a group, a long video, a failure, an attachment; leaves out what is there already."""
    options: Mapping[str, Any] = {"group_videos": group_videos, "compress": compress, "spool_bytes": SPOOL_BYTES}
    with ZarrWriter(path, SPECS, on_commit=acknowledge, **options) as writer:
        there = ZarrStore(path)
        for video in VIDEOS:
            if all(name in there and video in there[name] for name in SETS[video]):
                continue
            taker = writer.video(video, {"duration": 1.0})
            rows = expected(video)
            for start in range(0, VIDEOS[video], 50):
                part = Rows(rows.features[start : start + 50], rows.times[start : start + 50])
                for name in SETS[video]:
                    taker.append(name, part)
            taker.commit()
        if not there.failures():
            writer.fail(Failure("bad", "empty", ""))
            acknowledge([("bad", "failure")])
        if there.attachment("labels") is None:
            writer.attach("labels", {"classes": ["a"]})
            acknowledge([("labels", "attachment")])


def assert_sound(path: Path, acknowledged: list[tuple[str, str]]) -> None:
    """Nothing acknowledged is lost, nothing half is seen, and no value is wrong."""
    if not is_zarr_store(path):
        assert not acknowledged, "a store with acknowledged videos is gone"
        return
    store = ZarrStore(path)
    damage = [str(found) for found in verify(path, full=True).findings if found.kind is Kind.DAMAGE]
    if not acknowledged:
        damage = [found for found in damage if "zarr.json" not in found]  # the store was just being made
    assert not damage, damage
    for name in store:
        for video in store[name]:
            assert_rows(store[name].read(video), expected(video))
    for video, name in acknowledged:
        if name == "failure":
            assert [failure.video for failure in store.failures()] == [video]
        elif name == "attachment":
            assert store.attachment(video) == {"classes": ["a"]}
        else:
            assert video in store[name], f"'{video}' in '{name}' was acknowledged and is lost"


def assert_complete(path: Path) -> None:
    """The store has everything that `write` writes, by value."""
    assert_sound(path, EVERYTHING)
    assert {name: list(ZarrStore(path)[name]) for name in SPECS} == {"clip": ["a", "b", "long"], "sound": ["a"]}
