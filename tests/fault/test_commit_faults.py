"""A crash, or a refusal of the operating system, at every call of a writer that changes the disk."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from stores.compaction import compact
from stores.errors import NoSpaceError, StoreError, VlError
from stores.video_index import find_commits
from stores.zarr_store import ZarrStore, ZarrWriter
from tests.fault.faults import EVERYTHING, SPECS, Crash, assert_complete, assert_sound, expected, standing_in, write
from tests.stores.samples import put

Acknowledged = list[tuple[str, str]]


def count_calls(path: Path) -> int:
    with standing_in(lambda number, name, arguments: None) as stand_in:
        write(path, lambda videos: None)
    return stand_in.calls


def error_of(work: Callable[[], None]) -> VlError | None:
    """What `work` raised for the user, if it did; anything else passes through."""
    try:
        work()
    except VlError as error:
        return error
    return None


def test_an_undisturbed_writer_writes_everything(tmp_path: Path) -> None:
    heard: Acknowledged = []
    write(tmp_path / "s.zarr", heard.extend)
    assert sorted(heard) == sorted(EVERYTHING)
    assert_complete(tmp_path / "s.zarr")


def test_a_crash_at_any_call_loses_nothing_acknowledged(tmp_path: Path) -> None:
    total = count_calls(tmp_path / "count.zarr")
    assert total > 100
    for at in range(total):
        path = tmp_path / f"{at}.zarr"
        heard: Acknowledged = []

        def crash(number: int, name: str, arguments: tuple[Any, ...], at: int = at) -> None:
            if number >= at:  # a process that is gone calls nothing any more, not even to tidy up
                raise Crash

        with standing_in(crash), pytest.raises(Crash):
            write(path, heard.extend)
        assert_sound(path, heard)
        with standing_in(lambda number, name, arguments: None):
            write(path, heard.extend)
        assert_complete(path)
        shutil.rmtree(path)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE], ids=errno.errorcode.get)
def test_a_refusal_at_any_call_is_one_clean_error_and_loses_nothing(tmp_path: Path, code: int) -> None:
    total = count_calls(tmp_path / "count.zarr")
    lasting = code in {errno.ENOSPC, errno.EDQUOT}  # a full disk stays full, but lets go
    refused = 0
    for at in range(total):
        path = tmp_path / f"{at}.zarr"
        heard: Acknowledged = []

        def refuse(number: int, name: str, arguments: tuple[Any, ...], at: int = at) -> None:
            takes_room = name not in {"close", "unlink", "rmdir"}
            if number == at or (lasting and takes_room and number > at):
                raise OSError(code, "refused")

        with standing_in(refuse):
            error = error_of(partial(write, path, heard.extend))
        if error is not None:
            refused += 1
            assert isinstance(error, NoSpaceError if lasting else StoreError), error
            assert error.exit_code == (6 if lasting else 2)
        assert_sound(path, heard)
        with standing_in(lambda number, name, arguments: None):
            write(path, heard.extend)
        assert_complete(path)
        shutil.rmtree(path)
    assert refused > 0.9 * total, "nearly every refusal is told"


def test_a_failed_fsync_is_never_tried_again(tmp_path: Path) -> None:
    seen: list[int] = []

    def refuse(number: int, name: str, arguments: tuple[Any, ...]) -> None:
        if name == "fsync":
            seen.append(arguments[0])
            if len(seen) == 3:
                raise OSError(errno.EIO, "lost pages")

    with standing_in(refuse), pytest.raises(StoreError, match="lost pages"):
        write(tmp_path / "s.zarr", lambda videos: None)
    assert_sound(tmp_path / "s.zarr", [])


def test_an_interrupt_while_the_record_gets_its_name_keeps_the_segment(tmp_path: Path) -> None:
    """Once the record may be there, removing its segment would make a damaged store."""
    path = tmp_path / "s.zarr"
    armed: list[int] = []

    def interrupt(number: int, name: str, arguments: tuple[Any, ...]) -> None:
        if armed and name in {"fsync", "open"}:
            raise KeyboardInterrupt
        if name == "rename" and "commits" in str(arguments[1]):
            armed.append(number)

    with standing_in(interrupt), pytest.raises(KeyboardInterrupt):
        write(path, lambda videos: None)
    assert armed
    assert_sound(path, [("a", "clip")])


@pytest.mark.parametrize("code", [None, errno.ENOSPC], ids=["crash", "ENOSPC"])
def test_a_compaction_that_ends_at_any_call_changes_nothing_that_is_read(tmp_path: Path, code: int | None) -> None:
    whole, path = tmp_path / "whole.zarr", tmp_path / "s.zarr"
    write(whole, lambda videos: None, group_videos=1)
    compact(whole)  # an index that will be old, and segments that are replaced and still there
    with ZarrWriter(whole, SPECS) as writer:
        put(writer, "b", {"clip": expected("b")})
    shutil.copytree(whole, path)
    with standing_in(lambda number, name, arguments: None) as stand_in:
        compact(path, grace_seconds=0)
    assert stand_in.calls > 50
    for at in range(stand_in.calls):
        shutil.rmtree(path)
        shutil.copytree(whole, path)

        def fail(number: int, name: str, arguments: tuple[Any, ...], at: int = at) -> None:
            if code is None and number >= at:
                raise Crash
            if number == at:
                raise OSError(code, "refused")

        with standing_in(fail), suppress(Crash, StoreError, NoSpaceError):
            compact(path, grace_seconds=0)
        assert_complete(path)
        assert ZarrStore(path).snapshot_id == ZarrStore(path, indexed=False).snapshot_id
        compact(path, grace_seconds=0)
        assert_complete(path)
        assert find_commits(path).rest == []
