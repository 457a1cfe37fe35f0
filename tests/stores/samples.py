"""Small stores for tests, and the rows that went into them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from stores import Failure, FeatureSpec, Granularity, Rows
from stores.records import Record, record_path
from stores.zarr_store import ZarrStore, ZarrWriter

Videos = Mapping[str, Mapping[str, Rows]]  # by video and set

CLIP = FeatureSpec(Granularity.CLIP, (6,), "float16", backbone="net", stream="rgb", fps=24.0, stride=8, window=64)
MAP = FeatureSpec(Granularity.MAP, (2, 3, 4), "float32", backbone="net", stream="rgb", fps=24.0, stride=8)
SOUND = FeatureSpec(Granularity.FRAME, (5,), "uint8", scale=0.5, offset=-1.0, backbone="mel", stream="audio", fps=12.5)
SPECS = {"net.rgb.clip": CLIP, "net.rgb.map": MAP, "mel.audio.frame": SOUND}


def rows_of(spec: FeatureSpec, num_rows: int, seed: int = 0) -> Rows:
    """Random rows, the i-th for the seconds [i / 3, (i + 1) / 3)."""
    rng = np.random.default_rng([seed, num_rows])
    features = (rng.standard_normal((num_rows, *spec.row_shape)) * 50 + 100).astype(spec.dtype)
    return Rows(features, np.stack([np.arange(num_rows), np.arange(1, num_rows + 1)], 1) / 3)


def sample_videos() -> dict[str, dict[str, Rows]]:
    """Five videos of 1 to 300 rows; two of them lack a set."""
    videos = {}
    for index, (video, num_rows) in enumerate([("b.mp4", 300), ("a/x.mkv", 1), ("a/é.mp4", 130), ("c", 64), ("d", 7)]):
        names = list(SPECS) if index not in (1, 3) else list(SPECS)[: (index + 1) // 2]
        videos[video] = {name: rows_of(SPECS[name], num_rows, index) for name in names}
    return videos


def put(writer: ZarrWriter, video: str, sets: Mapping[str, Rows], step: int = 50) -> None:
    """Give the writer a whole video, in parts."""
    taker = writer.video(video, {"duration": max(float(rows.times[-1, 1]) for rows in sets.values())})
    for name, rows in sets.items():
        for start in range(0, len(rows.features), step):
            taker.append(name, Rows(rows.features[start : start + step], rows.times[start : start + step]))
    taker.commit()


def write_sample(path: Path, videos: Videos | None = None, **options: Any) -> Videos:
    """A Zarr store of `videos` with a failure and an attachment."""
    videos = sample_videos() if videos is None else videos
    provenance = {name: {"decoder": "pyav", "torch": "2.13.0"} for name in SPECS}
    with ZarrWriter(path, SPECS, provenance=provenance, **options) as writer:
        for video, sets in videos.items():
            put(writer, video, sets)
        writer.fail(Failure("broken.mp4", "decode_error", "0 of 10 frames"))
        writer.attach("labels", {"classes": ["run", "jump"], "größe": 1.5})
    return videos


def assert_rows(rows: Rows, expected: Rows) -> None:
    """Equal bit for bit, NaN included."""
    assert rows.features.dtype == expected.features.dtype
    assert rows.features.shape == expected.features.shape
    assert rows.features.tobytes() == expected.features.tobytes()
    np.testing.assert_array_equal(rows.times, expected.times)


def only_record(path: Path) -> Record:
    """The record of a store with one commit."""
    (record,) = ZarrStore(path).records
    return record


def reseal(path: Path, changed: Mapping[str, bytes | None]) -> None:
    """Rewrite files of the one segment (None removes), with a record that names them: what a forger would do."""
    import hashlib

    record = only_record(path)
    files: dict[str, tuple[int, str]] = dict(record.files)
    for key, data in changed.items():
        file = path / "segments" / record.name / key
        files.pop(key, None)
        file.unlink(missing_ok=True)
        if data is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)
            files[key] = (len(data), hashlib.sha256(data).hexdigest())
    forged = dataclasses.replace(record, files_json=json.dumps(files).encode())
    record_path(path, record.name).write_bytes(forged.to_bytes())
