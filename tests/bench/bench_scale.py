"""A store of very many videos as compaction leaves it: opening it, memory, objects, and the first batch.

    OMP_NUM_THREADS=1 python -m tests.bench.bench_scale --videos 1000000

The index is real: the records that `vl compact` would write, of clips of 10 s with 30 rows of 1024 float16. The rows
are not: their files are sparse, as long as they would be, so that ten million videos need a few gigabytes of disk.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from stores import FeatureSpec, Granularity
from stores.compaction import TARGET_BYTES
from stores.records import Record, SetRecord, Span, record_path, without_collection
from stores.segments import GROUP, Layout, plan, raw_index
from stores.zarr_store import ZarrStore
from stores.zarr_writer import create_store
from tests.bench.table import HEADER, line

SPEC = FeatureSpec(Granularity.CLIP, (1024,), backbone="i3d", stream="rgb", fps=24, stride=8)
ROWS = 30  # of a clip of ten seconds
SEGMENT_VIDEOS = TARGET_BYTES // (ROWS * (SPEC.row_bytes + 16))
BATCH, WINDOW = 32, 16
SET = "i3d.rgb.clip"
OBJECTS_TARGET = 0.001  # a video


def write_store(path: Path, videos: int) -> None:
    """The records of a compacted store of so many videos, and segments whose rows are holes."""
    create_store(path)
    with without_collection():
        for number, first in enumerate(range(0, videos, SEGMENT_VIDEOS)):
            write_segment(path, number, range(first, min(first + SEGMENT_VIDEOS, videos)))


def write_segment(path: Path, number: int, videos: range) -> None:
    """One segment and its record."""
    name = f"{10**18 + number:020d}-{number:012x}"
    origin = f"{10**17 + number:020d}-{number:012x}"  # of a segment that was merged
    base = path / "segments" / name
    rows = len(videos) * ROWS
    files: dict[str, tuple[int, str]] = {}
    (base / SET).mkdir(parents=True)
    for key in ("", f"{SET}/"):
        write_document(base, f"{key}zarr.json", GROUP, files)
    arrays: tuple[tuple[str, int, tuple[int, ...], str], ...] = (
        ("features", rows, SPEC.row_shape, SPEC.dtype),
        ("times", rows, (2,), "float64"),
        ("offsets", len(videos) + 1, (), "int64"),
    )
    for kind, length, row, dtype in arrays:
        chunk, shard = plan(length, int(np.prod(row)) * np.dtype(dtype).itemsize)
        layout = Layout((length, *row), np.dtype(dtype), chunk, shard)
        (base / SET / kind).mkdir()
        write_document(base, f"{SET}/{kind}/zarr.json", {**layout.to_dict(), "attributes": {}}, files)
        for index in range(layout.num_shards):
            key = f"{SET}/{kind}/{layout.key(index)}"
            size = layout.chunks_in(index) * chunk * layout.row_bytes
            tail = raw_index(layout, layout.chunks_in(index))
            with (base / key).open("wb") as file:
                file.truncate(size)
                file.seek(size)
                file.write(tail)
            files[key] = (size + len(tail), "0" * 64)
    spans = {}
    for at, video in enumerate(videos):
        digest = hashlib.sha256(video.to_bytes(8, "little")).hexdigest()
        info = {
            "size": 1_000_000 + video,
            "mtime_ns": 10**18 + video,
            "duration": 10.0,
            "frames_decoded": 240,
            "partial": False,
        }
        spans[f"train/{video // 1000:05d}/clip-{video:09d}.mp4"] = {SET: Span(at * ROWS, ROWS, digest, origin, info)}
    sets = {SET: SetRecord(SPEC, {"decoder": "pyav 18.1.0", "torch": "2.13.0", "device": "cpu"})}
    record = Record(name, sets, {SET: rows}, spans, json.dumps(files).encode())
    record_path(path, name).write_bytes(record.to_bytes())


def write_document(base: Path, key: str, fields: object, files: dict[str, tuple[int, str]]) -> None:
    data = json.dumps(fields).encode()
    (base / key).write_bytes(data)
    files[key] = (len(data), hashlib.sha256(data).hexdigest())


def measure(path: Path) -> None:
    """In a process of its own: open, a batch of random windows, and the most memory that took; printed as JSON."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start, cpu = time.perf_counter(), time.process_time()
    store = ZarrStore(path)
    part = store[SET]
    opened, opened_cpu = time.perf_counter() - start, time.process_time() - cpu
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    videos = list(part)
    listed = time.perf_counter() - start
    start = time.perf_counter()
    rng = np.random.default_rng(0)
    batch = np.empty((BATCH, WINDOW, *SPEC.row_shape), SPEC.dtype)
    for out in batch:
        part.read_into(videos[int(rng.integers(len(videos)))], int(rng.integers(ROWS - WINDOW)), out)
    first = time.perf_counter() - start
    start = time.perf_counter()
    snapshot = store.snapshot_id
    named = time.perf_counter() - start
    kilobytes = held - before
    document = {
        "videos": len(part),
        "open_s": opened,
        "open_cpu_s": opened_cpu,
        "sort_s": listed,
        "batch_s": first,
        "snapshot_s": named,
        "memory_bytes": kilobytes * 1024,
        "snapshot": snapshot,
    }
    print(json.dumps(document))


