"""YouTube-8M's TFRecords into a store and out again: 300 rows of 1024 + 128 bytes a video, CPU seconds of one core."""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path

import numpy as np

from stores import open_store
from stores.exporting import export_store
from stores.import_yt8m import yt8m_source
from stores.importing import import_videos
from stores.importing_options import make_options
from tests.bench.table import line
from tests.stores.yt8m_files import frame_record, random_frames, write_shard

SHARDS, VIDEOS, ROWS, CLASSES, TURNS = 3, 200, 300, 3862, 3
TARGET = 200.0  # MB a second


def make_shards(folder: Path) -> int:
    """Shards of random videos; their bytes."""
    rng = np.random.default_rng(0)
    for shard in range(SHARDS):
        records = [
            frame_record(f"{shard}{v:03d}", rng.integers(0, CLASSES, 3).tolist(), *random_frames(rng, ROWS))
            for v in range(VIDEOS)
        ]
        write_shard(folder / f"train{shard:04d}.tfrecord", records)
    return sum(path.stat().st_size for path in folder.iterdir())


def main() -> None:
    """Run both ways."""
    folder = Path(tempfile.mkdtemp(prefix="vl-bench-"))
    try:
        megabytes = make_shards(folder / "in") / 1e6
        seconds = []
        for turn in range(TURNS):
            start = time.process_time()
            summary = import_videos(yt8m_source([folder / "in"], make_options("yt8m")), folder / f"{turn}.zarr")
            seconds.append(time.process_time() - start)
            assert summary.done == SHARDS * VIDEOS, summary.failures[:3]
        rate = megabytes / min(seconds)
        line("import of YouTube-8M, frame level", f"{rate:.0f} MB/s", f"{TARGET:.0f} MB/s", rate / TARGET, ">= 1")
        start = time.process_time()
        export_store(open_store(folder / "0.zarr"), "tfrecord", folder / "out")
        rate = megabytes / (time.process_time() - start)
        line("export to TFRecords", f"{rate:.0f} MB/s", "-", "-", "-")
        for path in (folder / "in").iterdir():
            assert path.read_bytes() == (folder / "out" / path.name).read_bytes(), path.name
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
