"""The records of YouTube-8M: frame-level SequenceExamples and video-level Examples, decoded and encoded.

Frame level: context `id` (bytes; `video_id` in the first release) and `labels` (int64), sequences `rgb` (1024 bytes a
second) and `audio` (128). Video level: `mean_rgb` and `mean_audio`, floats. Byte b stands for 4 b / 255 + 4 / 512 - 2.

Source: Abu-El-Haija et al., "YouTube-8M: A Large-Scale Video Classification Benchmark", arXiv:1609.08675, and
readers.py and utils.py of https://github.com/google/youtube-8m.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stores import protobuf
from stores.array_layouts import Unusable
from stores.label_names import MAX_CLASSES

SCALE, OFFSET = 4 / 255, 4 / 512 - 2  # value = byte * SCALE + OFFSET
NUM_CLASSES = 3862
LONGEST_S = 300.0  # seconds that a video-level row may stand for
IDS = ("id", "video_id")
MEANS = {"mean_rgb": "rgb", "mean_audio": "audio"}
STREAMS = ("rgb", "audio")
MAX_CONTEXT = 1 << 16  # bytes that are kept to be written again


class Yt8mRecord(NamedTuple):
    """One video."""

    video: str
    labels: tuple[int, ...]
    frame_level: bool
    parts: Mapping[str, NDArray[Any]]  # stream -> (T, D) uint8, or (1, D) float32
    form: Mapping[str, Any]  # how the record is written, as JSON types, for `encode`


def decode(payload: bytes) -> Yt8mRecord:
    """The video in a record; Unusable if it is none of YouTube-8M's.

    `form["exact"]` says whether `encode` gives the same bytes again.
    """
    context = lists = memoryview(b"")
    frame_level = False
    for found in protobuf.fields(memoryview(payload)):
        if found.wire != protobuf.BYTES or found.number not in (1, 2):
            continue
        if found.number == 1:
            context = found.data
        else:
            lists, frame_level = found.data, True
    features = protobuf.entries(context)
    named = dict(features)
    video, labels = _identity(named)
    if frame_level:
        streams = protobuf.entries(lists)
        parts: dict[str, NDArray[Any]] = {name: protobuf.byte_rows(value) for name, value in streams if name in STREAMS}
        form: dict[str, Any] = {"context": _text(context), "lists": [name for name, _ in streams]}
    else:
        parts = {MEANS[name]: protobuf.floats(value)[None] for name, value in features if name in MEANS}
        form = {"features": [[name, None if name in MEANS else _text(value)] for name, value in features]}
    if not parts:
        raise Unusable(
            "no_array", f"the record has {', '.join(named) or 'nothing'}, neither rgb, audio nor means of them"
        )
    form["exact"] = len(context) - sum(map(len, _means(named))) <= MAX_CONTEXT and encode(form, parts) == payload
    if not form["exact"]:
        form = {"exact": False}
    return Yt8mRecord(video, labels, frame_level, parts, form)


def encode(form: Mapping[str, Any], parts: Mapping[str, NDArray[Any]]) -> bytes:
    """The record that has this form and these rows; Unusable if a row is missing that it had."""
    if "features" in form:
        return protobuf.pack(1, protobuf.pack_map(_written(form["features"], parts)))
    lists = []
    for name in form["lists"]:
        if name not in parts:
            raise Unusable("no_array", f"the record has '{name}' rows, which the store has not")
        lists.append((name, protobuf.pack_byte_rows(parts[name])))
    return protobuf.pack(1, base64.b64decode(form["context"])) + protobuf.pack(2, protobuf.pack_map(lists))


def new_form(video: str, labels: tuple[int, ...], parts: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
    """The form of a record of a video that never was one: bytes are frame level, floats video level."""
    identity = [("id", protobuf.pack_bytes([video.encode()])), ("labels", protobuf.pack_integers(labels))]
    if all(rows.dtype == np.uint8 for rows in parts.values()):
        return {"context": _text(protobuf.pack_map(identity)), "lists": [name for name in STREAMS if name in parts]}
    means: list[list[str | None]] = [[name, None] for name, stream in MEANS.items() if stream in parts]
    return {"features": [[name, _text(value)] for name, value in identity] + means}


def _written(features: list[list[str | None]], parts: Mapping[str, NDArray[Any]]) -> list[tuple[str, bytes]]:
    out = []
    for name, kept in features:
        assert name is not None, "a feature has a name"
        if kept is not None:
            out.append((name, base64.b64decode(kept)))
            continue
        if MEANS[name] not in parts:
            raise Unusable("no_array", f"the record has '{name}', which the store has not")
        out.append((name, protobuf.pack_floats(parts[MEANS[name]].reshape(-1))))
    return out


def _means(named: Mapping[str, memoryview]) -> list[memoryview]:
    return [value for name, value in named.items() if name in MEANS]


def _identity(named: Mapping[str, memoryview]) -> tuple[str, tuple[int, ...]]:
    ids = [value for name in IDS if name in named for value in protobuf.bytes_list(named[name])]
    if len(ids) != 1 or not ids[0]:
        raise Unusable("decode_error", "the record has no id")
    try:
        video = ids[0].decode()
    except UnicodeDecodeError as error:
        raise Unusable("decode_error", "the id of the record is no UTF-8") from error
    labels = tuple(protobuf.integers(named["labels"])) if "labels" in named else ()
    if labels and not 0 <= min(labels) <= max(labels) < MAX_CLASSES:
        raise Unusable("decode_error", f"the record has labels from {min(labels)} to {max(labels)}")
    return video, labels


def _text(data: bytes | memoryview) -> str:
    return base64.b64encode(data).decode()
