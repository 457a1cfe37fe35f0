"""Features as csv, a row per time step.

    video,start,end,f0,f1,...    each row with its seconds
    video,time,f0,f1,...         each row from its time to the next one's; the last as long as the one before it
    video,f0,f1,...              in order, on the grid that is given

Without the column `video` a file is one video, named as the file. The rows of a video stand together.
"""

from __future__ import annotations

import csv
import math
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TextIO

import numpy as np
from numpy.typing import NDArray

from stores.array_layouts import Unusable
from stores.errors import StoreError
from stores.import_arrays import require_source
from stores.import_inputs import InputFile, find_files
from stores.importing import (
    MAX_ARRAY,
    UNREADABLE,
    ImportedVideo,
    ImportOptions,
    ImportSource,
    Item,
    Job,
    Part,
    reason_of,
    words_of,
)
from stores.names import printable
from stores.spec import Failure
from stores.time_grid import require_times, times_from_stamps

SUFFIXES = (".csv",)
TIMES = (("start", "end"), ("time",))
MAX_COLUMNS = 1 << 16
MAX_FIELD = 1 << 16  # characters of one cell


def csv_source(paths: Sequence[Path], options: ImportOptions) -> ImportSource:
    """The videos in csv files.

    Raises:
        StoreError: a path does not exist, or nothing is there.
        TimeGridError: neither the options nor the first file say at what seconds rows are.
    """
    found = find_files(paths, SUFFIXES)
    if not found.files and not found.failures:
        raise Unusable("empty", f"no .csv features in {', '.join(printable(path) for path in paths)}.")
    if not options.timed:
        require_source(any(_says_times(file.path) for file in found.files), "--stride" if not options.grid else "--fps")

    def items() -> Iterator[Item]:
        yield from found.failures
        for file in found.files:
            yield from _of_file(file, options)

    return ImportSource(items(), options, [str(path) for path in found.ignored])


def _says_times(path: Path) -> bool:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return "start" in (head := file.readline(1 << 20).lower()) or "time" in head
    except (OSError, ValueError):
        return True  # what is wrong with it is said when it is read


class _Columns:
    """Which columns are what."""

    def __init__(self, header: Sequence[str]) -> None:
        names = [name.strip().lower() for name in header]
        if len(names) > MAX_COLUMNS:
            raise Unusable("too_large", f"its header has {len(names)} columns, more than {MAX_COLUMNS}")
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise Unusable("decode_error", f"its header has the column '{printable(twice)}' twice")
        self.video = names.index("video") if "video" in names else None
        times = next((kind for kind in TIMES if set(kind) <= set(names)), ())
        self.times = [names.index(name) for name in times]
        taken = {self.video, *self.times}
        self.features = [place for place in range(len(names)) if place not in taken]
        self.width = len(names)
        if not self.features or all(_is_number(name) for name in names):
            raise Unusable("decode_error", "its first row is no header: video,start,end,f0,f1,... or video,time,f0,...")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


class _Video:
    """The rows of one video, until the next one begins."""

    def __init__(self, name: str, columns: _Columns) -> None:
        self.name = name
        self.columns = columns
        self.error: Unusable | None = None
        self._values = array("d")
        self._times = array("d")

    def add(self, cells: Sequence[str], row: int) -> None:
        """One row of the file; a wrong one spoils the video."""
        if self.error is not None:
            return
        if len(cells) != self.columns.width:
            self.error = Unusable("decode_error", f"row {row} has {len(cells)} cells, the header {self.columns.width}")
            return
        try:
            self._values.extend(float(cells[place]) for place in self.columns.features)
            self._times.extend(float(cells[place]) for place in self.columns.times)
        except ValueError as error:
            self.error = Unusable("decode_error", f"row {row}: {words_of(error)}")
        if len(self._values) * 8 > MAX_ARRAY:
            self.error = Unusable("too_large", f"more than {MAX_ARRAY} bytes of rows")

    def read(self, options: ImportOptions) -> ImportedVideo:
        """What was collected."""
        if self.error is not None:
            raise self.error
        columns = self.columns
        features = np.frombuffer(self._values).reshape(-1, len(columns.features))
        times: NDArray[np.float64] | None = None
        if columns.times and not options.timed:
            found = np.frombuffer(self._times).reshape(-1, len(columns.times))
            window = options.grid.window if options.grid is not None else None
            rate = options.grid.fps if options.grid is not None else None
            window_s = window / rate if window and rate else None
            paired = len(columns.times) == 2
            times = require_times(found, len(found)) if paired else times_from_stamps(found[:, 0], window_s)
        if not math.isfinite(float(np.abs(features).max())):
            row = int(np.flatnonzero(~np.isfinite(features).all(1))[0])
            raise Unusable("not_finite", f"row {row} of the video has a value that is no finite number")
        return ImportedVideo({options.stream: Part(features, times)})


def _of_file(file: InputFile, options: ImportOptions) -> Iterator[Item]:
    try:
        with file.path.open(encoding="utf-8-sig", newline="") as opened:
            for video in _videos(opened, file):
                yield _job(video, options)
    except (StoreError, csv.Error, *UNREADABLE) as error:
        yield Failure(file.name, "decode_error" if isinstance(error, csv.Error) else reason_of(error), words_of(error))


def _job(video: _Video, options: ImportOptions) -> Job:
    return Job(video.name, (options.stream,), lambda: video.read(options))


def _videos(opened: TextIO, file: InputFile) -> Iterator[_Video]:
    """The videos of a file, each when its last row was read."""
    before = csv.field_size_limit(MAX_FIELD)
    try:
        rows = csv.reader(opened)
        header = next(rows, None)
        if header is None:
            raise Unusable("empty", "it has no rows")
        columns = _Columns(header)
        current: _Video | None = None
        for cells in rows:
            if not cells:
                continue
            name = file.stem
            if columns.video is not None:
                name = cells[columns.video].strip() if columns.video < len(cells) else ""
                if not name:
                    raise Unusable("decode_error", f"row {rows.line_num} names no video")
            if current is None or current.name != name:
                if current is not None:
                    yield current
                current = _Video(name, columns)
            current.add(cells, rows.line_num)
        if current is None:
            raise Unusable("empty", "it has a header and no rows")
        yield current
    finally:
        csv.field_size_limit(before)
