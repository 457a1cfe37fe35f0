"""Reads the label files that people have: csv, and the json and csv of Charades and MultiTHUMOS.

What a file is, its content says: a json object, or a csv whose header has certain columns.

    video,start,end,label[,subset][,duration]   one span of seconds a row
    video,label[,subset]                        classes of whole videos
    id,...,actions,length                       Charades: actions are `c092 11.90 21.20;c147 0.00 12.60`
    {video: {"subset", "duration", "actions": [[class, start, end], ...]}}      Charades, MultiTHUMOS

In the first, a row without times gives a class of the whole video, a row without a label a video in which
nothing happens, and the label `ignore` a stretch that nobody annotated. Files are hostile until read: sizes
are limited, every message has the row, and nothing wrong is passed over.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from stores.labels import IGNORED, LabelError, Labels, VideoLabels
from stores.names import printable

MAX_BYTES = 512 << 20  # of a csv file
MAX_JSON_BYTES = 128 << 20  # json takes about ten times its size in memory
MAX_ROWS = 10_000_000
MAX_CLASSES = 20_000  # five times the largest vocabulary of the field, YouTube-8M's 3862
IGNORE = "ignore"  # the label of a stretch that nobody annotated
CHARADES_CLASSES = 157
EXPECTED = (
    "expected the columns video,start,end,label (subset and duration may follow), or video,label for classes "
    "of whole videos, or id,actions,length as Charades has them"
)
SUBSETS: Mapping[str, str] = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}


def read_labels(path: str | Path, classes: str | Path | None = None) -> Labels:
    """The labels in `path`.

    Args:
        path: a file of one of the forms above, in UTF-8.
        classes: names of the classes for files that number them: `c000 Holding some clothes` or one name a
            line, or json `{"1": "BaseballPitch", ...}`. Without it, `<stem>_classes.json` or `.txt` beside the
            file is taken, and else the numbers are the names.

    Raises:
        LabelError: the file is absent, too large, of another form or not sound; the message has the row.
    """
    path = Path(path)
    with _reading(path, MAX_BYTES) as file:
        beginning = file.read(1 << 16)
    if beginning.lstrip()[:1] in ("{", "["):
        return _read_json(path, classes)
    try:
        header = next(csv.reader(io.StringIO(beginning, newline="")), [])
    except csv.Error as error:
        raise LabelError(f"{path}, row 1: {error}.") from error
    columns = [name.strip().lower() for name in header]
    if {"id", "actions"} <= set(columns):
        return _read_charades_csv(path, columns, classes)
    if {"video", "label"} <= set(columns) and ("start" in columns) == ("end" in columns):
        return _read_csv(path, columns)
    shown = ", ".join(printable(name) for name in header[:12])[:200]
    raise LabelError(f"{path} has the header '{shown}': {EXPECTED}.")


def read_class_names(path: str | Path) -> tuple[str, ...]:
    """The names in a file of classes as `read_labels` takes it, in the order of their numbers.

    Raises:
        LabelError: the file is absent or not sound, or does not give every class one number and one name.
    """
    names, _ = _class_names(Path(path), path, ())
    assert names is not None, "a file that is named is read"
    return tuple(names[number] for number in sorted(names))


@contextmanager
def _reading(path: Path, limit: int) -> Iterator[TextIO]:
    """The file as text without its byte-order mark; what goes wrong while it is read becomes a LabelError."""
    if not path.is_file():
        raise LabelError(f"there is no label file {path}.")
    if (size := path.stat().st_size) > limit:
        raise LabelError(f"{path} has {size >> 20} MiB, over the {limit >> 20} MiB allowed here.")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield file
    except OSError as error:
        raise LabelError(f"{path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise LabelError(
            f"{path}, row {_undecodable_row(path)}: {error.reason}: this is no UTF-8. Save the file as UTF-8."
        ) from error


def _undecodable_row(path: Path) -> int:
    """Number of the first line that is no UTF-8, for the decoder reads ahead and cannot tell."""
    with path.open("rb") as file:
        for row, line in enumerate(file, 1):
            try:
                line.decode()
            except UnicodeDecodeError:
                return row
    return 1  # mended in the meantime


class _Table:
    """Spans as they are read, in flat arrays: ten million rows stay within 300 MB."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.videos: dict[str, int] = {}
        self.labels: dict[str, int] = {}
        self.span_video, self.span_label = array("q"), array("i")
        self.starts, self.ends = array("d"), array("d")
        self.video_level: dict[int, dict[int, None]] = {}
        self.durations: dict[int, float] = {}
        self.subsets: dict[int, str] = {}

    def video(self, name: str, where: str) -> int:
        if not name:
            raise LabelError(f"{self.path}, {where}: the video has no name.")
        return self.videos.setdefault(name, len(self.videos))

    def label(self, name: str, where: str) -> int:
        """Number of the class, in order of appearance; IGNORED for `ignore`."""
        if name == IGNORE:
            return IGNORED
        if name not in self.labels and len(self.labels) == MAX_CLASSES:
            raise LabelError(f"{self.path}, {where}: more than {MAX_CLASSES} different labels. Is it the right column?")
        return self.labels.setdefault(name, len(self.labels))

    def span(self, video: int, label: int, start: float, end: float) -> None:
        self.span_video.append(video)
        self.span_label.append(label)
        self.starts.append(start)
        self.ends.append(end)

    def fact(self, known: dict[int, Any], video: int, value: object, what: str, where: str) -> None:
        """Note the duration or subset of a video, which may not change from row to row."""
        if known.setdefault(video, value) != value:
            name = printable(next(name for name, index in self.videos.items() if index == video))
            raise LabelError(
                f"{self.path}, {where}: {what} {printable(str(value))} for '{name}', which had "
                f"{printable(str(known[video]))} before."
            )

    def finish(self, classes: tuple[str, ...], new_index: Mapping[str, int], **rest: Any) -> Labels:
        """Labels with the classes renumbered: label name -> index into `classes`."""
        renumber = np.array([new_index[name] for name in self.labels] + [IGNORED], np.int32)
        order = np.argsort(np.array(self.span_video, np.int64), kind="stable")
        index = renumber[np.array(self.span_label, np.int32)][order]
        spans = np.stack([np.array(self.starts), np.array(self.ends)], axis=1)[order]
        bounds = np.searchsorted(np.array(self.span_video, np.int64)[order], np.arange(len(self.videos) + 1))
        videos = {
            name: VideoLabels(
                index[bounds[number] : bounds[number + 1]],
                spans[bounds[number] : bounds[number + 1]],
                self.durations.get(number),
                self.subsets.get(number),
                tuple(int(renumber[label]) for label in self.video_level.get(number, ())),
            )
            for name, number in self.videos.items()
        }
        labels = Labels(classes, videos, **rest)
        dirt = ", ".join(f"{count} {kind}" for kind, count in labels.problems().items() if count)
        if not dirt:
            return labels
        return Labels(classes, videos, labels.label_at, (*labels.notes, f"as found in the file: {dirt}"))


