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
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from stores import FeatureSpec, Granularity
from stores.compaction import TARGET_BYTES
from stores.records import Record, SetRecord, Span, record_path, without_collection
from stores.segments import GROUP, Layout, plan, raw_index
from stores.video_index import INDEX, write_index
from stores.zarr_store import ZarrStore
from stores.zarr_writer import create_store
from tests.bench.table import HEADER, line
from tests.memory import peak_mib

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


def leave_index(path: Path) -> None:
    """What `vl compact` writes at its end; in a process of its own, which prints the CPU seconds and the memory."""
    before = peak_mib()
    store = ZarrStore(path, indexed=False)
    start = time.process_time()
    assert write_index(path, store.records, {name: store[name] for name in store}), "no index can be made"
    print(json.dumps({"cpu_s": time.process_time() - start, "memory_bytes": peak_mib() - before << 20}))


def write_document(base: Path, key: str, fields: object, files: dict[str, tuple[int, str]]) -> None:
    data = json.dumps(fields).encode()
    (base / key).write_bytes(data)
    files[key] = (len(data), hashlib.sha256(data).hexdigest())


def measure(path: Path, indexed: bool) -> None:
    """In a process of its own: open, a batch of random windows, and the most memory that took; printed as JSON."""
    before = peak_mib()
    start, cpu = time.perf_counter(), time.process_time()
    store = ZarrStore(path, indexed=indexed)
    part = store[SET]
    opened, opened_cpu = time.perf_counter() - start, time.process_time() - cpu
    held = peak_mib()
    start = time.perf_counter()
    videos = list(part)
    listed = time.perf_counter() - start
    start = time.perf_counter()
    rng = np.random.default_rng(0)
    batch = np.empty((BATCH, WINDOW, *SPEC.row_shape), SPEC.dtype)
    for out in batch:
        part.read_into(videos[int(rng.integers(len(videos)))], int(rng.integers(ROWS - WINDOW)), out)
    first = time.perf_counter() - start
    cpu = time.process_time()
    rows = sum(part.entry(video).num_rows for video in videos)
    entries = time.process_time() - cpu
    start = time.perf_counter()
    snapshot = store.snapshot_id
    named = time.perf_counter() - start
    document = {
        "videos": len(part),
        "open_s": opened,
        "open_cpu_s": opened_cpu,
        "sort_s": listed,
        "batch_s": first,
        "entries_cpu_s": entries,
        "rows": rows,
        "snapshot_s": named,
        "first_s": opened + listed + first,
        "memory_bytes": held - before << 20,
        "snapshot": snapshot,
    }
    print(json.dumps(document))


def asked(*words: str) -> dict[str, Any]:
    """What this file prints as JSON in a process of its own."""
    command = [sys.executable, "-m", "tests.bench.bench_scale", *words]
    found: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return found


def bench(videos: int, folder: Path) -> None:
    """One size: a table of what it costs."""
    path = folder / f"{videos}.zarr"
    start = time.perf_counter()
    write_store(path, videos)
    wrote = time.perf_counter() - start
    commits_bytes = sum(entry.stat().st_size for entry in (path / "commits").iterdir())
    built = asked("--index", str(path))
    objects = sum(len(files) for _, _, files in os.walk(path))
    index, records = asked("--open", str(path)), asked("--open", str(path), "--records")
    assert records["snapshot"] == index["snapshot"], "the index is of other commits"
    assert records["rows"] == index["rows"] == videos * ROWS, (records, index)
    print(
        f"{videos} videos, {videos / SEGMENT_VIDEOS:.0f} segments of 1 GiB; the records were written in {wrote:.0f} s"
    )
    line("objects a video", f"{objects / videos:.6f}", "7", objects / videos / OBJECTS_TARGET, "<= 1")
    print("with the index that compaction leaves (ours) and from the records alone (reference)")
    line("bytes a video", f"{(path / INDEX).stat().st_size / videos:.0f}", f"{commits_bytes / videos:.0f}", "-", "-")
    line("to make it: CPU s, GB", f"{built['cpu_s']:.1f}", f"{built['memory_bytes'] / 1e9:.2f}", "-", "-")
    for what, key, digits, per in (
        ("open, CPU s", "open_cpu_s", 2, 1.0),
        ("open, s", "open_s", 2, 1.0),
        ("memory of the open store, bytes a video", "memory_bytes", 0, 1.0 / videos),
        ("memory of the open store, GB", "memory_bytes", 2, 1e-9),
        ("ids in order, s", "sort_s", 2, 1.0),
        (f"first batch of {BATCH} random windows, s", "batch_s", 3, 1.0),
        ("from nothing to the first batch, s", "first_s", 2, 1.0),
        ("what is known of each video, CPU s", "entries_cpu_s", 1, 1.0),
        ("snapshot id, s", "snapshot_s", 4, 1.0),
    ):
        ours, theirs = index[key] * per, records[key] * per
        line(what, f"{ours:.{digits}f}", f"{theirs:.{digits}f}", theirs / ours, "-")
    shutil.rmtree(path)


def main() -> None:
    """All sizes that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--videos", type=int, action="append", help="how many; repeatable, a million by default")
    parser.add_argument("--folder", type=Path, help="where the store lies meanwhile; a temporary folder by default")
    parser.add_argument("--open", type=Path, help="measure a store that is there, and print JSON")
    parser.add_argument("--index", type=Path, help="write the index of a store that is there, and print JSON")
    parser.add_argument("--records", action="store_true", help="of that store, read the records, not the index")
    chosen = parser.parse_args()
    if chosen.index is not None:
        leave_index(chosen.index)
        return
    if chosen.open is not None:
        measure(chosen.open, not chosen.records)
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
