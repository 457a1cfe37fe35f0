"""Labels of frames: the frame lists of SlowFast, and matrices with a row a frame.

    original_vido_id video_id frame_id path labels     SlowFast (the header is so misspelt): labels are "12,34" or ""
    NAME.npy                                           (T, C), 1, 0, or -1 where nobody knows; one file a video

Frame k stands for the seconds k / fps to (k + 1) / fps; frames in a row become one span.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stores.label_csv import CHARADES_CLASSES
from stores.label_table import LabelFile, LabelTable, Part, ReadOptions
from stores.label_text import MAX_ROWS, lines, whole_number
from stores.labels import IGNORED, LabelError
from stores.names import printable

SLOWFAST_HEADER = ("original_vido_id", "original_video_id")
MAX_CELLS = 1 << 30  # of one matrix


def _require_fps(options: ReadOptions, path: Path, advice: str) -> float:
    if options.fps is None:
        raise LabelError(f"{path} counts frames, not seconds: give the frame rate as --fps ({advice}).")
    return options.fps


def read_slowfast(parts: Sequence[Part], options: ReadOptions) -> LabelFile:
    """The frame lists of SlowFast's Charades: numbers of classes for every frame."""
    fps = _require_fps(options, parts[0].path, "the frames of Charades_v1_rgb are at 24")
    table = LabelTable(parts, options)
    keys, frames, places = (array("q") for _ in range(3))
    counts: dict[int, int] = {}
    for number, part in enumerate(parts):
        for row, line in lines(part.path):
            fields, place = line.split(), table.place(number, row)
            if row == 1 and fields[0] in SLOWFAST_HEADER:
                continue
            frame = whole_number(fields[2]) if len(fields) == 5 else None
            if frame is None:
                raise table.error(place, f"'{printable(line)[:60]}' is not of the form 'video id frame path labels'.")
            video = table.video(fields[0], place)
            counts[video] = max(counts.get(video, 0), frame + 1)
            if part.subset:
                table.set_subset(video, part.subset, place)
            for word in filter(None, fields[4].replace('"', "").split(",")):
                if (index := whole_number(word)) is None:
                    raise table.error(place, f"'{printable(fields[4])[:60]}' are no numbers of classes, as \"12,34\".")
                keys.append(video << 32 | table.label(str(index), place))
                frames.append(frame)
                places.append(place)
    if not table.labels:
        raise LabelError(f"{table.path} has no frame with a label.")
    key_S, frame_S, place_S = (np.array(values, np.int64) for values in (keys, frames, places))
    order = np.lexsort((frame_S, key_S))
    key_S, frame_S, place_S = key_S[order], frame_S[order], place_S[order]
    broken = (np.diff(key_S, prepend=-1) != 0) | (np.diff(frame_S, prepend=-2) > 1)
    firsts = np.flatnonzero(broken)
    lasts = np.append(firsts[1:], len(key_S)) - 1
    for first, last in zip(firsts.tolist(), lasts.tolist(), strict=True):
        video, label = divmod(int(key_S[first]), 1 << 32)
        table.span(video, label, int(frame_S[first]) / fps, (int(frame_S[last]) + 1) / fps, int(place_S[first]))
    table.durations = {video: count / fps for video, count in counts.items()}
    ids = {name: int(name) for name in table.labels}
    count = max(CHARADES_CLASSES, max(ids.values()) + 1)
    return table.numbered("slowfast", ids, lambda: {index: f"c{index:03d}" for index in range(count)})


def read_matrices(parts: Sequence[Part], options: ReadOptions) -> LabelFile:
    """One matrix (T, C) a video.

    A class that is -1 in all rows was not looked for in that video; any other row with -1 in it is unlabelled as a
    whole, for no span can say that one class of many is unknown for a while: the notes count what that loses.
    """
    fps = _require_fps(options, parts[0].path, "the rows a second")

    def locate(place: int) -> str:
        number, row = divmod(place, 1 << 32)
        return f"{parts[number].path.name}, row {row}"

    table = LabelTable(parts, options, locate)
    width = lost = 0
    for number, part in enumerate(parts):
        matrix = _matrix(part.path)
        width = width or matrix.shape[1]
        at = table.place(number, 0)
        video = table.video(part.path.stem, at)
        if matrix.shape[1] != width:
            raise LabelError(f"{part.path} has {matrix.shape[1]} classes where {parts[0].path.name} has {width}.")
        for index in range(width):
            table.label(str(index), at)
        table.durations[video] = len(matrix) / fps
        unlooked = (matrix == -1).all(axis=0) if len(matrix) else np.zeros(width, bool)
        looked = ~unlooked if not unlooked.all() else np.zeros(width, bool)
        if looked.any():
            table.unlooked[video] = np.flatnonzero(unlooked).tolist()
            ignored_N = (matrix[:, looked] == -1).any(axis=1)
        else:
            ignored_N = np.ones(len(matrix), bool)
        lost += int((matrix[ignored_N] == 1).sum())
        for index in np.flatnonzero(looked).tolist():
            for first, last in _runs((matrix[:, index] == 1) & ~ignored_N):
                table.span(video, index, first / fps, last / fps, at + first)
        for first, last in _runs(ignored_N):
            table.span(video, IGNORED, first / fps, last / fps, at + first)
    if lost:
        table.notes.append(f"{lost} labels stand in rows that are unlabelled in part: such rows count as unlabelled")
    return table.numbered("matrix", {name: int(name) for name in table.labels})


def _runs(rows_N: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """[first, last) of every stretch of rows that are true."""
    edges = np.flatnonzero(np.diff(rows_N.astype(np.int8), prepend=0, append=0))
    return [(int(first), int(last)) for first, last in edges.reshape(-1, 2)]


def _matrix(path: Path) -> NDArray[Any]:
    """(T, C) of 1, 0 and -1, in any type of number; no pickle is ever opened."""
    try:
        matrix = np.load(path, mmap_mode="r", allow_pickle=False)
    except OSError as error:
        raise LabelError(f"{path} cannot be read: {error.strerror or printable(str(error))[:80]}.") from error
    except Exception as error:  # the header is parsed as Python source: hostile ones fail in many ways
        raise LabelError(f"{path} is no sound npy file: {printable(str(error))[:80]}.") from error
    if not isinstance(matrix, np.ndarray) or matrix.ndim != 2 or matrix.dtype.kind not in "biuf":
        raise LabelError(f"{path} must be a matrix of numbers with a row a frame and a column a class.")
    if matrix.size > MAX_CELLS or matrix.shape[0] > MAX_ROWS or matrix.shape[1] == 0:
        raise LabelError(f"{path} has the shape {matrix.shape}, which is no matrix of labels.")
    wrong = ~np.isin(matrix, (0, 1, -1))
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        raise LabelError(f"{path}, row {row}: {matrix[row, column]} in column {column} is none of 1, 0 and -1.")
    return np.asarray(matrix)
