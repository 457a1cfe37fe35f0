"""Writes labels in the forms that others read, and says what a form cannot hold.

    csv           video,start,end,label,subset,duration: everything but the order of classes and those that nobody has
    super-events  {video: {"subset", "duration", "actions"}}, with NAME_classes.json beside it
    activitynet   {"database": {video: {"subset", "duration", "annotations"}}}
    multithumos   a folder with one <Class>.txt a class
    yt8m          VIDEO_ID,12 45: classes of whole videos, with NAME_classes.json beside it

Text that a spreadsheet would run as a formula is written with ' before it; the reader takes that away again.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stores import disk
from stores.label_csv import guarded
from stores.label_table import IGNORE
from stores.labels import IGNORED, LabelError, Labels, VideoLabels
from stores.names import printable

SUBSET_NAMES = {"train": "training", "val": "validation", "test": "testing"}
_FILE_NAME = re.compile(r"[^\W_](?:[\w .,()&+-]{0,118}[\w)])?")


@dataclass(frozen=True)
class Written:
    """What was written, and what could not be."""

    files: tuple[Path, ...]
    lost: Mapping[str, int]  # what the form cannot hold: how many of it


@dataclass(frozen=True)
class _Form:
    write: Callable[[Labels, Path, int], None]
    holds: frozenset[str]


def write_labels(labels: Labels, out: str | Path, form: str, first: int = 0) -> Written:
    """Write `labels` to `out`.

    Args:
        labels: what to write.
        out: a file that does not exist yet, or a folder for the form multithumos.
        form: one of WRITABLE.
        first: the number of the first class, for the forms that number them.

    Raises:
        LabelError: there is something at `out`, or a name cannot be written in this form.
        NoSpaceError: the disk is full.
    """
    out = Path(out)
    if form not in _FORMS:
        raise LabelError(f"'{printable(form)[:40]}' cannot be written. There are: {', '.join(WRITABLE)}.")
    taken = next((file for file in _files(out, form) if file.exists()), None)
    if taken is not None:
        raise LabelError(f"{taken} exists already. Give another name.")
    if not out.parent.is_dir():
        raise LabelError(f"there is no folder {out.parent} to write {out.name} into.")
    lost = {what: count for what, count in _contents(labels).items() if count and what not in _FORMS[form].holds}
    _FORMS[form].write(labels, out, first)
    return Written(_files(out, form), lost)


def _files(out: Path, form: str) -> tuple[Path, ...]:
    """What is written; the names of numbered classes go beside, where every reader looks for them."""
    return (out, out.with_name(f"{out.stem}_classes.json")) if form in {"super-events", "yt8m"} else (out,)


def _contents(labels: Labels) -> dict[str, int]:
    """How often each thing occurs that not every form holds."""
    entries = list(labels.videos.values())
    with_spans = {number for entry in entries for number in entry.classes.tolist()}
    used = with_spans | {number for entry in entries for number in entry.video_level}
    ordinary = [entry.spans[entry.classes != IGNORED] for entry in entries]
    return {
        "times of segments": sum(len(spans) for spans in ordinary),
        "classes of whole videos": sum(len(entry.video_level) for entry in entries),
        "ignored stretches": sum(int((entry.classes == IGNORED).sum()) for entry in entries),
        "classes not looked for in a video": sum(len(entry.unknown) for entry in entries),
        "subsets of videos": sum(entry.subset is not None for entry in entries),
        "durations of videos": sum(entry.duration is not None for entry in entries),
        "videos without segments": sum(len(spans) == 0 for spans in ordinary),
        "classes that no video has": sum(index not in used for index in range(len(labels.classes))),
    }


def _line(cells: list[str]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerow(cells)
    return out.getvalue()


def _write_csv(labels: Labels, out: Path, _first: int) -> None:
    if any(name in {IGNORE, ""} or name != name.strip() for name in (*labels.classes, *labels.videos)):
        raise LabelError(f"a class named '{IGNORE}', or a name with blanks around it, cannot stand in csv.")
    lines = [_line(["video", "start", "end", "label", "subset", "duration"])]
    for video, entry in labels.videos.items():
        facts = [guarded(entry.subset or ""), "" if entry.duration is None else repr(float(entry.duration))]
        rows = [[*map(repr, span), _name(labels, number)] for number, span in _segments(entry)]
        rows += [["", "", _name(labels, number)] for number in entry.video_level]
        lines += [_line([guarded(video), *row[:2], guarded(row[2]), *facts]) for row in rows or [["", "", ""]]]
    disk.write_atomically(out, "".join(lines).encode())


def _segments(entry: VideoLabels) -> list[tuple[int, list[float]]]:
    return list(zip(entry.classes.tolist(), entry.spans.tolist(), strict=True))


def _name(labels: Labels, number: int) -> str:
    return IGNORE if number == IGNORED else labels.classes[number]


def _write_names(labels: Labels, names: Path, first: int) -> None:
    text = json.dumps({str(number): name for number, name in enumerate(labels.classes, first)}, indent=1)
    disk.write_atomically(names, text.encode())


def _document(labels: Labels, segments: str, write: Callable[[int, list[float]], object]) -> dict[str, object]:
    document: dict[str, object] = {}
    for video, entry in labels.videos.items():
        facts: dict[str, object] = {}
        if entry.subset is not None:
            facts["subset"] = SUBSET_NAMES.get(entry.subset, entry.subset)
        if entry.duration is not None:
            facts["duration"] = entry.duration
        rows = [write(number, span) for number, span in _segments(entry) if number != IGNORED]
        document[video] = {**facts, segments: rows}
    return document


def _write_super_events(labels: Labels, out: Path, first: int) -> None:
    document = _document(labels, "actions", lambda number, span: [number + first, *span])
    disk.write_atomically(out, json.dumps(document).encode())
    _write_names(labels, _files(out, "super-events")[1], first)


def _write_activitynet(labels: Labels, out: Path, _first: int) -> None:
    database = _document(labels, "annotations", lambda number, span: {"segment": span, "label": labels.classes[number]})
    disk.write_atomically(out, json.dumps({"database": database}).encode())


def _write_multithumos(labels: Labels, out: Path, _first: int) -> None:
    lines: dict[int, list[str]] = {number: [] for number in range(len(labels.classes))}
    lowered = {name.casefold() for name in labels.classes}
    for name in labels.classes:  # the names of files are never taken from strangers unseen
        if not _FILE_NAME.fullmatch(name) or len(lowered) < len(labels.classes):
            raise LabelError(f"class '{printable(name)[:60]}' cannot name a file of its own. Rename it, or write csv.")
    for video, entry in labels.videos.items():
        if video != video.strip() or not video or len(video.splitlines()) != 1:
            raise LabelError(f"video '{printable(video)[:60]}' cannot stand in a row of text. Rename it, or write csv.")
        for number, (start, end) in _segments(entry):
            if number != IGNORED:
                lines[number].append(f"{video} {start!r} {end!r}\n")
    out.mkdir()
    for number, rows in lines.items():
        disk.write_atomically(out / f"{labels.classes[number]}.txt", "".join(rows).encode())


def _write_yt8m(labels: Labels, out: Path, first: int) -> None:
    lines = []
    for video in labels.videos:
        if "," in video or video != video.strip() or not video or len(video.splitlines()) != 1:
            raise LabelError(f"video '{printable(video)[:60]}' cannot stand in this csv. Rename it, or write csv.")
        numbers = np.flatnonzero(labels.video(video) == 1) + first
        lines.append(f"{guarded(video)},{' '.join(map(str, numbers.tolist()))}\n")
    disk.write_atomically(out, "".join(lines).encode())
    _write_names(labels, _files(out, "yt8m")[1], first)


_TIMED = ("times of segments",)
_FACTS = ("subsets of videos", "durations of videos", "videos without segments")
_FORMS: Mapping[str, _Form] = {
    "csv": _Form(_write_csv, frozenset({*_TIMED, *_FACTS, "classes of whole videos", "ignored stretches"})),
    "super-events": _Form(_write_super_events, frozenset({*_TIMED, *_FACTS, "classes that no video has"})),
    "activitynet": _Form(_write_activitynet, frozenset({*_TIMED, *_FACTS})),
    "multithumos": _Form(_write_multithumos, frozenset({*_TIMED, "classes that no video has"})),
    "yt8m": _Form(
        _write_yt8m,
        frozenset({"classes of whole videos", "videos without segments", "classes that no video has"}),
    ),
}
WRITABLE = tuple(_FORMS)
