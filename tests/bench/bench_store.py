"""Random windows and commits of the stores against raw reads; a window is 128 rows of 1024 float16."""

from __future__ import annotations

import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import zarr

from stores import FeatureSpec, Granularity, Rows, open_store
from stores.feature_set import StoredSet
from stores.hdf5_store import pack_hdf5
from stores.records import Record, Span
from stores.zarr_store import ZarrStore, ZarrWriter
from tests.bench.table import least_seconds, line

VIDEOS, ROWS, WINDOW, WIDTH = 64, 1000, 128, 1024
WINDOWS, ROUNDS = 2000, 9
SPEC = FeatureSpec(Granularity.CLIP, (WIDTH,), backbone="bench", fps=24, stride=8)


def fill(path: Path) -> None:
    """A store of random rows."""
    rng = np.random.default_rng(0)
    times = np.stack([np.arange(ROWS), np.arange(1, ROWS + 1)], 1) / 3
    with ZarrWriter(path, {"clip": SPEC}) as writer:
        for number in range(VIDEOS):
            video = writer.video(f"{number:03d}.mp4", {"duration": ROWS / 3})
            video.append("clip", Rows(rng.standard_normal((ROWS, WIDTH)).astype("float16"), times))
            video.commit()


def windows(part: StoredSet) -> Callable[[], None]:
    """Random windows through the store, into one buffer."""
    rng = np.random.default_rng(1)
    videos = list(part)
    starts = rng.integers(0, ROWS - WINDOW, WINDOWS)
    picks = [(videos[v], int(s)) for v, s in zip(rng.integers(0, VIDEOS, WINDOWS), starts, strict=True)]
    out = np.empty((WINDOW, WIDTH), np.float16)

    def work() -> None:
        for video, start in picks:
            part.read_into(video, start, out)

    return work


def raw_reads(file: Path) -> Callable[[], None]:
    """The same bytes by `os.pread`."""
    fd = os.open(file, os.O_RDONLY)
    starts = np.random.default_rng(1).integers(0, VIDEOS * ROWS - WINDOW, WINDOWS)
    offsets = [int(start) * WIDTH * 2 for start in starts]

    def work() -> None:
        for offset in offsets:
            os.pread(fd, WINDOW * WIDTH * 2, offset)

    return work


def zarr_reads(segment: Path) -> Callable[[], None]:
    """The same through zarr-python, a tenth of the windows."""
    array = zarr.open_group(str(segment), mode="r")["clip/features"]
    assert isinstance(array, zarr.Array)
    starts = np.random.default_rng(1).integers(0, VIDEOS * ROWS - WINDOW, WINDOWS // 10)

    def work() -> None:
        for start in starts:
            np.asarray(array[start : start + WINDOW])

    return work


def bench_windows(folder: Path) -> None:
    """Windows a second, Zarr and HDF5, against raw reads and zarr-python."""
    fill(folder / "f.zarr")
    pack_hdf5(open_store(folder / "f.zarr"), folder / "f.h5")
    segment = next((folder / "f.zarr" / "segments").iterdir())
    shard = segment / "clip" / "features" / "c.0.0"
    for name in ("f.zarr", "f.h5"):
        store = open_store(folder / name)
        part = store["clip"]
        assert isinstance(part, StoredSet)
        ours, raw = least_seconds([windows(part), raw_reads(shard)], ROUNDS)
        line(
            f"random 128 x 1024 window from {name[1:]} / os.pread",
            f"{WINDOWS / ours:.0f} /s",
            f"{WINDOWS / raw:.0f} /s",
            raw / ours,
            ">= 0.9",
            "1",
        )
        if name == "f.zarr":
            ours, theirs = least_seconds([windows(part), zarr_reads(segment)], ROUNDS)
            line(
                "the same / zarr-python",
                f"{WINDOWS / ours:.0f} /s",
                f"{WINDOWS / 10 / theirs:.0f} /s",
                theirs * 10 / ours,
                ">= 20",
            )


def bench_commits(folder: Path) -> None:
    """Wall time of one commit of one set."""
    times = []
    with ZarrWriter(folder / "c.zarr", {"clip": SPEC}) as writer:
        for number in range(40):
            video = writer.video(f"{number}.mp4", {})
            stamps = np.stack([np.arange(200.0), np.arange(1.0, 201.0)], 1)
            video.append("clip", Rows(np.zeros((200, WIDTH), np.float16), stamps))
            video.commit()
            start = time.perf_counter()
            writer.flush()
            times.append(time.perf_counter() - start)
    median = statistics.median(times) * 1e3
    line("one commit, median of 40", f"{median:.1f} ms", "25 ms", median / 25, "<= 1")


def bench_open(folder: Path, commits: int = 100_000) -> None:
    """Opening a store of very many commits."""
    path = folder / "many.zarr"
    with ZarrWriter(path, {"clip": SPEC}) as writer:
        video = writer.video("a.mp4", {})
        video.append("clip", Rows(np.zeros((1, WIDTH), np.float16), np.array([[0.0, 1.0]])))
        video.commit()
    first = ZarrStore(path).records[0]
    span = first.videos["a.mp4"]["clip"]
    for number in range(commits):
        name = f"{number:020d}-{number:012x}"
        info = {"duration": 10.0, "source_bytes": 123456}
        videos = {f"folder/video-{number:06d}.mp4": {"clip": Span(0, 1, span.sha256, name, info)}}
        record = Record(name, first.sets, first.rows, videos, first.files_json)
        (path / "commits" / f"{name}.json").write_bytes(record.to_bytes())
    start, cpu = time.perf_counter(), time.process_time()
    ZarrStore(path)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - start
    line(f"open {commits} commits ({wall:.1f} s wall)", f"{cpu:.1f} s CPU", "5 s", cpu / 5, "<= 1")


def main() -> None:
    """Run all."""
    folder = Path(tempfile.mkdtemp(prefix="vl-bench-"))
    try:
        bench_windows(folder)
        bench_commits(folder)
        bench_open(folder)
    finally:
        shutil.rmtree(folder)
