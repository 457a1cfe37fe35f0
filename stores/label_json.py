"""Labels in json: Charades and MultiTHUMOS as the field passes them on, ActivityNet and THUMOS, Label Studio.

{video: {"subset", "duration", "actions": [[class, start, end], ...]}}                     super-events
{"database": {video: {"subset", "duration", "annotations": [{"segment": [s, e], "label"}]}}}  activitynet
[{"data": {"video"}, "annotations": [{"result": [{"type", "value"}]}]}]                     label-studio
"""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qs, urlsplit

from stores.label_names import MAX_CLASSES
from stores.label_table import LabelFile, LabelTable, Part, ReadOptions
from stores.label_text import number_of, whole_number
from stores.labels import LabelError
from stores.names import printable

_ANNOTATION = '{"segment": [start, end], "label": name}'
_ENTRY = 1 << 32  # the place of annotation n of entry v is v * _ENTRY + n, counted from 1; of the entry itself, n = 0


def json_form(document: Any) -> str | None:
    """Which of the forms a document has; None for no form that is known."""
    if isinstance(document, list):
        tasks = [task for task in document if isinstance(task, dict) and "annotations" in task]
        return "label-studio" if document and len(tasks) == len(document) else None
    if not isinstance(document, dict) or not document or not all(isinstance(key, str) for key in document):
        return None
    if isinstance(document.get("database"), dict):
        return "activitynet"
    return "super-events" if all(isinstance(entry, dict) for entry in document.values()) else None


def read_super_events(part: Part, document: dict[str, Any], options: ReadOptions) -> LabelFile:
    """charades.json, multithumos.json; class numbers begin at 1 where 0 never occurs, and the notes say so."""
    table = _table(part, options, list(document), "action")
    for number, (name, entry) in enumerate(document.items()):
        at = number * _ENTRY
        video = table.video(name, at)
        actions = entry.get("actions")
        if not isinstance(actions, list):
            raise table.error(at, "there is no list of actions, as [[class, start, end], ...].")
        _facts(table, video, entry, at)
        for index, action in enumerate(actions, 1):
            here = at + index
            if not isinstance(action, list) or len(action) != 3 or not _is_class(action[0]):
                shown = printable(json.dumps(action))[:60]
                raise table.error(here, f"'{shown}' is not of the form [class number, start, end].")
            label = table.label(str(int(action[0])), here)
            start, end = table.seconds(action[1], "start", here), table.seconds(action[2], "end", here)
            table.span(video, label, start, end, here)
    if not table.labels:
        raise LabelError(f"{part.path} has no action in any of its {len(document)} videos.")
    ids = {name: int(name) for name in table.labels}

    def numbers() -> dict[int, str]:
        first = min(1, min(ids.values()))
        if first == 1:
            table.notes.append("class numbers start at 1: class 1 is the first column")
        return {number: str(number) for number in range(first, max(ids.values()) + 1)}

    return table.numbered("super-events", ids, numbers, label_at="start")


def _is_class(value: Any) -> bool:
    number = None if isinstance(value, str) else whole_number(value)
    return number is not None and number < MAX_CLASSES


def _table(part: Part, options: ReadOptions, names: list[str], what: str) -> LabelTable:
    def locate(place: int) -> str:
        entry, index = divmod(place, _ENTRY)
        return f"video '{printable(names[entry])[:100]}'" + (f", {what} {index}" if index else "")

    return LabelTable([part], options, locate)


def _facts(table: LabelTable, video: int, entry: dict[str, Any], place: int) -> None:
    if entry.get("duration") is not None:
        table.set_duration(video, entry["duration"], place)
    if entry.get("subset") is not None:
        table.set_subset(video, str(entry["subset"]), place)


def read_activitynet(part: Part, document: dict[str, Any], options: ReadOptions) -> LabelFile:
    """ActivityNet and THUMOS: named labels; a video without annotations is one in which nothing is known to happen."""
    database = document["database"]
    table = _table(part, options, list(database), "annotation")
    for number, (name, entry) in enumerate(database.items()):
        at = number * _ENTRY
        video = table.video(name, at)
        annotations = entry.get("annotations", []) if isinstance(entry, dict) else None
        if not isinstance(annotations, list):
            raise table.error(at, 'there is no list of annotations, as [{"segment": [start, end], "label": name}].')
        _facts(table, video, entry, at)
        for index, annotation in enumerate(annotations, 1):
            here = at + index
            segment = annotation.get("segment") if isinstance(annotation, dict) else None
            label = annotation.get("label") if isinstance(annotation, dict) else None
            if not isinstance(segment, list) or len(segment) != 2 or not isinstance(label, str) or not label.strip():
                shown = printable(json.dumps(annotation))[:60]
                raise table.error(here, f"'{shown}' is not of the form {_ANNOTATION}.")
            start, end = table.seconds(segment[0], "start", here), table.seconds(segment[1], "end", here)
            table.span(video, table.label(label.strip(), here), start, end, here)
    if not table.labels:
        raise LabelError(f"{part.path} has no annotation in any of its {len(database)} videos.")
    return table.named("activitynet")


