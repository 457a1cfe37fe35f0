"""Exports of annotation tools: ELAN's tab-delimited text, BORIS's tables of events.

Tier  Begin Time - ss.msec  End Time - ss.msec  Annotation        ELAN; without a header: tier, begin, end, annotation
..., Behavior, Behavior type (or Status), Time, Media file name   BORIS, tabular events: START, STOP or POINT
..., Behavior, Start (s), Stop (s), Media file                    BORIS, aggregated events
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from stores.label_table import LabelFile, LabelTable, Part, ReadOptions
from stores.label_text import lines, table_rows
from stores.labels import LabelError
from stores.names import printable

ELAN_COLUMNS = ("tier", "begin", "end", "annotation")
_CLOCK = re.compile(r"(\d{1,4}):([0-5]?\d):([0-5]?\d(?:[.,]\d{1,9})?)")
MEDIA = ("media file name", "media file path", "media file", "source")
LENGTH = ("media duration (s)", "total length")
Row = tuple[int, dict[str, str]]


def read_elan(parts: Sequence[Part], options: ReadOptions) -> LabelFile:
    """ELAN's tab-delimited text: the class is the annotation's text, or the name of its tier where it has none.

    Without a column `File` or `Media` the file is about the video of its own name. Times are seconds,
    `hh:mm:ss.ms`, or milliseconds where the header says msec. Where every tier has a column of its own, the tiers
    are read one after the other.
    """
    table = LabelTable(parts, options)
    for number, part in enumerate(parts):
        rows = table_rows(part.path, "\t")
        _, first = next(rows, (0, []))
        header = [name.strip().lower() for name in first]
        if not any(name.startswith("begin") for name in header):
            if len(header) != 4:
                raise LabelError(f"{part.path} has no header and not the columns {', '.join(ELAN_COLUMNS)}.")
            header = list(ELAN_COLUMNS)
            rows = table_rows(part.path, "\t")
        begin, end = _time_column(part, header, "begin"), _time_column(part, header, "end")
        tier = next((index for index, name in enumerate(header) if name.startswith("tier")), None)
        texts = [index for index, name in enumerate(header) if name.startswith(("annotation", "value"))]
        media = next((index for index, name in enumerate(header) if name.startswith(("file", "media"))), None)
        known = ("begin", "end", "duration", "participant", "tier", "file", "media", "annotation", "value")
        if not texts:  # a column a tier
            texts = [index for index, name in enumerate(header) if name and not name.startswith(known)]
        for row, fields in rows:
            place = table.place(number, row)
            name = fields[media].strip().replace("\\", "/") if media is not None else part.path.stem
            video = table.video(name, place)
            start = _elan_seconds(table, fields[begin], header[begin], place)
            stop = _elan_seconds(table, fields[end], header[end], place)
            found = [fields[index].strip() for index in texts if fields[index].strip()]
            if not found and tier is not None:
                found = [fields[tier].strip()]
            if not any(found):
                raise table.error(place, "there is neither an annotation nor a tier.")
            for text in found:
                table.span(video, table.label(text, place), start, stop, place)
    if not table.labels:
        raise LabelError(f"{table.path} has no annotation.")
    return table.named("elan")


def _time_column(part: Part, header: list[str], what: str) -> int:
    """The column with the times that read best: seconds, then hours, then milliseconds."""
    found = [index for index, name in enumerate(header) if name.startswith(what)]
    if not found:
        raise LabelError(f"{part.path} has no column that begins with '{what}', as ELAN's tab-delimited text has.")
    return min(found, key=lambda index: ("ss.msec" not in header[index], "msec" in header[index]))


def _elan_seconds(table: LabelTable, text: str, column: str, place: int) -> float:
    if clock := _CLOCK.fullmatch(text.strip()):
        hours, minutes, seconds = clock.groups()
        return int(hours) * 3600 + int(minutes) * 60 + float(seconds.replace(",", "."))
    seconds_ = table.seconds(text.strip(), "the time", place)
    return seconds_ / 1000 if "msec" in column and "ss.msec" not in column else seconds_


def is_boris(header: Sequence[str]) -> bool:
    """Whether a row is the header of BORIS's events; older versions write facts of the observation above it."""
    names = {name.strip().lower() for name in header}
    tabular = "time" in names and bool(names & {"behavior type", "status"})
    return "behavior" in names and (tabular or {"start (s)", "stop (s)"} <= names)


