"""YouTube-8M's TFRecords: uint8 rows kept as they are, labels attached as those of whole videos."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stores.array_layouts import Unusable
from stores.errors import StoreError
from stores.import_inputs import InputFile, find_files
from stores.importing import (
    UNREADABLE,
    ImportedVideo,
    ImportOptions,
    ImportSource,
    Item,
    Job,
    Notice,
    Part,
    reason_of,
    words_of,
)
from stores.labels import VideoLabels
from stores.names import printable
from stores.spec import Failure, Granularity
from stores.tfrecord import read_records
from stores.yt8m import LONGEST_S, NUM_CLASSES, OFFSET, SCALE, Yt8mRecord, decode

SUFFIXES = (".tfrecord", ".tfrecords", ".tfrec")


def yt8m_source(paths: Sequence[Path], options: ImportOptions) -> ImportSource:
    """The videos in TFRecord files, of the level of the first record that can be read.

    Frame-level rows keep their bytes, with scale and offset in the spec; video-level rows are floats, of
    `options.dtype`, and stand for at most 300 seconds from the start.

    Raises:
        StoreError: a path does not exist, or nothing is there.
    """
    found = find_files(paths, SUFFIXES)
    if not found.files and not found.failures:
        raise Unusable("empty", f"no .tfrecord files in {', '.join(printable(path) for path in paths)}.")
    first = next(
        (record for file in found.files for _, record in _records(file) if isinstance(record, Yt8mRecord)), None
    )
    frame_level = first is None or first.frame_level
    options = dataclasses.replace(
        options,
        level=Granularity.FRAME if frame_level else Granularity.CLIP,
        grid=options.grid if frame_level else None,
    )
    highest = NUM_CLASSES

    def items() -> Iterator[Item]:
        nonlocal highest
        yield from found.failures
        for file in found.files:
            silent = spoken = 0
            for number, record in _records(file):
                if isinstance(record, Failure):
                    yield record
                    continue
                highest = max([highest, *(label + 1 for label in record.labels)])
                audio = record.parts.get("audio")
                if audio is not None:
                    silent, spoken = silent + (not audio.any()), spoken + 1
                yield _job(record, frame_level, file.name, number, options)
            if spoken and silent == spoken:
                yield Notice("silent shard", f"{file.name}: the audio of all its {spoken} videos is zero")

    def classes() -> tuple[str, ...]:
        return tuple(map(str, range(highest)))

    return ImportSource(items(), options, [str(path) for path in found.ignored], classes)


def _records(file: InputFile) -> Iterator[tuple[int, Yt8mRecord | Failure]]:
    """The records of a file by their numbers, damaged ones as failures."""
    number = 0
    try:
        with file.path.open("rb") as opened:
            size = os.fstat(opened.fileno()).st_size
            if not size:
                raise Unusable("empty", "it has no bytes")
            for payload in read_records(opened, size):
                try:
                    if isinstance(payload, Unusable):
                        raise payload
                    yield number, decode(payload)
                except (StoreError, *UNREADABLE) as error:
                    yield number, Failure(f"{file.name}#{number}", reason_of(error), words_of(error))
                number += 1
    except (StoreError, *UNREADABLE) as error:
        yield number, Failure(file.name, reason_of(error), f"from record {number} on: {words_of(error)}")


def _job(record: Yt8mRecord, frame_level: bool, shard: str, number: int, options: ImportOptions) -> Job:
    def read() -> ImportedVideo:
        if record.frame_level != frame_level:
            kinds = ("frame", "video") if record.frame_level else ("video", "frame")
            raise Unusable("wrong_shape", f"a {kinds[0]}-level record of {shard} among {kinds[1]}-level ones")
        form = dict(record.form)
        form["exact"] = form["exact"] and (frame_level or options.dtype == "float32")
        if frame_level:
            stored = {"dtype": "uint8", "scale": SCALE, "offset": OFFSET}
            parts = {stream: Part(_filled(rows, stream), stored=stored) for stream, rows in record.parts.items()}
        else:
            times = np.array([[0.0, LONGEST_S]])
            parts = {stream: Part(rows, times) for stream, rows in record.parts.items()}
        inexact = "its record is written in a way that an export cannot repeat byte by byte"
        return ImportedVideo(
            parts,
            {"tfrecord": {"shard": shard, "record": number, **form}},
            VideoLabels.of([], video_level=tuple(dict.fromkeys(record.labels))),
            () if form["exact"] else (("not exact", inexact),),
        )

    return Job(record.video, tuple(record.parts), read, again=True)


def _filled(rows: NDArray[np.uint8], stream: str) -> NDArray[np.uint8]:
    if not rows.size:
        raise Unusable("empty", f"it has no {stream} rows")
    return rows