def _rows(path: Path) -> Iterator[tuple[str, list[str]]]:
    """Rows after the header, as (`row 17`, fields); empty lines are passed over."""
    with _reading(path, MAX_BYTES) as file:
        reader = csv.reader(file, strict=True)
        width = 0
        try:
            for number, fields in enumerate(reader):
                if number > MAX_ROWS:
                    raise LabelError(f"{path} has more than {MAX_ROWS} rows.")
                where = f"row {reader.line_num}"
                if number == 0:
                    width = len(fields)
                elif fields:
                    if len(fields) != width:
                        raise LabelError(f"{path}, {where}: {len(fields)} fields where the header has {width}.")
                    yield where, fields
        except csv.Error as error:
            raise LabelError(f"{path}, row {reader.line_num}: {error}.") from error


def _seconds(path: Path, where: str, column: str, value: Any) -> float:
    """A time or duration: finite and not negative."""
    try:
        # float() would also take 1_000, and True as 1
        seconds = math.nan if value is True or value is False or "_" in str(value) else float(value)
    except (TypeError, ValueError, OverflowError):
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        shown = printable(str(value))[:60]
        raise LabelError(f"{path}, {where}: {column} is '{shown}', not a number of seconds from 0 on.")
    return seconds


def _subset(name: str) -> str:
    return SUBSETS.get(name.strip().lower(), name.strip())