def read_label_studio(part: Part, document: list[Any], options: ReadOptions) -> LabelFile:
    """Label Studio's JSON export: timelines in frames, regions in seconds, choices for whole videos.

    A timeline counts frames from 1 and includes its last; the frame rate is not in it, so --fps must give it. Of
    several annotations of a task one must be left.

    Source: labelstud.io, tags TimelineLabels and Choices; the region model of its editor.
    """

    def locate(place: int) -> str:
        entry, index = divmod(place, _ENTRY)
        return f"task {entry + 1}" + (f", result {index}" if index else "")

    table = LabelTable([part], options, locate)
    others: dict[str, int] = {}
    for number, task in enumerate(document):
        at = number * _ENTRY
        video = table.video(_video_of(table, task, at), at)
        if video < number:
            raise table.error(at, "its video stands in an earlier task too.")
        for index, result in enumerate(_results(table, task, at), 1):
            here = at + index
            kind = result.get("type") if isinstance(result, dict) else None
            value = result.get("value") if isinstance(result, dict) else None
            if not isinstance(kind, str) or not isinstance(value, dict):
                raise table.error(here, 'it has no "type" and "value".')
            if kind == "choices":
                for name in _strings(table, value.get("choices"), here):
                    table.whole(video, table.label(name, here), here)
            elif kind == "timelinelabels":
                _timeline(table, video, value, here)
            elif kind == "labels" and "start" in value:
                span = table.seconds(value["start"], "start", here), table.seconds(value.get("end"), "end", here)
                for name in _strings(table, value.get("labels"), here):
                    table.span(video, table.label(name, here), *span, here)
            else:
                others[kind] = others.get(kind, 0) + 1
    if others:
        shown = ", ".join(f"{count} {printable(kind)[:40]}" for kind, count in sorted(others.items())[:9])
        table.notes.append(f"results of other kinds, not read: {shown}")
    if not table.labels:
        raise LabelError(f"{part.path} has no timeline, region or choice in any of its {len(document)} tasks.")
    return table.named("label-studio")


def _timeline(table: LabelTable, video: int, value: dict[str, Any], place: int) -> None:
    fps = table.options.fps
    if fps is None:
        raise table.error(place, "a timeline counts frames: give the videos' frame rate as --fps.")
    ranges = value.get("ranges")
    for piece in ranges if isinstance(ranges, list) else [None]:
        first, last = (number_of(piece.get(end)) if isinstance(piece, dict) else 0.0 for end in ("start", "end"))
        if not 1 <= first < 1e12 or not 1 <= last < 1e12:
            raise table.error(place, f"'{printable(json.dumps(piece))[:60]}' is no range of frames from 1 on.")
        for name in _strings(table, value.get("timelinelabels"), place):
            table.span(video, table.label(name, place), (first - 1) / fps, last / fps, place)


def _strings(table: LabelTable, names: Any, place: int) -> list[str]:
    if not isinstance(names, list) or not names or not all(isinstance(name, str) and name.strip() for name in names):
        raise table.error(place, "it names no class.")
    return [name.strip() for name in names]


def _results(table: LabelTable, task: dict[str, Any], place: int) -> list[Any]:
    annotations = task["annotations"]
    if not isinstance(annotations, list) or not all(isinstance(entry, dict) for entry in annotations):
        raise table.error(place, "its annotations are no list of objects.")
    valid = [entry for entry in annotations if not entry.get("was_cancelled")]
    if len(valid) > 1:
        raise table.error(place, f"it has {len(valid)} annotations: export one a task, the one that counts.")
    results = valid[0].get("result") if valid else []
    if not isinstance(results, list):
        raise table.error(place, "its annotation has no list of results.")
    return results


def _video_of(table: LabelTable, task: dict[str, Any], place: int) -> str:
    """`data.video`, or the one text that data holds; of a link to a local file its path."""
    data = task.get("data")
    texts = {key: text for key, text in data.items() if isinstance(text, str)} if isinstance(data, dict) else {}
    name = texts.get("video") or (next(iter(texts.values())) if len(texts) == 1 else "")
    try:
        link = urlsplit(name)
        if link.path.endswith("/local-files/"):
            return parse_qs(link.query).get("d", [""])[0]
        return link.path if link.scheme else name
    except ValueError as error:
        raise table.error(place, f"'{printable(name)[:60]}' is no link to a video.") from error
