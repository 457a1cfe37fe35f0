"""A disk that is really full: the writer ends with one clean error, and goes on once there is room."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stores.errors import NoSpaceError
from stores.maintenance import verify
from stores.zarr_store import ZarrStore, ZarrWriter
from tests.stores.samples import CLIP, assert_rows, put, rows_of

VIDEOS = {f"{number}": rows_of(CLIP, 500 + number, number) for number in range(12)}  # 14 kB each


@pytest.fixture
def tmpfs(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """A function that gives a small disk of so many kB: the same one every time, enlarged."""
    disk = tmp_path / "disk"
    disk.mkdir()

    def mount(options: str) -> None:
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(disk)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            pytest.skip("there is no 'mount' here: a disk cannot be made full")
        if done.returncode:
            pytest.skip(f"mounting a small disk is not allowed here: {done.stderr.strip()}")

    def sized(size: int) -> Path:
        mount(f"{'remount,' if disk.is_mount() else ''}size={size}k")
        return disk

    yield sized
    if disk.is_mount():
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def extend(path: Path, acknowledged: list[str], spool_bytes: int) -> None:
    """Write what is not there yet."""

    def acknowledge(videos: list[tuple[str, str]]) -> None:
        acknowledged.extend(video for video, _ in videos)

    with ZarrWriter(path, {"clip": CLIP}, on_commit=acknowledge, group_videos=2, spool_bytes=spool_bytes) as writer:
        there = ZarrStore(path)
        for video, rows in VIDEOS.items():
            if "clip" not in there or video not in there["clip"]:
                put(writer, video, {"clip": rows})


def assert_holds(path: Path, videos: list[str]) -> None:
    store = ZarrStore(path)
    assert verify(path, full=True).findings == [], "what could not be committed has made room"
    held = list(store["clip"]) if "clip" in store else []
    assert set(videos) <= set(held), "acknowledged and lost"
    for video in held:
        assert_rows(store["clip"].read(video), VIDEOS[video])
    store.close()


@pytest.mark.parametrize("size", [60, 92, 128, 180, 240])
def test_a_full_disk_loses_nothing_and_the_writer_finishes_when_it_is_enlarged(
    tmpfs: Callable[[int], Path], size: int
) -> None:
    acknowledged: list[str] = []
    path = tmpfs(size) / "s.zarr"
    spool_bytes = CLIP.row_bytes * (100 if size % 8 else 10_000)  # some stream their videos, others group them
    with pytest.raises(NoSpaceError, match="make room"):
        extend(path, acknowledged, spool_bytes)
    assert_holds(path, acknowledged)
    tmpfs(4096)
    extend(path, acknowledged, spool_bytes)
    assert sorted(acknowledged) == sorted(VIDEOS)
    assert_holds(path, list(VIDEOS))
