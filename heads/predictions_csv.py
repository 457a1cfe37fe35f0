"""Predictions in csv: rows of frames or of whole videos with a column a class, or one segment a row.

    video,start,end,label,score            segments
    video,time,CLASS,CLASS,...             frames, at points in time (seconds)
    video,start,end,CLASS,CLASS,...        rows that stand for [start, end) seconds
    video,CLASS,CLASS,...                  whole videos

Columns are told by their names, in any case; all that is no video or time is a class.

Shape letters: N rows, C classes.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heads.metrics_detection import Segments
from heads.predictions import (
    PredictionError,
    Predictions,
    SegmentPredictions,
    TablePredictions,
    require_finite,
    require_names,
    seconds_of,
)
from heads.predictions_text import require_encoding
from stores.names import printable

SEGMENTS = ("video", "start", "end", "label", "score")


def read_csv(path: Path, header: Sequence[str]) -> Predictions:
    """The predictions in a csv with this header.

    Raises:
        PredictionError: the file is not sound; the message has the row.
    """
    names = [name.strip() for name in header]
    known = [name.lower() for name in names]
    if "label" in known and "score" in known:
        return _read_segments(path, known)
    times = [name for name in ("time", "start", "end") if name in known]
    if times not in ([], ["time"], ["start", "end"]):
        raise PredictionError(f"{printable(path)} has the columns {', '.join(times)}: give time, or start and end.")
    fixed = {name: known.index(name) for name in ("video", *times)}
    for name in fixed:
        if known.count(name) > 1:
            raise PredictionError(f"{printable(path)} has the column {name} twice.")
    columns = [place for place in range(len(names)) if place not in fixed.values()]
    if not columns:
        raise PredictionError(f"{printable(path)} has no column of scores after {', '.join(fixed)}.")
    classes = require_names(path, tuple(names[place] for place in columns), "the header")
    ids, numbers = read_numbers(path, ",", {fixed["video"]}, len(names), header=True)
    place_of = {place: index for index, place in enumerate(p for p in range(len(names)) if p != fixed["video"])}
    scores = numbers[:, [place_of[place] for place in columns]]
    seconds = numbers[:, [place_of[fixed[name]] for name in times]]
    return by_video(
        path, "csv of rows", ids[0], scores, classes, seconds_of(path, _squeezed(seconds)) if times else None
    )


def _squeezed(seconds: NDArray[np.float64]) -> NDArray[np.float64]:
    return seconds[:, 0] if seconds.shape[1] == 1 else seconds


def by_video(
    path: Path,
    kind: str,
    ids: NDArray[Any],
    scores: NDArray[np.float64],
    classes: tuple[str, ...],
    seconds: NDArray[np.float64] | None,
) -> Predictions:
    """Rows of any order, put together by video; without times every video has one."""
    order = np.argsort(ids, kind="stable")
    videos, first = np.unique(ids[order], return_index=True)
    parts = dict(zip(videos.tolist(), np.split(order, first[1:]), strict=True))
    if seconds is None and (twice := [video for video, rows in parts.items() if len(rows) > 1]):
        raise PredictionError(
            f"{printable(path)} has {len(parts[twice[0]])} rows for '{printable(twice[0])}' and no times. Give the "
            "column time (seconds), or start and end."
        )
    for video, rows in parts.items():
        require_finite(path, f"'{printable(video)}'", scores[rows])
    return TablePredictions(
        path,
        kind,
        "video" if seconds is None else "row",
        len(classes),
        classes,
        times="none" if seconds is None else "own",
        tables={video: scores[rows] for video, rows in parts.items()},
        seconds=None if seconds is None else {video: seconds[rows] for video, rows in parts.items()},
    )


def read_numbers(
    path: Path, separator: str, texts: set[int], width: int, *, header: bool
) -> tuple[list[NDArray[Any]], NDArray[np.float64]]:
    """The text columns of a file, and (N, width - texts) numbers of all others, in their order.

    Raises:
        PredictionError: a row has another width, or what should be a number is none; it names the row.
    """
    import pandas as pd

    _require_width(path, separator, width)
    kinds: dict[int, Any] = {place: str if place in texts else np.float64 for place in range(width)}
    try:
        frame = pd.read_csv(
            path,
            sep=separator,
            header=None,
            names=list(range(width)),
            skiprows=1 if header else 0,
            index_col=False,
            dtype=kinds,
            keep_default_na=False,
            na_filter=False,
            skipinitialspace=True,
            encoding="utf-8-sig",
            engine="c",
        )
    except (ValueError, OverflowError, MemoryError, Warning) as error:  # the parser's own errors are ValueErrors too
        raise _located(path, separator, texts, width, header=header) or PredictionError(
            f"{printable(path)} cannot be read: {printable(str(error))[:120]}."
        ) from error
    ids = [frame[place].to_numpy(dtype=object).astype(str) for place in sorted(texts)]
    for column in ids:
        stripped = np.char.strip(column)
        if len(column) and (stripped == "").any():
            raise PredictionError(f"{printable(path)}: a row has no video.")
    numbers = frame[[place for place in range(width) if place not in texts]].to_numpy(np.float64)
    if not len(numbers):
        raise PredictionError(f"{printable(path)} has no row of scores.")
    return [np.char.strip(column) for column in ids], numbers


def _require_width(path: Path, separator: str, width: int) -> None:
    """PredictionError unless every row has `width` fields: pandas fills what is short and cuts what is long."""
    with require_encoding(path) as file:
        lines = enumerate(file, 1)
        if separator == ",":
            odd = ((number, line.count(",") + 1) for number, line in lines if line.count(",") != width - 1)
        else:
            odd = ((number, count) for number, line in lines if (count := len(line.split())) != width and count)
        first = next(((number, fields) for number, fields in odd), None)
    if first is None:
        return
    for number, fields in rows_of(path, separator):  # a field in quotes may hold a comma, and a line may be empty
        if len(fields) != width:
            raise PredictionError(f"{printable(path)}, row {number}: {len(fields)} fields where {width} belong.")


def _located(path: Path, separator: str, texts: set[int], width: int, *, header: bool) -> PredictionError | None:
    """What is wrong with the first row that is not sound, looked for one by one."""
    for number, fields in rows_of(path, separator):
        if header and number == 1:
            continue
        if len(fields) != width:
            return PredictionError(f"{printable(path)}, row {number}: {len(fields)} fields where {width} belong.")
        for place, text in enumerate(fields):
            if place not in texts and not is_number(text):
                shown = printable(text)[:40]
                return PredictionError(f"{printable(path)}, row {number}, field {place + 1}: '{shown}' is no number.")
    return None


def is_number(text: str) -> bool:
    """Whether `text` is a finite number without the freedoms that Python's own literals have."""
    try:
        return "_" not in text and math.isfinite(float(text))
    except ValueError:
        return False