def _read_csv(path: Path, columns: list[str]) -> Labels:
    table = _Table(path)
    known = ("video", "start", "end", "label", "subset", "duration")
    for name in known:
        if columns.count(name) > 1:
            raise LabelError(f"{path} has the column {name} twice.")
    place = {name: columns.index(name) for name in known if name in columns}
    for where, fields in _rows(path):
        entry = {name: fields[column].strip() for name, column in place.items()}
        video = table.video(entry["video"], where)
        if subset := entry.get("subset"):
            table.fact(table.subsets, video, _subset(subset), "subset", where)
        if duration := entry.get("duration"):
            table.fact(table.durations, video, _seconds(path, where, "duration", duration), "duration", where)
        start, end = entry.get("start", ""), entry.get("end", "")
        if bool(start) != bool(end):
            raise LabelError(f"{path}, {where}: a start and an end go together, or neither is given.")
        if not entry["label"]:
            if start:
                raise LabelError(f"{path}, {where}: the span {start} to {end} has no label.")
            continue
        label = table.label(entry["label"], where)
        if start:
            table.span(video, label, _seconds(path, where, "start", start), _seconds(path, where, "end", end))
        elif label == IGNORED:
            raise LabelError(f"{path}, {where}: the label '{IGNORE}' needs a start and an end.")
        else:
            table.video_level.setdefault(video, {})[label] = None
    if not table.labels:
        raise LabelError(f"{path} has no row with a label.")
    classes = tuple(sorted(table.labels, key=_natural))
    unused = [printable(name) for name in columns if name not in known]
    notes = (f"columns not used: {', '.join(unused)}"[:300],) if unused else ()
    return table.finish(classes, {name: index for index, name in enumerate(classes)}, notes=notes)


def _natural(name: str) -> tuple[int, int, str]:
    """Whole numbers by size and before all others, so that class 10 comes after class 9."""
    is_number = name.isascii() and name.isdigit() and len(name) < 10
    return (0, int(name), name) if is_number else (1, 0, name)


def _read_charades_csv(path: Path, columns: list[str], classes: str | Path | None) -> Labels:
    table = _Table(path)
    for where, fields in _rows(path):
        entry = dict(zip(columns, fields, strict=True))
        known = len(table.videos)
        video = table.video(entry["id"].strip(), where)
        if video < known:
            raise LabelError(f"{path}, {where}: '{printable(entry['id'])}' stands in an earlier row too.")
        if length := entry.get("length", "").strip():
            table.durations[video] = _seconds(path, where, "length", length)
        for action in filter(None, (part.strip() for part in entry["actions"].split(";"))):
            words = action.split()
            if len(words) != 3 or not re.fullmatch("c[0-9]{3}", words[0]):
                shown = printable(action)[:60]
                raise LabelError(f"{path}, {where}: '{shown}' is not of the form 'c092 11.90 21.20'.")
            label = table.label(words[0], where)
            table.span(video, label, _seconds(path, where, "start", words[1]), _seconds(path, where, "end", words[2]))
    ids = {name: int(name[1:]) for name in table.labels}
    names, notes = _class_names(path, classes, ids.values())
    if names is None:
        count = max(CHARADES_CLASSES, max(ids.values(), default=0) + 1)
        names = {index: f"c{index:03d}" for index in range(count)}
    return _numbered(table, ids, names, notes=notes)


def _numbered(table: _Table, ids: Mapping[str, int], names: Mapping[int, str], **rest: Any) -> Labels:
    """Labels whose classes a file numbers; the columns follow the numbers."""
    order = {number: index for index, number in enumerate(sorted(names))}
    classes = tuple(names[number] for number in sorted(names))
    for label, number in ids.items():
        if number not in order:
            raise LabelError(f"{table.path} has class {label}, for which the {len(names)} class names have no name.")
    return table.finish(classes, {label: order[number] for label, number in ids.items()}, **rest)


