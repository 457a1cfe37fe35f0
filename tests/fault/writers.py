"""Processes that write to one store: what they write is a function of the video's id, so that anybody can check it."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import time
import zlib
from multiprocessing.synchronize import Event
from pathlib import Path

from stores import Rows
from stores.compaction import compact
from stores.zarr_store import ZarrWriter
from tests.stores.samples import CLIP, put, rows_of

# A server that has imported everything already gives birth to a writer in some milliseconds.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["pytest", "tests.fault.writers"])

SHARED, OWN = 10, 15  # videos that every one of several writers writes, each with rows of its own, and others


def rows_by_id(video: str) -> Rows:
    """1 to 60 rows."""
    seed = zlib.crc32(video.encode())
    return rows_of(CLIP, 1 + seed % 60, seed)


def write_for_ever(store: Path, name: str, log: Path) -> None:
    """Video after video; `log`, outside of the store, has a line for each one that is durable."""
    fd = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def acknowledge(videos: list[tuple[str, str]]) -> None:
        os.write(fd, "".join(f"{video}\n" for video, _ in videos).encode())  # survives the process, not the power

    spool_bytes = 40 * CLIP.row_bytes  # a third of the videos have segments of their own
    with ZarrWriter(store, {"clip": CLIP}, on_commit=acknowledge, group_videos=2, spool_bytes=spool_bytes) as writer:
        for number in itertools.count():
            put(writer, f"{name}-{number}", {"clip": rows_by_id(f"{name}-{number}")}, step=20)


def videos_of(writer: int) -> dict[str, Rows]:
    """What the writer of that number writes."""
    shared = {f"shared-{i}": rows_of(CLIP, 5 + writer, 1000 * writer + i) for i in range(SHARED)}
    return shared | {f"own-{writer}-{i}": rows_of(CLIP, 3, 1000 * writer + 500 + i) for i in range(OWN)}


def write_all(store: Path, number: int, enough: Event) -> None:
    """All videos of one writer, each in a commit of its own, again and again until it is enough.

    Every writer begins at another place.
    """
    videos = list(videos_of(number).items())
    begin = number * len(videos) // 4
    with ZarrWriter(store, {"clip": CLIP}, group_videos=1) as writer:
        done = False
        while not done:
            done = enough.is_set()
            for video, rows in [*videos[begin:], *videos[:begin]]:
                put(writer, video, {"clip": rows})
                time.sleep(0.01)  # others come in between


def compact_until(store: Path, stop: Event) -> None:
    """One compaction after another; nothing is removed while readers may need it."""
    while not stop.wait(0.05):
        compact(store, grace_seconds=3600)