def read_boris(parts: Sequence[Part], options: ReadOptions) -> LabelFile:
    """BORIS: a behaviour from START to STOP, of the same subject; a POINT is a span without length.

    Such a span is never active under the strict rule; the notes count them. Subjects are not told apart.

    Source: Friard and Gamba, 2016; the user guide's chapter on exports.
    """
    table = LabelTable(parts, options)
    points = 0
    subjects: set[str] = set()
    for number, part in enumerate(parts):
        running: dict[tuple[int, str, str, str], tuple[float, int]] = {}
        for row, entry in _boris_rows(part):
            place = table.place(number, row)
            media = next((entry[name] for name in MEDIA if entry.get(name)), "") or entry.get("observation id", "")
            video = table.video(media.replace("\\", "/"), place)
            length = next((entry[name] for name in LENGTH if entry.get(name)), "NA")
            if length.upper() != "NA":
                table.set_duration(video, length, place)
            if not entry["behavior"]:
                raise table.error(place, "the behavior has no name.")
            label = table.label(entry["behavior"], place)
            subjects.add(entry.get("subject", ""))
            if "start (s)" in entry:
                start, stop = (table.seconds(entry[name], name, place) for name in ("start (s)", "stop (s)"))
                points += start == stop
                table.span(video, label, start, stop, place)
                continue
            kind = (entry.get("behavior type") or entry.get("status") or "").upper()
            time = table.seconds(entry["time"], "time", place)
            key = (video, entry["behavior"], entry.get("subject", ""), entry.get("observation id", ""))
            shown = printable(entry["behavior"])[:60]
            if kind == "POINT":
                points += 1
                table.span(video, label, time, time, place)
            elif kind == "START":
                if key in running:
                    raise table.error(place, f"'{shown}' starts again before it has stopped.")
                running[key] = time, place
            elif kind == "STOP":
                if key not in running:
                    raise table.error(place, f"'{shown}' stops without a start.")
                start, begun = running.pop(key)
                table.span(video, label, start, time, begun)
            else:
                raise table.error(place, f"'{printable(kind)[:40]}' is none of START, STOP and POINT.")
        if running:
            (_, behavior, _, _), (_, begun) = next(iter(running.items()))
            raise table.error(begun, f"'{printable(behavior)[:60]}' starts here and never stops.")
    if not table.labels:
        raise LabelError(f"{table.path} has no event.")
    if points:
        table.notes.append(f"{points} points: spans without length, which are never active")
    if len(subjects) > 1:
        table.notes.append(f"events of {len(subjects)} subjects, not told apart")
    return table.named("boris")


def _boris_rows(part: Part) -> Iterator[Row]:
    """Row number and column -> text, below the header, wherever that stands."""
    head = next((found for found in lines(part.path) if is_boris(_cells(found[1]))), None)
    if head is None:
        raise LabelError(f"{part.path} has no header with the columns Behavior, Behavior type (or Status) and Time.")
    columns = [name.lower() for name in _cells(head[1])]
    delimiter = "\t" if "\t" in head[1] else ","
    rows = table_rows(part.path, delimiter, skip=head[0] - 1)
    next(rows)
    for row, fields in rows:
        yield row, dict(zip(columns, (field.strip() for field in fields), strict=False))


def _cells(line: str) -> list[str]:
    return [cell.strip().strip('"') for cell in line.split("\t" if "\t" in line else ",")]