def _read_json(path: Path, classes: str | Path | None) -> Labels:
    with _reading(path, MAX_JSON_BYTES) as file:
        document = _parse(path, file.read())
    if not isinstance(document, dict) or not document or not all(isinstance(v, dict) for v in document.values()):
        raise LabelError(f'{path} is json, but not of the form {{video: {{"subset", "duration", "actions"}}}}.')
    table = _Table(path)
    for name, entry in document.items():
        where = f"video '{printable(name)[:100]}'"
        video = table.video(name, where)
        actions = entry.get("actions")
        if not isinstance(actions, list):
            raise LabelError(f"{path}, {where}: there is no list of actions, as [[class, start, end], ...].")
        if entry.get("duration") is not None:
            table.durations[video] = _seconds(path, where, "duration", entry["duration"])
        if entry.get("subset") is not None:
            table.subsets[video] = _subset(str(entry["subset"]))
        for number, action in enumerate(actions, 1):
            here = f"{where}, action {number}"
            if not isinstance(action, list) or len(action) != 3 or not _is_class(action[0]):
                shown = printable(json.dumps(action))[:60]
                raise LabelError(f"{path}, {here}: '{shown}' is not of the form [class number, start, end].")
            label = table.label(str(int(action[0])), here)
            start, end = (_seconds(path, here, what, action[at]) for what, at in (("start", 1), ("end", 2)))
            table.span(video, label, start, end)
    if not table.labels:
        raise LabelError(f"{path} has no action in any of its {len(document)} videos.")
    ids = {name: int(name) for name in table.labels}
    names, notes = _class_names(path, classes, ids.values())
    if names is None:
        first = min(1, min(ids.values()))
        names = {number: str(number) for number in range(first, max(ids.values()) + 1)}
        if first == 1:
            notes = (*notes, "class numbers start at 1: class 1 is the first column")
    return _numbered(table, ids, names, label_at="start", notes=notes)


def _is_class(value: Any) -> bool:
    whole = type(value) is int or (type(value) is float and value.is_integer())
    return whole and 0 <= value < MAX_CLASSES


def _parse(path: Path, text: str) -> Any:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        entries = dict(pairs)
        if len(entries) < len(pairs):
            twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
            raise LabelError(f"{path} has '{printable(twice)[:100]}' twice in one object.")
        return entries

    try:
        return json.loads(text, object_pairs_hook=once)
    except json.JSONDecodeError as error:
        raise LabelError(f"{path}, row {error.lineno}: this is no sound json: {error.msg}.") from error
    except (RecursionError, ValueError) as error:  # nested a thousand deep; a number of 5000 digits
        raise LabelError(f"{path} is no sound json: {printable(str(error))[:100]}.") from error


def _class_names(
    path: Path, given: str | Path | None, ids: Iterable[int]
) -> tuple[dict[int, str] | None, tuple[str, ...]]:
    """Class number -> name, and a note on where from; None where no file tells."""
    notes: tuple[str, ...] = ()
    source = Path(given) if given is not None else None
    if source is None:
        beside = [path.with_name(f"{path.stem}_classes{ending}") for ending in (".json", ".txt")]
        source = next((file for file in beside if file.is_file()), None)
        if source is None:
            return None, notes
        notes = (f"class names from {source.name} beside the labels",)
    with _reading(source, 16 << 20) as file:
        text = file.read()
    if text.lstrip()[:1] == "{":
        document = _parse(source, text)
        pairs = [(str(number), str(name)) for number, name in document.items()]
    else:
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        coded = [line.partition(" ") for line in lines]
        if lines and all(code[:1] == "c" and code[1:].isdecimal() for code, _, _ in coded):
            pairs = [(code[1:], name or code) for code, _, name in coded]
        else:
            first = min(1, min(ids, default=0))  # one name a line: counted as the label file counts
            pairs = [(str(number), line) for number, line in enumerate(lines, first)]
    names = {int(number): name for number, name in pairs if number.isdecimal() and len(number) < 10}
    if not pairs or len(names) < len(pairs) or len(set(names.values())) < len(pairs):
        raise LabelError(f"{source} must give every class one number and one name of its own.")
    if len(names) > MAX_CLASSES:
        raise LabelError(f"{source} has {len(names)} classes, over the {MAX_CLASSES} that are allowed.")
    return names, notes
