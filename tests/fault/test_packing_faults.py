"""An HDF5 store that is being packed when its process dies: the old file or the new one, whole, and nothing is lost."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stores import open_store
from stores.errors import NoSpaceError, StoreError
from stores.hdf5_store import pack_hdf5
from stores.maintenance import verify
from stores.packing import packed_at_end
from stores.zarr_store import ZarrStore, ZarrWriter
from tests.fault.faults import Crash, standing_in
from tests.stores.samples import CLIP, assert_rows, put, rows_of

OLD, NEW = {"a": 1, "b": 2}, {"c": 3}  # videos and the seeds of their rows
Before = Callable[[int, str, tuple[Any, ...]], None]


def fill(parts: Path) -> None:
    """What an extraction of the new videos does."""
    with ZarrWriter(parts, {"clip": CLIP}) as writer:
        there = ZarrStore(parts)
        for video, seed in NEW.items():
            if "clip" not in there or video not in there["clip"]:
                put(writer, video, {"clip": rows_of(CLIP, 30, seed)})


def extend(
    out: Path, before: Before = lambda number, name, arguments: None, filled: Callable[[], None] = lambda: None
) -> int:
    """One run of the command; returns the number of calls that change the disk. Calls `filled` before packing."""
    with standing_in(before) as stand_in, packed_at_end(out) as parts:
        fill(parts)
        filled()
    return stand_in.calls


def assert_holds(path: Path, videos: dict[str, int]) -> None:
    part = open_store(path)["clip"]
    assert list(part) == sorted(videos)
    for video, seed in videos.items():
        assert_rows(part.read(video), rows_of(CLIP, 30, seed))
    assert verify(path, full=True).findings == []


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A store of the old videos, packed."""
    with ZarrWriter(tmp_path / "old.zarr", {"clip": CLIP}) as writer:
        for video, seed in OLD.items():
            put(writer, video, {"clip": rows_of(CLIP, 30, seed)})
    pack_hdf5(open_store(tmp_path / "old.zarr"), tmp_path / "old.h5")
    return tmp_path / "old.h5"


def place(old: Path, name: str) -> Path:
    """A folder of its own for one run, with the packed store in it."""
    folder = old.parent / name
    folder.mkdir()
    return Path(shutil.copy(old, folder / "s.h5"))


def test_a_crash_at_any_call_leaves_the_old_file_or_the_new_one_and_the_next_run_ends_it(old: Path) -> None:
    total = extend(place(old, "count"))
    assert total > 100
    renewed = 0
    for at in range(total):
        out = place(old, str(at))

        def crash(number: int, name: str, arguments: tuple[Any, ...], at: int = at) -> None:
            if number >= at:
                raise Crash

        with pytest.raises(Crash):
            extend(out, crash)
        if out.read_bytes() != old.read_bytes():
            renewed += 1
            assert_holds(out, {**OLD, **NEW})
        extend(out)
        assert_holds(out, {**OLD, **NEW})
        left = {entry.name for entry in out.parent.iterdir() if not entry.name.endswith(".tmp")}
        assert left == {"s.h5"}, "the parts are gone in the end"
        shutil.rmtree(out.parent)
    assert 0 < renewed < total / 2


@pytest.mark.parametrize("refused", ["pwrite", "fsync", "rename"])
@pytest.mark.parametrize(("code", "error"), [(errno.ENOSPC, NoSpaceError), (errno.EIO, StoreError)], ids=["full", "io"])
def test_a_refusal_while_packing_keeps_the_old_file_and_the_parts(
    old: Path, code: int, error: type[Exception], refused: str
) -> None:
    out = place(old, refused)
    armed: list[bool] = []

    def refuse(number: int, name: str, arguments: tuple[Any, ...]) -> None:
        if armed and name == refused:
            raise OSError(code, "refused")

    with pytest.raises(error, match="refused"):
        extend(out, refuse, lambda: armed.append(True))
    assert out.read_bytes() == old.read_bytes()
    assert sorted(entry.name for entry in out.parent.iterdir()) == ["s.h5", "s.parts.zarr"]
    assert_holds(out.with_name("s.parts.zarr"), {**OLD, **NEW})


def test_the_parts_go_only_when_the_packed_file_is_durable(old: Path) -> None:
    out = place(old, "whole")
    calls: list[tuple[str, str]] = []

    def note(number: int, name: str, arguments: tuple[Any, ...]) -> None:
        calls.append((name, str(arguments[0 if name == "open" else -1])))

    extend(out, note)
    named = calls.index(("rename", str(out)))
    assert [name for name, _ in calls[named - 3 : named]] == ["open", "fsync", "close"], "its bytes come first"
    assert [name for name, _ in calls[named + 1 : named + 4]] == ["open", "fsync", "close"], "then its name"
    assert calls[named + 1] == ("open", str(out.parent))
    removed = next(number for number, (name, _) in enumerate(calls) if name in {"unlink", "rmdir"} and number > named)
    assert removed > named + 3