def bench(videos: int, folder: Path) -> None:
    """One size: a table of what it costs."""
    path = folder / f"{videos}.zarr"
    start = time.perf_counter()
    write_store(path, videos)
    wrote = time.perf_counter() - start
    objects = sum(len(files) for _, _, files in os.walk(path))
    index_bytes = sum(entry.stat().st_size for entry in (path / "commits").iterdir())
    words = [sys.executable, "-m", "tests.bench.bench_scale", "--open", str(path)]
    found = json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout)
    assert found["videos"] == videos, found
    print(f"{videos} videos, {videos / SEGMENT_VIDEOS:.0f} segments of 1 GiB; the index was written in {wrote:.0f} s")
    line("objects a video", f"{objects / videos:.6f}", "7", objects / videos / OBJECTS_TARGET, "<= 1")
    line("index, bytes a video", f"{index_bytes / videos:.0f}", "-", "-", "-")
    line("open, CPU s", f"{found['open_cpu_s']:.1f}", f"{found['open_s']:.1f} wall", "-", "-")
    line("memory of the open store, bytes a video", f"{found['memory_bytes'] / videos:.0f}", "-", "-", "-")
    line("memory of the open store", f"{found['memory_bytes'] / 1e9:.2f} GB", "-", "-", "-")
    line("ids in order, s", f"{found['sort_s']:.2f}", "-", "-", "-")
    line(f"first batch of {BATCH} random windows, s", f"{found['batch_s']:.3f}", "-", "-", "-")
    line(
        "from nothing to the first batch, s",
        f"{found['open_s'] + found['sort_s'] + found['batch_s']:.1f}",
        "-",
        "-",
        "-",
    )
    line("snapshot id, s", f"{found['snapshot_s']:.4f}", "-", "-", "-")
    shutil.rmtree(path)


def main() -> None:
    """All sizes that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--videos", type=int, action="append", help="how many; repeatable, a million by default")
    parser.add_argument("--folder", type=Path, help="where the store lies meanwhile; a temporary folder by default")
    parser.add_argument("--open", type=Path, help="measure a store that is there, and print JSON")
    chosen = parser.parse_args()
    if chosen.open is not None:
        measure(chosen.open)
        return
    folder = Path(tempfile.mkdtemp(prefix="vl-scale-", dir=chosen.folder))
    try:
        line(*HEADER)
        for videos in chosen.videos or [1_000_000]:
            bench(videos, folder)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