def rows_of(path: Path, separator: str) -> Iterator[tuple[int, list[str]]]:
    """(number from 1, fields) of every line that is not empty.

    Raises:
        PredictionError: the file is no UTF-8, or no csv.
    """
    with require_encoding(path) as file:
        if separator != ",":
            for number, line in enumerate(file, 1):
                if fields := line.split():
                    yield number, fields
            return
        reader = csv.reader(file, strict=True, skipinitialspace=True)
        try:
            for fields in reader:
                if fields:
                    yield reader.line_num, fields
        except csv.Error as error:
            raise PredictionError(f"{printable(path)}, row {reader.line_num}: {error}.") from error


def _read_segments(path: Path, known: list[str]) -> Predictions:
    if sorted(known) != sorted(SEGMENTS):
        raise PredictionError(
            f"{printable(path)} has the columns {', '.join(map(printable, known))[:200]}; segments "
            f"have {', '.join(SEGMENTS)}."
        )
    place = {name: known.index(name) for name in SEGMENTS}
    entries: list[tuple[str, str, float, float, float]] = []
    for number, fields in rows_of(path, ","):
        if number == 1:
            continue
        if len(fields) != len(SEGMENTS):
            raise PredictionError(f"{printable(path)}, row {number}: {len(fields)} fields where 5 belong.")
        numbers = [fields[place[name]].strip() for name in ("start", "end", "score")]
        for name, text in zip(("start", "end", "score"), numbers, strict=True):
            if not is_number(text):
                raise PredictionError(
                    f"{printable(path)}, row {number}: {name} is '{printable(text)[:40]}', no number."
                )
        video, label = fields[place["video"]].strip(), fields[place["label"]].strip()
        start, end, score = map(float, numbers)
        entries.append(checked_segment(path, f"row {number}", video, label, start, end, score))
    if not entries:
        raise PredictionError(f"{printable(path)} has no segment.")
    return segment_predictions(path, "csv of segments", entries)


def checked_segment(
    path: Path, where: str, video: str, label: str, start: float, end: float, score: float
) -> tuple[str, str, float, float, float]:
    """The segment itself; PredictionError if it has no name, ends before it starts, or its score is no number."""
    if not video or not label:
        raise PredictionError(f"{printable(path)}, {where}: the {'label' if video else 'video'} has no name.")
    if not (math.isfinite(start) and math.isfinite(end) and math.isfinite(score)):
        raise PredictionError(f"{printable(path)}, {where}: {start:g} to {end:g} s with score {score:g} is not finite.")
    if end < start:
        raise PredictionError(f"{printable(path)}, {where}: the segment {start:g} to {end:g} s ends before it starts.")
    return video, label, start, end, score


def segment_predictions(
    path: Path, kind: str, entries: Sequence[tuple[str, str, float, float, float]], videos: Sequence[str] = ()
) -> Predictions:
    """Segments by video; `videos` also names those without any. Doubles are said."""
    names = tuple(sorted({entry[1] for entry in entries}))
    index = {name: number for number, name in enumerate(require_names(path, names, "the segments"))}
    listed: dict[str, list[tuple[int, float, float, float]]] = {video: [] for video in videos}
    for video, label, start, end, score in entries:
        listed.setdefault(video, []).append((index[label], start, end, score))
    found: Mapping[str, Segments] = {
        video: Segments(
            np.array([entry[0] for entry in of_video], np.intp),
            np.array([entry[1:3] for entry in of_video], np.float64).reshape(-1, 2),
            np.array([entry[3] for entry in of_video], np.float64),
        )
        for video, of_video in listed.items()
    }
    seen: set[tuple[str, str, float, float]] = set()
    doubles = [entry for entry in entries if entry[:4] in seen or seen.add(entry[:4])]  # type: ignore[func-returns-value]
    notes: tuple[str, ...] = ()
    if doubles:
        video, label, start, end, _ = doubles[0]
        shown = f"'{printable(label)}' at {start:g} to {end:g} s of '{printable(video)}'"
        notes = (f"{len(doubles)} segments stand there twice and count as wrong the second time, {shown} first",)
    if len(entries) > 1 and len({entry[4] for entry in entries}) == 1:
        raise PredictionError(
            f"{printable(path)}: all {len(entries)} segments have the score {entries[0][4]:g}: there is nothing to "
            "rank. Give the scores of the model."
        )
    return SegmentPredictions(path, kind, "segment", len(names), names, protocol="detection", found=found, notes=notes)
