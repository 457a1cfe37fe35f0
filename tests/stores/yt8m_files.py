"""TFRecords as YouTube-8M has them, written byte by byte from the definitions and by nothing of the project."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

import google_crc32c
import numpy as np
from numpy.typing import NDArray


def varint(value: int) -> bytes:
    out = []
    while True:
        out.append(value % 128 + (128 if value >= 128 else 0))
        value //= 128
        if not value:
            return bytes(out)


def message(number: int, content: bytes) -> bytes:
    """Field `number` with its length: the key is number * 8 + 2."""
    return varint(number * 8 + 2) + varint(len(content)) + content


def entry(key: str, value: bytes) -> bytes:
    """One entry of a map."""
    return message(1, message(1, key.encode()) + message(2, value))


def bytes_feature(value: bytes) -> bytes:
    return message(1, message(1, value))


def int_feature(values: Sequence[int]) -> bytes:
    return message(3, message(1, b"".join(map(varint, values))))


def float_feature(values: Sequence[float]) -> bytes:
    return message(2, message(1, struct.pack(f"<{len(values)}f", *values)))


def frame_record(
    video: str,
    labels: Sequence[int],
    rgb: NDArray[np.uint8],
    audio: NDArray[np.uint8],
    *,
    audio_first: bool = False,
    extra: bytes = b"",
) -> bytes:
    """A SequenceExample: context in field 1, feature lists in field 2."""
    context = entry("id", bytes_feature(video.encode())) + entry("labels", int_feature(labels)) + extra
    lists = [
        entry(name, b"".join(message(1, bytes_feature(row.tobytes())) for row in rows))
        for name, rows in (("rgb", rgb), ("audio", audio))
    ]
    return message(1, context) + message(2, b"".join(reversed(lists) if audio_first else lists))


def video_record(video: str, labels: Sequence[int], rgb: Sequence[float], audio: Sequence[float]) -> bytes:
    """An Example: features in field 1."""
    return message(
        1,
        entry("mean_audio", float_feature(audio))
        + entry("id", bytes_feature(video.encode()))
        + entry("labels", int_feature(labels))
        + entry("mean_rgb", float_feature(rgb)),
    )


def masked(data: bytes) -> bytes:
    crc = google_crc32c.value(data)
    rotated = ((crc >> 15) + (crc << 17)) % 2**32
    return struct.pack("<I", (rotated + 0xA282EAD8) % 2**32)


def write_shard(path: Path, records: Sequence[bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        for record in records:
            length = struct.pack("<Q", len(record))
            file.write(length + masked(length) + record + masked(record))
    return path


def random_frames(
    rng: np.random.Generator, rows: int, width: int = 1024
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    return rng.integers(0, 256, (rows, width), np.uint8), rng.integers(0, 256, (rows, width // 8), np.uint8)
